//! The HTTP request by which a WebSocket begins (RFC 6455, 4.2), and its answer. Whoever asks wrongly is
//! told what is missing, in plain text, and the connection ends.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use crate::broker::transport::{Transport, WebSocket};

/// Longest head of a request: browsers send cookies along.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// Subprotocols that are taken, the best first: `[MQTT-6.0.0-3]` and `[MQTT-6.0.0-4]` name the first one,
/// clients of MQTT 3.1 (and mosquitto) the second.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("answered {status}: {why}")]
    Refused { status: &'static str, why: String },
    #[error("the socket ended within the request: {0}")]
    Socket(#[from] io::Error),
}

fn refused(status: &'static str, why: impl Into<String>) -> UpgradeError {
    let why = why.into();
    UpgradeError::Refused { status, why }
}

/// Takes a WebSocket on `path`.
pub(super) async fn upgrade(mut below: Transport, path: &str) -> Result<WebSocket, UpgradeError> {
    match request(&mut below, path).await {
        Ok((answer, early)) => {
            below.write_all(&answer).await?;
            below.flush().await?;
            Ok(WebSocket::new(below, early))
        }
        Err(UpgradeError::Refused { status, why }) => {
            let len = why.len() + 1;
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\n\
                 Content-Type: text/plain\r\nContent-Length: {len}\r\n\r\n{why}\n"
            );
            below.write_all(answer.as_bytes()).await?;
            below.shutdown().await?;
            Err(UpgradeError::Refused { status, why })
        }
        Err(error) => Err(error),
    }
}

/// The answer to the request, and what came behind it.
async fn request(below: &mut Transport, path: &str) -> Result<(Vec<u8>, Bytes), UpgradeError> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let left = HEAD_BYTES_MAX - head.len();
        if left == 0 {
            let why = format!("the request's head is longer than {HEAD_BYTES_MAX} bytes");
            return Err(refused("431 Request Header Fields Too Large", why));
        }
        if below.take(left as u64).read_buf(&mut head).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some((len, request)) = Request::try_parse(&head).map_err(not_understood)? {
            let early = Bytes::copy_from_slice(&head[len..]);
            return Ok((answer(&request, path)?, early));
        }
    }
}

fn answer(request: &Request, path: &str) -> Result<Vec<u8>, UpgradeError> {
    if request.uri().path() != path {
        return Err(refused("404 Not Found", format!("MQTT is spoken at {path}")));
    }
    let mut response = create_response(request).map_err(not_understood)?;
    let key = request.headers().get("Sec-WebSocket-Key");
    if !key.is_some_and(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16)) {
        return Err(refused(
            "400 Bad Request",
            "Sec-WebSocket-Key has to be 16 bytes in base64",
        ));
    }
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let offered: Vec<&str> = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let Some(chosen) = SUBPROTOCOLS.into_iter().find(|known| offered.contains(known)) else {
        return Err(refused(
            "400 Bad Request",
            "Sec-WebSocket-Protocol has to offer mqtt [MQTT-6.0.0-3]",
        ));
    };
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, &response).map_err(not_understood)?;
    Ok(bytes)
}

fn not_understood(error: Error) -> UpgradeError {
    match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => {
            refused("405 Method Not Allowed", "a WebSocket begins with GET")
        }
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            refused("426 Upgrade Required", "Sec-WebSocket-Version has to be 13")
        }
        Error::Protocol(
            ProtocolError::MissingConnectionUpgradeHeader | ProtocolError::MissingUpgradeWebSocketHeader,
        ) => refused(
            "426 Upgrade Required",
            "this is MQTT over WebSocket and no web page",
        ),
        error => refused("400 Bad Request", error.to_string()),
    }
}
