#!/usr/bin/env bash
# usage: scripts/test.sh            every test, real Envoy and the demo included
#        scripts/test.sh --quick    only what needs no Envoy: format, lints, the core natively and under Node, builds
#        E2E_VERSIONS="1.36.4 1.39.3" scripts/test.sh    the outage test on these Envoys too
#        CONFORMANCE_VERSIONS="1.36.4 1.37.0 1.39.3"     the conformance cases on these Envoys too
#        SAFETY_SEEDS=1000 LIVENESS_SEEDS=200            histories that the simulator runs
#
# Needs Rust, Node and Python 3; gets the rest itself into .tools. The fast stages come first, a failed stage does not
# stop the later ones, and the results of all are listed at the end. Ends non-zero if any stage failed.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

quick=no
case "$*" in
"") ;;
--quick) quick=yes ;;
--help | -h) print_usage; exit ;;
*) print_usage >&2; die "unknown arguments: $*" ;;
esac

results=()
failed=0

# stage <name> <function> [its arguments]
stage() {
    local name=$1 started=$SECONDS status
    shift
    printf '\n=== %s\n' "$name"
    # A plain subshell: bash ignores `set -e` in everything that is part of an `if`.
    set +e
    (set -e; "$@")
    status=$?
    set -e
    if [ "$status" = 0 ]; then status=ok; else status=FAILED failed=$((failed + 1)); fi
    results+=("$(printf '%-6s %5d s  %s' "$status" $((SECONDS - started)) "$name")")
    printf '=== %s: %s after %d s\n' "$name" "$status" $((SECONDS - started))
}

format() { cargo fmt --all --check; }

lints() {
    cargo clippy --locked --workspace --exclude redeliver-filter --all-targets -- -D warnings
    cargo clippy --locked -p redeliver-filter --all-features --target wasm32-wasip1 -- -D warnings
    cargo clippy --locked -p redeliver-probe --target wasm32-wasip1 -- -D warnings
}

# All packages but the filter, which needs a host, and the tests that need the module, Envoy or the simulator.
core_and_tools() {
    cargo test --locked --workspace --exclude redeliver-filter --exclude redeliver-tests \
        --exclude redeliver-conformance --exclude redeliver-sim --exclude simvoy
}

# The runner speaks the format of exactly one wasm-bindgen, so its version is the one in Cargo.lock.
wasm_bindgen_runner() {
    local version folder
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
    [ -n "$version" ] || die "Cargo.lock names no wasm-bindgen: restore it from git"
    folder=$tools/wasm-bindgen-$version
    if [ ! -x "$folder/bin/wasm-bindgen-test-runner" ]; then
        say "building wasm-bindgen-test-runner $version (once, some 3 minutes) into .tools"
        # Without features: the default ones bring TLS for a browser driver. Should the tool's own lock file name a
        # version that this registry does not have, its newest compatible dependencies do as well; what is wrong
        # otherwise, the second try says.
        install_runner "$version" "$folder" --locked 2>/dev/null || install_runner "$version" "$folder" ||
            die "cargo could not install wasm-bindgen-cli $version: check the network and run again"
        rm -rf "$tools/build"
    fi
    printf '%s\n' "$folder/bin/wasm-bindgen-test-runner"
}

install_runner() {
    local version=$1 folder=$2
    shift 2
    cargo install wasm-bindgen-cli --version "=$version" --bin wasm-bindgen-test-runner --no-default-features \
        --quiet --root "$folder" --target-dir "$tools/build/wasm-bindgen" "$@" >&2
}

core_under_node() {
    need node "the core's tests run as WebAssembly under Node; install Node 20 or later"
    local runner
    runner=$(wasm_bindgen_runner)
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$runner \
        cargo test --locked -p redeliver-core --lib --target wasm32-unknown-unknown
}

# The core names no host call: then its test module imports nothing from `env`, where Envoy's host calls live.
core_is_pure() {
    local modules
    modules=$(cargo test --locked -p redeliver-core --lib --target wasm32-unknown-unknown --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*\.wasm\)".*/\1/p')
    [ -n "$modules" ] || die "cargo built no test module of the core: its message format may have changed"
    # shellcheck disable=SC2086 # one argument per module
    node -e '
        const { readFileSync } = require("fs");
        for (const file of process.argv.slice(1)) {
            const imports = WebAssembly.Module.imports(new WebAssembly.Module(readFileSync(file)));
            const forbidden = imports.filter(({ module }) => module === "env").map(({ name }) => name);
            console.log(`${imports.length} imports, from env: ${forbidden.join(", ") || "none"}`);
            if (imports.length === 0 || forbidden.length > 0) process.exitCode = 1;
        }' $modules
}

# What users ship must be the same on every machine, so it must not know this one.
release_build() {
    scripts/build.sh
    if grep -aqF -e "$root/" -e "$HOME/" dist/redeliver.wasm; then
        die "dist/redeliver.wasm names a path of this machine: see the remapped prefixes in scripts/build.sh"
    fi
}

trap_build() { scripts/build.sh --features trap; }

# With no bug chosen this module is the product, so it must want and offer the same.
planted_build() {
    scripts/build.sh --planted
    need node "it reads what a module imports and exports; install Node 20 or later"
    node -e '
        const { readFileSync } = require("fs");
        const surface = (file) => {
            const module = new WebAssembly.Module(readFileSync(file));
            const imports = WebAssembly.Module.imports(module).map(({ module, name }) => `${module}.${name}`);
            const exports = WebAssembly.Module.exports(module).map(({ name }) => name);
            return [...imports, ...exports].sort();
        };
        const [product, planted] = process.argv.slice(1).map(surface);
        console.log(`${planted.length} imports and exports, ${product.length} of the product`);
        if (product.join() !== planted.join()) process.exitCode = 1;
    ' dist/redeliver.wasm dist/redeliver-planted.wasm
}

# What a host does to a filter: the recorded cases on a real Envoy.
conformance_on_envoy() {
    export ENVOY_VERSION=${1:-}
    [ -n "$ENVOY_VERSION" ] || unset ENVOY_VERSION
    scripts/envoy.sh --print-path >/dev/null
    scripts/build.sh --probe
    cargo test "${sim_packages[@]}" --test envoy
}

# The shipped module in seeded histories with faults. Not the engine's debug build: it would take an hour.
simulator() {
    scripts/build.sh --probe
    cargo test "${sim_packages[@]}" --lib --bins --test proof --test host_calls --test receivers --test sim
    # Together again: alone, the example would build the engine with other features.
    cargo test "${sim_packages[@]}" --doc
    scripts/sim.sh scenarios
    scripts/sim.sh endurance
    scripts/sim.sh search --phase safety --seeds "0..${SAFETY_SEEDS:-1000}"
    scripts/sim.sh search --phase liveness --seeds "0..${LIVENESS_SEEDS:-200}"
    scripts/sim.sh refind
    scripts/sim.sh cuts
}

on_envoy() {
    scripts/envoy.sh --print-path >/dev/null
    cargo test --locked -p redeliver-tests
}

# An Envoy older than the pinned one, with the test that all of redeliver is for.
outage_on_envoy() {
    export ENVOY_VERSION=$1
    scripts/envoy.sh --print-path >/dev/null
    # A filter that matches nothing would pass. (Not grep -q: it would close the pipe on cargo.)
    cargo test --locked -p redeliver-tests --test e2e outage -- --list | grep ': test$' ||
        die "no end-to-end test has outage in its name"
    cargo test --locked -p redeliver-tests --test e2e outage
}

demo() { scripts/demo.sh; }

need cargo "get Rust from https://rustup.rs"
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || die "cargo $component is missing: run rustup component add rustfmt clippy"
done
add_rust_target wasm32-wasip1
add_rust_target wasm32-unknown-unknown

stage "format" format
stage "lints" lints
stage "the core and the tools, natively" core_and_tools
stage "the core, as WebAssembly under Node" core_under_node
stage "the core imports no host call" core_is_pure
stage "dist/redeliver.wasm" release_build
stage "dist/redeliver-trap.wasm" trap_build
stage "dist/redeliver-planted.wasm" planted_build
if [ "$quick" = no ]; then
    stage "the simulator" simulator
    stage "conformance on the pinned Envoy" conformance_on_envoy
    for version in ${CONFORMANCE_VERSIONS:-}; do
        stage "conformance on Envoy $version" conformance_on_envoy "$version"
    done
    stage "end to end on the pinned Envoy" on_envoy
    for version in ${E2E_VERSIONS:-}; do
        stage "the outage on Envoy $version" outage_on_envoy "$version"
    done
    stage "the demo" demo
fi

printf '\n%s\n' "results"
printf '  %s\n' "${results[@]}"
[ "$failed" = 0 ] || die "$failed stage(s) failed: see above"
