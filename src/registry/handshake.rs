//! The mutual proof of the cookie, as two values without a socket: docs/PROTOCOL.md, "Handshake".
//!
//! | side | state | frame | next |
//! |---|---|---|---|
//! | client | – | – | says (1) `Hello`, awaits (2) |
//! | server | awaits (1) | `Hello` | says (2) `Challenge`, awaits (3); no common version: says (2), refuses |
//! | client | awaits (2) | `Challenge` | says (3) `ClientProof`, awaits (4); no common version: fails |
//! | server | awaits (3) | `ClientProof` | says (4) `ServerProof`, done; proof wrong: says `Refused` |
//! | client | awaits (4) | `ServerProof` | done; proof wrong: fails |
//! | client | awaits (4) | `Refused` | fails: cookie mismatch, or replaced |
//! | both | any | anything else | fails, says nothing |

use std::fmt;

use crate::node_name::{NodeId, NodeName};
use crate::registry::cookie::{Cookie, Fingerprint};

mod failure;
mod frames;
mod shell;

pub use failure::HandshakeError;
use frames::{Challenge, ClientProof, Hello, Role, ServerProof, Transcript, Verdict};
pub use shell::{Channel, prove_as_client, prove_as_server};

/// Random bytes, fresh for each handshake, which keep proofs from being replayed.
pub type Nonce = [u8; 32];

/// What a connection is for. A proof for one purpose is worth nothing at another door.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// Names and leases.
    Registry,
    /// Messages between nodes.
    Link,
    /// Commands of the CLI.
    Control,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Registry, Self::Link, Self::Control];

    fn label(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Link => "link",
            Self::Control => "control",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Who proves itself: a node, or an `ermine` command, which has no name (Erlang's hidden node).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The node; nothing for a command.
    pub node: Option<NodeId>,
}

impl Identity {
    /// A node.
    #[must_use]
    pub fn node(node: NodeId) -> Self {
        Self { node: Some(node) }
    }

    /// An `ermine` command.
    #[must_use]
    pub fn command() -> Self {
        Self { node: None }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => node.name.fmt(f),
            None => f.write_str("an ermine command"),
        }
    }
}

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

/// The versions this build speaks.
pub const PROTOCOL_VERSIONS: Versions = Versions { min: 1, max: 1 };

impl Versions {
    /// The highest version in both ranges.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let highest = self.max.min(other.max);
        (highest >= self.min && highest >= other.min).then_some(highest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

/// The other side, after both proofs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proved {
    /// Who it is.
    pub identity: Identity,
    /// What the connection is for.
    pub purpose: Purpose,
    /// The version both speak from here on.
    pub version: u16,
    /// The cookie that both sides proved, where one holds several.
    pub cookie: Fingerprint,
}

/// What a value answers to a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send this and give the next frame.
    Say(Vec<u8>),
    /// Send this, if anything, and the connection is proved.
    Done {
        /// The last frame.
        say: Option<Vec<u8>>,
        /// The other side.
        proved: Proved,
    },
    /// Send this so that the other side knows too, then close.
    Refuse {
        /// The last frame.
        say: Vec<u8>,
        /// The reason.
        error: HandshakeError,
    },
}

/// The side that dialled.
pub struct Client {
    cookie: Cookie,
    me: Identity,
    purpose: Purpose,
    expect: Option<NodeName>,
    versions: Versions,
    binding: Vec<u8>,
    state: ClientState,
}

enum ClientState {
    AwaitsChallenge { nonce: Nonce, hello: Vec<u8> },
    AwaitsProof { transcript: Transcript, version: u16 },
    Over,
}

impl Client {
    /// (1): the client and its first frame. `nonce` has to be fresh and random.
    #[must_use]
    pub fn start(
        cookie: Cookie,
        me: Identity,
        purpose: Purpose,
        expect: Option<NodeName>,
        versions: Versions,
        nonce: Nonce,
    ) -> (Self, Vec<u8>) {
        let hello = Hello {
            versions,
            purpose,
            nonce,
        }
        .encode();
        let state = ClientState::AwaitsChallenge {
            nonce,
            hello: hello.clone(),
        };
        (
            Self {
                cookie,
                me,
                purpose,
                expect,
                versions,
                binding: Vec::new(),
                state,
            },
            hello,
        )
    }

    /// What both ends know of the connection and nobody else: the proofs hold for it alone.
    #[must_use]
    pub fn bound_to(mut self, binding: &[u8]) -> Self {
        self.binding = binding.to_vec();
        self
    }

    /// Takes the server's next frame.
    ///
    /// # Errors
    /// Any but the socket's; the client is over then, and there is nothing to say.
    pub fn step(&mut self, frame: &[u8]) -> Result<Step, HandshakeError> {
        match std::mem::replace(&mut self.state, ClientState::Over) {
            ClientState::AwaitsChallenge { nonce, hello } => self.challenged(nonce, &hello, frame),
            ClientState::AwaitsProof { transcript, version } => self.answered(transcript, version, frame),
            ClientState::Over => Err(HandshakeError::Malformed { step: 4 }),
        }
    }

    /// (2) came: (3) is said.
    fn challenged(&mut self, nonce: Nonce, hello: &[u8], frame: &[u8]) -> Result<Step, HandshakeError> {
        let theirs = frames::versions(frame, frames::CHALLENGE)?;
        let version = self.versions.common(theirs).ok_or(HandshakeError::Versions {
            ours: self.versions,
            theirs,
        })?;
        let challenge = Challenge::decode(frame)?;
        if challenge.nonce == nonce {
            return Err(HandshakeError::Reflected);
        }
        let mut transcript = Transcript::new(self.purpose, &self.binding);
        transcript.absorb(hello);
        transcript.absorb(frame);
        let proof = ClientProof {
            version,
            identity: self.me.clone(),
            expect: self.expect.clone(),
        };
        let proof = transcript.seal(&self.cookie, Role::Client, proof.encode());
        transcript.absorb(&proof);
        self.state = ClientState::AwaitsProof { transcript, version };
        Ok(Step::Say(proof))
    }

    /// (4) came.
    fn answered(&self, transcript: Transcript, version: u16, frame: &[u8]) -> Result<Step, HandshakeError> {
        let mismatch = || HandshakeError::CookieMismatch {
            ours: self.cookie.fingerprint(),
            with: self
                .expect
                .as_ref()
                .map_or_else(|| "the node there".into(), NodeName::to_string),
        };
        match frames::refusal(frame) {
            Some(frames::Refusal::Mismatch) => return Err(mismatch()),
            Some(frames::Refusal::Replaced) => {
                return Err(HandshakeError::CookieReplaced {
                    ours: self.cookie.fingerprint(),
                });
            }
            None => {}
        }
        let proof = ServerProof::decode(frame)?;
        if !transcript.verify(&self.cookie, Role::Server, frame) {
            return Err(mismatch());
        }
        let expected = self
            .expect
            .as_ref()
            .filter(|expected| **expected != proof.node.name);
        match (proof.verdict, expected) {
            (Verdict::WrongDoor, _) => Err(HandshakeError::WrongDoor { asked: self.purpose }),
            (_, Some(expected)) => Err(HandshakeError::WrongNode {
                reached: proof.node.name,
                expected: expected.clone(),
            }),
            (Verdict::WrongNode, None) => Err(HandshakeError::Malformed { step: 4 }),
            (Verdict::Accepted, None) => {
                let identity = Identity::node(proof.node);
                Ok(Step::Done {
                    say: None,
                    proved: Proved {
                        identity,
                        purpose: self.purpose,
                        version,
                        cookie: self.cookie.fingerprint(),
                    },
                })
            }
        }
    }
}

/// The side that was dialled.
pub struct Server {
    /// Good, the one that is held up to now first. Never empty.
    cookies: Vec<Cookie>,
    /// Good no more: who proves one of these is told so.
    retired: Vec<Cookie>,
    me: NodeId,
    doors: Vec<Purpose>,
    versions: Versions,
    binding: Vec<u8>,
    state: ServerState,
}

enum ServerState {
    AwaitsHello {
        nonce: Nonce,
    },
    AwaitsProof {
        transcript: Transcript,
        purpose: Purpose,
        version: u16,
    },
    Over,
}

impl Server {
    /// A server that takes connections of the purposes in `doors`. `nonce` has to be fresh and random.
    #[must_use]
    pub fn new(cookie: Cookie, me: NodeId, doors: &[Purpose], versions: Versions, nonce: Nonce) -> Self {
        Self {
            cookies: vec![cookie],
            retired: Vec::new(),
            me,
            doors: doors.to_vec(),
            versions,
            binding: Vec::new(),
            state: ServerState::AwaitsHello { nonce },
        }
    }

    /// Takes other cookies too, and tells those who prove one that was taken once.
    #[must_use]
    pub fn also_taking(mut self, valid: &[Cookie], retired: &[Cookie]) -> Self {
        self.cookies.extend_from_slice(valid);
        self.retired.extend_from_slice(retired);
        self
    }

    /// As [`Client::bound_to`].
    #[must_use]
    pub fn bound_to(mut self, binding: &[u8]) -> Self {
        self.binding = binding.to_vec();
        self
    }

    /// Takes the client's next frame.
    ///
    /// # Errors
    /// Any but the socket's; the server is over then, and there is nothing to say.
    pub fn step(&mut self, frame: &[u8]) -> Result<Step, HandshakeError> {
        match std::mem::replace(&mut self.state, ServerState::Over) {
            ServerState::AwaitsHello { nonce } => self.greeted(nonce, frame),
            ServerState::AwaitsProof {
                transcript,
                purpose,
                version,
            } => self.proved(transcript, purpose, version, frame),
            ServerState::Over => Err(HandshakeError::Malformed { step: 3 }),
        }
    }

    /// (1) came: (2) is said.
    fn greeted(&mut self, nonce: Nonce, frame: &[u8]) -> Result<Step, HandshakeError> {
        let theirs = frames::versions(frame, frames::HELLO)?;
        let challenge = Challenge {
            versions: self.versions,
            nonce,
        }
        .encode();
        let Some(version) = self.versions.common(theirs) else {
            let error = HandshakeError::Versions {
                ours: self.versions,
                theirs,
            };
            return Ok(Step::Refuse {
                say: challenge,
                error,
            });
        };
        let hello = Hello::decode(frame)?;
        if hello.nonce == nonce {
            return Err(HandshakeError::Reflected);
        }
        let mut transcript = Transcript::new(hello.purpose, &self.binding);
        transcript.absorb(frame);
        transcript.absorb(&challenge);
        self.state = ServerState::AwaitsProof {
            transcript,
            purpose: hello.purpose,
            version,
        };
        Ok(Step::Say(challenge))
    }

    /// (3) came: (4) is said.
    fn proved(
        &self,
        mut transcript: Transcript,
        purpose: Purpose,
        version: u16,
        frame: &[u8],
    ) -> Result<Step, HandshakeError> {
        let proof = ClientProof::decode(frame)?;
        let proves = |cookie: &&Cookie| transcript.verify(cookie, Role::Client, frame);
        let Some(cookie) = self.cookies.iter().find(proves) else {
            let replaced = self.retired.iter().any(|cookie| proves(&cookie));
            return Ok(self.refused(&proof, replaced));
        };
        if proof.version != version {
            return Err(HandshakeError::Malformed { step: 3 });
        }
        transcript.absorb(frame);
        let (verdict, error) = match proof.expect {
            Some(expected) if expected != self.me.name => {
                let reached = self.me.name.clone();
                (
                    Verdict::WrongNode,
                    Some(HandshakeError::WrongNode { reached, expected }),
                )
            }
            _ if !self.doors.contains(&purpose) => (
                Verdict::WrongDoor,
                Some(HandshakeError::WrongDoor { asked: purpose }),
            ),
            _ => (Verdict::Accepted, None),
        };
        let answer = ServerProof {
            verdict,
            node: self.me.clone(),
        };
        let say = transcript.seal(cookie, Role::Server, answer.encode());
        Ok(match error {
            Some(error) => Step::Refuse { say, error },
            None => Step::Done {
                say: Some(say),
                proved: Proved {
                    identity: proof.identity,
                    purpose,
                    version,
                    cookie: cookie.fingerprint(),
                },
            },
        })
    }

    /// (3) came and proves none of our cookies.
    fn refused(&self, proof: &ClientProof, replaced: bool) -> Step {
        let ours = self.cookies[0].fingerprint();
        let with = match &proof.identity.node {
            Some(node) => format!("a node that calls itself {}", node.name),
            None => "an ermine command".into(),
        };
        if replaced {
            let (say, error) = (
                frames::refused(frames::Refusal::Replaced),
                HandshakeError::HoldsReplaced { ours, with },
            );
            return Step::Refuse { say, error };
        }
        let (say, error) = (
            frames::refused(frames::Refusal::Mismatch),
            HandshakeError::CookieMismatch { ours, with },
        );
        Step::Refuse { say, error }
    }
}

#[cfg(test)]
mod tests;
