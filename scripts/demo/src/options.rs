//! The command line: which Envoy, which bootstrap. It reads arguments and nothing else.

use std::path::PathBuf;

/// What `--help` prints.
pub const USAGE: &str = "\
usage: scripts/demo.sh [--config FILE]

Runs a real Envoy with redeliver, sends 100 messages a second to two receivers, takes one receiver away for six
seconds, and shows what happens. Ends with one line:

    sent S, delivered D, stored T, lost L, duplicated U

Lost: answered 2xx and never delivered. Duplicated: delivered twice although every attempt had a known outcome.
The exit status is 0 only if nothing was lost, duplicated, damaged or refused, and the outage was really bridged.

  --config FILE   the Envoy bootstrap to run (envoy/envoy.yaml); its ports are replaced by free ones
  --envoy FILE    the Envoy binary (scripts/demo.sh passes the pinned one)
  --help          this text
";

/// The files that a run needs.
pub struct Options {
    /// The Envoy binary.
    pub envoy: PathBuf,
    /// The bootstrap, with fixed ports that will be replaced.
    pub config: PathBuf,
}

/// What the arguments ask for.
pub enum Parsed {
    /// Run the demo.
    Run(Options),
    /// Print the usage.
    Help,
    /// This argument makes no sense.
    Wrong(String),
}

/// Reads the arguments, the program's name left out.
pub fn parse(mut arguments: impl Iterator<Item = String>) -> Parsed {
    let mut options = Options { envoy: PathBuf::from("envoy"), config: PathBuf::from("envoy/envoy.yaml") };
    while let Some(argument) = arguments.next() {
        let field = match argument.as_str() {
            "--help" | "-h" => return Parsed::Help,
            "--config" => &mut options.config,
            "--envoy" => &mut options.envoy,
            _ => return Parsed::Wrong(argument),
        };
        match arguments.next() {
            Some(value) => *field = PathBuf::from(value),
            None => return Parsed::Wrong(argument),
        }
    }
    Parsed::Run(options)
}
