//! The handshake's five frames and the transcript under its proofs: docs/PROTOCOL.md, "Handshake".

use hmac::{Hmac, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{HandshakeError, Identity, Nonce, Purpose, Versions};
use crate::limits::HANDSHAKE_FRAME_BYTES_MAX;
use crate::node_name::{NodeId, NodeName};
use crate::registry::cookie::Cookie;
use crate::registry::wire;

pub(super) const HELLO: u8 = 1;
pub(super) const CHALLENGE: u8 = 2;
const CLIENT_PROOF: u8 = 3;
const SERVER_PROOF: u8 = 4;
const REFUSED: u8 = 5;

const MAGIC: [u8; 4] = *b"ERMN";

/// Length of a proof; it is the end of its frame.
const MAC_BYTES: usize = 32;

/// Largest is a `ClientProof` with two names of 255 bytes.
fn encode(frame: &impl Serialize) -> Vec<u8> {
    wire::encode::<HANDSHAKE_FRAME_BYTES_MAX>(frame)
        .expect("the bound on node names keeps every handshake frame far below its own bound")
}

fn decode<F: DeserializeOwned>(frame: &[u8], step: u8) -> Result<F, HandshakeError> {
    wire::decode::<F, HANDSHAKE_FRAME_BYTES_MAX>(frame).map_err(|_| HandshakeError::Malformed { step })
}

/// The part of (1) and (2) that keeps its place in every future version.
pub(super) fn versions(frame: &[u8], tag: u8) -> Result<Versions, HandshakeError> {
    let head: &[u8; 9] = frame.first_chunk().ok_or(HandshakeError::NotErmine)?;
    if head[0] != tag || head[1..5] != MAGIC {
        return Err(HandshakeError::NotErmine);
    }
    let versions = Versions {
        min: u16::from_be_bytes([head[5], head[6]]),
        max: u16::from_be_bytes([head[7], head[8]]),
    };
    if versions.min > versions.max {
        return Err(HandshakeError::Malformed { step: tag });
    }
    Ok(versions)
}

pub(super) struct Hello {
    pub(super) versions: Versions,
    pub(super) purpose: Purpose,
    pub(super) nonce: Nonce,
}

#[derive(Serialize, Deserialize)]
struct HelloFrame(u8, [u8; 4], u16, u16, u8, Nonce);

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Versions { min, max } = self.versions;
        encode(&HelloFrame(
            HELLO,
            MAGIC,
            min,
            max,
            self.purpose as u8,
            self.nonce,
        ))
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Self, HandshakeError> {
        let versions = versions(frame, HELLO)?;
        let HelloFrame(_, _, _, _, purpose, nonce) = decode(frame, 1)?;
        let purpose = Purpose::ALL.into_iter().find(|known| *known as u8 == purpose);
        Ok(Self {
            versions,
            purpose: purpose.ok_or(HandshakeError::Malformed { step: 1 })?,
            nonce,
        })
    }
}

pub(super) struct Challenge {
    pub(super) versions: Versions,
    pub(super) nonce: Nonce,
}

#[derive(Serialize, Deserialize)]
struct ChallengeFrame(u8, [u8; 4], u16, u16, Nonce);

impl Challenge {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Versions { min, max } = self.versions;
        encode(&ChallengeFrame(CHALLENGE, MAGIC, min, max, self.nonce))
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Self, HandshakeError> {
        let versions = versions(frame, CHALLENGE)?;
        let ChallengeFrame(_, _, _, _, nonce) = decode(frame, 2)?;
        Ok(Self { versions, nonce })
    }
}

pub(super) struct ClientProof {
    pub(super) version: u16,
    pub(super) identity: Identity,
    pub(super) expect: Option<NodeName>,
}

#[derive(Serialize, Deserialize)]
struct ClientProofFrame(u8, u16, Option<NodeId>, Option<NodeName>, [u8; MAC_BYTES]);

impl ClientProof {
    /// The frame with an empty proof; [`Transcript::seal`] fills it.
    pub(super) fn encode(self) -> Vec<u8> {
        let Self {
            version,
            identity,
            expect,
        } = self;
        encode(&ClientProofFrame(
            CLIENT_PROOF,
            version,
            identity.node,
            expect,
            [0; MAC_BYTES],
        ))
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Self, HandshakeError> {
        match decode(frame, 3)? {
            ClientProofFrame(CLIENT_PROOF, version, node, expect, _) => Ok(Self {
                version,
                identity: Identity { node },
                expect,
            }),
            _ => Err(HandshakeError::Malformed { step: 3 }),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    WrongNode,
    WrongDoor,
}

impl Verdict {
    const ALL: [Self; 3] = [Self::Accepted, Self::WrongNode, Self::WrongDoor];
}

pub(super) struct ServerProof {
    pub(super) verdict: Verdict,
    pub(super) node: NodeId,
}

#[derive(Serialize, Deserialize)]
struct ServerProofFrame(u8, u8, NodeId, [u8; MAC_BYTES]);

impl ServerProof {
    /// The frame with an empty proof; [`Transcript::seal`] fills it.
    pub(super) fn encode(self) -> Vec<u8> {
        encode(&ServerProofFrame(
            SERVER_PROOF,
            self.verdict as u8,
            self.node,
            [0; MAC_BYTES],
        ))
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Self, HandshakeError> {
        let malformed = HandshakeError::Malformed { step: 4 };
        let ServerProofFrame(tag, verdict, node, _) = decode(frame, 4)?;
        let verdict = Verdict::ALL.into_iter().find(|known| *known as u8 == verdict);
        match (tag, verdict) {
            (SERVER_PROOF, Some(verdict)) => Ok(Self { verdict, node }),
            _ => Err(malformed),
        }
    }
}

/// Why a client's proof was refused; its value is the reason in the frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It proves no cookie that we ever held.
    Mismatch = 1,
    /// It proves one that was replaced, and its grace is over.
    Replaced = 2,
}

pub(super) fn refused(why: Refusal) -> Vec<u8> {
    vec![REFUSED, why as u8]
}

pub(super) fn refusal(frame: &[u8]) -> Option<Refusal> {
    [Refusal::Mismatch, Refusal::Replaced]
        .into_iter()
        .find(|why| frame == [REFUSED, *why as u8])
}

/// Whose proof: each role has its own key, so that a proof sent back proves nothing.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Client,
    Server,
}

/// All that was said so far, field by field, each preceded by its length.
pub(super) struct Transcript {
    purpose: Purpose,
    said: Vec<u8>,
}

impl Transcript {
    pub(super) fn new(purpose: Purpose, binding: &[u8]) -> Self {
        let mut transcript = Self {
            purpose,
            said: Vec::new(),
        };
        // Empty on plain TCP.
        transcript.absorb(binding);
        transcript
    }

    pub(super) fn absorb(&mut self, field: &[u8]) {
        let len = u32::try_from(field.len()).expect("a handshake frame is shorter than 1 KiB");
        self.said.extend_from_slice(&len.to_be_bytes());
        self.said.extend_from_slice(field);
    }

    /// Fills the proof at the end of `frame`.
    pub(super) fn seal(&self, cookie: &Cookie, role: Role, mut frame: Vec<u8>) -> Vec<u8> {
        let start = frame.len() - MAC_BYTES;
        let mac = self.mac(cookie, role, &frame[..start]).finalize().into_bytes();
        frame[start..].copy_from_slice(&mac);
        frame
    }

    /// Whether the proof at the end of `frame` is right; in constant time.
    pub(super) fn verify(&self, cookie: &Cookie, role: Role, frame: &[u8]) -> bool {
        frame
            .split_last_chunk::<MAC_BYTES>()
            .is_some_and(|(unproved, mac)| self.mac(cookie, role, unproved).verify_slice(mac).is_ok())
    }

    fn mac(&self, cookie: &Cookie, role: Role, unproved: &[u8]) -> Hmac<Sha256> {
        let role: &[u8] = match role {
            Role::Client => b"/client",
            Role::Server => b"/server",
        };
        let mut key = Zeroizing::new([0; 32]);
        cookie.derive(
            &[b"ermine handshake/", self.purpose.label().as_bytes(), role],
            &mut *key,
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(&*key).expect("HMAC takes a key of any length");
        let len = u32::try_from(unproved.len()).expect("a handshake frame is shorter than 1 KiB");
        mac.update(&self.said);
        mac.update(&len.to_be_bytes());
        mac.update(unproved);
        mac
    }
}
