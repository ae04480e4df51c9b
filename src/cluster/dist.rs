//! The carrier of links: the only file that says `ractor`.
//!
//! Parent:   cluster (rest_for_one), permanent
//! Owns:     ractor's node server and our one remote actor there; both end with it
//! Asked by: Peer (Carry, Cut)
//! Tells:    the Peer of a link (FromDist)
//! Dies of:  the end of ractor's node server or of our remote actor
//!
//! `ractor_cluster` carries a link after our own proof of the cookie: it is given the proven stream
//! as an external transport. Its own door, which it insists on, is bound to a random loopback port, and
//! speaks TLS without a certificate: nobody gets through that handshake.
//! Its registries are process-global: one node per process.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message, WrapFuture};
use futures_util::future::LocalBoxFuture;
use ractor::concurrency::JoinHandle;
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{ActorProcessingErr, ActorRef, SupervisionEvent, pg};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{
    BoxRead, BoxWrite, ClusterBidiStream, IncomingEncryptionMode, NodeEventSubscription, NodeServer,
    NodeServerMessage, NodeSessionMessage,
};
use supervisors::{Caster, ChildSpec, Context, ExitReason, InitError, Shutdown};
use tokio::io::BufReader;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;

use super::Cluster;
use super::stream::LinkStream;
use super::wire::v1::FRAME_BYTES_MAX;
use crate::limits::LINK_READ_BUFFER_BYTES;

/// ractor's group of the remote actors that take our frames, one per node.
const GROUP: &str = "ermine.links";

/// What ractor's own handshake proves. It cannot change with the cookie while links stand, and need not be
/// secret: what is handed to ractor has been proved, and nothing else comes in.
const NO_SECRET: &str = "proved before";

/// Longest wait for what is left of an earlier node server of this process.
const BURIAL_MAX: Duration = Duration::from_secs(2);

/// Peer → Dist: carry this proven stream as the link `link`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Carry {
    /// Names the link in its frames; the same on both ends.
    pub link: u64,
    /// The stream, on which both cookies were proved and the link was welcomed.
    pub stream: LinkStream,
    /// Whether we dialled.
    pub dialled: bool,
    /// Who is told.
    pub to: Caster<FromDist>,
}

/// Peer → Dist: close that link; unknown ones are ignored.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Cut {
    /// The link.
    pub link: u64,
}

/// Dist → Peer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FromDist {
    /// Of which link.
    pub link: u64,
    /// What.
    pub what: Carried,
}

/// See [`FromDist`].
pub enum Carried {
    /// Frames may be sent.
    Ready(Sender),
    /// A frame came.
    Frame(Vec<u8>),
    /// The connection is closed.
    Closed,
}

/// Sends the frames of one link.
#[derive(Clone, Debug)]
pub struct Sender {
    link: u64,
    to: ActorRef<Wire>,
}

/// The link is closed; the frame was not sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link is closed")]
pub struct LinkClosed;

impl Sender {
    /// Hands a frame to the connection, in order.
    ///
    /// # Errors
    /// [`LinkClosed`]. Success does not mean that it arrives.
    pub fn send(&self, frame: Vec<u8>) -> Result<(), LinkClosed> {
        self.to
            .cast(Wire {
                link: self.link,
                frame,
            })
            .map_err(|_| LinkClosed)
    }
}

/// A frame as ractor carries it; the link is its metadata, so the frame is neither copied nor shifted.
#[derive(Debug)]
struct Wire {
    link: u64,
    frame: Vec<u8>,
}

impl ractor::Message for Wire {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        let metadata = Some(self.link.to_be_bytes().to_vec());
        Ok(SerializedMessage::Cast {
            variant: String::new(),
            args: self.frame,
            metadata,
        })
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        // An error here would end the remote actor and with it every link, so what is not ours
        // becomes a frame of link 0, which nobody has.
        let SerializedMessage::Cast { args, metadata, .. } = message else {
            return Ok(Self {
                link: 0,
                frame: Vec::new(),
            });
        };
        let link = metadata
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        Ok(Self { link, frame: args })
    }
}

/// A link that is carried.
struct Entry {
    to: Caster<FromDist>,
    session: Option<ActorRef<NodeSessionMessage>>,
}

/// The links, shared with what ractor calls.
#[derive(Clone, Default)]
struct Links(Arc<Mutex<HashMap<u64, Entry>>>);

impl Links {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        // One insertion or removal at a time: nothing can be torn.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is told of a session; its label is the link's number. `None`: it is none of ours.
    fn told(&self, session: &NodeServerSessionInformation) -> Option<(u64, Caster<FromDist>)> {
        let link = u64::from_str_radix(&session.peer_addr, 16).ok()?;
        let mut links = self.lock();
        let carried = links.get_mut(&link)?;
        carried.session = Some(session.actor.clone());
        Some((link, carried.to.clone()))
    }
}

impl NodeEventSubscription for Links {
    fn node_session_opened(&self, session: NodeServerSessionInformation) {
        if self.told(&session).is_none() {
            // Came in through ractor's own door, or was cut meanwhile.
            session.actor.kill();
        }
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        if let Some((link, to)) = self.told(&session) {
            self.lock().remove(&link);
            // A Peer that has ended needs no news.
            let _ = to.cast(FromDist {
                link,
                what: Carried::Closed,
            });
        }
    }

    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        let Some((link, to)) = self.told(&session) else {
            return;
        };
        let members = pg::get_members(&GROUP.to_string()).into_iter();
        let mut remote = members.map(|cell| (cell.get_id(), cell));
        let found = remote.find(|(id, _)| !id.is_local() && id.node() == session.node_id);
        match found {
            Some((_, cell)) => {
                let to_them = cell.into();
                let what = Carried::Ready(Sender { link, to: to_them });
                // A Peer that has ended needs no news.
                let _ = to.cast(FromDist { link, what });
            }
            // The other side has no remote actor: its dist is restarting. The Peer hears `Closed`.
            None => session.actor.kill(),
        }
    }
}

/// The remote actor of this node: hands frames to the Peer of their link.
struct LinkEnd {
    links: Links,
}

impl ractor::Actor for LinkEnd {
    type Msg = Wire;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Wire>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Wire>, wire: Wire, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let links = self.links.lock();
        if let Some(carried) = links.get(&wire.link) {
            // A Peer that has ended needs no frames.
            let _ = carried.to.cast(FromDist {
                link: wire.link,
                what: Carried::Frame(wire.frame),
            });
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Wire>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// The stream that ractor reads and writes: buffered, because ractor reads a frame in two pieces.
struct Proven {
    link: u64,
    stream: LinkStream,
}

impl ClusterBidiStream for Proven {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let buffered = LINK_READ_BUFFER_BYTES;
        match self.stream {
            LinkStream::Plain(stream) => {
                let (read, write) = stream.into_split();
                (
                    Box::new(BufReader::with_capacity(buffered, read)),
                    Box::new(write),
                )
            }
            stream @ LinkStream::Tls(..) => {
                let (read, write) = tokio::io::split(stream);
                (
                    Box::new(BufReader::with_capacity(buffered, read)),
                    Box::new(write),
                )
            }
        }
    }

    fn peer_label(&self) -> Option<String> {
        Some(format!("{:x}", self.link))
    }
}

/// The actor.
pub struct Dist {
    links: Links,
    server: ActorRef<NodeServerMessage>,
    end: ActorRef<Wire>,
    /// End when the two do; taken by `started`.
    ends: Vec<JoinHandle<()>>,
}

impl Dist {
    /// The child of `cluster`.
    #[must_use]
    pub fn spec(cluster: &Cluster) -> ChildSpec {
        let made = cluster.clone();
        let init = move || -> LocalBoxFuture<'static, _> { Box::pin(Self::start(made.clone())) };
        ChildSpec::worker_async("dist", &cluster.arbiter, init)
            .name(&cluster.dist)
            .shutdown(Shutdown::Timeout(Duration::from_secs(10)))
    }

    async fn start(cluster: Cluster) -> Result<Self, InitError> {
        bury().await?;
        let links = Links::default();
        let end = LinkEnd { links: links.clone() };
        let (end, end_ends) = ractor::Actor::spawn(None, end, ()).await?;
        pg::join(GROUP.to_owned(), vec![end.get_cell()]);
        // The incarnation is part of ractor's node name: a later life never meets a ghost's session.
        let life = format!("{}.{:x}", cluster.me.incarnation, std::process::id());
        let name = cluster.me.name.to_string();
        let mode = Some(NodeConnectionMode::Isolated);
        let server = NodeServer::new(0, NO_SECRET.to_owned(), name, life, Some(door()?), mode)
            .with_listen_addr(Ipv4Addr::LOCALHOST.into())
            .with_max_inbound_frame_size(FRAME_BYTES_MAX as u64 + 1024);
        let (server, server_ends) = ractor::Actor::spawn(None, server, ()).await?;
        let subscription = Box::new(links.clone());
        server.cast(NodeServerMessage::SubscribeToEvents {
            id: GROUP.into(),
            subscription,
        })?;
        Ok(Self {
            links,
            server,
            end,
            ends: vec![end_ends, server_ends],
        })
    }
}

/// A door through which nobody comes: without a certificate no handshake of TLS can end well.
fn door() -> Result<IncomingEncryptionMode, InitError> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| InitError::failed(format!("TLS cannot be used: {error}")))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    Ok(IncomingEncryptionMode::Tls(TlsAcceptor::from(Arc::new(config))))
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Waits for the remote actors of an earlier node server of this process: the next one counts its
/// sessions from 0 again, and their numbers must not meet.
async fn bury() -> Result<(), InitError> {
    let group = GROUP.to_string();
    let gone = async {
        while !pg::get_members(&group).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let over = tokio::time::timeout(BURIAL_MAX, gone).await;
    over.map_err(|_| InitError::failed("an earlier node server of this process does not end"))
}

impl Actor for Dist {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        for end in std::mem::take(&mut self.ends) {
            let ended = async move { drop(end.await) };
            let ended = ended.into_actor(self);
            ctx.spawn(ended.map(|(), _, ctx| {
                ctx.exit(ExitReason::Error("ractor's node server ended".into()));
            }));
        }
    }
}

impl Handler<Carry> for Dist {
    type Result = ();

    fn handle(&mut self, carry: Carry, _: &mut Self::Context) {
        let Carry {
            link,
            stream,
            dialled,
            to,
        } = carry;
        self.links.lock().insert(
            link,
            Entry {
                to: to.clone(),
                session: None,
            },
        );
        let stream = Box::new(Proven { link, stream });
        let opened = NodeServerMessage::ConnectionOpenedExternal {
            stream,
            is_server: !dialled,
        };
        if self.server.cast(opened).is_err() {
            self.links.lock().remove(&link);
            let _ = to.cast(FromDist {
                link,
                what: Carried::Closed,
            });
        }
    }
}

impl Handler<Cut> for Dist {
    type Result = ();

    fn handle(&mut self, Cut { link }: Cut, ctx: &mut Self::Context) {
        let carried = self.links.lock().remove(&link);
        if let Some(session) = carried.and_then(|carried| carried.session) {
            // Nothing is carried before its session is gone: of two sessions with one node ractor
            // would elect one.
            let gone = async move { drop(session.kill_and_wait(Some(Duration::from_secs(1))).await) };
            ctx.wait(gone.into_actor(self));
        }
    }
}

impl Drop for Dist {
    fn drop(&mut self) {
        let links = std::mem::take(&mut *self.links.lock());
        for (link, carried) in links {
            let what = Carried::Closed;
            let _ = carried.to.cast(FromDist { link, what });
        }
        self.server.kill();
        self.end.kill();
    }
}
