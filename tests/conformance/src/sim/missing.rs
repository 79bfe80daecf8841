//! What simvoy does not do, as data: the cases that are left out, and why; the callbacks that it never makes.

/// Names of cases and reasons.
pub const MISSING: &[(&str, &str)] = &[
    ("dispatch::steering_retries", "simvoy repeats requests of senders only, never a call of a guest"),
    ("stream::rejected_before_the_filter", "an HTTP/1 codec refuses this head, and simvoy begins behind the codec"),
    ("stream::stepwise_answer", "simvoy takes an answer as a whole, not piece by piece"),
];

/// Why a case is left out, if it is.
pub fn reason(name: &str) -> Option<&'static str> {
    MISSING.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason)
}

/// Callbacks that simvoy never makes: gRPC streams are not modelled, and a unary call shows no metadata.
const NEVER_MADE: [&str; 2] = ["on_grpc_receive_initial_metadata", "on_grpc_receive_trailing_metadata"];

/// Whether a callback is one that simvoy never makes.
pub fn is_never_made(callback: &str) -> bool {
    NEVER_MADE.contains(&callback)
}
