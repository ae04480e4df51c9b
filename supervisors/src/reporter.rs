//! Brings reports to the sink: at once, or by a thread of its own when that takes time.
//!
//! A report with a backtrace is slow to render. It is handed to a thread, which is started for the first one
//! (so never, unless `RUST_BACKTRACE` asks for backtraces), and reports that come meanwhile queue up behind
//! it: their order stays. The queue is bounded; what finds it full goes to the sink at once, without its
//! backtrace, and is counted.

use crate::panic::guard;
use crate::report::{Report, ReportSink};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// Reports that wait for the thread. A storm makes three per restart; each is a few hundred bytes.
const WAITING_MAX: usize = 1024;

/// Of all trees.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Reports of this program that wait until frames are resolved; always 0 without `RUST_BACKTRACE`.
pub fn reports_waiting() -> usize {
    WAITING.load(Acquire)
}

pub(crate) struct Reporter {
    sink: ReportSink,
    thread: OnceLock<Option<SyncSender<Order>>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Handed to the thread and not yet out of the sink.
    waiting: AtomicUsize,
    /// Backtraces that found the queue full.
    dropped: AtomicU64,
}

enum Order {
    Report(Box<Report>),
    Flush(oneshot::Sender<()>),
}

impl Counts {
    fn waits(&self) {
        WAITING.fetch_add(1, AcqRel);
        self.waiting.fetch_add(1, AcqRel);
    }

    fn is_out(&self) {
        self.waiting.fetch_sub(1, AcqRel);
        WAITING.fetch_sub(1, AcqRel);
    }
}

impl Reporter {
    pub(crate) fn new(sink: ReportSink) -> Self {
        Reporter {
            sink,
            thread: OnceLock::new(),
            counts: Arc::default(),
        }
    }

    /// Backtraces that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    pub(crate) fn report(&self, report: &Report) {
        if !report.is_slow() && self.counts.waiting.load(Acquire) == 0 {
            return tell(&self.sink, report);
        }
        self.counts.waits();
        let order = Order::Report(Box::new(report.clone()));
        let refused = match self.thread() {
            Some(thread) => thread.try_send(order).is_err(),
            None => true,
        };
        if refused {
            self.counts.is_out();
            self.counts
                .dropped
                .fetch_add(u64::from(report.is_slow()), Relaxed);
            tell(&self.sink, &report.clone().without_backtrace());
        }
    }

    /// Waits until everything reported so far is out.
    pub(crate) async fn flush(&self) {
        let Some(Some(thread)) = self.thread.get() else {
            return;
        };
        let (done, out) = oneshot::channel();
        if thread.try_send(Order::Flush(done)).is_ok() {
            // Dropped unanswered: the thread is gone, and with it what it had.
            let _ = out.await;
        }
    }

    fn thread(&self) -> Option<&SyncSender<Order>> {
        let start = || {
            let (orders, inbox) = sync_channel(WAITING_MAX);
            let (sink, counts) = (self.sink.clone(), self.counts.clone());
            let work = move || {
                let mut told = 0;
                for order in inbox {
                    match order {
                        Order::Report(report) => {
                            tell(&sink, &report);
                            counts.is_out();
                        }
                        Order::Flush(done) => drop(done.send(())),
                    }
                    let dropped = counts.dropped.load(Relaxed);
                    if dropped > told && counts.waiting.load(Acquire) == 0 {
                        tracing::warn!(target: "supervisor", "{} backtraces were dropped", dropped - told);
                        told = dropped;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("reporter".into()).spawn(work);
            if let Err(error) = &thread {
                tracing::warn!(target: "supervisor", "there is no thread for backtraces: {error}");
            }
            thread.ok().map(|_| orders)
        };
        self.thread.get_or_init(start).as_ref()
    }
}

fn tell(sink: &ReportSink, report: &Report) {
    // A sink that panics must not take the reporting process (or the report of its exit) along.
    if let Err(panic) = guard(|| sink(report)) {
        eprintln!(
            "the report sink panicked: {} at {}\n{}",
            panic.message,
            panic.location,
            report.render_text()
        );
    }
}
