//! The one builder of Envoy configurations for all tests.
//!
//! ```text
//!   listener "main"   with the filter ──┐
//!                                       ├── the same routes ── one cluster per destination
//!   listener "plain"  without it ───────┘
//!   internal listener "again" with the same routes, if asked for          <── clusters again, again_http2
//!   internal listener "health": one health_check filter per destination   <── cluster redeliver_health
//!   admin port                                                            <── cluster admin_api
//! ```
//!
//! Every Envoy has the plain listener: what the filter must leave alone is compared with what it does there. The
//! builder makes values and files; it never starts a process (`envoy.rs`) and knows no default of the filter's configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

/// The `name` of the plugin; Envoy's `wasm.*` log lines and stats carry it.
pub const PLUGIN_NAME: &str = "redeliver";

/// How Envoy checks a destination's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// Not at all: the cluster always looks healthy.
    None,
    /// `GET /healthz` every 200 ms, one failure or success decides.
    Active,
}

/// One cluster with one static endpoint.
#[derive(Clone, Debug)]
pub struct Destination {
    name: String,
    port: u16,
    check: HealthCheck,
    /// More fields of the cluster.
    extra: Map<String, Value>,
}

impl Destination {
    /// A cluster `name` with an endpoint on `port` of the loopback interface, without health checks.
    pub fn new(name: &str, port: u16) -> Destination {
        Destination { name: name.to_owned(), port, check: HealthCheck::None, extra: Map::new() }
    }

    /// With active health checks.
    pub fn checked(mut self) -> Destination {
        self.check = HealthCheck::Active;
        self
    }

    /// With one more field of Envoy's `Cluster`.
    pub fn with(mut self, field: &str, value: Value) -> Destination {
        self.extra.insert(field.to_owned(), value);
        self
    }

    fn cluster(&self) -> Value {
        let mut cluster = json!({
            "name": self.name,
            "type": "STATIC",
            "connect_timeout": "0.5s",
            "common_lb_config": {
                // Without it, a cluster whose only host is unhealthy would be used all the same.
                "healthy_panic_threshold": {"value": 0},
                // By default workers learn of a health change up to 1 s after the main thread, whose stats tests read.
                "update_merge_window": "0s",
            },
            "load_assignment": {"cluster_name": self.name, "endpoints": [{"lb_endpoints": [{"endpoint": {
                "hostname": format!("{}.internal", self.name),
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            }}]}]},
        });
        if self.check == HealthCheck::Active {
            cluster["health_checks"] = json!([{
                "timeout": "1s", "interval": "0.2s",
                "no_traffic_interval": "0.2s", "no_traffic_healthy_interval": "0.2s",
                "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": {"path": "/healthz"},
            }]);
        }
        for (field, value) in &self.extra {
            cluster[field] = value.clone();
        }
        cluster
    }
}

/// One route by path prefix.
#[derive(Clone, Debug)]
pub struct Route {
    value: Value,
}

impl Route {
    /// Requests whose path begins with `prefix` go to `cluster`.
    pub fn new(prefix: &str, cluster: &str) -> Route {
        Route { value: json!({"match": {"prefix": prefix}, "route": {"cluster": cluster}}) }
    }

    /// Requests whose path begins with `prefix` are answered by Envoy itself.
    pub fn direct(prefix: &str, status: u16) -> Route {
        Route { value: json!({"match": {"prefix": prefix}, "direct_response": {"status": status}}) }
    }

    /// CONNECT requests go to `cluster`.
    pub fn connect(cluster: &str) -> Route {
        Route { value: json!({"match": {"connect_matcher": {}}, "route": {"cluster": cluster}}) }
    }

    /// With one more field of Envoy's `RouteAction`.
    pub fn action(mut self, field: &str, value: Value) -> Route {
        self.value["route"][field] = value;
        self
    }

    /// With one more field of Envoy's `Route`.
    pub fn field(mut self, field: &str, value: Value) -> Route {
        self.value[field] = value;
        self
    }

    /// With `filter_metadata.redeliver` of the route.
    pub fn metadata(mut self, value: Value) -> Route {
        self.value["metadata"] = json!({"filter_metadata": {"redeliver": value}});
        self
    }
}

/// How the plugin configuration is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// `google.protobuf.StringValue`, the right one.
    StringValue,
    /// `google.protobuf.Struct`, which reaches a plugin as raw protobuf.
    Struct,
}

/// Which build of the module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// `dist/redeliver.wasm`, what users ship.
    Shipped,
    /// `dist/redeliver-trap.wasm`, which traps on demand.
    Trapping,
    /// `dist/probe.wasm`, which is not the filter: it does what a script says and writes down what Envoy does.
    Probe,
}

impl Module {
    /// The file.
    ///
    /// # Panics
    /// If it is not built; the message names the command.
    pub fn path(self) -> PathBuf {
        let (variable, file, build) = match self {
            Module::Shipped => ("REDELIVER_WASM", "redeliver.wasm", "scripts/build.sh"),
            Module::Trapping => ("REDELIVER_TRAP_WASM", "redeliver-trap.wasm", "scripts/build.sh --features trap"),
            Module::Probe => ("REDELIVER_PROBE_WASM", "probe.wasm", "scripts/build.sh --probe"),
        };
        let path =
            std::env::var_os(variable).map_or_else(|| crate::envoy::workspace().join("dist").join(file), PathBuf::from);
        assert!(path.is_file(), "{} is missing: run {build}", path.display());
        path
    }
}

/// Envoy's plugin option `allow_on_headers_stop_iteration`, which hold capture needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HoldOption {
    Given,
    Missing,
}

/// What the plugin reads as its configuration.
#[derive(Clone, Debug)]
enum PluginConfig {
    Json(Value),
    /// Text that need not be JSON.
    Text(String),
}

/// The filter as one listener has it.
#[derive(Clone, Debug)]
pub struct Filter {
    config: PluginConfig,
    module: Module,
    wrapping: Wrapping,
    hold_option: HoldOption,
}

impl Filter {
    /// With exactly this plugin configuration.
    pub fn new(config: Value) -> Filter {
        Filter::with_config(PluginConfig::Json(config))
    }

    /// With this text as the plugin configuration, be it JSON or not.
    pub fn text(config: &str) -> Filter {
        Filter::with_config(PluginConfig::Text(config.to_owned()))
    }

    fn with_config(config: PluginConfig) -> Filter {
        Filter { config, module: Module::Shipped, wrapping: Wrapping::StringValue, hold_option: HoldOption::Given }
    }

    /// Protects everything below `/`, redelivers at test speed, then as `patch` says (objects merge, `null` removes).
    pub fn quick(patch: Value) -> Filter {
        let mut config = json!({
            "match": {"path_prefixes": ["/"]},
            "health": {"source": "passive", "stable_for": "200ms", "probe_max": "500ms", "interval": "200ms"},
            "redelivery": {
                "tick": "50ms", "timeout": "3s",
                "backoff": {"initial": "200ms", "max": "500ms"},
            },
        });
        merge(&mut config, patch);
        Filter::new(config)
    }

    /// With a change to its configuration (objects merge, `null` removes).
    pub fn patched(mut self, patch: Value) -> Filter {
        match &mut self.config {
            PluginConfig::Json(config) => merge(config, patch),
            PluginConfig::Text(text) => panic!("only JSON can be changed key by key, not {text:?}"),
        }
        self
    }

    /// With `allow_on_headers_stop_iteration` missing.
    pub fn without_hold_option(mut self) -> Filter {
        self.hold_option = HoldOption::Missing;
        self
    }

    /// With another build of the module.
    pub fn module(mut self, module: Module) -> Filter {
        self.module = module;
        self
    }

    /// With the configuration wrapped in another way.
    pub fn wrapped(mut self, wrapping: Wrapping) -> Filter {
        self.wrapping = wrapping;
        self
    }

    fn http_filter(&self) -> Value {
        let string = |text: String| json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text});
        let configuration = match (&self.config, self.wrapping) {
            (PluginConfig::Json(config), Wrapping::StringValue) => string(config.to_string()),
            (PluginConfig::Json(config), Wrapping::Struct) => {
                json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": config})
            }
            (PluginConfig::Text(text), _) => string(text.clone()),
        };
        let mut config = json!({
            "name": PLUGIN_NAME,
            "root_id": "redeliver",
            "failure_policy": "FAIL_RELOAD",
            "configuration": configuration,
            "vm_config": {
                "vm_id": "redeliver",
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": self.module.path()}},
            },
        });
        if self.hold_option == HoldOption::Given {
            config["allow_on_headers_stop_iteration"] = json!(true);
        }
        wasm_filter(config)
    }
}

/// A `PluginConfig` of somebody else (a manifest, say) as an HTTP filter that loads our module from `dist/`.
pub fn foreign_filter(plugin: Value) -> Value {
    foreign_filter_of(plugin, Module::Shipped)
}

/// As `foreign_filter`, with another build or another module.
pub fn foreign_filter_of(mut plugin: Value, module: Module) -> Value {
    plugin["vm_config"]["code"] = json!({"local": {"filename": module.path()}});
    wasm_filter(plugin)
}

fn wasm_filter(plugin: Value) -> Value {
    json!({"name": "envoy.filters.http.wasm", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": plugin,
    }})
}

/// Merges `patch` into `value`: objects key by key, `null` removes, anything else replaces.
pub fn merge(value: &mut Value, patch: Value) {
    match (value, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, change) in patch {
                if change.is_null() {
                    object.remove(&key);
                } else {
                    merge(object.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (value, patch) => *value = patch,
    }
}

/// What the health listener is in this Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthListener {
    /// An internal listener that answers from Envoy's own cluster health.
    Serving,
    /// The cluster `redeliver_health` exists, but its listener does not.
    Unreachable,
}

/// Where Envoy has its main and plain listener from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListenerSource {
    /// A watched file: they can be pushed again.
    File,
    /// The bootstrap itself: a fault in them keeps Envoy from starting.
    Bootstrap,
}

/// Whether trailers of HTTP/1 go through the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trailers {
    Dropped,
    Passed,
}

/// Whether there is a main listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MainListener {
    Present,
    Absent,
}

/// Everything that one Envoy is started with.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub(crate) workers: u32,
    pub(crate) drain_time: Duration,
    filter: Option<Value>,
    destinations: Vec<Destination>,
    routes: Vec<Route>,
    health: HealthListener,
    source: ListenerSource,
    buffer_limit: Option<u32>,
    upgrades: Vec<String>,
    trailers: Trailers,
    main: MainListener,
    again: Again,
    pub(crate) company: Company,
}

/// The internal listener with the same routes, for `redelivery.through`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// There is none.
    Absent,
    /// Without the filter.
    Plain,
    /// With the filter of the main listener.
    Filtered,
}

/// Whether a test runs another Envoy beside this one. Together they must not wait for each other's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    Alone,
    /// The first of two: it waits for the turns of both.
    First,
    /// The second, for which the first has waited.
    Second,
}

/// The ports of one Envoy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub main: u16,
    pub plain: u16,
    pub admin: u16,
}

impl Bootstrap {
    /// One worker and nothing to send to yet.
    pub fn new() -> Bootstrap {
        Bootstrap {
            workers: 1,
            drain_time: Duration::from_secs(600),
            filter: None,
            destinations: Vec::new(),
            routes: Vec::new(),
            health: HealthListener::Serving,
            source: ListenerSource::File,
            buffer_limit: None,
            upgrades: Vec::new(),
            trailers: Trailers::Dropped,
            main: MainListener::Present,
            again: Again::Absent,
            company: Company::Alone,
        }
    }

    /// With an internal listener that has the same routes, and the clusters `again` and `again_http2` that lead to it.
    /// gRPC calls need the second; Envoy 1.36 puts the values of a repeated header together on that way.
    pub fn again(mut self, again: Again) -> Bootstrap {
        self.again = again;
        self
    }

    /// As the first of two Envoys that one test runs; the other one is started [`Bootstrap::beside`] it.
    pub fn first_of_two(mut self) -> Bootstrap {
        self.company = Company::First;
        self
    }

    /// As the second of two.
    pub fn beside(mut self, _first: &crate::Envoy) -> Bootstrap {
        self.company = Company::Second;
        self
    }

    /// One destination `orders`, everything routed to it, and the filter.
    pub fn orders(port: u16, filter: Filter) -> Bootstrap {
        Bootstrap::new().destination(Destination::new("orders", port)).route(Route::new("/", "orders")).filter(filter)
    }

    /// As `orders`, with active health checks.
    pub fn checked_orders(port: u16, filter: Filter) -> Bootstrap {
        let orders = Destination::new("orders", port).checked();
        Bootstrap::new().destination(orders).route(Route::new("/", "orders")).filter(filter)
    }

    /// With the filter on the main listener.
    pub fn filter(mut self, filter: Filter) -> Bootstrap {
        self.filter = Some(filter.http_filter());
        self
    }

    /// With a ready-made HTTP filter in its place.
    pub fn http_filter(mut self, filter: Value) -> Bootstrap {
        self.filter = Some(filter);
        self
    }

    /// With one more destination.
    pub fn destination(mut self, destination: Destination) -> Bootstrap {
        self.destinations.push(destination);
        self
    }

    /// With one more route; the first that matches wins.
    pub fn route(mut self, route: Route) -> Bootstrap {
        self.routes.push(route);
        self
    }

    /// With this many worker threads.
    pub fn workers(mut self, workers: u32) -> Bootstrap {
        self.workers = workers;
        self
    }

    /// With another drain time: how long a replaced configuration lives on.
    pub fn drain_time(mut self, time: Duration) -> Bootstrap {
        self.drain_time = time;
        self
    }

    /// With another health listener.
    pub fn health_listener(mut self, health: HealthListener) -> Bootstrap {
        self.health = health;
        self
    }

    /// With the listeners in the bootstrap itself, where a faulty filter keeps Envoy from starting.
    pub fn static_listeners(mut self) -> Bootstrap {
        self.source = ListenerSource::Bootstrap;
        self
    }

    /// With `per_connection_buffer_limit_bytes` on the listeners.
    pub fn buffer_limit(mut self, bytes: u32) -> Bootstrap {
        self.buffer_limit = Some(bytes);
        self
    }

    /// With an upgrade type (`websocket`, `CONNECT`) allowed on the listeners.
    pub fn upgrade(mut self, kind: &str) -> Bootstrap {
        self.upgrades.push(kind.to_owned());
        self
    }

    /// With trailers of HTTP/1 let through on the listeners.
    pub fn trailers(mut self) -> Bootstrap {
        self.trailers = Trailers::Passed;
        self
    }

    /// Without the main listener: for a push that takes it away.
    pub fn without_main(mut self) -> Bootstrap {
        self.main = MainListener::Absent;
        self
    }

    pub(crate) fn document(&self, ports: Ports, folder: &Path) -> Value {
        let mut listeners = Vec::new();
        let mut clusters: Vec<Value> = self.destinations.iter().map(Destination::cluster).collect();
        clusters.push(admin_cluster(ports.admin));
        clusters.push(internal_cluster("redeliver_health", "health"));
        if self.health == HealthListener::Serving {
            listeners.push(self.health_listener_value());
        }
        let filter_again = match self.again {
            Again::Absent => None,
            Again::Plain => Some(None),
            Again::Filtered => Some(self.filter.clone()),
        };
        if let Some(filter) = filter_again {
            listeners.push(self.again_listener(filter));
            let mut over_http2 = internal_cluster("again_http2", "again");
            merge(&mut over_http2, json!({"typed_extension_protocol_options": http2_options()}));
            clusters.extend([internal_cluster("again", "again"), over_http2]);
        }
        let mut document = json!({
            "admin": {"address": address(ports.admin)},
            "node": {"id": "test", "cluster": "test"},
            "bootstrap_extensions": [{"name": "envoy.bootstrap.internal_listener", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            }}],
            // The admin layer lets a test open a circuit breaker while Envoy runs.
            "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        });
        match self.source {
            ListenerSource::File => {
                document["dynamic_resources"] = json!({"lds_config": {
                    "resource_api_version": "V3", "path_config_source": {"path": folder.join("listeners.json")},
                }});
            }
            ListenerSource::Bootstrap => {
                listeners.extend(self.main_and_plain(ports, folder).into_iter().map(without_type))
            }
        }
        document["static_resources"] = json!({"listeners": listeners, "clusters": clusters});
        document
    }

    /// The main and the plain listener as the file that Envoy watches.
    pub(crate) fn listeners(&self, ports: Ports, folder: &Path) -> Value {
        json!({"resources": self.main_and_plain(ports, folder)})
    }

    fn main_and_plain(&self, ports: Ports, folder: &Path) -> Vec<Value> {
        let plain = self.listener("plain", ports.plain, None, folder);
        match self.main {
            MainListener::Present => vec![self.listener("main", ports.main, self.filter.clone(), folder), plain],
            MainListener::Absent => vec![plain],
        }
    }

    fn listener(&self, name: &str, port: u16, filter: Option<Value>, folder: &Path) -> Value {
        let mut filters: Vec<Value> = filter.into_iter().collect();
        filters.push(router());
        let mut manager = connection_manager(name, &filters, &json!(self.routes_value()));
        manager["upgrade_configs"] = self.upgrades.iter().map(|kind| json!({"upgrade_type": kind})).collect();
        if self.trailers == Trailers::Passed {
            manager["http_protocol_options"] = json!({"enable_trailers": true});
        }
        manager["access_log"] = json!([access_log(&folder.join(format!("{name}.access")))]);
        let mut listener = json!({
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": name,
            "address": address(port),
            "filter_chains": [{"filters": [network_filter(manager)]}],
        });
        if let Some(bytes) = self.buffer_limit {
            listener["per_connection_buffer_limit_bytes"] = json!(bytes);
        }
        listener
    }

    fn routes_value(&self) -> Vec<Value> {
        self.routes.iter().map(|route| route.value.clone()).collect()
    }

    fn again_listener(&self, filter: Option<Value>) -> Value {
        let filters: Vec<Value> = filter.into_iter().chain([router()]).collect();
        let manager = connection_manager("again", &filters, &json!(self.routes_value()));
        json!({
            "name": "again",
            "internal_listener": {},
            "filter_chains": [{"filters": [network_filter(manager)]}],
        })
    }

    fn health_listener_value(&self) -> Value {
        let mut filters: Vec<Value> =
            self.destinations.iter().map(|destination| health_filter(&destination.name)).collect();
        filters.push(router());
        let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 404}}]);
        json!({
            "name": "health",
            "internal_listener": {},
            "filter_chains": [{"filters": [network_filter(connection_manager("health", &filters, &routes))]}],
        })
    }
}

impl Default for Bootstrap {
    fn default() -> Self {
        Bootstrap::new()
    }
}

/// A listener in a discovery response names its type, one in the bootstrap must not.
fn without_type(mut listener: Value) -> Value {
    merge(&mut listener, json!({"@type": null}));
    listener
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn router() -> Value {
    json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
    }})
}

fn health_filter(cluster: &str) -> Value {
    json!({"name": format!("health of {cluster}"), "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
        "pass_through_mode": false,
        "headers": [{"name": ":path", "string_match": {"exact": format!("/{cluster}")}}],
        "cluster_min_healthy_percentages": {cluster: {"value": 1}},
    }})
}

fn connection_manager(name: &str, filters: &[Value], routes: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "http_filters": filters,
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
    })
}

fn network_filter(manager: Value) -> Value {
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

/// One line per request: what Envoy itself says about a failure.
fn access_log(path: &Path) -> Value {
    let format = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
                  %RESPONSE_CODE_DETAILS% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";
    json!({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "log_format": {"text_format_source": {"inline_string": format}},
    }})
}

fn admin_cluster(port: u16) -> Value {
    json!({
        "name": "admin_api", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "admin_api", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(port)}},
        ]}]},
    })
}

/// The `typed_extension_protocol_options` of a cluster that speaks HTTP/2, as gRPC calls need.
pub fn http2_options() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}

/// A cluster whose one endpoint is an internal listener.
fn internal_cluster(name: &str, listener: &str) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": listener}}}},
        ]}]},
    })
}
