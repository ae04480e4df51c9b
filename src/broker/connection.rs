//! The connection: a socket from its first byte to its CONNECT, which makes it a session's transport.
//!
//! Parent:   connections (dynamic), temporary
//! Owns:     the socket, until a session has adopted it
//! Asked by: nobody
//! Tells:    gatekeeper ([`super::gatekeeper::Authenticate`]), clients ([`super::clients::Connect`])
//! Dies of:  our bugs only; what the client does wrong is answered and ends it normally

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, WrapFuture};
use bytes::BytesMut;
use bytestring::ByteString;
use supervisors::{CallError, ChildSpec, Context, InitError, Restart, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::doorstep::Turned;
use self::held::Held;
use super::admission::{Admission, Threshold};
use super::clients::{Connect, ConnectError};
use super::crowd::Elsewhere;
use super::door::{Seat, Terms};
use super::session::{Arrival, Claim};
use super::tables::Tables;
use super::transport::{LooseSocket, Origin, Peer, Socket, Transport};
use crate::access::identity::Identity;
use crate::limits::CONNECT_BYTES_MAX;
use crate::mqtt::codec::{Decoder, Encoder};
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{self, ConnAck, Packet, ProtocolVersion};
use crate::mqtt::properties::ConnAckProperties;
use crate::mqtt::reason::ReasonCode;
use crate::session::event::Attach;

mod doorstep;
mod held;
mod proxy;
mod upgrade;

/// Longest that a CONNECT may wait for its session (design: no CONNECT waits longer).
const ADOPTION_DEADLINE: Duration = Duration::from_secs(5);

/// Pause before a request that a crash swallowed is made again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Numbers clients that have no address.
static UNIX_PEERS: AtomicU64 = AtomicU64::new(0);

/// A socket that has not spoken yet.
pub struct Connection {
    tables: Arc<Tables>,
    worker: usize,
    arrived: Option<(Socket, Origin)>,
}

/// How the wait for the CONNECT, and for the decision about it, ended.
enum Hello {
    Admitted(Box<Admitted>),
    Refused(Encoder, ReasonCode),
    SentAway(Encoder, Elsewhere),
    Malformed(DecodeError),
    Closed,
}

/// A client that may come in.
struct Admitted {
    attach: Attach,
    identity: Identity,
    read_ahead: BytesMut,
}

impl Connection {
    /// The child of `connections` for one socket, on one worker.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>, worker: usize, socket: LooseSocket, seat: Seat) -> ChildSpec {
        let peer = socket.peer();
        let id = match peer {
            Peer::Ip(address) => address.to_string(),
            Peer::Unix => format!("unix:{}", UNIX_PEERS.fetch_add(1, Relaxed)),
        };
        let origin = Origin::new(seat, peer);
        let (made, arrived) = (tables.clone(), Mutex::new(Some((socket, origin))));
        let init = move |_: &mut Context<Self>| {
            let taken = arrived.lock().ok().and_then(|mut arrived| arrived.take());
            let (socket, origin) = taken.ok_or_else(|| InitError::failed("the socket has been taken"))?;
            socket.set_nodelay()?;
            Ok(Self {
                tables: made.clone(),
                worker,
                arrived: Some((socket.attach()?, origin)),
            })
        };
        ChildSpec::worker(id, &tables.arbiters.all[worker], init)
            .restart(Restart::Temporary)
            .shutdown(Shutdown::BrutalKill)
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some((socket, origin)) = self.arrived.take() else {
            return ctx.stop();
        };
        let life = live(self.tables.clone(), self.worker, socket, origin);
        ctx.spawn(life.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// From the first byte to the adoption. All that comes before the CONNECT is under its deadline.
async fn live(tables: Arc<Tables>, worker: usize, socket: Socket, mut origin: Origin) {
    let counters = &tables.counters[worker];
    counters.sockets_opened.one();
    let deadline = origin.terms().connect_deadline;
    let hello = async {
        let mut transport = doorstep::come_in(socket, &mut origin).await?;
        let hello = come_in(&tables, worker, &mut transport, &origin).await;
        Ok::<_, Turned>((transport, hello))
    };
    match tokio::time::timeout(deadline, hello).await {
        Ok(Ok((transport, hello))) => greet(&tables, worker, transport, origin, hello).await,
        Ok(Err(turned)) => {
            turned.count(counters);
            let (door, peer) = (origin.listener(), origin.peer());
            tracing::debug!(door, %peer, why = %turned, "a socket was turned away");
        }
        Err(_) => counters.connects_late.one(),
    }
}

async fn greet(tables: &Arc<Tables>, worker: usize, mut transport: Transport, origin: Origin, hello: Hello) {
    let counters = &tables.counters[worker];
    match hello {
        Hello::Admitted(admitted) => {
            let Ok(transport) = transport.park() else { return };
            let arrival = Arrival {
                attach: Box::new(admitted.attach),
                transport,
                origin,
                read_ahead: admitted.read_ahead,
                identity: admitted.identity,
            };
            adopt(tables, worker, arrival).await;
        }
        Hello::Refused(encoder, reason) => {
            counters.connects_refused.one();
            refuse(&mut transport, encoder, reason, None).await;
        }
        Hello::SentAway(encoder, elsewhere) => {
            counters.connects_refused.one();
            let (reason, server) = (elsewhere.refusal(), elsewhere.reference());
            refuse(&mut transport, encoder, reason, server).await;
        }
        Hello::Malformed(error) => {
            counters.connects_refused.one();
            tracing::debug!(peer = %origin.peer(), %error, "a client's first packet was refused");
            if let Some((version, packet)) = error.answer_packet() {
                answer(&mut transport, Encoder::new(version), &packet).await;
            }
        }
        Hello::Closed => {}
    }
}

/// From the first byte to the decision.
async fn come_in(tables: &Arc<Tables>, worker: usize, transport: &mut Transport, origin: &Origin) -> Hello {
    let size_max = origin.terms().client.packet_size_max.min(CONNECT_BYTES_MAX);
    let mut decoder = Decoder::server(size_max);
    let mut held = Held::of(tables);
    let mut read_ahead = BytesMut::with_capacity(512);
    let connect = loop {
        match decoder.decode(&mut read_ahead) {
            Ok(Some(Packet::Connect(connect))) => break *connect,
            // The decoder lets nothing but a CONNECT through first.
            Ok(Some(_)) => return Hello::Closed,
            Err(error) => return Hello::Malformed(error),
            Ok(None) => match transport.read_buf(&mut read_ahead).await {
                Ok(0) | Err(_) => return Hello::Closed,
                Ok(_) if held.now(read_ahead.capacity()) => {}
                Ok(_) => {
                    tables.counters[worker].refused_hello_memory.one();
                    return Hello::Closed;
                }
            },
        }
    };
    let encoder = Encoder::for_client(&connect);
    if let Some(elsewhere) = origin.terms().node.elsewhere() {
        return Hello::SentAway(encoder, elsewhere);
    }
    let (mut attach, refused) = attach(connect, origin.terms());
    if let Some(reason) = refused {
        return Hello::Refused(encoder, reason);
    }
    let threshold = Threshold {
        tables,
        counters: &tables.counters[worker],
        socket: transport,
        decoder: &mut decoder,
        read_ahead: &mut read_ahead,
    };
    match threshold.admit(&mut attach.connect, origin).await {
        Ok(Admission { identity, last_word }) => {
            attach.authentication_data = last_word;
            Hello::Admitted(Box::new(Admitted {
                attach,
                identity,
                read_ahead,
            }))
        }
        Err(Some(reason)) => Hello::Refused(encoder, reason),
        Err(None) => Hello::Closed,
    }
}

/// Gives a nameless client its id, or refuses it `[MQTT-3.1.3-8]`.
fn attach(mut connect: packet::Connect, terms: &Terms) -> (Attach, Option<ReasonCode>) {
    let nameless = connect.client_id.is_empty();
    let keeps_state = !connect.version.is_v5() && !connect.clean_start;
    // 3.1 knows no empty client id at all; mosquitto refuses it too.
    let needs_name = keeps_state || connect.version == ProtocolVersion::V3_1;
    let refused = (nameless && needs_name).then_some(ReasonCode::ClientIdentifierNotValid);
    if nameless {
        connect.client_id = assigned_client_id();
    }
    (
        Attach {
            connect,
            assigned_client_id: nameless,
            limits: terms.client,
            authentication_data: None,
        },
        refused,
    )
}

/// 96 random bits, so that no two nodes ever assign the same id.
fn assigned_client_id() -> ByteString {
    let mut random = [0_u8; 12];
    if getrandom::fill(&mut random).is_err() {
        // Only on a system without a source of randomness, where the clock must do.
        let nanos = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |age| age.as_nanos());
        random.copy_from_slice(&nanos.to_be_bytes()[4..]);
    }
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("auto-{hex}").into()
}

/// Waits until a session has taken the socket over; a crash of `clients` in between is asked again.
async fn adopt(tables: &Arc<Tables>, worker: usize, arrival: Arrival) {
    let encoder = Encoder::for_client(&arrival.attach.connect);
    let client_id = arrival.attach.connect.client_id.clone();
    let claim = Claim::new(arrival);
    let asked = async {
        loop {
            let connect = Connect {
                client_id: client_id.clone(),
                worker,
                claim: claim.clone(),
            };
            match tables.names.clients.call(connect).await {
                Ok(answer) => return answer,
                Err(CallError::NotRunning | CallError::Died) if claim.is_open() => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(_) => return Ok(()),
            }
        }
    };
    let answer = tokio::time::timeout(ADOPTION_DEADLINE, asked).await;
    let answer = answer.unwrap_or(Err(ConnectError::Unavailable));
    if let (Err(error), Some(arrival)) = (answer, claim.take()) {
        tables.counters[worker].connects_refused.one();
        tracing::warn!(client = %client_id, %error, "a CONNECT was refused");
        if let Ok(mut transport) = arrival.transport.resume() {
            refuse(&mut transport, encoder, error.reason(), None).await;
        }
    }
}

/// Refuses a CONNECT; a 5.0 client reads why, if that fits into what it takes `[MQTT-3.2.2-19]`.
async fn refuse(
    transport: &mut Transport,
    encoder: Encoder,
    reason: ReasonCode,
    server_reference: Option<ByteString>,
) {
    let properties = ConnAckProperties {
        reason_string: reason.reason_string(),
        server_reference,
        ..ConnAckProperties::default()
    };
    let packet = Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason,
        properties,
    }));
    answer(transport, encoder, &packet).await;
}

/// Writes a last packet; a client that does not take it has it no better.
async fn answer(transport: &mut Transport, encoder: Encoder, packet: &Packet) {
    let mut out = Vec::new();
    if encoder.encode(packet, &mut out).is_ok() {
        let last_words = async {
            transport.write_all(&out).await?;
            transport.shutdown().await
        };
        let _ = tokio::time::timeout(RETRY_PAUSE, last_words).await;
    }
}
