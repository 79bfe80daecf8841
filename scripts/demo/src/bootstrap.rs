//! Turns the documented bootstrap into one that can run anywhere: the receivers' ports become theirs, Envoy's own two
//! become 0, so that Envoy takes free ones and says which. Nothing else is changed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_norway::Value;

use crate::failure::Failure;
use crate::message::Destination;

/// The bootstrap as text, and the module that it names.
pub struct Bootstrap {
    /// The whole bootstrap.
    pub yaml: String,
    /// The filter's .wasm file; `None` if the bootstrap has no Wasm filter.
    pub module: Option<PathBuf>,
}

/// Reads `file` and gives each destination its receiver's address.
pub fn prepare(file: &Path, receivers: &[(Destination, SocketAddr)]) -> Result<Bootstrap, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::Unreadable {
        what: "the bootstrap",
        path: file.to_owned(),
        cause: error.to_string(),
        cure: "run scripts/demo.sh, or name another one with --config",
    })?;
    let not_yaml = |error: serde_norway::Error| Failure::NotYaml { path: file.to_owned(), cause: error.to_string() };
    let mut yaml: Value = serde_norway::from_str(&text).map_err(not_yaml)?;
    let lacks = |place: String| Failure::Lacks { path: file.to_owned(), place };

    let admin = port(yaml.get_mut("admin")).ok_or_else(|| lacks("admin address".to_owned()))?;
    *admin = Value::from(0);
    let ingress = port(resource(&mut yaml, "listeners", "ingress"));
    *ingress.ok_or_else(|| lacks("listener \"ingress\" with a socket address".to_owned()))? = Value::from(0);
    for (destination, address) in receivers {
        let cluster = resource(&mut yaml, "clusters", destination.cluster());
        let endpoint = cluster.and_then(|cluster| port(cluster.get_mut("load_assignment")));
        let port = endpoint.ok_or_else(|| lacks(format!("endpoint in cluster {:?}", destination.cluster())))?;
        *port = Value::from(address.port());
    }
    let module = find(&mut yaml, "filename").and_then(|name| name.as_str()).map(PathBuf::from);
    Ok(Bootstrap { yaml: serde_norway::to_string(&yaml).map_err(not_yaml)?, module })
}

/// The static resource of this kind and name.
fn resource<'yaml>(yaml: &'yaml mut Value, kind: &str, name: &str) -> Option<&'yaml mut Value> {
    let resources = yaml.get_mut("static_resources")?.get_mut(kind)?.as_sequence_mut()?;
    resources.iter_mut().find(|resource| resource.get("name").is_some_and(|found| found == name))
}

fn port(yaml: Option<&mut Value>) -> Option<&mut Value> {
    find(yaml?, "port_value")
}

/// The first value under this key, at any depth.
fn find<'yaml>(yaml: &'yaml mut Value, key: &str) -> Option<&'yaml mut Value> {
    match yaml {
        Value::Mapping(mapping) => {
            if mapping.contains_key(key) {
                return mapping.get_mut(key);
            }
            mapping.values_mut().find_map(|value| find(value, key))
        }
        Value::Sequence(items) => items.iter_mut().find_map(|item| find(item, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_ports_of_the_documented_bootstrap_change() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../envoy/envoy.yaml");
        let receivers = [(Destination::Orders, 1111), (Destination::Payments, 2222)]
            .map(|(destination, port)| (destination, SocketAddr::from(([127, 0, 0, 1], port))));
        let prepared = prepare(&file, &receivers).unwrap_or_else(|failure| panic!("{failure}"));
        let mut documented = std::fs::read_to_string(&file).expect("the documented bootstrap is there");
        for (from, to) in [("9901", "0"), ("10000}", "0}"), ("9001}", "1111}"), ("9002}", "2222}")] {
            documented = documented.replace(&format!("port_value: {from}"), &format!("port_value: {to}"));
        }
        let tree = |text: &str| serde_norway::from_str::<Value>(text).expect("both are YAML");
        assert_eq!(tree(&prepared.yaml), tree(&documented));
        assert_eq!(prepared.module.as_deref(), Some(Path::new("dist/redeliver.wasm")));
    }
}
