#!/usr/bin/env bash
# usage: scripts/demo.sh [--help] [--config FILE]
#
# Builds the filter, gets the pinned Envoy, and shows a receiver's outage becoming a delay (scripts/demo/ is the
# program). Needs Rust and Python 3; takes under 30 s once everything is built. Uses no fixed port.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need cargo "get Rust from https://rustup.rs"
cargo build --quiet --profile tool --locked -p redeliver-demo || die "the demo does not build: see cargo's messages above"
demo=$(target_dir)/tool/redeliver-demo
case " $* " in *" --help "* | *" -h "*) exec "$demo" --help ;; esac

say "building the filter and getting Envoy (takes minutes the first time)"
scripts/build.sh >&2
envoy=$(scripts/envoy.sh --print-path)
exec "$demo" --envoy "$envoy" "$@"
