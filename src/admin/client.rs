//! The asking side: finds a node through the registry, proves the cookie, asks one thing.

use std::io;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::admin::protocol::{Reply, Request};
use crate::limits::{
    CONTROL_FRAME_BYTES_MAX, REGISTRY_ANSWER_MAX, REGISTRY_RETRY_PAUSE, REGISTRY_TAKEN_OVER_WITHIN,
};
use crate::node_name::NodeName;
use crate::registry::client::{ClientError, RegistryClient};
use crate::registry::cookie::Cookie;
use crate::registry::endpoint::{Endpoint, bare_host};
use crate::registry::handshake::{HandshakeError, Identity, Purpose, prove_as_client};
use crate::registry::jar::CookieJar;
use crate::registry::wire::{self, FrameError, NameList, Refusal, Registration};

/// Whoever types commands: finds nodes and asks them.
#[derive(Clone, Debug)]
pub struct Operator {
    cookies: CookieJar,
    registry: RegistryClient,
    /// Where the registry of this host is.
    here: Endpoint,
}

/// Why a node did not do what was asked: one sentence each. What the node had done until then stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The registry of this host is not there, and nobody was named.
    #[error("no node is running on this host: start one with `ermine start`")]
    NoNode,
    /// The only node that is running is the one that was ruled out.
    #[error("{0} is the only node that is running on this host: a node cannot join itself")]
    OnlyItself(NodeName),
    /// Several are running, and nobody was named.
    #[error("several nodes are running on this host: choose one with --node, {}", listed(.0))]
    Several(Vec<NodeName>),
    /// Nobody has the name.
    #[error("node {name} is not running; {}", running(.known))]
    Unknown {
        /// Who was asked for.
        name: NodeName,
        /// Who is running on that host.
        known: Vec<NodeName>,
    },
    /// The registry did not answer well.
    #[error("{0}")]
    Registry(ClientError),
    /// The node does not answer at the port that the registry told.
    #[error(
        "node {node} is registered but cannot be reached at {place} ({cause}): it may be stopping; try again"
    )]
    Unreachable {
        /// The node.
        node: NodeName,
        /// `host:port`.
        place: String,
        /// What the system said.
        cause: String,
    },
    /// It answered, and cookie, version or name are wrong.
    #[error("node {node} was reached, but: {error}")]
    Handshake {
        /// The node.
        node: NodeName,
        /// Why.
        error: HandshakeError,
    },
    /// The connection broke, or something was said that does not belong there.
    #[error("node {node} broke off its answer ({cause}): see its log")]
    BrokenOff {
        /// The node.
        node: NodeName,
        /// What happened.
        cause: String,
    },
    /// The command failed there; the node's own sentence.
    #[error("{0}")]
    Failed(String),
}

fn listed(names: &[NodeName]) -> String {
    let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
    match names.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

fn running(known: &[NodeName]) -> String {
    match known {
        [] => "no node is running on that host".into(),
        [one] => format!("the only one on that host is {one}"),
        names => {
            let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
            format!("those on that host are {}", names.join(", "))
        }
    }
}

impl Operator {
    /// An operator with this cookie; `here` is the registry of this host.
    #[must_use]
    pub fn new(cookies: impl Into<CookieJar>, here: Endpoint) -> Self {
        let cookies = cookies.into();
        let registry = RegistryClient::new(cookies.clone(), Identity::command(), here.contact.port());
        Self {
            cookies,
            registry,
            here,
        }
    }

    /// What the registry of this host knows. One that is just changing hands is asked again.
    ///
    /// # Errors
    /// [`AskError::NoNode`] or [`AskError::Registry`].
    pub async fn names(&self) -> Result<NameList, AskError> {
        let deadline = Instant::now() + REGISTRY_TAKEN_OVER_WITHIN;
        loop {
            match self.names_now().await {
                Err(AskError::NoNode) if Instant::now() < deadline => sleep(REGISTRY_RETRY_PAUSE.0).await,
                answer => return answer,
            }
        }
    }

    async fn names_now(&self) -> Result<NameList, AskError> {
        match self.registry.names(&self.here.contact.ip().to_string()).await {
            Ok(list) => Ok(list),
            Err(ClientError::NoRegistry { .. }) => Err(AskError::NoNode),
            Err(error) => Err(AskError::Registry(error)),
        }
    }

    /// The node that was named, or else the one that runs on this host. `except` is not taken for it:
    /// who joins two nodes means the other one.
    ///
    /// # Errors
    /// [`AskError::NoNode`], [`AskError::OnlyItself`], [`AskError::Several`], [`AskError::Unknown`] or
    /// [`AskError::Registry`].
    pub async fn find(
        &self,
        named: Option<&NodeName>,
        except: Option<&NodeName>,
    ) -> Result<Registration, AskError> {
        let deadline = Instant::now() + REGISTRY_TAKEN_OVER_WITHIN;
        loop {
            match self.look_up(named, except).await {
                // Perhaps the node that served the registry has just ended, and another is taking over.
                Err(AskError::NoNode | AskError::Unknown { .. }) if Instant::now() < deadline => {
                    sleep(REGISTRY_RETRY_PAUSE.0).await;
                }
                answer => return answer,
            }
        }
    }

    async fn look_up(
        &self,
        named: Option<&NodeName>,
        except: Option<&NodeName>,
    ) -> Result<Registration, AskError> {
        let Some(name) = named else {
            return only(self.names_now().await?, except);
        };
        match self.registry.resolve(name).await {
            Ok(registration) => Ok(registration),
            Err(ClientError::Unknown {
                name,
                refusal: Refusal::Unknown(known),
                ..
            }) => Err(AskError::Unknown { name, known }),
            Err(ClientError::NoRegistry { .. }) => Err(AskError::Unknown {
                name: name.clone(),
                known: Vec::new(),
            }),
            Err(error) => Err(AskError::Registry(error)),
        }
    }

    /// Asks a node one thing and hands on each reply but the last.
    ///
    /// Waits as long as the connection stands: a join takes as long as its routes.
    ///
    /// # Errors
    /// [`AskError::Failed`] with the node's sentence, and all that can happen to a connection.
    pub async fn ask(
        &self,
        node: &Registration,
        request: &Request,
        mut reply: impl FnMut(Reply),
    ) -> Result<(), AskError> {
        let mut stream = self.connect(node).await?;
        let name = &node.node.name;
        let broken = |error: FrameError| AskError::BrokenOff {
            node: name.clone(),
            cause: error.to_string(),
        };
        let body = wire::encode::<CONTROL_FRAME_BYTES_MAX>(request).map_err(broken)?;
        wire::write_frame(&mut stream, &body).await.map_err(broken)?;
        loop {
            let body = wire::read_frame(&mut stream, CONTROL_FRAME_BYTES_MAX)
                .await
                .map_err(broken)?;
            match wire::decode::<Reply, CONTROL_FRAME_BYTES_MAX>(&body).map_err(broken)? {
                Reply::Done => return Ok(()),
                Reply::Failed(sentence) => return Err(AskError::Failed(sentence)),
                other => reply(other),
            }
        }
    }

    /// Proves one cookie after the other until one is taken, each on a connection of its own.
    async fn connect(&self, node: &Registration) -> Result<TcpStream, AskError> {
        let mut refused = None;
        for cookie in self.cookies.accepted(Instant::now().into_std()).valid {
            match self.connect_with(node, &cookie).await {
                Err(AskError::Handshake { node, error }) if error.is_of_cookie() => {
                    refused.get_or_insert(AskError::Handshake { node, error });
                }
                connected => return connected,
            }
        }
        Err(refused.expect("a jar has a current cookie"))
    }

    async fn connect_with(&self, node: &Registration, cookie: &Cookie) -> Result<TcpStream, AskError> {
        let name = &node.node.name;
        let host = bare_host(name.host());
        let unreachable = |cause: String| AskError::Unreachable {
            node: name.clone(),
            place: format!("{}:{}", name.host(), node.port),
            cause,
        };
        let dialled = timeout(REGISTRY_ANSWER_MAX, TcpStream::connect((host, node.port))).await;
        let dialled = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut stream = dialled.map_err(|error| unreachable(error.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| unreachable(error.to_string()))?;
        prove_as_client(
            &mut stream,
            cookie,
            Purpose::Control,
            &Identity::command(),
            Some(name),
        )
        .await
        .map_err(|error| AskError::Handshake {
            node: name.clone(),
            error,
        })?;
        Ok(stream)
    }
}

/// The one node of a registry, where nobody was named.
fn only(list: NameList, except: Option<&NodeName>) -> Result<Registration, AskError> {
    let (mut others, ruled_out): (Vec<_>, Vec<_>) = list
        .names
        .into_iter()
        .partition(|registration| Some(&registration.node.name) != except);
    match (others.len(), ruled_out.first()) {
        (1, _) => Ok(others.remove(0)),
        (0, Some(itself)) => Err(AskError::OnlyItself(itself.node.name.clone())),
        (0, None) => Err(AskError::NoNode),
        _ => Err(AskError::Several(
            others
                .into_iter()
                .map(|registration| registration.node.name)
                .collect(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_name::{Incarnation, NodeId};

    fn list(names: &[&str]) -> NameList {
        let node = |name: &str| NodeId {
            name: name.parse().unwrap(),
            incarnation: Incarnation(1),
        };
        let registration = |name: &&str| Registration {
            node: node(name),
            port: 1,
            listeners: vec![],
            since_ms: 0,
        };
        NameList {
            server: node("n1@h"),
            port: 4366,
            names: names.iter().map(registration).collect(),
        }
    }

    fn chosen(names: &[&str], except: Option<&str>) -> Result<String, String> {
        let except: Option<NodeName> = except.map(|name| name.parse().unwrap());
        let found = only(list(names), except.as_ref());
        found
            .map(|found| found.node.name.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_only_node_of_a_host_need_not_be_named() {
        assert_eq!(chosen(&["n1@h"], None).unwrap(), "n1@h");
        assert_eq!(chosen(&["n1@h", "n2@h"], Some("n2@h")).unwrap(), "n1@h");
        let none = "no node is running on this host: start one with `ermine start`";
        assert_eq!(chosen(&[], None).unwrap_err(), none);
    }

    #[test]
    fn of_several_nodes_one_must_be_named() {
        let several = "several nodes are running on this host: choose one with --node, n1@h, n2@h or n3@h";
        assert_eq!(chosen(&["n1@h", "n2@h", "n3@h"], None).unwrap_err(), several);
        let itself = "n1@h is the only node that is running on this host: a node cannot join itself";
        assert_eq!(chosen(&["n1@h"], Some("n1@h")).unwrap_err(), itself);
    }

    #[test]
    fn an_unknown_node_is_answered_with_the_known_ones() {
        let unknown = |known: &[&str]| {
            let known = known.iter().map(|name| name.parse().unwrap()).collect();
            AskError::Unknown {
                name: "x@h".parse().unwrap(),
                known,
            }
            .to_string()
        };
        assert_eq!(
            unknown(&[]),
            "node x@h is not running; no node is running on that host"
        );
        assert_eq!(
            unknown(&["a@h"]),
            "node x@h is not running; the only one on that host is a@h"
        );
        assert_eq!(
            unknown(&["a@h", "b@h"]),
            "node x@h is not running; those on that host are a@h, b@h"
        );
    }
}
