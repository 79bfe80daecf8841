//! The demo: a real Envoy with redeliver in it, a sender that never stops, a receiver that goes away and comes back.
//!
//! ```text
//! sender --100/s--> Envoy --/orders/...----> receiver of orders      (goes away for a while)
//!                     |  `--/payments/...--> receiver of payments    (stays: it must notice nothing)
//!                     `-- /stats, log -----> view
//! ```
//!
//! It tells the story and judges it: every message is written into the books when it is sent, answered and received,
//! and the summary is drawn up from the books alone. It never believes Envoy's counters: those are only shown.
//! It never touches another Envoy, and it needs no fixed port.

mod books;
mod bootstrap;
mod envoy;
mod failure;
mod message;
mod options;
mod receiver;
mod sender;
mod story;
mod view;
mod wire;

use std::io::Write;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        options::Parsed::Run(options) => options,
        options::Parsed::Help => {
            print!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        options::Parsed::Wrong(argument) => {
            eprint!("redeliver-demo: cannot use {argument:?}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match story::tell(&options).await {
        Ok(verdict) => {
            for fault in verdict.faults_to_show() {
                eprintln!("redeliver-demo: {fault}");
            }
            // Nobody may be reading any more; the exit status says it too.
            writeln!(std::io::stdout(), "{verdict}").unwrap_or_default();
            if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            eprintln!("redeliver-demo: {failure}");
            ExitCode::FAILURE
        }
    }
}
