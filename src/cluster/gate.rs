//! The node's own port: proves the cookie, then hands the stream to whom it is for.
//!
//! Parent:   cluster (rest_for_one), permanent
//! Owns:     the listening socket; bound anew, to the same port, after a restart
//! Asked by: other nodes and `ermine` commands, over TCP
//! Tells:    Connector (Offer), peers (a new Peer), whoever takes control connections
//! Dies of:  a socket that cannot be bound; never of what comes in

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, WrapFuture};
use futures_util::future::LocalBoxFuture;
use supervisors::{ChildSpec, Context, InitError};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Cluster;
use super::connector::Offer;
use super::dial::prepare;
use super::peer::Ticket;
use super::stream::{LinkStream, TLS_HANDSHAKE};
use super::wire::v1::{self, Answer, Hello, Refusal};
use super::wire::{self, VERSIONS, WireError};
use crate::limits::{GATE_HANDSHAKES_MAX, HANDSHAKE_DEADLINE, PROOF_FAILURE_WINDOW};
use crate::node_name::NodeId;
use crate::registry::attempts::Attempts;
use crate::registry::cookie::Fingerprint;
use crate::registry::{HandshakeError, Identity, Proved, Purpose, prove_as_server};

/// Pause after the system refused to accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection on which the cookie was proved for [`Purpose::Control`].
#[derive(Debug)]
pub struct ControlConnection {
    /// The stream; nothing was said on it after the proof.
    pub stream: TcpStream,
    /// Who proved it.
    pub from: Identity,
}

/// Takes control connections; called on the cluster's arbiter, must not block.
pub type TakeControl = Arc<dyn Fn(ControlConnection) + Send + Sync>;

/// The actor.
pub struct Gate {
    cluster: Cluster,
    control: TakeControl,
    listener: Rc<TcpListener>,
    /// Connections that are proving their cookie.
    handshakes: usize,
    /// Nothing is accepted until one of them is done.
    paused: bool,
    /// Addresses that failed to prove the cookie.
    attempts: Rc<RefCell<Attempts>>,
    /// Connections that were closed unheard since that was last told, and when it was.
    unheard: (u64, Option<Instant>),
}

/// Why a connection came to nothing; told in the log.
#[derive(Debug, thiserror::Error)]
enum Turned {
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("an ermine command cannot be a peer")]
    NotANode,
    #[error("{proved} proved the cookie and calls itself {named}")]
    Misnamed { proved: NodeId, named: NodeId },
    #[error("{node} was refused: {refusal:?}")]
    Refused { node: NodeId, refusal: Refusal },
    #[error(
        "it speaks TLS, and this node has no certificate: set [cluster] tls here too, or take it away there"
    )]
    NoCertificate,
    #[error(
        "no TLS with it ({0}): the ca of [cluster] tls has to have signed the certificates of both nodes"
    )]
    Tls(std::io::Error),
    #[error("it wanted to link without TLS: set [cluster] tls there too, or take it away here")]
    Plain,
    #[error("it did not open its link within {} s", HANDSHAKE_DEADLINE.as_secs())]
    Silent,
    #[error("{0} looked whether a link could be opened, and opened none")]
    Tried(NodeId),
    #[error("its link could not be started: {0}")]
    Start(#[from] supervisors::StartError),
}

impl Gate {
    /// The child of `cluster`.
    #[must_use]
    pub fn spec(cluster: &Cluster, control: &TakeControl) -> ChildSpec {
        let made = (cluster.clone(), control.clone());
        let init = move || -> LocalBoxFuture<'static, _> {
            let (cluster, control) = made.clone();
            Box::pin(Self::bind(cluster, control))
        };
        ChildSpec::worker_async("gate", &cluster.arbiter, init)
    }

    /// Binds the port: the configured one, else the one of before, else any.
    async fn bind(cluster: Cluster, control: TakeControl) -> Result<Self, InitError> {
        let address = SocketAddr::new(address_of(cluster.me.name.host()), cluster.gate_port());
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let port = address.port();
            InitError::failed(format!(
                "port {port} for other nodes cannot be bound on {} ({error}): free it or choose another",
                address.ip()
            ))
        })?;
        cluster.set_gate_port(listener.local_addr()?.port());
        Ok(Self {
            cluster,
            control,
            listener: Rc::new(listener),
            handshakes: 0,
            paused: false,
            attempts: Rc::default(),
            unheard: (0, None),
        })
    }

    fn accept_next(&mut self, ctx: &mut Context<Self>) {
        if self.handshakes >= GATE_HANDSHAKES_MAX {
            self.paused = true;
            return;
        }
        let listener = self.listener.clone();
        let accepted = async move {
            let accepted = listener.accept().await;
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            accepted
        };
        ctx.spawn(accepted.into_actor(self).map(|accepted, me, ctx| {
            match accepted {
                Ok((stream, from)) => me.took(stream, from, ctx),
                Err(error) => tracing::warn!("no connection of another node can be accepted: {error}"),
            }
            me.accept_next(ctx);
        }));
    }

    fn took(&mut self, stream: TcpStream, from: SocketAddr, ctx: &mut Context<Self>) {
        if !self.hears(from.ip()) {
            return;
        }
        self.handshakes += 1;
        let (cluster, control) = (self.cluster.clone(), self.control.clone());
        let attempts = self.attempts.clone();
        let greeted = async move { greet(&cluster, &control, &attempts, (stream, from.ip())).await };
        ctx.spawn(greeted.into_actor(self).map(move |greeted, me, ctx| {
            me.handshakes -= 1;
            match greeted {
                // Both ends dialled at once, or this one is not ready yet: it will be tried again.
                Err(Turned::Refused {
                    node,
                    refusal: refusal @ (Refusal::Simultaneous | Refusal::NotReady),
                }) => {
                    tracing::debug!("{node} was refused: {refusal:?}");
                }
                // A check, or a link that was opened the other way meanwhile.
                Err(turned @ Turned::Tried(_)) => tracing::debug!("a connection from {from}: {turned}"),
                Err(turned) => tracing::warn!("a connection from {from} was turned away: {turned}"),
                Ok(()) => {}
            }
            if std::mem::take(&mut me.paused) {
                me.accept_next(ctx);
            }
        }));
    }
}

impl Gate {
    /// Whether an address may try: neither too often in vain nor too many at once. Loopback may: see
    /// [`Attempts`]. An address that tries on must not fill the log either.
    fn hears(&mut self, address: IpAddr) -> bool {
        let now = Instant::now();
        if is_loopback(address) {
            return true;
        }
        let Err(why) = self.attempts.borrow_mut().begin(address, now) else {
            return true;
        };
        let (count, told) = &mut self.unheard;
        *count += 1;
        if told.is_none_or(|told| now >= told + PROOF_FAILURE_WINDOW) {
            tracing::warn!("{count} connections were closed unheard, the last from {address}: {why}");
            (*count, *told) = (0, Some(now));
        }
        false
    }
}

impl Actor for Gate {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.accept_next(ctx);
    }
}

async fn greet(
    cluster: &Cluster,
    control: &TakeControl,
    attempts: &RefCell<Attempts>,
    (stream, from): (TcpStream, IpAddr),
) -> Result<(), Turned> {
    let proved = prove(cluster, stream).await;
    if !is_loopback(from) {
        attempts.borrow_mut().end(from, proved.is_ok(), Instant::now());
    }
    let (proved, stream) = proved?;
    let stream = match stream {
        LinkStream::Plain(stream) if proved.purpose == Purpose::Control => {
            let from = proved.identity;
            control(ControlConnection { stream, from });
            return Ok(());
        }
        stream => stream,
    };
    let node = proved.identity.node.ok_or(Turned::NotANode)?;
    let known = (node, proved.cookie);
    let ticket = timeout(HANDSHAKE_DEADLINE, open(cluster, known, stream)).await;
    let ticket = ticket.map_err(|_| Turned::Silent)??;
    ticket.settle(cluster).await?;
    Ok(())
}

async fn prove(cluster: &Cluster, stream: TcpStream) -> Result<(Proved, LinkStream), Turned> {
    prepare(&stream)?;
    let encrypted = timeout(HANDSHAKE_DEADLINE, encrypt(cluster, stream)).await;
    let mut stream = encrypted.map_err(|_| HandshakeError::Silent)??;
    // Commands come without TLS: the certificates are the nodes' own.
    let doors = match (&stream, &cluster.tls) {
        (LinkStream::Tls(..), _) => &[Purpose::Link][..],
        (LinkStream::Plain(_), Some(_)) => &[Purpose::Control],
        (LinkStream::Plain(_), None) => &[Purpose::Link, Purpose::Control],
    };
    match prove_as_server(&mut stream, &cluster.cookies, doors, &cluster.me).await {
        Ok(proved) => Ok((proved, stream)),
        Err(HandshakeError::WrongDoor { asked: Purpose::Link }) => Err(Turned::Plain),
        Err(error) => Err(error.into()),
    }
}

/// Looks at the first byte: a command without certificates and a node with them come through one port.
async fn encrypt(cluster: &Cluster, stream: TcpStream) -> Result<LinkStream, Turned> {
    let mut first = [0];
    let speaks_tls = stream.peek(&mut first).await? > 0 && first[0] == TLS_HANDSHAKE;
    match &cluster.tls {
        _ if !speaks_tls => Ok(LinkStream::Plain(stream)),
        Some(tls) => tls.accept(stream).await.map_err(Turned::Tls),
        None => Err(Turned::NoCertificate),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The opening of docs/PROTOCOL.md, "Links between nodes", as the acceptor.
async fn open(
    cluster: &Cluster,
    (node, cookie): (NodeId, Fingerprint),
    mut stream: LinkStream,
) -> Result<Ticket, Turned> {
    wire::agree(&mut stream, VERSIONS).await?;
    let hello = match wire::get(&mut stream).await {
        Err(WireError::Io(end)) if end.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(Turned::Tried(node));
        }
        hello => hello?,
    };
    let hello: Hello = v1::decode(&hello).map_err(Turned::Wire)?;
    if hello.node != node {
        return Err(Turned::Misnamed {
            proved: node,
            named: hello.node,
        });
    }
    let (link, received, members) = (hello.link, hello.received, hello.members.clone());
    let answer = cluster.connector.call(Offer(hello)).await;
    let answer = answer.unwrap_or(Answer::Refuse(Refusal::NotReady));
    wire::put(&mut stream, &v1::encode(&answer)).await?;
    match answer {
        Answer::Refuse(refusal) => Err(Turned::Refused { node, refusal }),
        Answer::Welcome { .. } => Ok(Ticket {
            node,
            link,
            stream,
            dialled: false,
            received,
            members,
            cookie,
        }),
    }
}

/// A node that is named by a loopback address is reached there only.
fn address_of(host: &str) -> IpAddr {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => address,
        Ok(IpAddr::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        Err(_) if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}
