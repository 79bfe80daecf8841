//! The shell of redeliver: proxy-wasm callbacks in, host calls out, no policy.
//!
//! `abi` is what the host calls, `root` and `stream` are its two kinds of context, `vm` is what they share, `host` is what
//! the host is called for: the fence around the SDK.
//! Everything that decides is in `redeliver-core`.

#![allow(missing_docs)] // nothing is public but the ABI, and the SDK's macro writes that

mod abi;
mod facts;
mod host;
mod root;
mod storing;
mod stream;
mod vm;

use proxy_wasm::types::LogLevel;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
}}
