//! The log: lines for people or JSON objects for machines, on standard error.
//!
//! The thread of an actor must never wait for a terminal or a full pipe, so lines go through a bounded
//! queue to a thread that writes them. When the queue is full a line is dropped and counted; the count
//! is logged as soon as there is room.

mod line;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use supervisors::{Report, ReportSink};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::config::{LogConfig, LogFormat, LogLevel};
use line::Line;

/// Lines that wait for the writer. A burst of reports (a supervisor that gives up) fits many times.
const QUEUE_LEN_MAX: usize = 8192;

/// Longest wait at the end of the program for lines that are still queued.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

enum Entry {
    Text(String),
    Flush(SyncSender<()>),
}

/// Keeps the log open. Dropping it writes what is queued, for at most a second.
#[must_use = "without it the last lines of the log are lost"]
pub struct LogGuard(SyncSender<Entry>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        // A writer that is stuck (nobody reads the pipe) must not keep the node from ending.
        if self.0.try_send(Entry::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_DEADLINE);
        }
    }
}

/// Begins to log on standard error. Only the first call of a process counts.
///
/// # Errors
/// If the system gives no thread for the writer.
pub fn init(config: LogConfig) -> std::io::Result<LogGuard> {
    let (sender, receiver) = sync_channel(QUEUE_LEN_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let sink = Sink {
        sender: sender.clone(),
        dropped: dropped.clone(),
        format: config.format,
    };
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write(&receiver, &dropped, config.format))?;
    let colour = config.format == LogFormat::Text && std::io::stderr().is_terminal();
    let layer = LogLayer { sink, colour }.with_filter(filter(config.level));
    // An error means that a log is open already (a test's): then it goes on being the log.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    Ok(LogGuard(sender))
}

/// Our own lines from `level` on; foreign crates are heard when they warn, or when all is asked for.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let foreign = if level == LevelFilter::TRACE {
        level
    } else {
        level.min(LevelFilter::WARN)
    };
    // The carrier of links warns of every link that ends; the cluster says it better.
    let carrier = if level >= LevelFilter::DEBUG {
        foreign
    } else {
        LevelFilter::ERROR
    };
    Targets::new()
        .with_default(foreign)
        .with_target("ractor", carrier)
        .with_target("ermine", level)
        .with_target("supervisor", level)
}

/// Where a tree's reports go: into this log, as OTP's text or as JSON objects.
///
/// Supervisor and crash reports are errors, the progress report of a restart is information; the
/// progress of a first start is for debugging, since the tree that a node logs at boot says the same.
#[must_use]
pub fn report_sink(format: LogFormat) -> ReportSink {
    Arc::new(move |report: &Report| {
        let render = || match format {
            LogFormat::Text => report.render_text(),
            LogFormat::Json => report.render_json(),
        };
        match report {
            Report::Supervisor(_) | Report::Crash(_) => {
                tracing::error!(target: "supervisor", report = render());
            }
            Report::Progress(progress) if progress.restarted.is_some() => {
                tracing::info!(target: "supervisor", report = render());
            }
            Report::Progress(_) => tracing::debug!(target: "supervisor", report = render()),
        }
    })
}

/// The sending end: never waits.
struct Sink {
    sender: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
    format: LogFormat,
}

impl Sink {
    fn send(&self, text: String) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Entry::Text(text)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writer's loop; ends when every sender is gone. Errors of standard error have nowhere to go.
///
/// Standard error is locked for each write and never while waiting: `eprintln!` of another thread, which
/// says why a node does not start, would wait for ever.
fn write(receiver: &Receiver<Entry>, dropped: &AtomicU64, format: LogFormat) {
    let mut err = std::io::stderr();
    while let Ok(entry) = receiver.recv() {
        match entry {
            Entry::Text(text) => drop(err.write_all(text.as_bytes())),
            Entry::Flush(done) => drop(done.send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let mut line = Line::new("WARN", "ermine::log", SystemTime::now());
            line.message = format!("{lost} lines of the log were dropped: its reader is too slow");
            line.push("dropped", lost.into());
            drop(err.write_all(line.render(format, false).as_bytes()));
        }
    }
}

struct LogLayer {
    sink: Sink,
    colour: bool,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::new(metadata.level().as_str(), metadata.target(), SystemTime::now());
        event.record(&mut line);
        self.sink.send(line.render(self.sink.format, self.colour));
    }
}
