# What every script here shares: where the repository is, how it speaks, how it gives up.
# Sourced, never run. It installs nothing and builds nothing.

# All paths in the scripts and in envoy/envoy.yaml are relative to the repository's root.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD
tools=$root/.tools

# Progress goes to stderr, so that a script's stdout stays what its caller asked for.
say() { printf '%s\n' "$*" >&2; }

# die <sentence that names the cure>
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need <command> <cure>
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is not installed: $2"; }

# print_usage: the calling script's head comment, without its shebang and its '#'.
print_usage() { sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p;}' "$0"; }

# add_rust_target <triple>: a target that is there already costs no network.
add_rust_target() {
    local installed
    installed=$(rustc --print target-libdir --target "$1" 2>/dev/null) && [ -d "$installed" ] && return
    need rustup "it adds the Rust target $1; get it from https://rustup.rs, or install that target by your package manager"
    say "adding the Rust target $1"
    rustup target add "$1" >&2 || die "rustup could not add the target $1: check the network and run again"
}

# What runs on the engine, named together in every call of cargo: alone, each would want other features of what they
# share, and the engine would be built again (some 6 minutes).
sim_packages=(--locked --profile sim -p simvoy -p redeliver-sim -p redeliver-conformance)

# target_dir: where cargo puts what it builds (CARGO_TARGET_DIR and cargo's own configuration respected).
target_dir() {
    cargo metadata --format-version 1 --no-deps --offline 2>/dev/null |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
