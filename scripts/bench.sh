#!/usr/bin/env bash
# usage: scripts/bench.sh [--quick] [--dry-run] [--help] [ROW...]
#
# What redeliver costs a real Envoy, as ratios to yardsticks measured in turns with it (scripts/bench/ is the program;
# its --help names the rows). Builds the filter and the yardstick, gets the pinned Envoy. A table on stdout, progress on
# stderr, JSON in cargo's target folder. Once built, a whole run takes some 5 minutes, --quick under 3. It reports, and
# never judges.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need cargo "get Rust from https://rustup.rs"
cargo build --quiet --profile tool --locked -p redeliver-bench || die "the benchmarks do not build: see cargo's messages above"
target=$(target_dir)
bench=$target/tool/redeliver-bench
case " $* " in *" --help "* | *" -h "* | *" --dry-run "*) exec "$bench" "$@" ;; esac
# A wrong argument is told now and not after minutes of building.
"$bench" --dry-run "$@" >&2 || exit

say "building the filter and getting Envoy (takes minutes the first time)"
scripts/build.sh >&2
cargo build --quiet --release --locked -p redeliver-yardstick --target wasm32-wasip1 ||
    die "the yardstick does not build: see cargo's messages above"
envoy=$(scripts/envoy.sh --print-path)
exec "$bench" --envoy "$envoy" --yardstick "$target/wasm32-wasip1/release/redeliver_yardstick.wasm" \
    --json "$target/bench.json" "$@"
