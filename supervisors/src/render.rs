//! Reports as people read them: SASL's multi-line text, and one JSON object a line.

use crate::exit::ExitReason;
use crate::report::{Cause, ChildFacts, CrashReport, ProgressReport, Report, RestartCount, SupervisorReport};
use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;

impl Report {
    /// OTP's text, with our fields after OTP's. Times are UTC. Does not end with a newline.
    pub fn render_text(&self) -> String {
        let mut text = String::with_capacity(512);
        // Writing into a String cannot fail.
        let _ = match self {
            Report::Supervisor(report) => supervisor(&mut text, report),
            Report::Progress(report) => progress(&mut text, report),
            Report::Crash(report) => crash(&mut text, report),
        };
        text
    }

    /// One JSON object, without newlines.
    pub fn render_json(&self) -> String {
        serde_json::to_string(self)
            .unwrap_or_else(|error| format!("{{\"report\":\"unrenderable: {error}\"}}"))
    }
}

type Rendered = std::fmt::Result;

fn head(text: &mut String, kind: &str, at: SystemTime) -> Rendered {
    let at = time::OffsetDateTime::from(at);
    let month = &at.month().to_string()[..3];
    let (hour, minute, second, micro) = (at.hour(), at.minute(), at.second(), at.microsecond());
    write!(text, "={kind} REPORT==== {}-{month}-{}::", at.day(), at.year())?;
    write!(text, "{hour:02}:{minute:02}:{second:02}.{micro:06} ===")
}

fn supervisor(text: &mut String, report: &SupervisorReport) -> Rendered {
    head(text, "SUPERVISOR", report.at)?;
    write!(text, "\n    supervisor: {}", report.supervisor)?;
    write!(text, "\n    errorContext: {}", report.error_context.as_str())?;
    match &report.reason {
        Cause::Exit(reason) => write!(text, "\n    reason: {}", indented(&reason.to_string()))?,
        Cause::ReachedMaxRestartIntensity => text.push_str("\n    reason: reached_max_restart_intensity"),
        Cause::Unresponsive { for_ms, thread } => {
            write!(text, "\n    reason: has held the thread {thread} for {for_ms} ms")?;
        }
    }
    text.push_str("\n    offender: ");
    facts(text, &report.offender, "               ")?;
    match report.restart {
        Some(count) => restart(text, count),
        None => Ok(()),
    }
}

fn restart(text: &mut String, count: RestartCount) -> Rendered {
    let period = match count.period_ms {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    };
    let RestartCount { n, intensity, .. } = count;
    if n > intensity {
        return write!(text, "\n    restart: none left of {intensity} in {period}");
    }
    write!(text, "\n    restart: {n} of {intensity} in {period}")
}

fn progress(text: &mut String, report: &ProgressReport) -> Rendered {
    head(text, "PROGRESS", report.at)?;
    write!(text, "\n    supervisor: {}", report.supervisor)?;
    text.push_str("\n    started: ");
    facts(text, &report.started, "              ")?;
    write!(text, "\n    generation: {}", report.generation)?;
    if let Some(restarted) = &report.restarted {
        restart(text, restarted.restart)?;
        write!(text, "\n    downtime_us: {}", restarted.downtime_us)?;
        write!(
            text,
            "\n    children_restarted: {}",
            list(&restarted.children_restarted)
        )?;
    }
    Ok(())
}

fn crash(text: &mut String, report: &CrashReport) -> Rendered {
    head(text, "CRASH", report.at)?;
    text.push_str("\n  crasher:");
    write!(text, "\n    initial call: {}", report.actor)?;
    write!(text, "\n    pid: {}", report.pid)?;
    write!(text, "\n    registered_name: {}", report.path)?;
    let backtrace = match &report.reason {
        ExitReason::Panic(panic) => {
            write!(text, "\n    exception error: {}", indented(&panic.message))?;
            write!(text, "\n      in {}", panic.location)?;
            panic.backtrace.as_ref().map(|trace| trace.text())
        }
        reason => {
            write!(text, "\n    exception exit: {}", indented(&reason.to_string()))?;
            None
        }
    };
    write!(text, "\n    ancestors: {}", list(&report.ancestors))?;
    write!(text, "\n    message_queue_len: {}", report.mailbox_len)?;
    write!(text, "\n    generation: {}", report.generation)?;
    match backtrace {
        Some(backtrace) => write!(text, "\n    backtrace:\n{}", backtrace.trim_end()),
        None => Ok(()),
    }
}

/// `assert_eq!` panics with several lines; they stay inside the report.
fn indented(text: &str) -> String {
    text.replace('\n', "\n        ")
}

fn list(items: &[Arc<str>]) -> String {
    format!("[{}]", items.join(","))
}

fn facts(text: &mut String, child: &ChildFacts, indent: &str) -> Rendered {
    match (child.nb_children, &child.pid) {
        (Some(number), _) => write!(text, "[{{nb_children,{number}}}")?,
        (None, Some(pid)) => write!(text, "[{{pid,{pid}}}")?,
        (None, None) => text.push_str("[{pid,undefined}"),
    }
    for (key, value) in [
        ("id", &*child.id),
        ("actor", child.actor),
        ("restart_type", &child.restart_type.to_string()),
        ("significant", if child.significant { "true" } else { "false" }),
        ("shutdown", &child.shutdown.to_string()),
        ("child_type", child.child_type),
    ] {
        write!(text, ",\n{indent}{{{key},{value}}}")?;
    }
    text.push(']');
    Ok(())
}

#[cfg(test)]
mod tests;
