#!/usr/bin/env bash
# usage: scripts/bench.sh [--quick] [--judge] [--page] [--dry-run] [--help] [ROW...]
#
# What redeliver costs a real Envoy, as ratios to yardsticks measured in turns with it (scripts/bench/ is the program;
# its --help names the rows). Builds the filter, the yardsticks and, for the rows that need them, the simulator and the
# counter of instructions; gets the pinned Envoy. A table on stdout, progress on stderr, JSON in cargo's target folder.
# Once built, a whole run takes some 20 minutes on a quiet machine, --quick under 3. It reports; with --judge it also
# fails where a bar is missed.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need cargo "get Rust from https://rustup.rs"
cargo build --quiet --profile tool --locked -p redeliver-bench ||
    die "the benchmarks do not build: see cargo's messages above"
target=$(target_dir)
bench=$target/tool/redeliver-bench
results=(--json "$target/bench.json")
case " $* " in *" --help "* | *" -h "* | *" --dry-run "* | *" --page "*) exec "$bench" "${results[@]}" "$@" ;; esac
# A wrong argument is told now and not after minutes of building.
rows=$("$bench" --dry-run "$@") || exit
say "$rows"

say "building the filter and getting Envoy (takes minutes the first time)"
scripts/build.sh >&2
yardsticks=$target/wasm32-wasip1/release
cargo build --quiet --release --locked -p redeliver-yardstick -p redeliver-loop --target wasm32-wasip1 ||
    die "the yardsticks do not build: see cargo's messages above"
case $rows in *count*)
    cargo build --quiet --profile tool --locked -p redeliver-counter ||
        die "the counter of instructions does not build: see cargo's messages above"
    ;;
esac
case $rows in *guest*)
    cargo build --quiet "${sim_packages[@]}" || die "the simulator does not build: see cargo's messages above"
    ;;
esac
envoy=$(scripts/envoy.sh --print-path)
exec "$bench" --envoy "$envoy" --sim "$target/sim/redeliver-sim" --yardstick "$yardsticks/redeliver_yardstick.wasm" \
    --loop "$yardsticks/redeliver_loop.wasm" --counter "$target/tool/libredeliver_counter.so" "${results[@]}" "$@"
