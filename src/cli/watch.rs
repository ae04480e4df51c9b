//! `ermine tree --watch`: the drawing, drawn again every second.

use std::io::IsTerminal;
use std::time::Duration;

use terminal_size::{Height, Width, terminal_size};
use tokio::time::MissedTickBehavior;

use crate::cli::args::NodeArgs;
use crate::cli::commands::{Found, say};
use crate::cli::drawing;
use crate::cli::failure::Failure;

/// Pause between two drawings.
const PERIOD: Duration = Duration::from_secs(1);

/// To the upper left corner, and the rest of the screen cleared: no flicker, as a full clear would have.
const HOME: &str = "\u{1b}[H";
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";
const ALTERNATE_SCREEN: &str = "\u{1b}[?1049h\u{1b}[?25l";
const MAIN_SCREEN: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// Draws until Ctrl-C. Into a pipe the drawings follow each other with an empty line between them.
pub(super) async fn tree(node: &NodeArgs, all: bool) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    // Who made a mistake reads it on the normal screen.
    Found::find(node, None).await?;
    if terminal {
        say(ALTERNATE_SCREEN);
    }
    let ended = tokio::select! {
        ended = draw(node, all, terminal) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if terminal {
        say(MAIN_SCREEN);
    }
    ended
}

/// On a terminal this ends only with Ctrl-C: a node that restarts its `admin`, or itself, is what the
/// operator wants to watch.
async fn draw(node: &NodeArgs, all: bool, terminal: bool) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        tick.tick().await;
        match drawing(node, all).await {
            Ok(drawing) if !terminal => say(&format!("{drawing}\n")),
            Ok(drawing) => {
                screen(&drawing, "");
                last = drawing;
            }
            Err(failure) if !terminal => return Err(failure),
            Err(failure) => screen(&last, failure.sentence()),
        }
    }
}

async fn drawing(node: &NodeArgs, all: bool) -> Result<String, Failure> {
    let found = Found::find(node, None).await?;
    Ok(drawing::tree(&found.tree(all).await?, all))
}

/// One screen: a line about the watch, then as much of the drawing as there is room for.
fn screen(drawing: &str, trouble: &str) {
    let (Width(columns), Height(rows)) = terminal_size().unwrap_or((Width(u16::MAX), Height(u16::MAX)));
    say(&fit(drawing, trouble, usize::from(columns), usize::from(rows)));
}

fn fit(drawing: &str, trouble: &str, columns: usize, rows: usize) -> String {
    let lines: Vec<&str> = drawing.lines().collect();
    let room = rows.saturating_sub(2);
    let cut = lines.len().saturating_sub(room);
    let head = match (trouble, cut) {
        ("", 0) => "ermine tree, each second; Ctrl-C ends".into(),
        ("", cut) => format!("ermine tree, each second; Ctrl-C ends; {cut} more lines need a taller window"),
        (trouble, _) => trouble.to_owned(),
    };
    let mut text = HOME.to_owned();
    for line in [head.as_str()].into_iter().chain(lines.into_iter().take(room)) {
        text.extend(line.chars().take(columns));
        text.push_str(CLEAR_LINE);
        text.push('\n');
    }
    text + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_never_scrolls() {
        let text = fit("one\ntwo\nthree\nfour\n", "", 3, 5);
        assert_eq!(text.matches('\n').count(), 4);
        assert!(text.contains("thr\u{1b}") && !text.contains("four"), "{text:?}");
        let text = fit("one\n", "the node is away", 80, 24);
        assert!(text.contains("the node is away") && text.contains("one"));
    }
}
