//! The handshake on a stream. Reads exactly its frames, so that the stream can be handed on after it.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Client, HandshakeError, Identity, Nonce, PROTOCOL_VERSIONS, Proved, Purpose, Server, Step};
use crate::limits::{HANDSHAKE_DEADLINE, HANDSHAKE_FRAME_BYTES_MAX};
use crate::node_name::{NodeId, NodeName};
use crate::registry::cookie::Cookie;
use crate::registry::jar::{Accepted, CookieJar};
use crate::registry::wire::{FrameError, read_frame, write_frame};

/// A stream that a handshake may run on.
pub trait Channel: AsyncRead + AsyncWrite + Unpin {
    /// What both ends know of this connection and nobody else can make equal for two; empty on plain TCP.
    fn binding(&self) -> &[u8] {
        &[]
    }
}

impl Channel for TcpStream {}

#[cfg(test)]
impl Channel for tokio::io::DuplexStream {}

/// Proves the cookie to the node that was dialled, and has it prove it. With `expect` only that node
/// will do. Within `HANDSHAKE_DEADLINE`.
///
/// # Errors
/// Any [`HandshakeError`]; the stream has to be closed.
pub async fn prove_as_client<S: Channel>(
    stream: &mut S,
    cookie: &Cookie,
    purpose: Purpose,
    me: &Identity,
    expect: Option<&NodeName>,
) -> Result<Proved, HandshakeError> {
    let nonce = fresh_nonce()?;
    let (client, hello) = Client::start(
        cookie.clone(),
        me.clone(),
        purpose,
        expect.cloned(),
        PROTOCOL_VERSIONS,
        nonce,
    );
    let mut client = client.bound_to(stream.binding());
    let exchange = async {
        say(stream, &hello, 1).await?;
        for step in [2, 4] {
            let frame = hear(stream, step).await?;
            if let Some(proved) = take(stream, client.step(&frame)?, step + 1).await? {
                return Ok(proved);
            }
        }
        Err(HandshakeError::Malformed { step: 4 })
    };
    timeout(HANDSHAKE_DEADLINE, exchange)
        .await
        .unwrap_or(Err(HandshakeError::Silent))
}

/// Has the one that dialled prove one of the cookies that are good now, and then proves that to it. `doors`
/// are the purposes this port takes. Within `HANDSHAKE_DEADLINE`.
///
/// # Errors
/// Any [`HandshakeError`]; the stream has to be closed.
pub async fn prove_as_server<S: Channel>(
    stream: &mut S,
    cookies: &CookieJar,
    doors: &[Purpose],
    me: &NodeId,
) -> Result<Proved, HandshakeError> {
    let Accepted { valid, retired } = cookies.accepted(std::time::Instant::now());
    let (current, others) = valid.split_first().expect("a jar has a current cookie");
    let mut server = Server::new(
        current.clone(),
        me.clone(),
        doors,
        PROTOCOL_VERSIONS,
        fresh_nonce()?,
    )
    .also_taking(others, &retired)
    .bound_to(stream.binding());
    let exchange = async {
        for step in [1, 3] {
            let frame = hear(stream, step).await?;
            if let Some(proved) = take(stream, server.step(&frame)?, step + 1).await? {
                return Ok(proved);
            }
        }
        Err(HandshakeError::Malformed { step: 3 })
    };
    timeout(HANDSHAKE_DEADLINE, exchange)
        .await
        .unwrap_or(Err(HandshakeError::Silent))
}

fn fresh_nonce() -> Result<Nonce, HandshakeError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| HandshakeError::NoRandom(error.to_string()))?;
    Ok(nonce)
}

async fn take<S: AsyncWrite + Unpin>(
    stream: &mut S,
    step: Step,
    number: u8,
) -> Result<Option<Proved>, HandshakeError> {
    match step {
        Step::Say(frame) => say(stream, &frame, number).await.map(|()| None),
        Step::Done { say: None, proved } => Ok(Some(proved)),
        Step::Done {
            say: Some(frame),
            proved,
        } => say(stream, &frame, number).await.map(|()| Some(proved)),
        Step::Refuse { say: frame, error } => {
            // Whether the other side hears it or not, our reason stands.
            let _ = say(stream, &frame, number).await;
            Err(error)
        }
    }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, frame: &[u8], step: u8) -> Result<(), HandshakeError> {
    write_frame(stream, frame)
        .await
        .map_err(|error| failed(error, step))
}

async fn hear<S: AsyncRead + Unpin>(stream: &mut S, step: u8) -> Result<Vec<u8>, HandshakeError> {
    read_frame(stream, HANDSHAKE_FRAME_BYTES_MAX)
        .await
        .map_err(|error| failed(error, step))
}

fn failed(error: FrameError, step: u8) -> HandshakeError {
    match error {
        FrameError::Closed => HandshakeError::Closed { step },
        // The length of whatever is not ours: "HTTP" would be 1.2 GB.
        FrameError::Long(_) if step <= 2 => HandshakeError::NotErmine,
        FrameError::Long(_) | FrameError::Malformed => HandshakeError::Malformed { step },
        FrameError::Io(cause) => HandshakeError::Io { step, cause },
    }
}

#[cfg(test)]
mod tests;
