//! The last step of the build: makes the module that users ship from the one that the compiler made.
//!
//! 1. The host calls every callback that a module exports, and the SDK exports all of them. Each call costs; those that
//!    the filter does not use are dropped, and the code that only they reached.
//! 2. The SDK's body callback knows two answers, Continue and Pause. The filter needs a third one (see
//!    filter/shell/src/abi.rs): its own function takes the export's place.
//!
//! Never changes code. Fails with a sentence when the module is not what it expects.

use std::process::ExitCode;
use walrus::Module;

/// What the host may call. `proxy_on_delete` stays: the SDK frees its contexts there.
const KEPT: [&str; 18] = [
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_http_call_response",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_trailers", // only answers that have some cost the call: gRPC
    "proxy_on_log",
    "proxy_on_done",
    "proxy_on_delete",
    "malloc",
];

/// The host accepts either allocator.
const OPTIONAL: [&str; 1] = ["malloc"];

/// (the export, the function that takes its place)
const REPLACED: (&str, &str) = ("proxy_on_request_body", "redeliver_on_request_body");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: redeliver-finish COMPILED.wasm FINISHED.wasm");
        return ExitCode::from(2);
    };
    match finish(input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("redeliver-finish: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn finish(input: &str, output: &str) -> Result<(), String> {
    let mut module =
        Module::from_file(input).map_err(|error| format!("{input} is no module that can be read: {error}"))?;
    replace(&mut module)?;
    trim(&mut module)?;
    walrus::passes::gc::run(&mut module);
    module.emit_wasm_file(output).map_err(|error| format!("{output} cannot be written: {error}"))
}

fn replace(module: &mut Module) -> Result<(), String> {
    let (export, by) = REPLACED;
    let function = module.exports.get_func(by).map_err(|_| format!("the module does not export {by}"))?;
    module.exports.remove(by).map_err(|error| error.to_string())?;
    module.exports.remove(export).map_err(|_| format!("the module does not export {export}"))?;
    module.exports.add(export, function);
    Ok(())
}

fn trim(module: &mut Module) -> Result<(), String> {
    let found: Vec<(walrus::ExportId, String)> =
        module.exports.iter().map(|export| (export.id(), export.name.clone())).collect();
    let missing = KEPT.into_iter().find(|kept| !OPTIONAL.contains(kept) && !found.iter().any(|(_, name)| name == kept));
    if let Some(missing) = missing {
        return Err(format!("the module does not export {missing}: is it the filter's?"));
    }
    for (id, name) in found {
        if !KEPT.contains(&name.as_str()) {
            module.exports.delete(id);
        }
    }
    Ok(())
}
