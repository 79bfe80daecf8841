//! The proving ground: the shipped module in seeded histories with faults, judged by an oracle.
//!
//! ```text
//!   seed ──> history ──> world ──┬── Process (simvoy): threads, VMs, the filter
//!            (generate, drills)  ├── Hook: faults at host calls                     (hook, ambush)
//!                                ├── Town: receivers, their moods and words         (town, receiving)
//!                                └── Oracle, audit, patience: what must hold        (oracle, audit, patience)
//! ```
//! It knows the filter by its contract; only `slots` (and `mirror`, which remembers what it read) reads shared memory, with
//! the product's decoders. The same seed gives the same run, so a failure is a number.

pub mod ambush;
pub mod audit;
pub mod content;
pub mod cuts;
pub mod cycles;
pub mod drills;
pub mod faults;
pub mod generate;
pub mod habits;
pub mod history;
pub mod hook;
pub mod hunt;
pub mod keys;
pub mod message;
pub mod mirror;
pub mod oracle;
pub mod page;
pub mod patience;
pub mod receiving;
pub mod report;
pub mod results;
pub mod retries;
pub mod rules;
pub mod scenario;
pub mod search;
pub mod shrink;
pub mod slots;
pub mod town;
pub mod violation;
pub mod world;
