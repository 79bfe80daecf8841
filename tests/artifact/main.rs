//! The shipped module, `dist/redeliver.wasm`, looked at from outside: what it wants from its host, what it offers, and
//! that it says nothing about the machine it was built on. It is never run here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wasmtime::{Engine, ExternType, Module};

/// Every import as `module.name`, sorted: the host calls that a capability restriction must allow.
const IMPORTS: &str = include_str!("imports.txt");

/// What Envoy looks for. Callbacks that the filter does not need are absent on purpose: the host does not call them.
const EXPORTS: &[&str] = &[
    "memory",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_http_call_response",
    "proxy_on_log",
    "proxy_on_done",
];

/// Larger modules take longer to start on every thread; a jump is worth a look.
const MOST_BYTES: usize = 1024 * 1024;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in a workspace")
}

fn bytes() -> Vec<u8> {
    let path =
        std::env::var_os("REDELIVER_WASM").map_or_else(|| workspace().join("dist/redeliver.wasm"), PathBuf::from);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run scripts/build.sh", path.display()))
}

fn module(bytes: &[u8]) -> Module {
    Module::new(&Engine::default(), bytes).expect("a valid module of the WebAssembly version that Envoy's V8 takes")
}

#[test]
fn it_imports_exactly_the_committed_host_calls() {
    let module = module(&bytes());
    let imports: BTreeSet<String> = module.imports().map(|i| format!("{}.{}", i.module(), i.name())).collect();
    let committed: BTreeSet<String> = IMPORTS.lines().map(str::to_owned).collect();
    let added: Vec<_> = imports.difference(&committed).collect();
    let gone: Vec<_> = committed.difference(&imports).collect();
    assert!(added.is_empty() && gone.is_empty(), "imports.txt is not true: added {added:#?}, gone {gone:#?}");
    assert!(IMPORTS.lines().is_sorted(), "imports.txt is kept sorted");
    for import in &imports {
        let known = import.starts_with("env.proxy_") || import.starts_with("wasi_snapshot_preview1.");
        assert!(known, "{import} is no call of a proxy-wasm host");
    }
}

#[test]
fn it_exports_what_envoy_looks_for() {
    let module = module(&bytes());
    let missing: Vec<_> = EXPORTS.iter().filter(|name| module.get_export(name).is_none()).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
    assert!(matches!(module.get_export("memory"), Some(ExternType::Memory(_))));
    let starts = ["_initialize", "_start"].into_iter().filter(|name| module.get_export(name).is_some()).count();
    assert_eq!(starts, 1, "exactly one of _initialize and _start makes the SDK ready");
}

#[test]
fn it_names_no_place_of_the_machine_that_built_it() {
    let bytes = bytes();
    let folders =
        [std::env::var("HOME").ok(), std::env::var("CARGO_HOME").ok(), workspace().to_str().map(str::to_owned)];
    let homes = ["/home/", "/Users/", ".cargo/registry"].map(str::to_owned);
    let folders = folders.into_iter().flatten().filter(|folder| folder.len() > 1).map(|folder| format!("{folder}/"));
    for folder in folders.chain(homes) {
        let found = bytes.windows(folder.len()).position(|window| window == folder.as_bytes());
        assert_eq!(found, None, "the module names {folder}");
    }
}

#[test]
fn it_is_small_enough_to_start_fast() {
    let size = bytes().len();
    println!("dist/redeliver.wasm: {size} bytes");
    assert!(size < MOST_BYTES, "{size} bytes; the limit is {MOST_BYTES}");
}
