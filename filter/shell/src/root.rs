//! The root context: configuration, timer, answers to our calls, and the end.

use crate::host;
use crate::stream::Stream;
use crate::vm::Vm;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use redeliver_core::config;
use redeliver_core::effect::Level;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

thread_local! {
    /// Whether a stream was ever created in this VM: then it is a worker's, and a new configuration need not find out.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// One plugin configuration in one VM.
pub struct Root {
    /// `None` until a configuration was accepted.
    vm: Rc<RefCell<Option<Vm>>>,
    context: u32,
}

impl Root {
    /// The root context `context`.
    pub fn new(context: u32) -> Self {
        Self { vm: Rc::default(), context }
    }

    fn with_vm(&self, run: impl FnOnce(&mut Vm)) {
        if let Ok(mut vm) = self.vm.try_borrow_mut()
            && let Some(vm) = vm.as_mut()
        {
            run(vm);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, header_count: usize, body_size: usize, trailer_count: usize) {
        self.with_vm(|vm| vm.call_answered(token, header_count, body_size, trailer_count));
    }

    fn on_done(&mut self) -> bool {
        let mut may_go = true;
        self.with_vm(|vm| may_go = vm.stop());
        may_go
    }
}

impl RootContext for Root {
    /// Also runs in a throw-away VM that only checks the configuration: nothing here outlives the VM, but the word that
    /// this configuration was announced.
    fn on_configure(&mut self, _size: usize) -> bool {
        let text = host::plugin_configuration();
        match config::parse(&text) {
            Ok(config) => {
                let mut vm = Vm::new(config, &text, self.context);
                if IS_WORKER.get() {
                    vm.delivery.saw_stream();
                }
                *self.vm.borrow_mut() = Some(vm);
                true
            }
            Err(faults) => {
                for fault in faults.to_string().lines() {
                    host::log(Level::Error, &format!("configuration refused: {fault}"));
                }
                false
            }
        }
    }

    fn on_tick(&mut self) {
        self.with_vm(Vm::tick);
    }

    fn create_http_context(&self, context: u32) -> Option<Box<dyn HttpContext>> {
        IS_WORKER.set(true);
        self.with_vm(|vm| vm.delivery.saw_stream());
        Some(Box::new(Stream::new(self.vm.clone(), context)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
