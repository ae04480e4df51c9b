//! Bridges: a TCP port of this process, behind which a TLS or WebSocket connection to a listener lies. One
//! bridge takes one connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// Runs a future to its end on a thread of its own; what it says first is returned.
fn run<T, F, L>(told: F, then: impl FnOnce(T) -> L + Send + 'static) -> io::Result<SocketAddr>
where
    F: Future<Output = io::Result<(SocketAddr, T)>> + Send + 'static,
    L: Future<Output = ()>,
    T: Send + 'static,
{
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            match told.await {
                Ok((address, rest)) => {
                    let _ = tell.send(Ok(address));
                    then(rest).await;
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        });
    });
    hear.recv().expect("the bridge says something")
}

async fn own_port() -> io::Result<(SocketAddr, TcpListener)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    Ok((listener.local_addr()?, listener))
}

pub(crate) async fn handshake(to: SocketAddr, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(config)
        .connect(name, TcpStream::connect(to).await?)
        .await
}

/// The certificate that a listener shows.
pub(crate) fn shown(to: SocketAddr, config: Arc<ClientConfig>) -> io::Result<CertificateDer<'static>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tls = runtime.block_on(handshake(to, config))?;
    let certificates = tls.get_ref().1.peer_certificates().expect("a certificate");
    Ok(certificates[0].clone().into_owned())
}

fn carry<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connect: impl Future<Output = io::Result<S>> + Send + 'static,
) -> io::Result<SocketAddr> {
    let told = async {
        let stream = connect.await?;
        let (address, listener) = own_port().await?;
        Ok((address, (stream, listener)))
    };
    run(told, |(mut stream, listener)| async move {
        if let Ok((mut socket, _)) = listener.accept().await {
            let _ = copy_bidirectional(&mut socket, &mut stream).await;
        }
    })
}

/// Through TLS.
pub(crate) fn tls(to: SocketAddr, config: Arc<ClientConfig>) -> io::Result<SocketAddr> {
    carry(handshake(to, config))
}

/// Through a unix socket.
pub(crate) fn unix(path: std::path::PathBuf) -> io::Result<SocketAddr> {
    carry(async move { UnixStream::connect(path).await })
}

/// Through a socket that says something first.
pub(crate) fn preceded(to: SocketAddr, first: Vec<u8>) -> io::Result<SocketAddr> {
    carry(async move {
        let mut socket = TcpStream::connect(to).await?;
        socket.write_all(&first).await?;
        Ok(socket)
    })
}

/// A WebSocket over a stream that stands.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    path: &str,
    subprotocol: Option<&str>,
) -> io::Result<WebSocketStream<S>> {
    let mut request = format!("ws://localhost{path}")
        .into_client_request()
        .expect("a request");
    if let Some(subprotocol) = subprotocol {
        let value = HeaderValue::from_str(subprotocol).expect("a header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", value);
    }
    let upgraded = tokio_tungstenite::client_async(request, stream).await;
    Ok(upgraded.map_err(io::Error::other)?.0)
}

async fn carry_frames<S>(web: WebSocketStream<S>, listener: TcpListener, frame_len: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok((socket, _)) = listener.accept().await else {
        return;
    };
    let (mut from_client, mut to_client) = socket.into_split();
    let (mut frames_out, mut frames_in) = web.split();
    let outwards = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from_client.read(&mut bytes).await {
            for part in bytes[..len].chunks(frame_len) {
                if frames_out.send(Message::binary(part.to_vec())).await.is_err() {
                    return;
                }
            }
        }
    };
    let inwards = async {
        while let Some(Ok(message)) = frames_in.next().await {
            if let Message::Binary(payload) = message
                && to_client.write_all(&payload).await.is_err()
            {
                return;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::join!(outwards, inwards);
}

/// Through WebSocket frames of at most so many bytes, in TLS if there is a configuration for it.
pub(crate) fn web(
    to: SocketAddr,
    secure: Option<Arc<ClientConfig>>,
    frame_len: usize,
) -> io::Result<SocketAddr> {
    match secure {
        None => frames(TcpStream::connect(to), frame_len),
        Some(config) => frames(handshake(to, config), frame_len),
    }
}

fn frames<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connect: impl Future<Output = io::Result<S>> + Send + 'static,
    frame_len: usize,
) -> io::Result<SocketAddr> {
    let told = async {
        let web = upgrade(connect.await?, "/mqtt", Some("mqtt")).await?;
        let (address, listener) = own_port().await?;
        Ok((address, (web, listener)))
    };
    run(told, move |(web, listener)| {
        carry_frames(web, listener, frame_len)
    })
}
