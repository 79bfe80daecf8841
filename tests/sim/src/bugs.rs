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
        found_by: "the search (liveness, I12)",
        scenario: "`cargo test -p redeliver-core a_damaged_message_of`",
    },
    RealBug {
        what: "A dead letter whose head was damaged a second time gave up its slot without a word to the books: they stayed one too high until the next store.",
        found_by: "the search (liveness, I10)",
        scenario: "`cargo test -p redeliver-core whose_head_is_damaged_again`",
    },
    RealBug {
        what: "A housekeeper that stood still and then wrote an old gauge left it wrong for as long as its value did not change.",
        found_by: "the search (liveness, I10)",
        scenario: "`cargo test -p redeliver-core a_gauge_that_somebody_else`",
    },
    RealBug {
        what: "A thread that stood still while a body came took its own pause for a full buffer of the listener, and lowered the body limit for all workers.",
        found_by: "the search (safety, I11)",
        scenario: "`cargo test -p redeliver-core a_thread_that_stood_still`",
    },
    RealBug {
        what: "A completion that met one conflict on its head gave up: an acknowledged request without a body became a dead letter (unstorable) after five minutes.",
        found_by: "the search (liveness, I1)",
        scenario: "`cargo test -p redeliver-core a_completion_whose_head`; `scripts/sim.sh scenarios`",
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
        scenario: "`cargo test -p redeliver-fuzz headers`, `cargo test -p redeliver-fuzz message`",
    },
    RealBug {
        what: "Flag bits of a record that its format does not have were read as none.",
        found_by: "fuzzing",
        scenario: "`cargo test -p redeliver-fuzz message`",
    },
    RealBug {
        what: "A request whose body was still to come counted as live traffic of its destination, which had seen nothing of it: redelivery took more than its share beside few live requests. So did redeliveries that come back through a listener, which held redelivery back by itself.",
        found_by: "the search (safety, I6)",
        scenario: "`scripts/sim.sh replay safety 12250`",
    },
];

/// What is known and not mended.
const GAPS: &[&str] = &[
    "A VM that traps between settling a message and counting it leaves `delivered_total` (or `stored_total`) one short; the gauges and the store's budgets are counted anew and are exact again within seconds.",
    "A thread that stands still for many seconds while it stores or frees a message may take the store one message above `max_messages` until the books are counted again.",
    "A message whose late 2xx comes after it has become a dead letter stays one: its slot then holds a receipt and no content.",
    "A claim whose VM traps, or stands still, before the request goes out counts as an attempt: nobody can know that it did not.",
    "A VM that dies between entering a message's idempotency key and storing the message leaves the key taken for ten seconds: a retry that fails meanwhile is `not-stored; reason=full`. One that stands still there for longer may still store its message afterwards, beside its retry; both carry the same key.",
    "A damaged bucket of keys reads as if it were empty: retries of what it knew are new messages, and new requests may pass lines that it knew. A damaged head is mended out of turn.",
    "A wall clock that jumps forward expires what is stored, removes dead letters and ends the hour of delivered keys, as if the time had passed; if it is turned back, what was looked at meanwhile stays forgotten.",
    "A VM that dies while an older listener drains is made anew for that listener first if a request of it comes first: the older configuration then counts as the newest, and rules until the newer one is loaded there too. Parked messages are tried once more each time.",
    "A request whose headers had left the filter before its failure, and whose VM traps before the end of its stream, ends as a dead letter (unstorable) after five minutes: its routed form is read at the end.",
    "A leader that takes over knows a wait that was asked for (`Retry-After`) as a due time only: a probe, which goes by none, may send such a message sooner, once.",
    "What `redelivery.through` leads to is not reached from the main thread: while no worker's VM lives, nothing is delivered that way; the next request on a worker brings its VM back.",
    "Behind the listener of `redelivery.through`, Envoy answers for a cluster that it has not as a receiver would that says nothing but 503: until the cluster is there again attempts count, and so does one that was out meanwhile and reached nobody.",
    "The histories have one filter (its neighbours are played), and gRPC calls and neighbours only where there are no keys; where redeliveries go through a listener, its routes do not try again by themselves. What more those do is shown by the tests of the core and on a real Envoy only.",
];
