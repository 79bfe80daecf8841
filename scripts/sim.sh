#!/usr/bin/env bash
# usage: scripts/sim.sh COMMAND [its arguments]     scripts/sim.sh --help lists the commands
#
# The proving ground (tests/sim is the program): the shipped module in seeded histories with faults. Builds what it needs,
# and runs one command of redeliver-sim; `hunt` and `refind` use the module with the planted bugs. Takes some minutes to
# build the first time. Needs Rust only.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need cargo "get Rust from https://rustup.rs"
cargo build --quiet "${sim_packages[@]}" || die "the simulator does not build: see cargo's messages above"
sim=$(target_dir)/sim/redeliver-sim
findings=tests/sim/findings.json

planted_bugs() { cargo run --quiet --locked --profile tool -p redeliver-planted -- list --json; }

case "${1:-}" in
"" | --help | -h) exec "$sim" --help ;;
hunt | refind) build="--planted" ;;
*) case " $* " in *" --planted "*) build="--planted" ;; *) build="" ;; esac ;;
esac
# A module that is told by name is not built.
case " $* " in
*" --module "*) ;;
*) scripts/build.sh $build >&2 ;;
esac

case "$1" in
hunt | refind) planted_bugs | "$sim" "$@" --findings "$findings" ;;
page)
    planted_bugs | "$sim" "$@" --findings "$findings" >docs/reliability.md.new
    mv docs/reliability.md.new docs/reliability.md
    say "wrote docs/reliability.md"
    ;;
*) exec "$sim" "$@" ;;
esac
