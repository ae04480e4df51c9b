//! `ermine sub`

use std::io::Write;
use std::time::Duration;

use super::{Client, qos};
use crate::cli::args::SubArgs;
use crate::cli::failure::Failure;
use crate::mqtt::packet::Publish;
use crate::mqtt::topic::check_filter;

/// Prints what comes until the count is reached, the time is over, or Ctrl-C.
pub(crate) async fn subscribe(args: &SubArgs) -> Result<(), Failure> {
    for filter in &args.topic {
        check_filter(filter)
            .map_err(|error| Failure::usage(format!("-t '{}': {error}", filter.escape_debug())))?;
    }
    let mut client = Client::connect(&args.broker, !args.keep_session).await?;
    let granted = client.subscribe(&args.topic, qos(&args.broker)).await?;
    for (filter, reason) in args
        .topic
        .iter()
        .zip(&granted)
        .filter(|(_, reason)| reason.is_error())
    {
        eprintln!("ermine: the broker refused the subscription '{filter}' ({reason:?})");
    }
    if granted.iter().all(|reason| reason.is_error()) {
        return Err(Failure::command("the broker refused every subscription".into()));
    }
    let ended = tokio::select! {
        ended = listen(&mut client, args) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
        () = over(args.timeout) => match args.count {
            None => Ok(()),
            Some(count) => {
                let seconds = args.timeout.unwrap_or_default();
                Err(Failure::command(format!("fewer than {count} messages came within {seconds} s")))
            }
        },
    };
    client.end().await;
    ended
}

async fn listen(client: &mut Client, args: &SubArgs) -> Result<(), Failure> {
    let mut left = args.count;
    while left != Some(0) {
        let publish = client.message().await?;
        if publish.retain && args.no_retained {
            continue;
        }
        if print(&publish, args.verbose).is_err() {
            // Nobody reads our output any more: `ermine sub … | head -1`.
            return Ok(());
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

/// The payload as it came, and a newline; with `verbose` the topic and a blank before it.
fn print(publish: &Publish, verbose: bool) -> std::io::Result<()> {
    let mut line = Vec::with_capacity(publish.topic.len() + publish.payload.len() + 2);
    if verbose {
        line.extend_from_slice(publish.topic.as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(&publish.payload);
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

async fn over(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}
