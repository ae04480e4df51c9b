//! `ermine cookie …`: its fingerprint, and a new one for the whole cluster. The cookie itself is never
//! printed.

use std::time::Duration;

use crate::admin::protocol::{Reply, Request, RotateOrder, Rotated};
use crate::cli::args::{CookieCommand, RotateArgs};
use crate::cli::commands::{Found, Whereabouts, say};
use crate::cli::failure::Failure;
use crate::cli::table::Table;
use crate::cli::{show, time};
use crate::registry::sealed::Sealed;
use crate::registry::{Cookie, CookieError};

/// Does what the command says.
pub(super) async fn run(command: CookieCommand) -> Result<(), Failure> {
    match command {
        CookieCommand::Fingerprint { cookie } => {
            let secret = Whereabouts::of(&cookie)?.secret()?;
            say(&format!("{}\n", secret.fingerprint()));
            Ok(())
        }
        CookieCommand::Rotate(args) => rotate(args).await,
    }
}

async fn rotate(args: RotateArgs) -> Result<(), Failure> {
    let failed = |error: CookieError| Failure::command(error.to_string());
    let whereabouts = Whereabouts::of(&args.list.node.cookie)?;
    let old = whereabouts.secret()?;
    let file = whereabouts.cookie.file();
    let new = match &args.new {
        Some(path) => Cookie::load(path).map_err(|error| match error {
            CookieError::Missing(path) => Failure::command(format!(
                "there is no file {}: write the new cookie there, or leave --new out and one is made",
                path.display()
            )),
            error => failed(error),
        })?,
        None if file.is_none() => {
            return Err(Failure::usage(
                "your cookie is in ERMINE_COOKIE, where no new one can be written: write the new one into a \
                 file of your own and name it with --new"
                    .into(),
            ));
        }
        None => Cookie::random().map_err(failed)?,
    };
    if new.is_same_as(&old) {
        return Err(Failure::command(format!(
            "that is the cookie already (fingerprint {}): give another with --new",
            new.fingerprint()
        )));
    }
    if let Some(file) = file {
        // Found out before anything is changed: who cannot write it would be locked out.
        new.replaceable(file).map_err(failed)?;
    }
    let found = Found::find(&args.list.node, None).await?;
    let about = RotateOrder::about(found.name(), args.grace, args.only_here);
    let order = RotateOrder {
        sealed: Sealed::new(&old, &new, about).map_err(failed)?,
        grace_s: args.grace,
        only_here: args.only_here,
    };
    let rotated = found.one(Request::Rotate(order), |reply| match reply {
        Reply::Rotated(rotated) => Some(rotated),
        _ => None,
    });
    let rotated = rotated.await?;
    if let Some(file) = file {
        // The node may have written the very file already.
        new.replace(file).map_err(|error| {
            Failure::command(format!(
                "the cookie was rotated, but your own copy was not: {error}"
            ))
        })?;
    }
    say(&if args.list.output.json {
        show::as_json(&rotated)
    } else {
        text(&rotated)
    });
    Ok(())
}

fn text(rotated: &Rotated) -> String {
    let Rotated { before, after, .. } = rotated;
    let grace = match rotated.grace_s {
        0 => "the old one is refused from now on".to_owned(),
        seconds => {
            let left = time::age(Duration::from_secs(seconds.into()));
            format!("the old one is taken for {left} more")
        }
    };
    let mut table = Table::new(&["NODE", "COOKIE", "LEFT TO DO"]);
    for member in &rotated.members {
        table.row([
            member.node.to_string(),
            member.state.clone(),
            member.left_to_do.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    format!(
        "The cookie was changed from {before} to {after}; {grace}.\n{}",
        table.render()
    )
}
