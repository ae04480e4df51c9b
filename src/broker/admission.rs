//! From a CONNECT to an identity, or to a refusal: the part of [`super::connection`] that asks who it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::counters::Counters;
use super::gatekeeper::Authenticate;
use super::keyring::Step;
use super::tables::Tables;
use super::transport::{Origin, Peer};
use crate::access::identity::{Credentials, Denial, Identity, Secret};
use crate::access::scram;
use crate::mqtt::codec::{self, Decoder};
use crate::mqtt::packet::{Auth, Connect, Packet, ProtocolVersion};
use crate::mqtt::properties::AuthProperties;
use crate::mqtt::reason::ReasonCode;

/// Pause before a request that a crash swallowed is made again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A client that may come in.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) identity: Identity,
    /// The server's last word of an enhanced authentication; goes into the CONNACK.
    pub(super) last_word: Option<Bytes>,
}

/// Why a client may not.
#[derive(Debug)]
enum Outcome {
    Denied(Denial),
    /// It broke the protocol.
    Broken(ReasonCode),
    /// It is gone.
    Gone,
}

/// A socket between its CONNECT and its CONNACK.
pub(super) struct Threshold<'a, S> {
    pub(super) tables: &'a Arc<Tables>,
    pub(super) counters: &'a Counters,
    pub(super) socket: &'a mut S,
    pub(super) decoder: &'a mut Decoder,
    pub(super) read_ahead: &'a mut BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Threshold<'_, S> {
    /// Finds out who it is, and takes the password out of the CONNECT. Runs under the CONNECT's deadline.
    ///
    /// # Errors
    /// The reason that the client is told; none for one that is gone.
    pub(super) async fn admit(
        mut self,
        connect: &mut Connect,
        origin: &Origin,
    ) -> Result<Admission, Option<ReasonCode>> {
        let credentials = Credentials {
            client_id: connect.client_id.clone(),
            username: connect.username.clone(),
            password: connect.password.take().map(|password| Secret::new(&password)),
            address: match origin.peer() {
                Peer::Ip(address) => Some(address.ip()),
                Peer::Unix => None,
            },
            certificate_name: origin.certificate_username().map(str::to_owned),
            listener: origin.listener().to_owned(),
            allow_anonymous: origin.terms().allow_anonymous,
        };
        let properties = &mut connect.properties;
        let data = properties.authentication_data.take();
        let method = properties.authentication_method.as_ref();
        let outcome = match method {
            Some(method) if *method != scram::METHOD => Err(Outcome::Denied(Denial::BadMethod)),
            Some(_) => self.exchange(&credentials, data).await,
            None => self.check(&credentials).await,
        };
        outcome.map_err(|outcome| self.tell(&outcome, &credentials))
    }

    /// Counts and logs a refusal; what the client is told of it.
    fn tell(&self, outcome: &Outcome, credentials: &Credentials) -> Option<ReasonCode> {
        let denial = match outcome {
            Outcome::Denied(denial) => *denial,
            Outcome::Broken(reason) => return Some(*reason),
            Outcome::Gone => return None,
        };
        match denial {
            Denial::Busy | Denial::Unavailable => self.counters.connects_undecided.one(),
            Denial::Barred => self.counters.connects_barred.one(),
            _ => self.counters.connects_denied.one(),
        }
        // The one that bars an address has its line; those after it would flood the log.
        if denial != Denial::Barred {
            tracing::info!(
                client = %credentials.client_id,
                user = credentials.username.as_deref().unwrap_or_default(),
                listener = %credentials.listener,
                "a CONNECT was refused: {denial}"
            );
        }
        Some(denial.reason())
    }

    async fn check(&self, credentials: &Credentials) -> Result<Admission, Outcome> {
        let identity = match self.tables.keyring.follow(0, credentials) {
            Step::Decided(decided) => decided,
            _ => self.ask(credentials).await,
        };
        Ok(Admission {
            identity: identity.map_err(Outcome::Denied)?,
            last_word: None,
        })
    }

    /// Asks the gatekeeper, again if it crashes meanwhile.
    async fn ask(&self, credentials: &Credentials) -> Result<Identity, Denial> {
        loop {
            let (answer, answered) = oneshot::channel();
            let request = Authenticate {
                credentials: credentials.clone(),
                answer,
            };
            // One that is restarting drops it, one that crashes too.
            let _ = self.tables.names.gatekeeper.cast(request);
            match answered.await {
                Ok(answer) => return answer,
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// SCRAM-SHA-256 `[MQTT-4.12.0-2]` to `[MQTT-4.12.0-5]`.
    async fn exchange(
        &mut self,
        credentials: &Credentials,
        data: Option<Bytes>,
    ) -> Result<Admission, Outcome> {
        let (keyring, address) = (&self.tables.keyring, credentials.address);
        // A client that sends nothing first is asked with an empty challenge in SASL; MQTT clients send it.
        let first = data.ok_or(Outcome::Broken(ReasonCode::ProtocolError))?;
        let (exchange, challenge) = keyring.challenge(address, &first).map_err(Outcome::Denied)?;
        self.send(&auth(ReasonCode::ContinueAuthentication, challenge.into()))
            .await
            .map_err(|_| Outcome::Gone)?;
        let last = self.answer().await?;
        let concluded = keyring.conclude(address, exchange, &last);
        let (identity, signature) = concluded.map_err(Outcome::Denied)?;
        Ok(Admission {
            identity,
            last_word: Some(signature.into()),
        })
    }

    async fn send(&mut self, packet: &Packet) -> std::io::Result<()> {
        let mut out = Vec::new();
        if codec::encode(packet, ProtocolVersion::V5, &mut out).is_err() {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        self.socket.write_all(&out).await?;
        self.socket.flush().await
    }

    /// The client's next AUTH `[MQTT-4.12.0-3]`; nothing else may come before the CONNACK but DISCONNECT.
    async fn answer(&mut self) -> Result<Bytes, Outcome> {
        loop {
            match self.decoder.decode(self.read_ahead) {
                Ok(Some(Packet::Auth(auth))) => {
                    let properties = auth.properties;
                    let same = properties.authentication_method.as_deref() == Some(scram::METHOD);
                    if auth.reason != ReasonCode::ContinueAuthentication || !same {
                        return Err(Outcome::Broken(ReasonCode::ProtocolError));
                    }
                    let data = properties.authentication_data;
                    return data.ok_or(Outcome::Broken(ReasonCode::ProtocolError));
                }
                Ok(Some(Packet::Disconnect(_))) => return Err(Outcome::Gone),
                Ok(Some(_)) => return Err(Outcome::Broken(ReasonCode::ProtocolError)),
                Err(error) => return Err(Outcome::Broken(error.reason)),
                Ok(None) => match self.socket.read_buf(self.read_ahead).await {
                    Ok(0) | Err(_) => return Err(Outcome::Gone),
                    Ok(_) => {}
                },
            }
        }
    }
}

/// An AUTH of the built-in method.
fn auth(reason: ReasonCode, data: Bytes) -> Packet {
    Packet::Auth(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(ByteString::from_static(scram::METHOD)),
            authentication_data: Some(data),
            ..AuthProperties::default()
        },
    })
}
