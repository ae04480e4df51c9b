//! `ermine tree --watch`: the drawing, drawn again every second.

use std::io::IsTerminal;
use std::time::Duration;

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
pub(super) async fn tree(found: &Found, all: bool) -> Result<(), Failure> {
    let terminal = std::io::stdout().is_terminal();
    if terminal {
        say(ALTERNATE_SCREEN);
    }
    let ended = tokio::select! {
        ended = draw(found, all, terminal) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if terminal {
        say(MAIN_SCREEN);
    }
    ended
}

/// Ends only with a failure: the node is gone.
async fn draw(found: &Found, all: bool, terminal: bool) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(PERIOD);
    loop {
        tick.tick().await;
        let drawing = drawing::tree(&found.tree().await?, all);
        if terminal {
            let lines = drawing.replace('\n', &format!("{CLEAR_LINE}\n"));
            say(&format!("{HOME}{lines}{CLEAR_BELOW}"));
        } else {
            say(&format!("{drawing}\n"));
        }
    }
}
