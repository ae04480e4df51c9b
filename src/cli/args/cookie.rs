//! The words of `ermine cookie`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CookieArgs, ListArgs};
use crate::limits::COOKIE_GRACE_MAX;

/// `ermine cookie …`
#[derive(Subcommand, Debug)]
pub(in crate::cli) enum CookieCommand {
    /// Print a short hash of the cookie: where it is equal, cookies are equal
    Fingerprint {
        #[command(flatten)]
        cookie: CookieArgs,
    },
    /// Give all nodes of a cluster a new cookie, and rewrite their files, while everything goes on
    Rotate(RotateArgs),
}

/// `ermine cookie rotate`
#[derive(Args, Debug)]
pub(in crate::cli) struct RotateArgs {
    /// File with the new cookie [default: one is made, 256 random bits]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) new: Option<PathBuf>,
    /// How long the old cookie is still taken, at most 24h: for nodes that are down. 0s where it has leaked
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    pub(in crate::cli) grace: u32,
    /// Change the node that is asked and tell the others nothing: they are changed one by one
    #[arg(long, requires = "new")]
    pub(in crate::cli) only_here: bool,
    #[command(flatten)]
    pub(in crate::cli) list: ListArgs,
}

/// `90s`, `10m` or `1h` in seconds.
fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || format!("'{text}' is no time: write 90s, 10m or 1h");
    let (digits, factor) = match text.char_indices().next_back() {
        Some((end, 's')) => (&text[..end], 1),
        Some((end, 'm')) => (&text[..end], 60),
        Some((end, 'h')) => (&text[..end], 3600),
        _ => return Err(wrong()),
    };
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(factor).ok_or_else(wrong)?;
    if u64::from(seconds) > COOKIE_GRACE_MAX.as_secs() {
        return Err(format!("at most {}h", COOKIE_GRACE_MAX.as_secs() / 3600));
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_has_a_unit_and_an_end() {
        let good = ["0s", "90s", "10m", "24h"].map(seconds);
        assert_eq!(good, [Ok(0), Ok(90), Ok(600), Ok(86_400)]);
        for text in [
            "",
            "h",
            "1",
            "1d",
            "-1s",
            "1.5h",
            "25h",
            "86401s",
            "99999999h",
            "1ħ",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
