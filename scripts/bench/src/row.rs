//! The rows: what each is called, what it measures, and what limits it. One table, which the usage, the command line
//! and the page are made of; how a row is measured stands in `rows/`. It never runs anything.

use crate::options::Extent;

/// One benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Success path, protected.
    Post,
    /// Success path, not protected.
    Get,
    /// Success path, a large body.
    Body,
    /// What a request waits longer.
    Latency,
    /// Storing under outage.
    Store,
    /// Redelivery rate.
    Drain,
    /// A million messages in the store.
    Million,
    /// Healthy to first redelivery.
    First,
    /// What a guest's memory grows by.
    Guest,
    /// Instructions instead of time.
    Count,
    /// The module itself.
    Size,
}

/// What is said of a row.
pub struct Sheet {
    /// On the command line and in the table.
    pub name: &'static str,
    /// For the usage; a second line is continued there.
    pub help: &'static str,
    /// One sentence for the page: why the figure is not better.
    pub limit: &'static str,
}

impl Row {
    /// In the order in which they run.
    pub const ALL: [Row; 11] = [
        Row::Size,
        Row::Post,
        Row::Get,
        Row::Body,
        Row::Latency,
        Row::Store,
        Row::Drain,
        Row::First,
        Row::Million,
        Row::Guest,
        Row::Count,
    ];

    /// Its name on the command line and in the table.
    pub const fn name(self) -> &'static str {
        self.sheet().name
    }

    /// The row of this name.
    pub fn of(name: &str) -> Option<Row> {
        Row::ALL.into_iter().find(|row| row.name() == name)
    }

    /// Whether `--quick` runs it only if it is named: its whole size is a million messages, or it runs emulated.
    pub const fn is_long(self) -> bool {
        match self {
            Row::Million | Row::Guest | Row::Count => true,
            Row::Post | Row::Get | Row::Body | Row::Latency | Row::Store | Row::Drain | Row::First | Row::Size => false,
        }
    }

    /// All that is said of it.
    pub const fn sheet(self) -> Sheet {
        let (name, help, limit) = match self {
            Row::Size => (
                "size",
                "bytes of dist/redeliver.wasm",
                "It is code (the core, its reader of JSON, the answers to the host's callbacks), built for size, \
                 and the texts of faults; the names of functions stand in a module beside it.",
            ),
            Row::Post => (
                "post",
                "1 KiB POST that succeeds, protected: processor time per request, against a filter\n\
                 that does nothing",
                "Four calls of the host that a filter which does nothing does not make (tests/sim/tests/host_calls.rs): \
                 the header maps of request and answer, the body, and whether the route is excluded. Three of them answer \
                 with bytes, for which the host calls back for memory and makes a set of five strings: 11,000 instructions \
                 each, beside the 190,000 of a request with the filter that does nothing, while the filter's own \
                 code is 5,000.",
            ),
            Row::Get => (
                "get",
                "GET that succeeds, not protected: the same",
                "One read of the request's header map tells that the request is not ours; nothing else is asked of \
                 the host.",
            ),
            Row::Body => (
                "body",
                "64 KiB POST that succeeds, protected: against Envoy's own buffer filter",
                "Both wait for the whole body; the buffer filter hands Envoy's own buffers on, and ours copies each \
                 piece once into the guest, so that it can be stored.",
            ),
            Row::Latency => (
                "latency",
                "how much longer a 1 KiB POST takes at half the rate of saturation, 90th percentile,\n\
                 than with a filter that does nothing",
                "It is the processor time of the row `post`, met by a queue: whatever a request costs, those behind it \
                 wait for as well.",
            ),
            Row::Store => (
                "store",
                "1 KiB POST during an outage: stored and answered 202, against Envoy's buffer\n\
                 filter answering 503",
                "Seventeen calls of the host (tests/sim/tests/host_calls.rs): what was sent, why it failed, the books, its \
                 record, its head, the answer. Six of them answer with bytes (see `post`): a third of the 185,000 \
                 instructions that are above the yardstick; the filter's own code is a good quarter. Held back \
                 while its receiver is down, a message is not offered to the router first, and three of the six are \
                 not asked.",
            ),
            Row::Drain => (
                "drain",
                "100,000 stored messages when the receiver comes: against a bare loop of dispatches in\n\
                 one VM; and 3 workers against 1",
                "Envoy's own client is what the bare loop shows. On top come sixteen calls of the host \
                 (tests/sim/tests/host_calls.rs), of which the truth in shared memory needs seven: the head, the record and \
                 a compare-and-set to claim it, a receipt and three compare-and-sets to settle it and give its room back. \
                 All of it is done by the one VM that leads the destination.",
            ),
            Row::First => (
                "first",
                "time from Envoy calling the receiver healthy to the first redelivery",
                "The filter asks every `health.interval` (200 ms here) and looks at the answer in its next tick \
                 (100 ms): on average half of the one and half of the other.",
            ),
            Row::Million => (
                "million",
                "a backlog of 1,000,000 messages: cost of a message against a backlog of 1,000, memory,\n\
                 and what they cost while they wait",
                "A search grows with the logarithm of the backlog, and less of it is in the processor's caches; the \
                 memory is two keys and a head in Envoy's map, what the message takes beside its own bytes, and the \
                 leader's schedule; the idle time is the sweep over all heads, a bounded number each tick, and the \
                 questions about health.",
            ),
            Row::Guest => (
                "guest",
                "memory of a guest after 1,000,000 messages stored and delivered, in the simulator",
                "Nothing is kept of a message that is gone; a guest grows to what its largest backlog needed, since \
                 a WebAssembly memory never shrinks.",
            ),
            Row::Count => (
                "count",
                "post, get, body, store and drain again, by the instructions that Envoy executes in user space:\n\
                 nearly the same on a busy machine; needs QEMU (qemu-user, 7.2 to 8.2)",
                "These figures do not tell how long anything takes (the kernel's share is missing, and code that is met \
                 rarely takes longer than it has instructions), but on one machine two builds differ in them by what they \
                 do and by little else.",
            ),
        };
        Sheet { name, help, limit }
    }
}

/// The rows of a run: those that were named, each once and in their own order; without a name all, the long ones only
/// in a whole run.
pub fn chosen(named: &[Row], extent: Extent) -> Vec<Row> {
    let is_due = |row: &Row| match extent {
        Extent::Whole => named.is_empty() || named.contains(row),
        Extent::Quick => named.contains(row) || (named.is_empty() && !row.is_long()),
    };
    Row::ALL.into_iter().filter(is_due).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name() {
        for row in Row::ALL {
            assert_eq!(Row::of(row.name()), Some(row));
        }
        assert_eq!(Row::of("poost"), None);
    }

    #[test]
    fn a_quick_run_leaves_the_long_rows_out_unless_they_are_named() {
        assert_eq!(chosen(&[], Extent::Whole), Row::ALL);
        assert!(!chosen(&[], Extent::Quick).iter().any(|row| row.is_long()));
        assert_eq!(chosen(&[Row::Guest, Row::Post, Row::Guest], Extent::Quick), [Row::Post, Row::Guest]);
    }
}
