//! The way to another node: name → registry → connection → cookie → version → welcome.
//!
//! No actor: a future that the connector spawns, so that a slow host holds nobody up. Each step is
//! bounded in time and fails with one sentence that names cause and remedy.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::Cluster;
use super::peer::{Ticket, random};
use super::stream::LinkStream;
use super::wire::v1::{self, Answer, Hello, MemberRecord, Refusal};
use super::wire::{self, VERSIONS, WireError};
use crate::limits::{HANDSHAKE_DEADLINE, PEER_DOWN_AFTER};
use crate::node_name::{NodeId, NodeName};
use crate::registry::cookie::Fingerprint;
use crate::registry::{
    ClientError, Cookie, HandshakeError, Identity, Proved, Purpose, Registration, RegistryClient,
    prove_as_client,
};

/// The steps of a join, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The name makes sense.
    Name,
    /// The registry of its host knows it.
    Registry,
    /// Its port takes connections.
    Connection,
    /// It speaks a version that we speak.
    Version,
    /// It holds our cookie, and welcomes us.
    Cookie,
    /// Each side holds all routes of the other.
    Routes,
    /// A canary flew both ways.
    Canary,
}

/// In order.
const STEPS: [Step; 7] = [
    Step::Name,
    Step::Registry,
    Step::Connection,
    Step::Version,
    Step::Cookie,
    Step::Routes,
    Step::Canary,
];

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Registry => "registry",
            Self::Connection => "connection",
            Self::Version => "version",
            Self::Cookie => "cookie",
            Self::Routes => "route sync",
            Self::Canary => "canary",
        })
    }
}

/// One step of a join, done or failed.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct JoinStep {
    /// Which.
    pub step: Step,
    /// What was found, or why the join ends here: a sentence with the remedy.
    pub outcome: Result<String, String>,
}

/// Where the steps of a join are told; nobody may be listening.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    listeners: Vec<UnboundedSender<JoinStep>>,
    /// How many steps are done; shared with the dial that runs.
    done: Rc<Cell<usize>>,
}

impl Progress {
    /// Adds a listener. At most one message per [`Step`] is sent to it.
    pub fn add(&mut self, listener: UnboundedSender<JoinStep>) {
        self.listeners.push(listener);
    }

    /// All steps up to `step` are done, if they were not yet.
    pub fn reach(&self, step: Step, found: impl Fn() -> String) {
        while let Some(next) = STEPS.get(self.done.get()).filter(|next| **next <= step) {
            self.done.set(self.done.get() + 1);
            self.tell(*next, Ok(found()));
        }
    }

    /// The step that is next.
    #[must_use]
    pub fn next(&self) -> Step {
        STEPS.get(self.done.get()).copied().unwrap_or(Step::Canary)
    }

    /// A step failed, and with it the join.
    pub fn failed(&self, step: Step, why: impl Into<String>) {
        self.tell(step, Err(why.into()));
    }

    fn tell(&self, step: Step, outcome: Result<String, String>) {
        for listener in &self.listeners {
            // Who hung up does not want to know.
            let _ = listener.send(JoinStep {
                step,
                outcome: outcome.clone(),
            });
        }
    }
}

/// Why a dial did not lead to a link.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The registry of its host did not lead to it.
    #[error("{0}")]
    Registry(#[from] ClientError),
    /// Its port does not take connections.
    #[error("{node} is registered, but its port {place} cannot be reached ({cause}): check the firewall")]
    Connection {
        /// Who.
        node: NodeName,
        /// `host:port`.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// It does not speak TLS, or its certificate or ours is not good.
    #[error("{0}")]
    Tls(String),
    /// The cookie or the version of the handshake is wrong, or it broke.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The link protocol failed.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// It stopped answering.
    #[error("{0} took the connection, but did not answer within {secs} s: look at its log",
        secs = HANDSHAKE_DEADLINE.as_secs())]
    Silent(NodeName),
    /// It dialled us meanwhile.
    #[error("{0} is being linked already")]
    Linked(NodeName),
    /// It refused the link.
    #[error("{node} refused: {}", refusal_sentence(.refusal))]
    Refused {
        /// Who.
        node: NodeName,
        /// Why.
        refusal: Refusal,
    },
}

impl DialError {
    /// The step of a join that failed.
    #[must_use]
    pub fn step(&self) -> Step {
        match self {
            Self::Registry(ClientError::Handshake { error, .. }) | Self::Handshake(error) => step_of(error),
            Self::Registry(_) => Step::Registry,
            Self::Connection { .. } | Self::Tls(_) | Self::Silent(_) => Step::Connection,
            Self::Wire(WireError::Version { .. }) => Step::Version,
            Self::Wire(_) | Self::Linked(_) | Self::Refused { .. } => Step::Cookie,
        }
    }

    /// Whether its host was reached and no such node runs there.
    #[must_use]
    pub fn says_ended(&self) -> bool {
        matches!(
            self,
            Self::Registry(ClientError::Unknown { .. } | ClientError::NoRegistry { .. })
        )
    }
}

fn step_of(error: &HandshakeError) -> Step {
    match error {
        HandshakeError::Versions { .. } => Step::Version,
        error if error.is_of_cookie() => Step::Cookie,
        _ => Step::Connection,
    }
}

fn refusal_sentence(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Simultaneous => "it is dialling us at this moment".into(),
        Refusal::Myself => "a node does not join itself".into(),
        Refusal::Outdated => "a later node of our name is linked to it: stop one of the two".into(),
        Refusal::Left(record) => {
            format!(
                "{} has left the cluster: `ermine cluster join` brings it back",
                record.name
            )
        }
        Refusal::NotReady => "it is starting or stopping: try again".into(),
        Refusal::Full => "its cluster has as many members as it may have".into(),
    }
}

/// What is asked of a dial.
#[derive(Debug)]
pub struct Errand {
    /// Whom to dial.
    pub name: NodeName,
    /// Whether an operator asked.
    pub join: bool,
    /// The members that we know.
    pub members: Vec<MemberRecord>,
    /// Who listens.
    pub progress: Progress,
}

/// Dials a node; the ticket is good for one Peer.
///
/// # Errors
/// [`DialError`]; nothing is left open.
pub async fn dial(cluster: Cluster, errand: &Errand) -> Result<Ticket, DialError> {
    let progress = &errand.progress;
    let registration = resolve(&cluster, errand).await?;
    progress.reach(Step::Registry, || format!("port {}", registration.port));
    let (proved, stream) = prove(&cluster, errand, &registration).await?;
    let node = proved
        .identity
        .node
        .ok_or(HandshakeError::Malformed { step: 4 })?;
    let known = (&node, proved.cookie);
    let opened = timeout(HANDSHAKE_DEADLINE, open(&cluster, errand, known, stream)).await;
    opened.map_err(|_| DialError::Silent(errand.name.clone()))?
}

/// Whether a link could be opened: TLS, cookie and version on the very way that a link takes. Answers with
/// the version that both speak.
///
/// # Errors
/// [`DialError`]; nothing is opened either way, and the other side takes it for what it is.
pub async fn try_out(
    cluster: &Cluster,
    name: &NodeName,
    registration: &Registration,
) -> Result<u16, DialError> {
    let errand = Errand {
        name: name.clone(),
        join: false,
        members: Vec::new(),
        progress: Progress::default(),
    };
    let (_, mut stream) = prove(cluster, &errand, registration).await?;
    let agreed = timeout(HANDSHAKE_DEADLINE, wire::agree(&mut stream, VERSIONS)).await;
    Ok(agreed.map_err(|_| DialError::Silent(errand.name))??)
}

/// Proves one cookie after the other until one is taken, each on a connection of its own.
async fn prove(
    cluster: &Cluster,
    errand: &Errand,
    registration: &Registration,
) -> Result<(Proved, LinkStream), DialError> {
    let mut refused = None;
    for cookie in cluster.cookies.accepted(Instant::now()).valid {
        match prove_with(cluster, errand, registration, &cookie).await {
            Err(DialError::Handshake(error)) if error.is_of_cookie() => {
                refused.get_or_insert(error);
            }
            proved => return proved,
        }
    }
    Err(refused.expect("a jar has a current cookie").into())
}

async fn prove_with(
    cluster: &Cluster,
    errand: &Errand,
    registration: &Registration,
    cookie: &Cookie,
) -> Result<(Proved, LinkStream), DialError> {
    let stream = connect(&errand.name, registration).await?;
    let mut stream = encrypt(cluster, &errand.name, stream).await?;
    errand.progress.reach(Step::Connection, || {
        format!("{}:{}", errand.name.host(), registration.port)
    });
    let me = Identity::node(cluster.me.clone());
    let proved = prove_as_client(&mut stream, cookie, Purpose::Link, &me, Some(&errand.name)).await;
    match proved {
        Ok(proved) => Ok((proved, stream)),
        Err(error) => Err(told(error, &errand.name, stream.is_tls())),
    }
}

async fn resolve(cluster: &Cluster, errand: &Errand) -> Result<Registration, ClientError> {
    let me = Identity::node(cluster.me.clone());
    RegistryClient::new(cluster.cookies.clone(), me, cluster.registry_port)
        .resolve(&errand.name)
        .await
}

async fn connect(name: &NodeName, registration: &Registration) -> Result<TcpStream, DialError> {
    let host = name.host().trim_start_matches('[').trim_end_matches(']');
    let failed = |cause: String| DialError::Connection {
        node: name.clone(),
        place: format!("{}:{}", name.host(), registration.port),
        cause,
    };
    match timeout(PEER_DOWN_AFTER, TcpStream::connect((host, registration.port))).await {
        Ok(Ok(stream)) => prepare(&stream)
            .map(|()| stream)
            .map_err(|error| failed(error.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("no answer".into())),
    }
}

/// TLS, where we have certificates.
async fn encrypt(cluster: &Cluster, name: &NodeName, stream: TcpStream) -> Result<LinkStream, DialError> {
    let Some(tls) = &cluster.tls else {
        return Ok(LinkStream::Plain(stream));
    };
    let host = name.host().trim_start_matches('[').trim_end_matches(']');
    let encrypted = timeout(HANDSHAKE_DEADLINE, tls.connect(host, stream)).await;
    encrypted
        .map_err(|_| DialError::Silent(name.clone()))?
        .map_err(|error| DialError::Tls(tls_sentence(name, &error)))
}

fn tls_sentence(name: &NodeName, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | ConnectionReset | BrokenPipe => format!(
            "{name} closed when it was spoken to in TLS: set [cluster] tls on that node too, \
             or take it away here"
        ),
        _ => format!(
            "no TLS with {name} ({error}): the ca of [cluster] tls has to have signed the certificates of \
             both nodes, each for the host of its name"
        ),
    }
}

/// A handshake that fails for want of TLS, or within it for a certificate: TLS 1.3 tells the side that
/// dialled only after its own part is done.
fn told(error: HandshakeError, name: &NodeName, is_tls: bool) -> DialError {
    match error {
        HandshakeError::WrongDoor { .. } if !is_tls => DialError::Tls(format!(
            "{name} takes links over TLS only: set [cluster] tls here too, with a certificate of the same ca"
        )),
        HandshakeError::Io { cause, step: 1 | 2 } if is_tls => {
            DialError::Tls(tls_sentence(name, &std::io::Error::other(cause)))
        }
        error => DialError::Handshake(error),
    }
}

/// The opening of docs/PROTOCOL.md, "Links between nodes", as the dialler.
async fn open(
    cluster: &Cluster,
    errand: &Errand,
    (node, cookie): (&NodeId, Fingerprint),
    mut stream: LinkStream,
) -> Result<Ticket, DialError> {
    let version = wire::agree(&mut stream, VERSIONS).await?;
    errand.progress.reach(Step::Version, || {
        format!("version {version} of the link protocol")
    });
    if cluster.board.has_link(node, Instant::now()) {
        return Err(DialError::Linked(node.name.clone()));
    }
    let link = random();
    let hello = Hello {
        node: cluster.me.clone(),
        link,
        join: errand.join,
        received: cluster.board.received(node),
        members: errand.members.clone(),
    };
    wire::put(&mut stream, &v1::encode(&hello)).await?;
    let answer = wire::get(&mut stream).await?;
    match v1::decode(&answer)? {
        Answer::Refuse(refusal) => Err(DialError::Refused {
            node: node.name.clone(),
            refusal,
        }),
        Answer::Welcome { node: named, .. } if named != *node => {
            Err(WireError::Malformed(format!("{node} proved the cookie and calls itself {named}")).into())
        }
        Answer::Welcome {
            node,
            received,
            members,
        } => {
            errand
                .progress
                .reach(Step::Cookie, || format!("both hold it, fingerprint {cookie}"));
            Ok(Ticket {
                node,
                link,
                stream,
                dialled: true,
                received,
                members,
                cookie,
            })
        }
    }
}

/// What every link's socket gets: no delay of small frames, and an end when sent bytes are not
/// acknowledged for as long as a silent peer is borne.
///
/// # Errors
/// What the system says.
pub fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(PEER_DOWN_AFTER))?;
    let alive = socket2::TcpKeepalive::new()
        .with_time(PEER_DOWN_AFTER)
        .with_interval(Duration::from_secs(1));
    socket.set_tcp_keepalive(&alive)
}
