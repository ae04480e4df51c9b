//! The registry's words and their bytes: docs/PROTOCOL.md, "Frames" and "Registry".

use std::io;

use bincode::config::{BigEndian, Configuration, Fixint};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::{
    REGISTRY_FRAME_BYTES_MAX, REGISTRY_LISTENER_BYTES_MAX, REGISTRY_LISTENERS_MAX, REGISTRY_NAMES_MAX,
};
use crate::node_name::{NodeId, NodeName};

/// What a node announces about itself.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Announcement {
    /// The TCP port where the node takes links and control connections.
    pub port: u16,
    /// Its MQTT addresses, for people to read; at most [`REGISTRY_LISTENERS_MAX`].
    pub listeners: Vec<String>,
}

impl Announcement {
    /// Whether it keeps the bounds of a registration.
    #[must_use]
    pub fn is_within_bounds(&self) -> bool {
        self.listeners.len() <= REGISTRY_LISTENERS_MAX
            && self
                .listeners
                .iter()
                .all(|listener| listener.len() <= REGISTRY_LISTENER_BYTES_MAX)
    }
}

/// One registered name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Who; the identity was proved in the handshake.
    pub node: NodeId,
    /// The TCP port where the node takes links and control connections.
    pub port: u16,
    /// Its MQTT addresses, for people to read.
    pub listeners: Vec<String>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Register the proved identity; the connection becomes its lease.
    Register(Announcement),
    /// All that is registered.
    Names,
    /// One node.
    Resolve(NodeName),
}

/// What the server answers, one reply for each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The lease stands.
    Registered {
        /// Who serves the registry.
        server: NodeId,
        /// Where it is bound, `address:port`.
        address: String,
    },
    /// All that is registered.
    Names(NameList),
    /// The node asked for.
    Resolved(Registration),
    /// Nothing was changed.
    Refused(Refusal),
}

/// All names of one registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameList {
    /// Who serves the registry.
    pub server: NodeId,
    /// Its port.
    pub port: u16,
    /// In the order of names.
    pub names: Vec<Registration>,
}

/// Why a request was refused. The registry is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Another incarnation of the name is alive.
    #[error(
        "the name {name} is in use: a living node of that name takes links at port {port}; \
         stop it or choose another name with --name",
        name = .0.node.name, port = .0.port
    )]
    Duplicate(Box<Registration>),
    /// The bound on names is reached.
    #[error("the registry is full: {REGISTRY_NAMES_MAX} names are registered on this host")]
    Full,
    /// Register came from another host.
    #[error("only nodes on the registry's own host can register")]
    NotLocal,
    /// Register came from a command.
    #[error("only a node can register, not a command")]
    NotANode,
    /// The announcement breaks a bound.
    #[error(
        "the announcement is too large: at most {REGISTRY_LISTENERS_MAX} listeners of at most \
        {REGISTRY_LISTENER_BYTES_MAX} bytes each"
    )]
    TooMuch,
    /// No such name.
    #[error("{}", known_names(.0))]
    Unknown(Vec<NodeName>),
}

fn known_names(names: &[NodeName]) -> String {
    match names {
        [] => "no name is registered there".into(),
        [one] => format!("the only name there is {one}"),
        names => {
            let names: Vec<_> = names.iter().map(NodeName::as_str).collect();
            format!("the names there are {}", names.join(", "))
        }
    }
}

/// Why a frame could not be read or written. The connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The other side closed between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The length is beyond the bound; nothing was reserved for it.
    #[error("a frame of {0} bytes is beyond the bound")]
    Long(usize),
    /// The body is not one of the messages expected here.
    #[error("a frame that cannot be decoded")]
    Malformed,
    /// The socket failed.
    #[error("{0}")]
    Io(String),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error.to_string()),
        }
    }
}

/// The bincode configuration of every frame: big-endian, fixed width, never beyond `N` bytes.
const fn configuration<const N: usize>() -> Configuration<BigEndian, Fixint, bincode::config::Limit<N>> {
    bincode::config::standard()
        .with_big_endian()
        .with_fixed_int_encoding()
        .with_limit::<N>()
}

/// The body of a frame; `N` is its bound in bytes.
///
/// # Errors
/// [`FrameError::Long`] when the message is beyond the bound.
pub fn encode<const N: usize>(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let body =
        bincode::serde::encode_to_vec(message, configuration::<N>()).map_err(|_| FrameError::Malformed)?;
    if body.len() > N {
        Err(FrameError::Long(body.len()))
    } else {
        Ok(body)
    }
}

/// The message in a body, which has to be used up.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<M: DeserializeOwned, const N: usize>(body: &[u8]) -> Result<M, FrameError> {
    match bincode::serde::decode_from_slice(body, configuration::<N>()) {
        Ok((message, used)) if used == body.len() => Ok(message),
        _ => Err(FrameError::Malformed),
    }
}

/// Reads one frame and not a byte more. `bytes_max` is checked before anything is reserved.
///
/// # Errors
/// All but [`FrameError::Malformed`].
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> Result<Vec<u8>, FrameError> {
    let len = stream.read_u32().await? as usize;
    if len > bytes_max {
        return Err(FrameError::Long(len));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Writes one frame with one write.
///
/// # Errors
/// [`FrameError::Io`], [`FrameError::Closed`].
pub async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> Result<(), FrameError> {
    let len = u32::try_from(body.len()).map_err(|_| FrameError::Long(body.len()))?;
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one registry message.
///
/// # Errors
/// Any [`FrameError`].
pub async fn receive<M: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<M, FrameError> {
    decode::<M, REGISTRY_FRAME_BYTES_MAX>(&read_frame(stream, REGISTRY_FRAME_BYTES_MAX).await?)
}

/// Writes one registry message.
///
/// # Errors
/// Any [`FrameError`].
pub async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), FrameError> {
    write_frame(stream, &encode::<REGISTRY_FRAME_BYTES_MAX>(message)?).await
}

#[cfg(test)]
mod tests;
