//! The table of targets. Each has a file with one function `target`, whose head comment says what must hold.

mod answer;
mod buckets;
mod capture;
mod cells;
mod classify;
mod configuration;
mod headers;
mod health;
mod hint;
mod ledger;
mod message;
mod protection;
mod quantities;
mod retry_after;
mod slot;
mod tick;

/// One fuzz target.
#[derive(Debug)]
pub struct Target {
    /// The name of its file and of its folder of the corpus.
    pub name: &'static str,
    /// Panics if a property breaks.
    pub run: fn(&[u8]),
}

/// The table, and a test for each row: the short run.
macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name::target }),+];

        #[cfg(test)]
        mod short_run {
            $(
                #[test]
                fn $name() {
                    crate::short_run::check(&super::Target { name: stringify!($name), run: super::$name::target });
                }
            )+
        }
    };
}

targets![
    answer,
    buckets,
    capture,
    cells,
    classify,
    configuration,
    headers,
    health,
    hint,
    ledger,
    message,
    protection,
    quantities,
    retry_after,
    slot,
    tick,
];
