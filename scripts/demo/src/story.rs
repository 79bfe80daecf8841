//! The story in its order: all is well, a receiver goes away, it comes back, the backlog drains, the books are closed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::books::{Books, Verdict};
use crate::bootstrap;
use crate::envoy::{Envoy, WORKERS};
use crate::failure::Failure;
use crate::message::Destination;
use crate::options::Options;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::view::View;

/// Long enough to see that all is well.
const NORMAL: Duration = Duration::from_secs(3);
/// Long enough for health checks to fail, the state to go down and a backlog to grow.
const OUTAGE: Duration = Duration::from_secs(6);
/// From the return: a health check (1 s), stable_for (2 s), a probe and the drain, with room for a busy machine.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);
/// The sending goes on this long after the backlog is gone: the state goes up, and late duplicates would show.
const AFTERMATH: Duration = Duration::from_secs(1);
/// A message that was stored at the very end waits for its first backoff (1 s and its jitter) and for its turn.
const STRAGGLERS: Duration = Duration::from_secs(8);
/// The limit on everything but the start, which has its own: the phases above, and ten seconds for stragglers.
const STORY_LIMIT: Duration = Duration::from_secs(3 + 6 + 15 + 2 + 10);

/// Tells it from start to end. Envoy is stopped whatever happens.
pub async fn tell(options: &Options) -> Result<Verdict, Failure> {
    let books = Arc::new(Books::default());
    let orders = Receiver::new(Destination::Orders, Arc::clone(&books))?;
    let payments = Receiver::new(Destination::Payments, Arc::clone(&books))?;
    let receivers = [(Destination::Orders, orders.address()), (Destination::Payments, payments.address())];
    let bootstrap = bootstrap::prepare(&options.config, &receivers)?;
    check_files(options, &bootstrap)?;
    let (orders, payments) = (orders.come()?, payments.come()?);

    let view = View::start(Arc::clone(&books));
    view.chapter(format!("starting Envoy with {WORKERS} workers from {}", options.config.display()));
    let told = tokio::select! {
        told = with_envoy(options, &bootstrap, orders, &books, &view) => told,
        () = interruption() => Err(Failure::Interrupted),
    };
    let _gone = payments.leave().await?;
    view.end().await;
    told.map(|()| books.verdict())
}

/// Said before Envoy is started, because Envoy would say it at the end of a long log.
fn check_files(options: &Options, bootstrap: &bootstrap::Bootstrap) -> Result<(), Failure> {
    let unreadable = |what, path: &std::path::Path, cure| {
        let error = std::fs::File::open(path).err()?;
        Some(Failure::Unreadable { what, path: path.to_owned(), cause: error.to_string(), cure })
    };
    let module = bootstrap.module.as_deref();
    let no_module = module.and_then(|path| unreadable("the filter", path, "build it with scripts/build.sh"));
    let no_envoy = unreadable("Envoy", &options.envoy, "run scripts/demo.sh, which gets the pinned one");
    no_module.or(no_envoy).map_or(Ok(()), Err)
}

async fn with_envoy(
    options: &Options,
    bootstrap: &bootstrap::Bootstrap,
    orders: Receiver,
    books: &Arc<Books>,
    view: &View,
) -> Result<(), Failure> {
    let mut envoy = Envoy::start(options, bootstrap, view.events()).await?;
    view.ready(envoy.admin());
    let sender = Sender::start(envoy.ingress, Arc::clone(books));
    let ended = tokio::select! {
        ended = timeout(STORY_LIMIT, outage(orders, sender, books, view)) => match ended {
            Ok(told) => told,
            Err(_) => Err(envoy.too_late("the story did not come to its end")),
        },
        failure = envoy.unexpected_end() => return Err(failure),
    };
    envoy.stop().await;
    ended
}

async fn outage(orders: Receiver, sender: Sender, books: &Arc<Books>, view: &View) -> Result<(), Failure> {
    view.chapter("Envoy is ready: 100 messages a second, to orders and to payments");
    sleep(NORMAL).await;

    view.chapter("the receiver of orders goes away: it stops accepting, finishes what it has, exits");
    let orders = orders.leave().await?;
    sleep(OUTAGE).await;

    view.chapter("the receiver of orders is back");
    let orders = orders.come()?;
    // The sending goes on while the backlog drains. What does not drain in time is for the books to judge.
    if timeout(DRAIN_LIMIT, until(|| books.totals().waiting == 0)).await.is_ok() {
        view.chapter("everything stored so far is delivered");
        sleep(AFTERMATH).await;
    } else {
        view.chapter("the backlog did not drain in time");
    }

    sender.stop().await;
    // Workers learn of the health up to a second apart, so the last messages may have been stored just now.
    let drained = timeout(STRAGGLERS, until(|| books.totals().lost == 0)).await;
    sleep(if drained.is_ok() { AFTERMATH } else { Duration::ZERO }).await;
    let _gone = orders.leave().await?;
    Ok(())
}

async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Ctrl-C, or SIGTERM from whoever runs us: Envoy must not outlive the demo.
fn interruption() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    async {
        let mut terminated = signal(SignalKind::terminate()).expect("SIGTERM can be caught");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
    }
}
