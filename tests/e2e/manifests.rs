//! The files under `envoy/` are what they claim: Envoy accepts their Wasm configuration, and the filter its own.

use std::fs;

use redeliver_tests::bootstrap::foreign_filter;
use redeliver_tests::envoy::{validate, workspace};
use redeliver_tests::{Bootstrap, Receiver};
use serde_json::{Value, json};
use serde_norway::Deserializer;

const WASM_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Every document of one YAML file.
fn documents(file: &str) -> Vec<Value> {
    let path = workspace().join("envoy").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let read = |document| serde::Deserialize::deserialize(document).unwrap_or_else(|error| panic!("{file}: {error}"));
    Deserializer::from_str(&text).map(read).collect()
}

/// Every Wasm plugin configuration below `value`.
fn plugins(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(object) if object.get("@type") == Some(&json!(WASM_TYPE)) => vec![object["config"].clone()],
        Value::Object(object) => object.values().flat_map(plugins).collect(),
        Value::Array(list) => list.iter().flat_map(plugins).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// What Istio's control plane makes of a WasmPlugin: no vm_id, no options, the configuration as a StringValue.
fn as_istio_translates(plugin: &Value) -> Value {
    let spec = &plugin["spec"];
    let policy = match spec["failStrategy"].as_str() {
        None | Some("FAIL_CLOSE") => "FAIL_CLOSED",
        Some("FAIL_OPEN") => "FAIL_OPEN",
        Some("FAIL_RELOAD") => "FAIL_RELOAD",
        Some(other) => panic!("Istio knows no failStrategy {other}"),
    };
    json!({
        "name": "istio-ingress.redeliver",
        "root_id": spec["pluginName"],
        "failure_policy": policy,
        "vm_config": {"runtime": "envoy.wasm.runtime.v8"},
        "configuration": {
            "@type": "type.googleapis.com/google.protobuf.StringValue", "value": spec["pluginConfig"].to_string(),
        },
    })
}

fn of_kind(file: &str, kind: &str) -> Vec<Value> {
    documents(file).into_iter().filter(|document| document["kind"] == json!(kind)).collect()
}

/// Envoy accepts the plugin, and a running one has the filter protect something with it, without a warning.
async fn check(plugin: Value) {
    let orders = Receiver::start().await;
    let bootstrap = || {
        Bootstrap::orders(orders.port(), redeliver_tests::Filter::new(json!({})))
            .http_filter(foreign_filter(plugin.clone()))
    };
    let ending = bootstrap().validate().await;
    assert_eq!(ending.code, Some(0), "{}", ending.log);
    let envoy = bootstrap().start().await;
    let lines = envoy.wait_log("][wasm]", 1).await;
    assert!(lines.iter().all(|line| line.contains("[info]")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("protects")), "{lines:?}");
}

#[tokio::test]
async fn the_istio_envoy_filter_is_accepted_with_the_hold_option() {
    let manifests = of_kind("istio/envoyfilter.yaml", "EnvoyFilter");
    let plugins: Vec<Value> = manifests.iter().flat_map(plugins).collect();
    assert_eq!(plugins.len(), 1, "{plugins:?}");
    for plugin in plugins {
        assert_eq!(plugin["allow_on_headers_stop_iteration"], json!(true));
        assert!(plugin["vm_config"]["vm_id"].as_str().is_some_and(|id| !id.is_empty()), "the store needs a vm_id");
        check(plugin).await;
    }
}

#[tokio::test]
async fn the_istio_wasm_plugin_is_accepted_and_asks_for_stream_mode() {
    let manifests = of_kind("istio/wasmplugin.yaml", "WasmPlugin");
    assert_eq!(manifests.len(), 1);
    for manifest in &manifests {
        assert_eq!(manifest["spec"]["pluginConfig"]["capture"]["mode"], json!("stream"));
        check(as_istio_translates(manifest)).await;
    }
}

#[tokio::test]
async fn the_example_bootstrap_is_valid() {
    let mut documents = documents("envoy.yaml");
    assert_eq!(documents.len(), 1);
    let document = &mut documents[0];
    let found = plugins(document);
    assert_eq!(found.len(), 1);
    replace_module(document);
    let ending = validate(document).await;
    assert_eq!(ending.code, Some(0), "{}", ending.log);
    check(found[0].clone()).await;
}

/// The file names `dist/` relative to the workspace, where this test does not run.
fn replace_module(value: &mut Value) {
    match value {
        Value::Object(object) if object.get("@type") == Some(&json!(WASM_TYPE)) => {
            object.insert(
                "config".to_owned(),
                foreign_filter(object["config"].clone())["typed_config"]["config"].clone(),
            );
        }
        Value::Object(object) => object.values_mut().for_each(replace_module),
        Value::Array(list) => list.iter_mut().for_each(replace_module),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn envoys_validation_sees_a_fault_in_the_plugins_configuration() {
    let orders = Receiver::start().await;
    let faulty = redeliver_tests::Filter::new(json!({"mach": 1}));
    let ending = Bootstrap::orders(orders.port(), faulty).validate().await;
    assert_ne!(ending.code, Some(0), "validation proves nothing: {}", ending.log);
}
