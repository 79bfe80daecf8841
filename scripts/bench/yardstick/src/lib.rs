//! The yardstick of the success path: a filter that does nothing, as the SDK makes it.
//!
//! It has a root context and a context per request, and every export that the SDK writes, so that it costs what a
//! platform team would see with any first filter in Rust. It never reads, changes or holds anything, and must stay so.

#![allow(missing_docs)] // nothing is public but the ABI, and the SDK's macro writes that

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }
}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {}
