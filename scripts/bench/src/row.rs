//! The rows: what each is called, what it measures, and what limits it. One table, which the usage, the command line and
//! the page are made of; how a row is measured stands in `rows/`. It never runs anything.

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
    pub const ALL: [Row; 10] = [
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
    ];

    /// Its name on the command line and in the table.
    pub const fn name(self) -> &'static str {
        self.sheet().name
    }

    /// The row of this name.
    pub fn of(name: &str) -> Option<Row> {
        Row::ALL.into_iter().find(|row| row.name() == name)
    }

    /// Whether `--quick` runs it only if it is named: its whole size is a million messages.
    pub const fn is_long(self) -> bool {
        match self {
            Row::Million | Row::Guest => true,
            Row::Post | Row::Get | Row::Body | Row::Latency | Row::Store | Row::Drain | Row::First | Row::Size => false,
        }
    }

    /// All that is said of it.
    pub const fn sheet(self) -> Sheet {
        let (name, help, limit) = match self {
            Row::Size => (
                "size",
                "bytes of dist/redeliver.wasm",
                "It is what the compiler makes of the filter, the SDK and the JSON parser; a third goes with the names of \
                 functions, which a backtrace in Envoy's log needs, and with unused code that the linker cannot see through.",
            ),
            Row::Post => (
                "post",
                "1 KiB POST that succeeds, protected: processor time per request, against a filter\n\
                 that does nothing",
                "Beside a filter that does nothing it reads both header maps once and copies the body into its memory; \
                 each is a call of the host with a copy of its own.",
            ),
            Row::Get => (
                "get",
                "GET that succeeds, not protected: the same",
                "One read of the request's header map tells that the request is not ours; after it nothing is called but \
                 what the SDK needs to forget the stream.",
            ),
            Row::Body => (
                "body",
                "64 KiB POST that succeeds, protected: against Envoy's own buffer filter",
                "Both wait for the whole body, and the buffer filter waits without a copy: ours is copied once into the \
                 guest, piece by piece, and a guest's memory is slower to fill than a buffer is to chain.",
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
                "A stored message is some ten calls of the host (properties of the failure, books, head, large part, \
                 hint, reply), and its record is encoded, checksummed and copied out; the 503 needs none of that.",
            ),
            Row::Drain => (
                "drain",
                "100,000 stored messages when the receiver comes: against a bare loop of dispatches in\n\
                 one VM; and 3 workers against 1",
                "Envoy's own client is most of it, as the bare loop shows; on top come the claim (two reads, one \
                 compare-and-set), the settlement and the books, all in the one VM that leads the destination.",
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
                "Searching grows with the logarithm of the backlog and caches grow no larger; the memory is two keys and a \
                 head in Envoy's map, the allocator's rounding, and the leader's own schedule.",
            ),
            Row::Guest => (
                "guest",
                "memory of a guest after 1,000,000 messages stored and delivered, in the simulator",
                "Nothing is kept of a message that is gone, so a guest grows to what its largest backlog needs and stays.",
            ),
        };
        Sheet { name, help, limit }
    }
}

/// The rows of a run: those that were named, each once and in their own order; without a name all, the long ones only in a
/// whole run.
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
