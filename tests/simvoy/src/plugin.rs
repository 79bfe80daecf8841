//! A plugin as a listener configures it.

use std::sync::Arc;
use std::time::Duration;

/// What becomes of streams when a VM has trapped (PLATFORM 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// 503 for ever on that thread.
    Closed,
    /// The filter is skipped for ever on that thread.
    Open,
    /// As `Closed`, until a new stream after the back-off makes a new VM.
    Reload {
        /// The shortest time between two loads; up to half of it is added by chance.
        base: Duration,
    },
}

impl FailurePolicy {
    /// Reload with Envoy's default back-off.
    pub const RELOAD: Self = Self::Reload { base: Duration::from_millis(1_000) };
}

/// One plugin configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// `name`.
    pub name: String,
    /// `root_id`.
    pub root_id: String,
    /// `vm_config.vm_id`: the namespace of shared data and queues.
    pub vm_id: String,
    /// `configuration`, as the guest reads it.
    pub configuration: Vec<u8>,
    /// `vm_config.configuration`.
    pub vm_configuration: Vec<u8>,
    /// `vm_config.environment_variables`.
    pub environment: Vec<(String, String)>,
    /// `failure_policy`.
    pub failure_policy: FailurePolicy,
    /// `allow_on_headers_stop_iteration`.
    pub headers_stop: HeadersStop,
}

/// What a 1 from `proxy_on_request_headers` or `proxy_on_response_headers` stops (PLATFORM 0, first row).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadersStop {
    /// Headers and everything behind them: the default.
    Everything,
    /// Headers only; the body's callbacks go on: `allow_on_headers_stop_iteration: true`.
    HeadersOnly,
}

impl Plugin {
    /// A plugin with this `vm_id`, which is its `root_id` and its name too.
    #[must_use]
    pub fn new(vm_id: &str, configuration: impl Into<Vec<u8>>) -> Self {
        Self {
            name: vm_id.to_owned(),
            root_id: vm_id.to_owned(),
            vm_id: vm_id.to_owned(),
            configuration: configuration.into(),
            vm_configuration: Vec::new(),
            environment: Vec::new(),
            failure_policy: FailurePolicy::RELOAD,
            headers_stop: HeadersStop::HeadersOnly,
        }
    }

    /// Plugins with the same key share a root context (PluginBase::key; the failure policy is not part of it).
    pub(crate) fn key(&self) -> PluginKey {
        PluginKey(Arc::new((self.vm_key(), self.root_id.clone(), self.configuration.clone(), self.name.clone())))
    }

    /// Plugins with the same VM key share a VM per thread. (One module per process, so its hash is not part of it.)
    pub(crate) fn vm_key(&self) -> VmKey {
        VmKey(self.vm_id.clone(), self.vm_configuration.clone())
    }
}

/// What makes two VMs the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VmKey(pub String, pub Vec<u8>);

impl PluginKey {
    pub(crate) fn vm_key(&self) -> &VmKey {
        &self.0.0
    }
}

/// What makes two root contexts the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PluginKey(Arc<(VmKey, String, Vec<u8>, String)>);
