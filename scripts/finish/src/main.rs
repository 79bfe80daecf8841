//! The last step of the build: makes the module that users ship from the one that the compiler made.
//!
//! 1. The host calls every callback that a module exports, and the SDK exports all of them. Each call costs; those that
//!    the filter does not use are dropped, and the code that only they reached.
//! 2. The filter's own callbacks take the place of the SDK's (filter/shell/src/abi.rs says why): `redeliver_on_tick` is
//!    exported as `proxy_on_tick`.
//! 3. What the SDK does for contexts of its own kinds is cut off: nothing makes one, but the compiler cannot know.
//! 4. The names of functions go into a file of their own, beside the module: a fifth of its size, and only a backtrace
//!    wants them.
//!
//! Never changes a function. Fails with a sentence when the module is not what it expects.

use std::collections::HashSet;
use std::process::ExitCode;
use walrus::ir::Visitor;
use walrus::{ElementItems, Function, FunctionBuilder, FunctionId, Module};

/// What stays as the compiler made it.
const KEPT: [&str; 4] = ["memory", "_initialize", "proxy_abi_version_0_2_1", "proxy_on_memory_allocate"];

/// A path in names of functions: the SDK's traits of contexts, of which the filter implements none.
const CONTEXTS: &str = "10proxy_wasm6traits";

/// What the host may call: `proxy_<name>` is the filter's `redeliver_<name>`.
const CALLBACKS: [&str; 12] = [
    "on_context_create",
    "on_vm_start",
    "on_configure",
    "on_tick",
    "on_http_call_response",
    "on_request_headers",
    "on_request_body",
    "on_request_trailers",
    "on_response_headers",
    "on_response_trailers", // only answers that have some cost the call: gRPC
    "on_log",
    "on_done",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, named] = arguments.as_slice() else {
        eprintln!("usage: redeliver-finish COMPILED.wasm FINISHED.wasm FINISHED-WITH-NAMES.wasm");
        return ExitCode::from(2);
    };
    match finish(input, output, named) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("redeliver-finish: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn finish(input: &str, output: &str, named: &str) -> Result<(), String> {
    let mut module =
        Module::from_file(input).map_err(|error| format!("{input} is no module that can be read: {error}"))?;
    export_only_what_is_used(&mut module)?;
    walrus::passes::gc::run(&mut module);
    cut_off_the_sdks_contexts(&mut module)?;
    walrus::passes::gc::run(&mut module);
    let write = |module: &mut Module, path: &str| {
        module.emit_wasm_file(path).map_err(|error| format!("{path} cannot be written: {error}"))
    };
    write(&mut module, named)?;
    forget_names(&mut module);
    write(&mut module, output)
}

fn export_only_what_is_used(module: &mut Module) -> Result<(), String> {
    let callbacks = CALLBACKS.map(|name| (format!("proxy_{name}"), format!("redeliver_{name}")));
    let own: Vec<(&String, walrus::FunctionId)> = callbacks
        .iter()
        .map(|(export, by)| {
            let function = module.exports.get_func(by).map_err(|_| lacks(by))?;
            Ok((export, function))
        })
        .collect::<Result<_, String>>()?;
    if let Some(missing) = KEPT.into_iter().find(|kept| !module.exports.iter().any(|export| export.name == *kept)) {
        return Err(lacks(missing));
    }
    let found: Vec<(walrus::ExportId, String)> =
        module.exports.iter().map(|export| (export.id(), export.name.clone())).collect();
    for (id, _) in found.iter().filter(|(_, name)| !KEPT.contains(&name.as_str())) {
        module.exports.delete(*id);
    }
    for (export, function) in own {
        module.exports.add(export, function);
    }
    Ok(())
}

/// What the SDK does for contexts of its own kinds stands in the module's table of functions, since the compiler cannot know
/// that the filter makes none; so it would stay. A function that traps takes its places.
///
/// The optimizer may give one name to two functions that do the same. Then one that is in use would be cut off too, and shows
/// by a call from outside of those.
fn cut_off_the_sdks_contexts(module: &mut Module) -> Result<(), String> {
    let is_of_contexts = |function: &&Function| function.name.as_ref().is_some_and(|name| name.contains(CONTEXTS));
    let cut: HashSet<FunctionId> = module.funcs.iter().filter(is_of_contexts).map(Function::id).collect();
    if cut.is_empty() {
        return Err(format!("no function's name holds {CONTEXTS}: the SDK's contexts have another name, or none"));
    }
    for (id, function) in module.funcs.iter_local().filter(|(id, _)| !cut.contains(id)) {
        let mut named = Named::default();
        walrus::ir::dfs_in_order(&mut named, function, function.entry_block());
        if let Some(called) = named.functions.intersection(&cut).next() {
            let name = |id: FunctionId| module.funcs.get(id).name.clone().unwrap_or_default();
            return Err(format!("{} calls {}, which was to be cut off", name(id), name(*called)));
        }
    }
    let mut builder = FunctionBuilder::new(&mut module.types, &[], &[]);
    builder.name("cut_off".to_owned()).func_body().unreachable();
    let trap = builder.finish(vec![], &mut module.funcs);
    for element in module.elements.iter_mut() {
        if let ElementItems::Functions(functions) = &mut element.items {
            functions.iter_mut().filter(|function| cut.contains(function)).for_each(|function| *function = trap);
        }
    }
    Ok(())
}

/// The functions that a function names in its code.
#[derive(Default)]
struct Named {
    functions: HashSet<FunctionId>,
}

impl<'a> Visitor<'a> for Named {
    fn visit_function_id(&mut self, function: &FunctionId) {
        self.functions.insert(*function);
    }
}

fn lacks(name: &str) -> String {
    format!("the module does not export {name}: is it the filter's?")
}

/// The functions keep their numbers, so the named module explains a backtrace of the one without names.
fn forget_names(module: &mut Module) {
    module.funcs.iter_mut().for_each(|function| function.name = None);
    module.tables.iter_mut().for_each(|table| table.name = None);
    module.memories.iter_mut().for_each(|memory| memory.name = None);
}
