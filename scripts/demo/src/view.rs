//! What the reader sees: events as lines, and between them the figures, as a live line on a terminal or as one plain
//! line a second elsewhere. It only shows: nothing here decides how the demo ends.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use console::style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::books::{Books, Totals};
use crate::envoy::{Admin, Gauges};
use crate::message::Destination;

/// Often enough to look alive.
const FRAME: Duration = Duration::from_millis(200);
/// Without a terminal: one line a second.
const FRAMES_PER_LINE: u32 = 5;

/// Something to show as a line of its own.
pub enum Event {
    /// The story goes on.
    Chapter(String),
    /// The filter says that a destination changed its state.
    State { cluster: String, state: String, change: String },
    /// From now on there are figures.
    Ready(Admin),
    /// The story is over.
    End,
}

/// The task that owns the screen.
pub struct View {
    events: mpsc::UnboundedSender<Event>,
    task: JoinHandle<()>,
}

impl View {
    /// A view of these books.
    pub fn start(books: Arc<Books>) -> Self {
        let (events, incoming) = mpsc::unbounded_channel();
        Self { events, task: tokio::spawn(show(Screen::new(), books, incoming)) }
    }

    /// Shows `text` as a line.
    pub fn chapter(&self, text: impl Into<String>) {
        self.send(Event::Chapter(text.into()));
    }

    /// Shows figures from now on.
    pub fn ready(&self, admin: Admin) {
        self.send(Event::Ready(admin));
    }

    /// Where others send events.
    pub fn events(&self) -> mpsc::UnboundedSender<Event> {
        self.events.clone()
    }

    /// Leaves the screen as it is, the live line removed.
    pub async fn end(self) {
        self.send(Event::End);
        self.task.await.expect("the view does not panic");
    }

    fn send(&self, event: Event) {
        // The view ends last, and if it ever ended early the story must still go on.
        self.events.send(event).unwrap_or_default();
    }
}

async fn show(mut screen: Screen, books: Arc<Books>, mut events: mpsc::UnboundedReceiver<Event>) {
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut admin = None;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Chapter(text)) => screen.line(&style(text).bold().to_string()),
                Some(Event::State { cluster, state, change }) => screen.state(cluster, state, &change),
                Some(Event::Ready(ready)) => admin = Some(ready),
                Some(Event::End) | None => break,
            },
            _ = frames.tick() => if let Some(admin) = admin {
                screen.frame(books.totals(), Admin::gauges(admin).await.unwrap_or_default());
            },
        }
    }
    screen.bar.finish_and_clear();
}

struct Screen {
    started: Instant,
    bar: ProgressBar,
    frames: u32,
    /// The last state that the filter told, by cluster; until it tells one, a destination is up.
    states: BTreeMap<String, String>,
}

impl Screen {
    fn new() -> Self {
        // indicatif draws nothing if this is no terminal; `frame` prints plain lines then.
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stdout());
        let template = "{spinner:.cyan} backlog {bar:12.yellow/dim} {pos:>4}  {wide_msg}";
        bar.set_style(ProgressStyle::with_template(template).expect("the template is ours and valid"));
        let clusters = [Destination::Orders, Destination::Payments].map(Destination::cluster);
        let states = clusters.map(|cluster| (cluster.to_owned(), "up".to_owned())).into();
        Self { started: Instant::now(), bar, frames: 0, states }
    }

    fn line(&self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            // A reader that has seen enough (`| head`) ends neither the story nor its verdict.
            writeln!(std::io::stdout(), "{line}").unwrap_or_default();
        } else {
            self.bar.println(line);
        }
    }

    /// Each worker may tell the same change; it is shown once.
    fn state(&mut self, cluster: String, state: String, change: &str) {
        let text = format!("{cluster}: {change}");
        if self.states.get(&cluster) != Some(&state) {
            self.line(&coloured(&state, &text));
        }
        self.states.insert(cluster, state);
    }

    fn frame(&mut self, totals: Totals, gauges: Gauges) {
        let states: Vec<String> =
            self.states.iter().map(|(cluster, state)| format!("{cluster} {}", coloured(state, state))).collect();
        let states = states.join(", ");
        let Totals { sent, delivered, stored, .. } = totals;
        let Gauges { queued, in_flight, destinations_down } = gauges;
        if !self.bar.is_hidden() {
            // The state first: a narrow terminal cuts the end off.
            self.bar.set_message(format!("{states}  sent {sent}  delivered {delivered}  stored {stored}"));
            self.bar.set_length(self.bar.length().unwrap_or(0).max(queued));
            self.bar.set_position(queued);
            self.bar.tick();
        } else if self.frames.is_multiple_of(FRAMES_PER_LINE) {
            self.line(&format!(
                "sent {sent:>4}  delivered {delivered:>4}  stored {stored:>4}  queued {queued:>4}  \
                 in flight {in_flight:>2}  down {destinations_down}  {states}"
            ));
        }
        self.frames += 1;
    }
}

/// Colours only on a terminal; console sees to that.
fn coloured(state: &str, text: &str) -> String {
    match state {
        "up" => style(text).green().to_string(),
        "down" => style(text).red().to_string(),
        "probing" | "ramping" => style(text).yellow().to_string(),
        _ => text.to_owned(),
    }
}
