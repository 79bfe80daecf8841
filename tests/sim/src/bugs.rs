/// Every bug that was found in the filter.
const REAL_BUGS: &[RealBug] = &[
    RealBug {
        what: "The word that a worker lives was a bare moment: one in the future was believed for ever, and with all workers dead nobody delivered.",
        found_by: "planting bugs beside it",
        scenario: "`cargo test -p redeliver-core a_damaged_word`; `scripts/sim.sh scenarios`",
    },
    RealBug {
        what: "A damaged table of destinations that no VM remembered was never mended: every store was refused, and what was stored stayed.",
        found_by: "planting bugs beside it",
        scenario: "`cargo test -p redeliver-core a_table_of_destinations`; `scripts/sim.sh scenarios`",
    },
    RealBug {
        what: "A leader that had stood still for longer than an attempt's time gave the attempt up before it heard the 200 that waited, and forgot it.",
        found_by: "planting bugs beside it",
        scenario: "`cargo test -p redeliver-core a_2xx_counts_though`",
    },
    RealBug {
        what: "A message with a damaged body, of a destination whose name was damaged too, had no place in the rebuilt table: nobody led it, and it waited for ever.",
        found_by: "the search (liveness seed 53, I12)",
        scenario: "`cargo test -p redeliver-core a_damaged_message_of`",
    },
    RealBug {
        what: "A configuration with a duration beyond 64 bits and a line end put a second line into Envoy's log.",
        found_by: "fuzzing",
        scenario: "`cargo test -p redeliver-fuzz configuration`",
    },
    RealBug {
        what: "`respond-async` inside a quoted string of `Prefer` was taken for a wish.",
        found_by: "fuzzing",
        scenario: "`cargo test -p redeliver-fuzz protection`",
    },
    RealBug {
        what: "An empty `:scheme` was stored, and a record with an empty method, authority or path could be sent.",
        found_by: "fuzzing",
        scenario: "`cargo test -p redeliver-fuzz headers message`",
    },
    RealBug {
        what: "Flag bits of a record that its format does not have were read as none.",
        found_by: "fuzzing",
        scenario: "`cargo test -p redeliver-fuzz message`",
    },
];
