//! One callback that the SDK cannot express: the body of a held request, with back-pressure.
//!
//! | a held body is answered with | full buffer | resumed from the timer |
//! | --- | --- | --- |
//! | 1, stop and buffer: the SDK's Pause | 413 | Envoy up to 1.39.0 loses the next piece |
//! | 2, stop and watermark: this module | Envoy stops reading until the filter lets go | every byte arrives |
//!
//! Measured on 1.36.4, 1.39.0 and 1.40.0. The last step of the build (scripts/finish) puts this module's function in the
//! place of the SDK's. Decides nothing.

const PAUSE: u32 = 1;
/// FilterDataStatus::StopIterationAndWatermark of the ABI; the SDK's enum does not have it.
const STOP_AND_WATERMARK: u32 = 2;

unsafe extern "C" {
    /// The SDK's callback.
    fn proxy_on_request_body(context: u32, size: usize, end: bool) -> u32;
}

/// The callback that the finished module exports in its place.
#[unsafe(no_mangle)]
extern "C" fn redeliver_on_request_body(context: u32, size: usize, end: bool) -> u32 {
    // SAFETY: the function is in the SDK, with this signature.
    match unsafe { proxy_on_request_body(context, size, end) } {
        PAUSE => STOP_AND_WATERMARK,
        answer => answer,
    }
}
