//! Names of the things in a process: numbers that cannot be mixed up.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $number);
    };
}

id! {
    /// A thread of Envoy: 0 is the main thread, workers follow.
    ThreadId(u32)
}
id! {
    /// A VM; a new number for each that is made.
    VmId(u32)
}
id! {
    /// A context within one VM: 0 is the VM's own, then root contexts and streams in the order of their creation.
    ContextId(u32)
}
id! {
    /// A request of a sender.
    StreamId(u64)
}
id! {
    /// An outstanding call of one VM.
    CallToken(u32)
}

impl ThreadId {
    /// The main thread: it has VMs and timers, and no streams.
    pub const MAIN: Self = Self(0);
}

/// One version of the listener with the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);
