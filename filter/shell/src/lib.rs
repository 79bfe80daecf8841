//! The shell of redeliver: proxy-wasm callbacks in, host calls out, no policy.
//!
//! `root` and `stream` are the SDK's two kinds of context, `vm` is what they share, `host` is the fence around the SDK,
//! `abi` the one callback that the SDK cannot express.
//! Everything that decides is in `redeliver-core`.

#![allow(missing_docs)] // nothing is public but the ABI, and the SDK's macro writes that

mod abi;
mod host;
mod root;
mod stream;
mod vm;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context| Box::new(root::Root::new(context)));
}}
