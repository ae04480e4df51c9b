//! One event of the log, and its two forms.

use std::fmt::{Debug, Write};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};

use crate::cli::time::stamp;
use crate::config::LogFormat;

/// Field of an event that holds a whole report, rendered in the form of the log.
const REPORT_FIELD: &str = "report";

/// Longest text of one field in bytes; topics and client ids come from strangers.
const FIELD_BYTES_MAX: usize = 4096;

/// An event while its fields are gathered.
pub(super) struct Line<'a> {
    level: &'static str,
    target: &'a str,
    at: SystemTime,
    pub(super) message: String,
    fields: Vec<(&'static str, Value)>,
    report: Option<String>,
}

impl<'a> Line<'a> {
    pub(super) fn new(level: &'static str, target: &'a str, at: SystemTime) -> Self {
        Self {
            level,
            target,
            at,
            message: String::new(),
            fields: Vec::new(),
            report: None,
        }
    }

    pub(super) fn push(&mut self, name: &'static str, value: Value) {
        self.fields.push((name, value));
    }

    /// The line with its newline. `colour` is for a terminal.
    pub(super) fn render(self, format: LogFormat, colour: bool) -> String {
        match format {
            LogFormat::Text => self.text(colour),
            LogFormat::Json => self.json(),
        }
    }

    /// `2026-02-03T04:05:06.123456Z  INFO ermine::node: message key=value`; a report stands by itself
    /// as OTP prints it, with an empty line after it.
    fn text(self, colour: bool) -> String {
        let mut text = String::with_capacity(128);
        let (begin, end) = if colour {
            (ansi(self.level), "\u{1b}[0m")
        } else {
            ("", "")
        };
        if let Some(report) = self.report {
            let (head, rest) = report.split_once('\n').unwrap_or((&report, ""));
            // Escaped line by line: a panic's message may hold anything.
            text.push_str(&format!("{begin}{}{end}\n", plain(head)));
            for line in rest.lines() {
                text.push_str(&plain(line));
                text.push('\n');
            }
            text.push('\n');
            return text;
        }
        let (at, level, target) = (stamp(self.at), self.level, self.target);
        // Writing into a String cannot fail.
        let _ = write!(text, "{at} {begin}{level:>5}{end} {target}: ");
        // A message of ours may have several lines on purpose (the tree at boot).
        let lines: Vec<String> = self.message.lines().map(plain).collect();
        text.push_str(&lines.join("\n"));
        for (name, value) in self.fields {
            let value = match value {
                Value::String(value) if bare(&value) => value,
                Value::String(value) => format!("{value:?}"),
                other => other.to_string(),
            };
            let _ = write!(text, " {name}={value}");
        }
        text.push('\n');
        text
    }

    fn json(self) -> String {
        let mut object = Map::new();
        object.insert("at".into(), stamp(self.at).into());
        object.insert("level".into(), self.level.to_ascii_lowercase().into());
        object.insert("target".into(), self.target.into());
        if !self.message.is_empty() {
            object.insert("message".into(), self.message.into());
        }
        for (name, value) in self.fields {
            object.insert(name.into(), value);
        }
        match self.report.map(|report| (serde_json::from_str(&report), report)) {
            Some((Ok(Value::Object(report)), _)) => object.extend(report),
            Some((_, report)) => drop(object.insert(REPORT_FIELD.into(), report.into())),
            None => (),
        }
        let mut text = Value::Object(object).to_string();
        text.push('\n');
        text
    }

    fn record(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (REPORT_FIELD, Value::String(text)) => self.report = Some(text),
            (name, value) => self.push(name, value),
        }
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        self.record(field, cut(field, text).into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, cut(field, value.to_owned()).into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value.into());
    }
}

/// A field's text within its bound; messages and reports are ours and stay whole.
fn cut(field: &Field, mut text: String) -> String {
    if !matches!(field.name(), "message" | REPORT_FIELD) && text.len() > FIELD_BYTES_MAX {
        let end = (0..=FIELD_BYTES_MAX)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Whether a text can stand after `key=` without quotes.
fn bare(text: &str) -> bool {
    let good = |c: char| c.is_ascii_graphic() && c != '"' && c != '=';
    !text.is_empty() && text.chars().all(good)
}

/// A line without what moves the cursor of a terminal: what strangers send cannot forge lines.
fn plain(line: &str) -> String {
    if !line.chars().any(|c| c.is_control() && c != '\t') {
        return line.to_owned();
    }
    line.chars()
        .map(|c| {
            if c.is_control() {
                c.escape_unicode().to_string()
            } else {
                c.into()
            }
        })
        .collect()
}

fn ansi(level: &str) -> &'static str {
    match level {
        "ERROR" => "\u{1b}[31m",
        "WARN" => "\u{1b}[33m",
        "INFO" => "\u{1b}[32m",
        _ => "\u{1b}[2m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        let mut line = Line::new("INFO", "ermine::node", SystemTime::UNIX_EPOCH);
        line.message = "up".into();
        line.push("node", "n1@h".into());
        line.push("clients", 3.into());
        line.push("topic", "a b\u{1b}\"".into());
        line
    }

    #[test]
    fn a_line_of_text_quotes_what_is_not_plain() {
        let text = line().render(LogFormat::Text, false);
        let head = "1970-01-01T00:00:00.000000Z  INFO ermine::node: up";
        assert_eq!(
            text,
            format!("{head} node=n1@h clients=3 topic=\"a b\\u{{1b}}\\\"\"\n")
        );
    }

    #[test]
    fn a_line_of_json_is_one_object() {
        let text = line().render(LogFormat::Json, false);
        assert_eq!(text.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["level"], "info");
        assert_eq!(value["message"], "up");
        assert_eq!(value["clients"], 3);
        assert_eq!(value["topic"], "a b\u{1b}\"");
    }

    #[test]
    fn a_report_stands_by_itself_in_text_and_is_flattened_in_json() {
        let mut line = Line::new("ERROR", "supervisor", SystemTime::UNIX_EPOCH);
        line.report = Some("=CRASH REPORT==== x ===\n    crasher: root/core\u{1b}[2J".into());
        let text = line.render(LogFormat::Text, false);
        assert_eq!(
            text,
            "=CRASH REPORT==== x ===\n    crasher: root/core\\u{1b}[2J\n\n"
        );
        let mut line = Line::new("ERROR", "supervisor", SystemTime::UNIX_EPOCH);
        line.report = Some(r#"{"report":"crash","path":"root/core"}"#.into());
        let value: Value = serde_json::from_str(&line.render(LogFormat::Json, false)).unwrap();
        assert_eq!(
            (&value["report"], &value["path"]),
            (&"crash".into(), &"root/core".into())
        );
        assert_eq!(value["level"], "error");
    }

    #[test]
    fn colours_stand_only_around_the_level() {
        let text = line().render(LogFormat::Text, true);
        assert!(text.contains("\u{1b}[32m INFO\u{1b}[0m ermine::node"));
    }
}
