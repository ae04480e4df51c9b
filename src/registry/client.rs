//! The asking side of the registry on sockets: docs/PROTOCOL.md, "Registry".

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::REGISTRY_ANSWER_MAX;
use crate::node_name::{NodeId, NodeName};
use crate::registry::cookie::Cookie;
use crate::registry::endpoint::{PORT_VARIABLE, bare_host};
use crate::registry::handshake::{HandshakeError, Identity, Purpose, prove_as_client};
use crate::registry::jar::CookieJar;
use crate::registry::wire::{
    self, Announcement, FrameError, NameList, Refusal, Registration, Reply, Request,
};

/// Asks registries, each question on its own connection, except for a [`Lease`].
#[derive(Clone, Debug)]
pub struct RegistryClient {
    cookies: CookieJar,
    me: Identity,
    port: u16,
}

/// Why a registry did not answer, with where it was looked for. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection was refused.
    #[error("there is no registry at {place}: no node runs on that host, or {PORT_VARIABLE} differs there")]
    NoRegistry {
        /// `host:port`.
        place: String,
    },
    /// No connection came about.
    #[error(
        "the registry at {place} cannot be reached ({cause}): \
         check the host name, the network and the firewall"
    )]
    Unreachable {
        /// `host:port`.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// Something else holds the port.
    #[error(
        "{place} is held by something that is not an Ermine registry: free the port, or set {PORT_VARIABLE}"
    )]
    NotARegistry {
        /// `host:port`.
        place: String,
    },
    /// The cookie, the version or the other side is wrong.
    #[error("the registry at {place} was reached, but: {error}")]
    Handshake {
        /// `host:port`.
        place: String,
        /// Why.
        error: HandshakeError,
    },
    /// The name is not registered.
    #[error("{name} is not registered at {place} ({refusal}): start it, or correct the name")]
    Unknown {
        /// Who was asked for.
        name: NodeName,
        /// `host:port`.
        place: String,
        /// With the names there are.
        refusal: Refusal,
    },
    /// It answered with a refusal.
    #[error("the registry at {place} refused: {refusal}")]
    Refused {
        /// `host:port`.
        place: String,
        /// Why.
        refusal: Refusal,
    },
    /// It stopped answering, or answered what was not asked.
    #[error("the registry at {place} gave no answer ({cause}): try again")]
    NoAnswer {
        /// `host:port`.
        place: String,
        /// What came instead.
        cause: String,
    },
}

impl ClientError {
    fn is_of_cookie(&self) -> bool {
        matches!(self, Self::Handshake { error, .. } if error.is_of_cookie())
    }
}

/// A registration that lives as long as this value.
#[derive(Debug)]
pub struct Lease {
    stream: TcpStream,
    place: String,
    /// Who serves the registry.
    pub server: NodeId,
    /// Where it is bound, `address:port`, as it says itself.
    pub address: String,
}

impl RegistryClient {
    /// A client that looks for registries at `port` of each host.
    #[must_use]
    pub fn new(cookies: impl Into<CookieJar>, me: Identity, port: u16) -> Self {
        let cookies = cookies.into();
        Self { cookies, me, port }
    }

    /// All names on a host.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn names(&self, host: &str) -> Result<NameList, ClientError> {
        let mut asked = self.connect(host).await?;
        match asked.ask(&Request::Names).await? {
            Reply::Names(list) => Ok(list),
            other => Err(asked.unexpected(other)),
        }
    }

    /// Where a node takes links and control connections: asked on its own host.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Unknown`] when there is a registry and not that name.
    pub async fn resolve(&self, name: &NodeName) -> Result<Registration, ClientError> {
        let mut asked = self.connect(name.host()).await?;
        match asked.ask(&Request::Resolve(name.clone())).await? {
            Reply::Resolved(registration) => Ok(registration),
            Reply::Refused(refusal @ Refusal::Unknown(_)) => Err(ClientError::Unknown {
                name: name.clone(),
                place: asked.place,
                refusal,
            }),
            other => Err(asked.unexpected(other)),
        }
    }

    /// Registers this node with the registry of its own host, which is at `contact`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn register(
        &self,
        contact: SocketAddr,
        announcement: Announcement,
    ) -> Result<Lease, ClientError> {
        let here = Self {
            port: contact.port(),
            ..self.clone()
        };
        let mut asked = here.connect(&contact.ip().to_string()).await?;
        match asked.ask(&Request::Register(announcement)).await? {
            Reply::Registered { server, address } => Ok(Lease {
                stream: asked.stream,
                place: asked.place,
                server,
                address,
            }),
            other => Err(asked.unexpected(other)),
        }
    }

    /// Proves one cookie after the other until one is taken, each on a connection of its own.
    async fn connect(&self, host: &str) -> Result<Asked, ClientError> {
        let mut refused = None;
        for cookie in self.cookies.accepted(Instant::now()).valid {
            match self.connect_with(host, &cookie).await {
                // What is told in the end is about the current one.
                Err(error @ ClientError::Handshake { .. }) if error.is_of_cookie() => {
                    refused.get_or_insert(error);
                }
                connected => return connected,
            }
        }
        Err(refused.expect("a jar has a current cookie"))
    }

    async fn connect_with(&self, host: &str, cookie: &Cookie) -> Result<Asked, ClientError> {
        let host = bare_host(host);
        let place = if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        };
        let unreachable = |cause: String| ClientError::Unreachable {
            place: place.clone(),
            cause,
        };
        let mut stream = match timeout(REGISTRY_ANSWER_MAX, TcpStream::connect((host, self.port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(ClientError::NoRegistry { place });
            }
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("it did not answer in time".into())),
        };
        // Each frame is a question that somebody waits for.
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(error.to_string()))?;
        match prove_as_client(&mut stream, cookie, Purpose::Registry, &self.me, None).await {
            Ok(_) => Ok(Asked { stream, place }),
            Err(HandshakeError::NotErmine | HandshakeError::Reflected | HandshakeError::WrongDoor { .. }) => {
                Err(ClientError::NotARegistry { place })
            }
            Err(error) => Err(ClientError::Handshake { place, error }),
        }
    }
}

/// A proved connection to a registry.
struct Asked {
    stream: TcpStream,
    place: String,
}

impl Asked {
    async fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        ask(&mut self.stream, request)
            .await
            .map_err(|cause| ClientError::NoAnswer {
                place: self.place.clone(),
                cause,
            })
    }

    fn unexpected(self, reply: Reply) -> ClientError {
        unexpected(self.place, reply)
    }
}

impl Lease {
    /// Replaces what was announced.
    ///
    /// # Errors
    /// [`ClientError`]; the lease is then to be given up.
    pub async fn update(&mut self, announcement: Announcement) -> Result<(), ClientError> {
        match ask(&mut self.stream, &Request::Register(announcement)).await {
            Ok(Reply::Registered { .. }) => Ok(()),
            Ok(other) => Err(unexpected(self.place.clone(), other)),
            Err(cause) => Err(ClientError::NoAnswer {
                place: self.place.clone(),
                cause,
            }),
        }
    }

    /// Waits until the lease is lost. Can be given up and called again.
    pub async fn lost(&mut self) {
        // Nothing is ever said on a lease unasked: whatever comes means that it is over.
        let _ = self.stream.read_u8().await;
    }
}

async fn ask(stream: &mut TcpStream, request: &Request) -> Result<Reply, String> {
    let exchange = async {
        wire::send(stream, request).await?;
        wire::receive(stream).await as Result<Reply, FrameError>
    };
    match timeout(REGISTRY_ANSWER_MAX, exchange).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing came within {} s", REGISTRY_ANSWER_MAX.as_secs())),
    }
}

fn unexpected(place: String, reply: Reply) -> ClientError {
    match reply {
        Reply::Refused(refusal) => ClientError::Refused { place, refusal },
        Reply::Registered { .. } | Reply::Names(_) | Reply::Resolved(_) => ClientError::NoAnswer {
            place,
            cause: "its reply does not fit the question".into(),
        },
    }
}
