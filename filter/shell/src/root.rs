//! A root context: one configuration, its timer, the answers to its calls, and its end.

use crate::host;
use crate::stream::Stream;
use crate::vm::Vm;
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

    /// The answer to one of our calls has come. Answers whether this root, which was to go, may go with it.
    pub fn call_answered(&self, token: u32, header_count: u32, body_size: usize, trailer_count: u32) -> bool {
        let mut may_go = false;
        self.with_vm(|vm| may_go = vm.call_answered(token, header_count, body_size, trailer_count));
        may_go
    }

    /// The configuration is on its way out. Answers whether it may go at once.
    pub fn stop(&self) -> bool {
        let mut may_go = true;
        self.with_vm(|vm| may_go = vm.stop());
        may_go
    }

    /// Reads the configuration; answers whether it can be. Also runs in a throw-away VM that only checks it: nothing here
    /// outlives the VM, but the word that this configuration was announced.
    pub fn configure(&mut self) -> bool {
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

    /// One turn of the timer.
    pub fn tick(&self) {
        self.with_vm(Vm::tick);
    }

    /// A new stream under this configuration.
    pub fn stream(&self, context: u32) -> Stream {
        IS_WORKER.set(true);
        self.with_vm(|vm| vm.delivery.saw_stream());
        Stream::new(self.vm.clone(), context)
    }
}
