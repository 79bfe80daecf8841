//! Our own Envoy: started, read and stopped here. It never signals a process that it did not start.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::bootstrap::Bootstrap;
use crate::failure::Failure;
use crate::message::Destination;
use crate::options::Options;
use crate::view::Event;
use crate::wire;

/// Two workers, because sharing one backlog among threads is the hard part.
pub const WORKERS: u32 = 2;
/// Loading the module in every thread takes the most of a start; a busy machine may need several seconds for it.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Admin answers at once, or something is wrong.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);
/// After a polite request to stop; then it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Enough of the log to see why something went wrong.
const LOG_TAIL_LINES: usize = 30;

/// A running Envoy; killed when dropped.
pub struct Envoy {
    process: Child,
    log: LogTail,
    admin: Admin,
    /// Where its listener "ingress" is.
    pub ingress: SocketAddr,
}

/// Envoy's admin interface.
#[derive(Clone, Copy)]
pub struct Admin(SocketAddr);

/// The filter's gauges that the view shows.
#[derive(Clone, Copy, Default)]
pub struct Gauges {
    /// Messages in the store that are not dead.
    pub queued: u64,
    /// Redeliveries under way.
    pub in_flight: u64,
    /// Destinations that are down.
    pub destinations_down: u64,
}

/// The last lines of Envoy's log.
#[derive(Clone, Default)]
struct LogTail(Arc<Mutex<VecDeque<String>>>);

impl Envoy {
    /// Starts it and returns when it serves. The filter's notes on destinations go to `events`.
    pub async fn start(
        options: &Options,
        bootstrap: &Bootstrap,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self, Failure> {
        let not_started = |error: std::io::Error| Failure::NotStarted { cause: error.to_string() };
        let folder = tempfile::tempdir().map_err(not_started)?;
        let (config_file, address_file) = (folder.path().join("envoy.yaml"), folder.path().join("admin"));
        // In a file: Envoy repeats a configuration from its command line in every complaint about it.
        std::fs::write(&config_file, &bootstrap.yaml).map_err(not_started)?;
        let mut process = Command::new(&options.envoy)
            .arg("--config-path")
            .arg(&config_file)
            .arg("--admin-address-path")
            .arg(&address_file)
            .args(["--concurrency", &WORKERS.to_string()])
            .arg("--disable-hot-restart") // its shared memory would clash with another Envoy on this machine
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_started)?;
        let log = LogTail::default();
        if let Some(stderr) = process.stderr.take() {
            tokio::spawn(read_log(stderr, log.clone(), events));
        }
        let serving = async {
            loop {
                if let Some((admin, ingress)) = addresses(&address_file).await {
                    return (admin, ingress);
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let (admin, ingress) = tokio::select! {
            addresses = timeout(START_TIMEOUT, serving) => addresses
                .map_err(|_| Failure::TooLate { what: "Envoy did not become ready and see both receivers healthy", log_tail: log.text() })?,
            status = process.wait() => return Err(stopped(status, &log).await),
        };
        Ok(Self { process, log, admin, ingress })
    }

    /// Its admin interface.
    pub fn admin(&self) -> Admin {
        self.admin
    }

    /// Returns only if Envoy ends although nobody asked it to.
    pub async fn unexpected_end(&mut self) -> Failure {
        let status = self.process.wait().await;
        stopped(status, &self.log).await
    }

    /// This did not happen in time.
    pub fn too_late(&self, what: &'static str) -> Failure {
        Failure::TooLate { what, log_tail: self.log.text() }
    }

    /// Asks it to end, and kills it if it does not.
    pub async fn stop(mut self) {
        // It may close the connection before it answers; what counts is whether the process ends.
        let asked = self.admin.ask(Method::POST, "/quitquitquit").await;
        let ended = timeout(STOP_TIMEOUT, self.process.wait()).await;
        if asked.is_none() || ended.is_err() {
            // An error here means that it has ended already.
            self.process.kill().await.unwrap_or_default();
        }
    }
}

impl Admin {
    /// The filter's gauges; `None` if admin does not answer. Without the filter all of them are 0.
    pub async fn gauges(self) -> Option<Gauges> {
        let text = self.ask(Method::GET, "/stats?filter=wasmcustom.redeliver_").await?;
        let gauge = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix("wasmcustom.redeliver_")?.strip_prefix(name));
            value.and_then(|value| value.strip_prefix(": ")?.trim().parse().ok()).unwrap_or(0)
        };
        let destinations_down = gauge("destinations_down");
        Some(Gauges { queued: gauge("queued"), in_flight: gauge("in_flight"), destinations_down })
    }

    /// Every destination has a healthy host. A start under load can begin with failed checks, because loading the module
    /// holds up the thread that runs them.
    async fn all_healthy(self) -> Option<()> {
        let stats = self.ask(Method::GET, "/stats?filter=membership_healthy").await?;
        let healthy = |destination: Destination| {
            let line = format!("cluster.{}.membership_healthy: 1", destination.cluster());
            stats.lines().any(|found| found == line)
        };
        (healthy(Destination::Orders) && healthy(Destination::Payments)).then_some(())
    }

    async fn ask(self, method: Method, path: &str) -> Option<String> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().ok()?;
        request.headers_mut().insert("host", hyper::header::HeaderValue::from_static("admin"));
        let response = timeout(ADMIN_TIMEOUT, wire::exchange(self.0, request)).await.ok()?.ok()?;
        (response.status() == StatusCode::OK).then(|| String::from_utf8_lossy(response.body()).into_owned())
    }

    /// The first line that starts with `ingress::` names the listener's address.
    async fn ingress(self) -> Option<SocketAddr> {
        let listeners = self.ask(Method::GET, "/listeners").await?;
        listeners.lines().find_map(|line| line.strip_prefix("ingress::")?.trim().parse().ok())
    }
}

/// Admin's and the ingress listener's addresses, once Envoy is ready and sees both receivers.
async fn addresses(address_file: &std::path::Path) -> Option<(Admin, SocketAddr)> {
    let admin = Admin(std::fs::read_to_string(address_file).ok()?.trim().parse().ok()?);
    admin.ask(Method::GET, "/ready").await?;
    admin.all_healthy().await?;
    Some((admin, admin.ingress().await?))
}

async fn stopped(status: std::io::Result<std::process::ExitStatus>, log: &LogTail) -> Failure {
    // The log's last lines are still in the pipe when the process is gone.
    sleep(Duration::from_millis(100)).await;
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    Failure::Stopped { status, log_tail: log.text() }
}

async fn read_log(stderr: ChildStderr, tail: LogTail, events: mpsc::UnboundedSender<Event>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(event) = state_change(&line) {
            // Nobody listens any more when the story is over.
            events.send(event).unwrap_or_default();
        }
        tail.push(line);
    }
}

/// The filter's note `destination <cluster>: <state> -> <state> (<why>)`.
fn state_change(line: &str) -> Option<Event> {
    let note = line.split_once("destination ").filter(|_| line.contains("wasm log"))?.1;
    let (cluster, change) = note.split_once(": ")?;
    let (_from, to) = change.split_once(" -> ")?;
    let state = to.split([' ', '(']).next()?.to_owned();
    Some(Event::State { cluster: cluster.to_owned(), state, change: change.trim_end().to_owned() })
}

impl LogTail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().expect("no task panics while it holds the log");
        if lines.len() == LOG_TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn text(&self) -> String {
        let lines = self.0.lock().expect("no task panics while it holds the log");
        lines.iter().map(|line| format!("    {line}\n")).collect()
    }
}
