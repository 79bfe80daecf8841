//! The instructions that a request costs: the rows of the success path, of storing and of redelivery once more, by
//! another meter. A machine without the emulator has no such figures; that is said, and no failure.

use super::{drain, outage, say, success};
use crate::failure::Failure;
use crate::meter::{Emulation, Meter};
use crate::options::Options;
use crate::report::Found;

/// The lines of those rows.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let emulation = Emulation::of(options);
    if !emulation.is_there() {
        let emulator = emulation.emulator.display();
        say(&format!("count: left out, since {emulator} is not installed (Debian has it in qemu-user)"));
        return Ok(Found::default());
    }
    let meter = Meter::Instructions(emulation);
    let mut found = Found::default();
    for more in [
        success::post(options, &meter).await?,
        success::get(options, &meter).await?,
        success::body(options, &meter).await?,
        outage::measure(options, &meter).await?,
        drain::count(options, &meter).await?,
    ] {
        found.lines.extend(more.lines);
    }
    Ok(found)
}
