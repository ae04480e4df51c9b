//! Whether this node could join another one, and if not, why: the steps of `ermine cluster check`.
//!
//! Nothing is changed on either side. The other node is asked over its control port; the steps behind
//! the cookie are therefore answered by both, and each logs its half.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Plan;
use super::surroundings::{millis, restarting};
use crate::admin::client::{AskError, Operator};
use crate::admin::protocol::{Greeting, JoinStep, Reach, Reply, Request};
use crate::cluster::Cluster;
use crate::cluster::dial::{Step, try_out};
use crate::cluster::wire::VERSIONS;
use crate::limits::{NODES_MAX, REGISTRY_ANSWER_MAX};
use crate::node_name::NodeName;
use crate::registry::endpoint::bare_host;
use crate::registry::{ClientError, HandshakeError, Identity, Registration, RegistryClient};

/// Longest wait for one answer. A way back that leads nowhere takes its own deadlines within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Longest flight of a canary.
const CANARY_WITHIN: Duration = Duration::from_secs(5);

/// Weight of a canary: more than any path takes in one packet.
const CANARY_BYTES: usize = 64 << 10;

/// Clocks that differ by more make stamps of joins and leaves, and expiry, wrong.
const CLOCK_SKEW_MAX_MS: u64 = 5_000;

/// Ways that are tried at the same time.
const WAYS_AT_ONCE: usize = 16;

/// Why a check ends.
#[derive(Debug)]
struct Fault {
    step: &'static str,
    sentence: String,
}

fn fault<T>(step: &'static str, sentence: String) -> Result<T, Fault> {
    Err(Fault { step, sentence })
}

/// One side of a check.
pub(super) struct Checker {
    me: NodeName,
    registry: RegistryClient,
    operator: Operator,
    registry_port: u16,
    fingerprint: String,
    /// Nothing while it is being restarted.
    wing: Option<Cluster>,
}

impl Checker {
    pub(super) fn new(plan: &Plan) -> Self {
        let cookies = &plan.cookies;
        let port = plan.config.registry_port;
        Self {
            me: plan.config.name.clone(),
            registry: RegistryClient::new(cookies.clone(), Identity::node(plan.tables().node.clone()), port),
            operator: Operator::new(cookies.clone(), plan.endpoint),
            registry_port: port,
            fingerprint: cookies.current().fingerprint().to_string(),
            wing: plan.wing(),
        }
    }

    /// All steps; each is told as it ends. `here` are the members that this node reaches.
    ///
    /// # Errors
    /// The sentence of the step that failed: cause and remedy.
    pub(super) async fn check(
        &self,
        other: &NodeName,
        here: &[NodeName],
        steps: &mpsc::Sender<JoinStep>,
    ) -> Result<(), String> {
        let checked = self.steps(other, here, steps).await;
        checked.map_err(|Fault { step, sentence }| {
            tracing::warn!("check of {other}: {step}: {sentence}");
            // The channel has room for all steps of a check.
            let _ = steps.try_send(told(step, false, sentence.clone()));
            sentence
        })
    }

    async fn steps(
        &self,
        other: &NodeName,
        here: &[NodeName],
        steps: &mpsc::Sender<JoinStep>,
    ) -> Result<(), Fault> {
        let passed = async |step: &str, detail: String| {
            // An operator who has gone away does not end it.
            let _ = steps.send(told(step, true, detail)).await;
        };
        if *other == self.me {
            return fault("name", format!("{other} is this node: name another one to check"));
        }
        passed("name", other.to_string()).await;
        passed("resolution", self.addresses(other).await?).await;
        let node = match self.registry.resolve(other).await {
            Ok(node) => node,
            Err(error) => {
                if let ClientError::Handshake { place, .. } = &error {
                    passed("registry", format!("something answers at {place}")).await;
                }
                return Err(unregistered(error));
            }
        };
        passed(
            "registry",
            format!("{other} is registered, its port is {}", node.port),
        )
        .await;
        let (greeting, apart_ms) = self.greeted(&node).await?;
        let version = versions(other, greeting.link_versions);
        if version.is_ok() {
            self.try_link(&node).await?;
        }
        let tls = self.wing.as_ref().is_some_and(|wing| wing.tls.is_some());
        let over = if tls { ", links over TLS" } else { "" };
        passed("port", format!("{}:{}{over}", other.host(), node.port)).await;
        passed("version", version?).await;
        passed(
            "cookie",
            format!("both hold it, fingerprint {}", self.fingerprint),
        )
        .await;
        passed("clock", skew(other, apart_ms)?).await;
        self.way_back(&node, false)
            .await
            .or_else(|sentence| fault("way back", sentence))?;
        passed("way back", format!("{other} reaches {}", self.me)).await;
        passed("mesh", self.mesh(&node, &greeting.members, here).await?).await;
        self.canary(&node)
            .await
            .or_else(|sentence| fault("canary", sentence))?;
        self.way_back(&node, true)
            .await
            .or_else(|sentence| fault("canary", sentence))?;
        let detail = format!("{} KiB there and back, both ways", CANARY_BYTES >> 10);
        passed("canary", detail).await;
        Ok(())
    }

    async fn addresses(&self, other: &NodeName) -> Result<String, Fault> {
        let host = bare_host(other.host());
        let found = timeout(REGISTRY_ANSWER_MAX, lookup_host((host, self.registry_port))).await;
        let unknown = |why: String| {
            format!(
                "the host '{host}' of {other} has no address here ({why}): correct the name, or add the host \
                 to DNS or /etc/hosts"
            )
        };
        match found {
            Ok(Ok(found)) => {
                let found: Vec<String> = found.map(|place| place.ip().to_string()).collect();
                Ok(found.join(", "))
            }
            Ok(Err(error)) => fault("resolution", unknown(error.to_string())),
            Err(_) => fault("resolution", unknown("DNS did not answer in time".into())),
        }
    }

    /// The other node's own word, and by how much its clock is ahead, in ms.
    async fn greeted(&self, node: &Registration) -> Result<(Greeting, i64), Fault> {
        let asked = millis(SystemTime::now());
        let request = Request::Greet {
            from: self.me.clone(),
            clock_ms: asked,
        };
        let greeting = self.ask(node, request, |reply| match reply {
            Reply::Greeting(greeting) => Some(greeting),
            _ => None,
        });
        let greeting = greeting
            .await
            .map_err(|error| unreached(&node.node.name, error))?;
        let middle = asked + millis(SystemTime::now()).saturating_sub(asked) / 2;
        let apart = greeting.clock_ms as i64 - middle as i64;
        Ok((greeting, apart))
    }

    /// TLS, cookie and version on the way that a link takes: commands take another one.
    async fn try_link(&self, node: &Registration) -> Result<(), Fault> {
        let Some(wing) = &self.wing else {
            return fault("port", restarting("cluster"));
        };
        match try_out(wing, &node.node.name, node).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let step = match error.step() {
                    Step::Version => "version",
                    Step::Cookie => "cookie",
                    _ => "port",
                };
                fault(step, error.to_string())
            }
        }
    }

    async fn way_back(&self, node: &Registration, canary: bool) -> Result<(), String> {
        let other = &node.node.name;
        let reached = self.reached_from(node, vec![self.me.clone()], canary).await?;
        match reached.into_iter().find_map(|reach| reach.failed) {
            None => Ok(()),
            Some(why) if canary => Err(format!("the canary of {other} was lost: {why}")),
            Some(why) => Err(no_way_back(other, &self.me, &why)),
        }
    }

    async fn reached_from(
        &self,
        node: &Registration,
        nodes: Vec<NodeName>,
        canary: bool,
    ) -> Result<Vec<Reach>, String> {
        let request = Request::Reach {
            from: self.me.clone(),
            nodes,
            canary,
        };
        let reached = self.ask(node, request, |reply| match reply {
            Reply::Reached(reached) => Some(reached),
            _ => None,
        });
        reached.await.map_err(|error| error.to_string())
    }

    /// Every member there is to be reached from here, and every one here from there.
    async fn mesh(
        &self,
        node: &Registration,
        there: &[NodeName],
        here: &[NodeName],
    ) -> Result<String, Fault> {
        let other = &node.node.name;
        let foreign = |nodes: &[NodeName]| -> Vec<NodeName> {
            let foreign = nodes.iter().filter(|name| **name != self.me && *name != other);
            foreign.take(NODES_MAX).cloned().collect()
        };
        let (there, here) = (foreign(there), foreign(here));
        for Reach { node, failed } in self.reach(&there, false).await {
            if let Some(why) = failed {
                let sentence = format!(
                    "{node}, a member of the cluster of {other}, is not reached from here: {why}; every \
                     member must reach every other"
                );
                return fault("mesh", sentence);
            }
        }
        let (theirs, ours) = (there.len(), here.len());
        if ours > 0 {
            let reached = self.reached_from(node, here, false).await;
            for Reach { node, failed } in reached.or_else(|why| fault("mesh", why))? {
                if let Some(why) = failed {
                    let sentence = format!(
                        "{other} does not reach {node}, a member of this cluster: {why}; every member must \
                         reach every other"
                    );
                    return fault("mesh", sentence);
                }
            }
        }
        Ok(format!(
            "{theirs} other members there, {ours} here, all reached from both sides"
        ))
    }

    async fn canary(&self, node: &Registration) -> Result<(), String> {
        canary_to(&self.operator, node, CANARY_BYTES).await
    }

    /// Tries the ways to some nodes, in their order.
    pub(super) async fn reach(&self, nodes: &[NodeName], canary: bool) -> Vec<Reach> {
        let bytes = if canary { CANARY_BYTES } else { 0 };
        let mut reached = Vec::new();
        for some in nodes[..nodes.len().min(NODES_MAX)].chunks(WAYS_AT_ONCE) {
            let ways = some.iter().map(async |name| Reach {
                node: name.clone(),
                failed: self.way(name, bytes).await.err(),
            });
            reached.extend(join_all(ways).await);
        }
        reached
    }

    async fn way(&self, name: &NodeName, bytes: usize) -> Result<(), String> {
        let node = self.registry.resolve(name).await;
        let node = node.map_err(|error| unregistered(error).sentence)?;
        canary_to(&self.operator, &node, bytes).await?;
        if bytes == 0 {
            let tried = self.try_link(&node).await;
            tried.map_err(|fault| fault.sentence)?;
        }
        Ok(())
    }

    async fn ask<T>(
        &self,
        node: &Registration,
        request: Request,
        take: impl Fn(Reply) -> Option<T>,
    ) -> Result<T, AskError> {
        let broken = |cause: &str| AskError::BrokenOff {
            node: node.node.name.clone(),
            cause: cause.into(),
        };
        let mut found = None;
        let asked = self.operator.ask(node, &request, |reply| found = take(reply));
        timeout(ANSWER_WITHIN, asked)
            .await
            .map_err(|_| broken("no answer in time"))??;
        found.ok_or_else(|| broken("it answered something else"))
    }
}

fn told(step: &str, ok: bool, detail: String) -> JoinStep {
    JoinStep {
        step: step.into(),
        ok,
        detail,
    }
}

/// Sends so many bytes and waits for the same. None of them is a proved connection and no more.
async fn canary_to(operator: &Operator, node: &Registration, bytes: usize) -> Result<(), String> {
    let name = &node.node.name;
    let sent: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
    let mut back = None;
    let request = Request::Canary(sent.clone());
    let flight = operator.ask(node, &request, |reply| {
        if let Reply::Canary(bytes) = reply {
            back = Some(bytes);
        }
    });
    match timeout(CANARY_WITHIN, flight).await {
        Ok(Ok(())) if back.as_ref() == Some(&sent) => Ok(()),
        Ok(Ok(())) => Err(format!(
            "the canary came back from {name} changed: a proxy is in between"
        )),
        Ok(Err(error)) => Err(unreached(name, error).sentence),
        Err(_) => Err(format!(
            "small packets pass, and a canary of {} KiB does not come back from {name}: large packets \
             are lost, check the MTU of the path",
            bytes >> 10
        )),
    }
}

/// The fault that a registry's answer shows.
fn unregistered(error: ClientError) -> Fault {
    let step = match &error {
        ClientError::Handshake { error, .. } => step_of(error, "registry"),
        _ => "registry",
    };
    Fault {
        step,
        sentence: error.to_string(),
    }
}

/// The fault that a node's answer, or its silence, shows.
fn unreached(other: &NodeName, error: AskError) -> Fault {
    match error {
        AskError::Unreachable { place, cause, .. } => Fault {
            step: "port",
            sentence: format!(
                "{other} is registered, but its port for other nodes, {place}, cannot be reached ({cause}): \
                 open it in the firewall, or set dist_port to one that is open"
            ),
        },
        AskError::Handshake { ref error, .. } => Fault {
            step: step_of(error, "port"),
            sentence: format!("{other} was reached, but: {error}"),
        },
        AskError::BrokenOff { cause, .. } => Fault {
            step: "version",
            sentence: format!(
                "{other} does not answer a check ({cause}): compare `ermine --version` on both sides, and \
                 look at its log"
            ),
        },
        other => Fault {
            step: "port",
            sentence: other.to_string(),
        },
    }
}

fn step_of(error: &HandshakeError, otherwise: &'static str) -> &'static str {
    match error {
        HandshakeError::Versions { .. } => "version",
        error if error.is_of_cookie() => "cookie",
        _ => otherwise,
    }
}

fn no_way_back(other: &NodeName, me: &NodeName, why: &str) -> String {
    format!(
        "{other} does not reach this node: {why}; the host part of {me} must be valid there, and this host's \
         ports open for {}",
        other.host()
    )
}

/// What both speak between nodes.
fn versions(other: &NodeName, theirs: (u16, u16)) -> Result<String, Fault> {
    let highest = VERSIONS.max.min(theirs.1);
    if highest >= VERSIONS.min && highest >= theirs.0 {
        return Ok(format!("version {highest} of the link protocol"));
    }
    let sentence = format!(
        "{other} speaks versions {} to {} of the link protocol, this node {} to {}: upgrade the older one",
        theirs.0, theirs.1, VERSIONS.min, VERSIONS.max
    );
    fault("version", sentence)
}

/// What the clocks show.
fn skew(other: &NodeName, apart_ms: i64) -> Result<String, Fault> {
    let (size, word) = (
        apart_ms.unsigned_abs(),
        if apart_ms < 0 { "behind" } else { "ahead" },
    );
    if size <= CLOCK_SKEW_MAX_MS {
        return Ok(format!("{size} ms apart"));
    }
    let sentence = format!(
        "the clock of {other} is {}.{} s {word}: set both hosts by NTP",
        size / 1000,
        size % 1000 / 100
    );
    fault("clock", sentence)
}

#[cfg(test)]
mod tests;
