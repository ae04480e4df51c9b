//! `ermine pub`

use std::path::Path;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::{Client, PACKET_BYTES_MAX, qos};
use crate::cli::args::PubArgs;
use crate::cli::failure::Failure;
use crate::mqtt::topic::check_name;

/// Publishes what the arguments say, waits until the broker has it, and ends.
pub(crate) async fn publish(args: &PubArgs) -> Result<(), Failure> {
    check_name(&args.topic)
        .map_err(|error| Failure::usage(format!("-t '{}': {error}", args.topic.escape_debug())))?;
    let payload = payload(args).await?;
    let mut client = Client::connect(&args.broker, true).await?;
    let qos = qos(&args.broker);
    if let Some(payload) = payload {
        client.publish(&args.topic, payload, qos, args.retain).await?;
    } else {
        let mut lines = BufReader::new(tokio::io::stdin());
        while let Some(line) = line(&mut lines).await? {
            client.publish(&args.topic, line, qos, args.retain).await?;
        }
    }
    client.end().await;
    Ok(())
}

/// The one payload, or nothing where every line is one.
async fn payload(args: &PubArgs) -> Result<Option<Bytes>, Failure> {
    if args.lines {
        return Ok(None);
    }
    if let Some(text) = &args.message {
        return Ok(Some(text.clone().into()));
    }
    if let Some(path) = &args.file {
        return file(path).map(Some);
    }
    let mut bytes = Vec::new();
    if args.stdin {
        let input = tokio::io::stdin().take(u64::from(PACKET_BYTES_MAX));
        let mut input = BufReader::new(input);
        input
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| unreadable("standard input", &error))?;
    }
    Ok(Some(bytes.into()))
}

fn file(path: &Path) -> Result<Bytes, Failure> {
    use std::io::Read;
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(u64::from(PACKET_BYTES_MAX))
            .read_to_end(&mut bytes)?;
        Ok(Bytes::from(bytes))
    };
    read().map_err(|error: std::io::Error| unreadable(&path.display().to_string(), &error))
}

/// The next line without its end, of at most what a packet can hold.
async fn line(input: &mut BufReader<tokio::io::Stdin>) -> Result<Option<Bytes>, Failure> {
    let mut line = Vec::new();
    let mut bounded = input.take(u64::from(PACKET_BYTES_MAX));
    let read = bounded.read_until(b'\n', &mut line).await;
    if read.map_err(|error| unreadable("standard input", &error))? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line.into()))
}

fn unreadable(what: &str, error: &std::io::Error) -> Failure {
    Failure::command(format!("cannot read {what}: {error}"))
}
