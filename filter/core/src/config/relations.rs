//! Rules between keys: each is checked whenever both of its values could be read, whatever else is wrong.
//!
//! Never repeats a rule of a single key; those are in [`super::table`].

use super::fault::{Faults, Problem};
use super::table::{Draft, Ordering, path};
use super::{CaptureAs, HealthSource, HoldWhileDown};

/// Notes every rule that the draft breaks.
pub(super) fn check(draft: &Draft, faults: &mut Faults) {
    if let (Some(HoldWhileDown::On), Some(CaptureAs::Routed)) = (draft.hold_while_down, draft.capture_form) {
        faults.note(path::hold_while_down, Problem::Needs { found: "true", other: "capture.as: arrived" });
    }
    if let (Some(Ordering::ByKey), Some(CaptureAs::Routed)) = (draft.order, draft.capture_form) {
        faults.note(path::order, Problem::Needs { found: "by_key", other: "capture.as: arrived" });
    }
    if let (Some(HealthSource::HealthCheckFilter), Some(asked)) = (draft.health_source, &draft.health_path)
        && !asked.contains("{cluster}")
    {
        let rule = "contain {cluster} with health.source: health_check_filter";
        faults.note(path::health_path, Problem::Breaks { found: asked.clone(), rule });
    }
    if let (Some(dropped), Some(key)) = (&draft.drop_headers, &draft.idempotency_header)
        && let Some(needed) = dropped.iter().find(|name| *name == "host" || *name == key)
    {
        let rule = "be neither host nor the idempotency key: a redelivery needs them";
        faults.note(path::drop_headers, Problem::Breaks { found: needed.clone(), rule });
    }
    if let (Some(initial), Some(max)) = (draft.backoff_initial, draft.backoff_max)
        && max < initial
    {
        let problem = Problem::Below { found: max.to_string(), least: format!("initial {initial}") };
        faults.note(path::backoff_max, problem);
    }
    if let (Some(initial), Some(max)) = (draft.window_initial, draft.window_max)
        && initial > max
    {
        let problem = Problem::Above { found: initial.to_string(), most: format!("max {max}") };
        faults.note(path::window_initial, problem);
    }
}
