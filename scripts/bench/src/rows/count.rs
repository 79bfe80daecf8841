//! The instructions that a request costs: the rows of the success path, of storing and of redelivery once more, by
//! another meter. A machine that cannot count has no such figures: that is said, and a failure only if they were asked
//! for.

use super::{drain, outage, say, success};
use crate::failure::Failure;
use crate::meter::{Emulation, Meter};
use crate::options::Options;
use crate::report::Found;

/// The lines of those rows.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let emulation = Emulation::of(options);
    match emulation.version() {
        Ok(version) => say(&format!("count: by QEMU {version}")),
        Err(why) if options.named => return Err(Failure::Emulator { why }),
        Err(why) => {
            say(&format!("count: left out: {why}"));
            return Ok(Found::default());
        }
    }
    let meter = Meter::Instructions(emulation);
    let mut found = Found::default();
    found.lines.extend(success::post(options, &meter).await?.lines);
    found.lines.extend(success::get(options, &meter).await?.lines);
    found.lines.extend(success::body(options, &meter).await?.lines);
    found.lines.extend(outage::measure(options, &meter).await?.lines);
    found.lines.extend(drain::count(options, &meter).await?.lines);
    Ok(found)
}
