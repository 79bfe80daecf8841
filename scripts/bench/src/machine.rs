//! On what a run was made: figures without it mean nothing. It never guesses: what it cannot read is "unknown".

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::meter::Emulation;
use crate::options::Options;

/// The machine and the two binaries under test.
#[derive(Debug, Default, PartialEq)]
pub struct Machine {
    cores: usize,
    model: String,
    kernel: String,
    /// Of the last minute before the run: how busy the machine was with other things.
    load_average: String,
    envoy: String,
    /// What instructions are counted by: the figures depend on it.
    qemu: String,
    /// Size of the module.
    pub wasm_bytes: u64,
    wasm_sha256: String,
}

impl Machine {
    /// Looks at the machine, before the run has put load on it.
    pub fn look(options: &Options) -> Machine {
        let module = fs::read(&options.wasm).unwrap_or_default();
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            model: known(model_name(&read("/proc/cpuinfo"))),
            kernel: known(Some(read("/proc/sys/kernel/osrelease").trim().to_owned())),
            load_average: known(read("/proc/loadavg").split(' ').next().map(str::to_owned)),
            envoy: known(version(&options.envoy)),
            qemu: Emulation::of(options).version().unwrap_or_else(|_| "none".to_owned()),
            wasm_bytes: module.len() as u64,
            wasm_sha256: Sha256::digest(&module).iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// As it stands in the result file.
    pub fn to_json(&self) -> Value {
        json!({
            "cores": self.cores, "model": self.model, "kernel": self.kernel, "load_average_before": self.load_average,
            "envoy": self.envoy, "qemu": self.qemu, "wasm_bytes": self.wasm_bytes, "wasm_sha256": self.wasm_sha256,
        })
    }

    /// What `to_json` wrote; `None` if it is anything else.
    pub fn from_json(value: &Value) -> Option<Machine> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Machine {
            cores: usize::try_from(value["cores"].as_u64()?).ok()?,
            model: text("model")?,
            kernel: text("kernel")?,
            load_average: text("load_average_before")?,
            envoy: text("envoy")?,
            qemu: text("qemu")?,
            wasm_bytes: value["wasm_bytes"].as_u64()?,
            wasm_sha256: text("wasm_sha256")?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cores, model, kernel, load_average, envoy, qemu, wasm_bytes, wasm_sha256 } = self;
        writeln!(f, "{cores} cores, {model}, Linux {kernel}, load average before {load_average}")?;
        write!(f, "Envoy {envoy}, QEMU {qemu}, redeliver.wasm of {wasm_bytes} bytes, sha256 {wasm_sha256}")
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn known(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// From `<path>  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn version(envoy: &Path) -> Option<String> {
    let output = Command::new(envoy).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_once("version: ")?.1.split('/').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_reads_back_as_written() {
        let machine = Machine { cores: 2, model: "a model".to_owned(), wasm_bytes: 7, ..Machine::default() };
        assert_eq!(Machine::from_json(&machine.to_json()), Some(machine));
        assert_eq!(Machine::from_json(&Value::Null), None);
    }

    #[test]
    fn the_models_name_is_read_without_its_blanks() {
        assert_eq!(model_name("processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n").as_deref(), Some("Some CPU @ 2GHz"));
        assert_eq!(model_name("Hardware: none"), None);
    }
}
