#!/usr/bin/env bash
# usage: scripts/fuzz.sh [--seconds N] [TARGET...]    all targets, or these; 60 seconds each unless told otherwise
#        scripts/fuzz.sh --list                       the targets
#
# The long, coverage-guided run of the targets in tests/fuzz (the short one is part of the tests). libFuzzer, built on
# the stable toolchain: the compiler's coverage pass is a codegen option, so neither cargo-fuzz nor a nightly is needed.
# Needs Rust and a C++ compiler. What reaches new code is minimised and written into tests/fuzz/corpus/<target>, for you
# to look at and to commit; everything else that was found interesting stays in cargo's target folder for the next run.
# Ends non-zero at the first input that breaks a property, and says where it is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

fuzz=tests/fuzz
seconds=60
# How many finds are committed for a target: all corpora together stay below 300 KB.
finds_max=24
# What libFuzzer calls them: 40 hexadecimal digits.
by_hash=$(printf '[0-9a-f]%.0s' {1..40})
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2-}; [ $# -lt 2 ] || shift ;;
    --list) ls "$fuzz/corpus" && exit ;;
    --help | -h) print_usage; exit ;;
    -*) print_usage >&2; die "unknown argument: $1" ;;
    *) targets+=("$1") ;;
    esac
    shift
done
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "--seconds takes a whole number above zero"
[ ${#targets[@]} -gt 0 ] || targets=("$fuzz"/corpus/*)
for target in "${targets[@]}"; do
    [ -d "$fuzz/corpus/$(basename "$target")" ] || die "there is no target $target: scripts/fuzz.sh --list names them"
done

need cargo "get Rust from https://rustup.rs"
# The same choice as the build script of libfuzzer-sys makes: $CXX, else c++.
need "${CXX:-c++}" "libFuzzer comes as C++ source; install a C++ compiler (g++ or clang++), or set CXX to yours"

# What cargo-fuzz would pass, less what needs a nightly (the address sanitizer: the core has no unsafe code to watch).
# --target keeps the flags away from build scripts.
build() {
    local flags=(
        --cfg=fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares
    )
    RUSTFLAGS="${flags[*]}" cargo build --locked --profile fuzz --target "$host" -p redeliver-fuzz --features libfuzzer >&2
}

# fuzz_one <target>: runs it from the committed corpus and from what earlier runs found, then keeps what is needed.
fuzz_one() {
    local target=$1 found=$work/$1 options=()
    mkdir -p "$found/corpus" "$found/failures"
    options=(-max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/failures/")
    [ ! -f "$fuzz/dictionaries/$target.dict" ] || options+=(-dict="$fuzz/dictionaries/$target.dict")
    say "=== $target: $seconds s, log in $found/log"
    FUZZ_TARGET=$target "$driver" "${options[@]}" -max_total_time="$seconds" "$found/corpus" "$fuzz/corpus/$target" \
        >"$found/log" 2>&1 || fail "$target" "$found"
    keep "$target" "$found"
    report "$target" "$found/log"
}

# keep <target> <folder of its run>: the corpus becomes its named files, which people wrote, and a few finds. Of those
# that together reach every edge once, libFuzzer writes the one that adds most first, and the tail adds next to nothing.
keep() {
    local corpus=$fuzz/corpus/$1 kept=$2/kept
    rm -rf "$kept" && mkdir "$kept"
    find "$corpus" -type f ! -name "$by_hash" -exec cp {} "$kept" \;
    FUZZ_TARGET=$1 "$driver" -set_cover_merge=1 -use_counters=0 -max_len=4096 -timeout=10 \
        "$kept" "$corpus" "$2/corpus" >"$2/merge.log" 2>&1 || die "the finds of $1 cannot be merged: see $2/merge.log"
    find "$corpus" -type f -name "$by_hash" -delete
    # Names of libFuzzer's, so that parsing what ls says is safe; `|| true`: there may be none.
    (cd "$kept" && { ls -tr | grep -E '^[0-9a-f]{40}$' || true; }) | head -n "$finds_max" |
        while read -r name; do cp "$kept/$name" "$corpus"; done
}

fail() {
    # From the panic to libFuzzer's own report, and the last lines, which name the file.
    grep -A 3 "panicked at" "$2/log" >&2 || true
    tail -n 3 "$2/log" >&2
    die "target $1 breaks on an input in $2/failures: fix it, then make it a named test beside the code"
}

report() {
    local reached executions
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$2")
    reached=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$2" | tail -n 1)
    printf '%-14s %12s executions, %8s a second, %6s edges reached, corpus %3s files\n' "$1" "$executions" \
        "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$2")" "$reached" "$(find "$fuzz/corpus/$1" -type f | wc -l)"
}

host=$(rustc -vV | sed -n 's/^host: //p')
say "building the targets with coverage"
build || die "the targets do not build: see cargo's messages above"
work=$(target_dir)/fuzz-runs
driver=$(target_dir)/$host/fuzz/redeliver-fuzz
for target in "${targets[@]}"; do fuzz_one "$(basename "$target")"; done
