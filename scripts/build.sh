#!/usr/bin/env bash
# usage: scripts/build.sh                    dist/redeliver.wasm: the release build, what users ship
#        scripts/build.sh --features trap    dist/redeliver-trap.wasm: for tests only, it can be told to trap
#        scripts/build.sh --planted          dist/redeliver-planted.wasm: for tests only, with every bug of tests/planted
#                                            in it; a VM has the one that its REDELIVER_PLANTED names, or none
#        scripts/build.sh --probe            dist/probe.wasm: for the conformance suite, what a host does to a filter
#
# Beside each but the probe, -named.wasm is the same code with the names of its functions: load that one for a readable
# backtrace. Prints the size and the sha256 of what it made. Nothing but the Rust target is installed.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

target=wasm32-wasip1
package=redeliver-filter
compiled=redeliver.wasm
options=(--locked)
made=dist/redeliver.wasm
planted=no
case "$*" in
"") ;;
"--features trap") options+=(--features trap) made=dist/redeliver-trap.wasm ;;
--planted) planted=yes made=dist/redeliver-planted.wasm ;;
--probe) package=redeliver-probe compiled=redeliver_probe.wasm made=dist/probe.wasm ;;
--help | -h) print_usage; exit ;;
*) print_usage >&2; die "unknown arguments: $*" ;;
esac

need cargo "get Rust from https://rustup.rs"
add_rust_target "$target"

workspace=$root
built=$(target_dir)
if [ "$planted" = yes ]; then
    # A copy of the filter with the bugs in it, a workspace of its own; its lock file loses what only others need.
    workspace=$built/planted built=$built/planted/target options=()
    cargo run --quiet --locked --profile tool -p redeliver-planted -- write "$workspace" >&2 ||
        die "the planted bugs do not fit the filter: see above"
fi

# Panic messages carry source paths. These prefixes are this machine's, and the module must be the same
# on every machine. --remap-path-prefix is the stable way; the last match wins, so the narrowest comes last.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
remap() { printf -- '--remap-path-prefix=%s=%s\037' "$1" "$2"; }
flags=$(remap "$HOME" /home; remap "$sysroot" /rust; remap "$cargo_home" /cargo; remap "$root" /redeliver)
[ "$workspace" = "$root" ] || flags=$flags$(remap "$workspace" /redeliver)
# A function is inlined up to a cost of 20: built for size, LLVM stops at 5, and what is done for each byte and header is a
# call then; 225, as for speed, does not fit the size that the module may have (ARCHITECTURE.md has the figures).
flags+=-Cllvm-args=--inline-threshold=20
# The form with the unit separator survives blanks in paths. It replaces a caller's RUSTFLAGS on purpose.
export CARGO_ENCODED_RUSTFLAGS=$flags

cargo build --release -p "$package" --target "$target" --manifest-path "$workspace/Cargo.toml" \
    --target-dir "$built" ${options[@]+"${options[@]}"} >&2 || die "$package does not build: see cargo's messages above"

unset CARGO_ENCODED_RUSTFLAGS # the next one is a tool of this machine
mkdir -p dist
# Written beside and renamed: an Envoy that starts meanwhile reads the old module or the new, never half of one.
compiled=$built/$target/release/$compiled
case $package in
redeliver-probe) cp "$compiled" "$made.new" ;; # it exports every callback on purpose
*) cargo run --quiet --locked --profile tool -p redeliver-finish -- "$compiled" "$made.new" "${made%.wasm}-named.wasm" >&2 ||
    die "the compiled module cannot be finished: see above" ;;
esac
mv "$made.new" "$made"

if command -v sha256sum >/dev/null 2>&1; then digest=$(sha256sum <"$made"); else digest=$(shasum -a 256 <"$made"); fi
printf '%s\n  size   %s bytes\n  sha256 %s\n' "$made" "$(wc -c <"$made" | tr -d ' ')" "${digest%% *}"
