//! What a guest's memory grows by. Envoy does not show the memory of a VM, so the shipped module runs in the simulator,
//! a host in this process's place that gives it the same calls; `redeliver-sim cycles` does the work and says one line.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Size, say};
use crate::failure::Failure;
use crate::figures::{Count, Figures};
use crate::goal::{Mark, Of};
use crate::line::Line;
use crate::options::Options;
use crate::report::Found;
use crate::row::Row;

/// A minute or two on a quiet machine.
const DONE_WITHIN: Duration = Duration::from_secs(1_200);
/// Often enough to see that it goes on.
const SAY_EVERY: Duration = Duration::from_secs(15);

/// One line.
pub async fn measure(options: &Options) -> Result<Found, Failure> {
    let size = Size::of(Row::Guest, options.extent);
    let grown = cycles(options, size.requests).await?;
    let goal = Mark::at_most(Of::Difference, 1_024.0, 0.0).unless_shrunk(options.extent);
    Ok(vec![Line {
        row: Row::Guest,
        what: format!(
            "guest memory after {} messages stored and delivered, less that at the start",
            Count(size.requests)
        ),
        unit: "KiB".to_owned(),
        ours: Figures(vec![grown.end_kib]),
        yardstick: Some(Figures(vec![grown.start_kib])),
        goal,
    }]
    .into())
}

/// What the simulator saw of the largest guest.
#[derive(Debug, PartialEq)]
struct Grown {
    start_kib: f64,
    end_kib: f64,
}

async fn cycles(options: &Options, messages: u64) -> Result<Grown, Failure> {
    let broken = |error| Failure::Machine { what: options.sim.clone(), error };
    let mut command = Command::new(&options.sim);
    command.arg("cycles").args(["--messages", &messages.to_string()]).arg("--module").arg(&options.wasm);
    let mut child = Guarded(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(broken)?);
    let (start, mut said) = (Instant::now(), Duration::ZERO);
    while child.0.try_wait().map_err(broken)?.is_none() {
        let elapsed = start.elapsed();
        if elapsed > DONE_WITHIN {
            return Err(Failure::TooLate { what: "the simulator is done".to_owned(), seen: "it runs on".to_owned() });
        }
        if elapsed - said > SAY_EVERY {
            said = elapsed;
            say(&format!("guest: the simulator has run for {} s", elapsed.as_secs()));
        }
        sleep(Duration::from_millis(100)).await;
    }
    let output = child.0.stdout.take().map(std::io::read_to_string).transpose().map_err(broken)?.unwrap_or_default();
    read(&output, messages).ok_or_else(|| Failure::Simulator { said: output.trim().to_owned() })
}

/// The line that it writes when all messages were delivered.
fn read(output: &str, messages: u64) -> Option<Grown> {
    let value: Value = serde_json::from_str(output).ok()?;
    let kib = |key: &str| Some(value[key].as_u64()? as f64 / 1024.0);
    (value["delivered"].as_u64()? >= messages)
        .then_some(Grown { start_kib: kib("guest_bytes_start")?, end_kib: kib("guest_bytes_end")? })
}

/// A process that ends with its value.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself; reaping it cannot fail then.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_simulator_says_counts_only_if_everything_was_delivered() {
        let line = r#"{"delivered": 2000, "guest_bytes_start": 1048576, "guest_bytes_end": 1114112}"#;
        assert_eq!(read(line, 2_000), Some(Grown { start_kib: 1024.0, end_kib: 1088.0 }));
        assert_eq!(read(line, 2_001), None);
        assert_eq!(read("", 1), None);
    }
}
