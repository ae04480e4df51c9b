//! A broker without doors: sockets are handed to sessions, on the arbiter that the test names.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle, System};
use ahash::AHashMap;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use supervisors::{
    ChildSpec, DynamicSpec, Intensity, Name, Ref, Root, Strategy, SupervisorSpec, TreeOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::access::identity::Identity;
use crate::broker::accounts::{self, Tally};
use crate::broker::door::{Address, Door, Terms};
use crate::broker::mailman::Mailman;
use crate::broker::router::Router;
use crate::broker::session::{Arrival, Claim, Past, Reattach, Session};
use crate::broker::storage::Storage;
use crate::broker::tables::{Arbiters, Names, Rules, SESSION_SHARDS, Shelf, Tables};
use crate::broker::transport::{LooseSocket, Origin, Parked, Peer};
use crate::limits;
use crate::mqtt::codec::{Decoder, encode};
use crate::mqtt::packet::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, SubAck, Subscribe, SubscriptionOptions,
    Unsubscribe, Will,
};
use crate::mqtt::properties::{
    ConnectProperties, PublishProperties, SubscribeProperties, UnsubscribeProperties,
};
use crate::mqtt::reason::ReasonCode;
use crate::node_name::{Incarnation, NodeId};
use crate::session::event::{Attach, ClientLimits};

/// Longest that any step of a test may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Rig {
    pub(super) tables: Arc<Tables>,
    pub(super) shelf: Shelf,
    pub(super) root: Root,
    listener: TcpListener,
    arbiters: Vec<Arbiter>,
    /// What the room of clients would know.
    sessions: RefCell<AHashMap<ByteString, Name<Session>>>,
}

/// Runs a test on a node with two workers.
pub(super) fn with_rig<F: Future<Output = ()>>(test: impl FnOnce(Rig) -> F) {
    with_rig_whose_core_bears(20, test);
}

/// The same with another restart intensity of `core`, per minute.
pub(super) fn with_rig_whose_core_bears<F: Future<Output = ()>>(
    core_restarts: u32,
    test: impl FnOnce(Rig) -> F,
) {
    with_rig_of(core_restarts, Rules::default(), test);
}

/// A node whose store is that.
pub(super) fn with_rig_that_keeps<F: Future<Output = ()>>(
    storage: Arc<dyn Storage>,
    test: impl FnOnce(Rig) -> F,
) {
    let rules = Rules {
        storage: Some(storage),
        ..Rules::default()
    };
    with_rig_of(20, rules, test);
}

fn with_rig_of<F: Future<Output = ()>>(core_restarts: u32, rules: Rules, test: impl FnOnce(Rig) -> F) {
    System::new().block_on(async {
        let rig = Rig::start(core_restarts, rules).await;
        let arbiters: Vec<_> = rig.arbiters.iter().map(Arbiter::handle).collect();
        let (shelf, running) = (rig.shelf.clone(), rig.root.clone());
        tokio::time::timeout(Duration::from_secs(60), test(rig))
            .await
            .expect("the test ends in time");
        balanced(&shelf).await;
        drop(running);
        assert!(arbiters.iter().all(ArbiterHandle::stop));
    });
}

/// Whatever the test did: every message is accounted for once all have arrived. Links are the test's own.
async fn balanced(shelf: &Shelf) {
    if shelf.tables().names.core.whereis().is_none() {
        // The test has stopped the node.
        return;
    }
    let mut last = None;
    let waiting = async {
        loop {
            let tally = accounts::tally(&shelf.tables()).await;
            let missing = |tally: &Tally| tally.accounts()[..3].iter().any(|account| account.missing() != 0);
            if tally.as_ref().is_some_and(|tally| !missing(tally)) {
                return;
            }
            last = tally;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("not balanced: {:#?}", last.map(|tally| tally.accounts())));
}

impl Rig {
    async fn start(core_restarts: u32, rules: Rules) -> Self {
        let arbiters: Vec<_> = (0..3).map(|_| Arbiter::new()).collect();
        let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();
        let all = Arbiters::new(handles[..2].to_vec(), handles[2].clone(), Arbiter::current());
        let name = "test@127.0.0.1".parse().expect("a node name");
        let node = NodeId {
            name,
            incarnation: Incarnation(1),
        };
        let names = Names::new(all.all.len());
        let shelf = Shelf::new(Tables::ruled(node, all, names, rules));
        let root = supervisors::start(root(&shelf, core_restarts), TreeOptions::default())
            .await
            .expect("the tree starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self {
            tables: shelf.tables(),
            shelf,
            root,
            listener,
            arbiters,
            sessions: RefCell::default(),
        }
    }

    /// The same node after `core` came back.
    pub(super) fn anew(self) -> Self {
        Self {
            tables: self.shelf.tables(),
            ..self
        }
    }

    /// A client on one of the two workers; reads its CONNACK.
    pub(super) async fn client(&self, id: &str, arbiter: usize) -> Client {
        self.connect(connect(id), arbiter).await
    }

    pub(super) async fn connect(&self, connect: Connect, arbiter: usize) -> Client {
        let address = self.listener.local_addr().expect("it is bound");
        let (socket, accepted) = tokio::join!(TcpStream::connect(address), self.listener.accept());
        let (socket, (accepted, _)) = (socket.expect("connects"), accepted.expect("accepts"));
        socket.set_nodelay(true).expect("a socket option");
        let version = connect.version;
        let id = connect.client_id.clone();
        let attach = Box::new(Attach {
            connect,
            assigned_client_id: false,
            limits: client_limits(),
            authentication_data: None,
        });
        let socket_there = accepted.into_std().expect("leaves the runtime");
        let terms = Terms::plain(PATIENCE, client_limits());
        let door = Door::unopened(Address::Tcp(address), terms);
        let arrival = Arrival {
            attach,
            transport: Parked::plain(LooseSocket::Tcp(socket_there)),
            origin: Origin::new(
                door.seat(Peer::Unix, std::time::Instant::now())
                    .expect("no limit"),
                Peer::Unix,
            ),
            read_ahead: BytesMut::new(),
            identity: Identity::default(),
        };
        let claim = Claim::new(arrival);
        match self.session(&id) {
            Some(session) => session.cast(Reattach(claim)).expect("the session lives"),
            None => {
                let name = Name::new(&id);
                let spec = Session::spec(&self.tables, arbiter, &id, &claim, Past::None).name(&name);
                let started = self.tables.names.shard(&id).start_child(spec).await;
                started.expect("the session starts");
                self.sessions.borrow_mut().insert(id, name);
            }
        }
        let decoder = Decoder::client(version, limits::PACKET_SIZE_MAX);
        let input = BytesMut::new();
        let mut client = Client {
            socket,
            decoder,
            version,
            input,
            packet_ids: 0,
            present: false,
        };
        match client.next().await {
            Packet::ConnAck(ack) => {
                assert_eq!(ack.reason, ReasonCode::Success);
                client.present = ack.session_present;
            }
            other => panic!("CONNACK, not {other:?}"),
        }
        client
    }

    /// The session of a client id, if it lives.
    pub(super) fn session(&self, id: &str) -> Option<Ref<Session>> {
        self.sessions.borrow().get(id)?.whereis()
    }

    /// Waits until something has become true.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    pub(super) fn crash(&self, path: &str) {
        self.root
            .tree()
            .crash(path, "a test wants it")
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// The paths of Topics and delegates.
    pub(super) fn topics(&self) -> Vec<String> {
        let list = self.root.tree().list();
        let paths = list.iter().map(|process| process.path.to_string());
        let mut topics: Vec<_> = paths
            .filter_map(|path| Some(path.strip_prefix("root/topics/")?.into()))
            .collect();
        topics.sort();
        topics
    }
}

fn root(shelf: &Shelf, core_restarts: u32) -> ChildSpec {
    let (shelf, at) = (shelf.clone(), shelf.tables().arbiters.control_handle().clone());
    ChildSpec::supervisor("root", &at.clone(), move || {
        let dynamic = DynamicSpec {
            intensity: Intensity::new(100, 10),
            max_children: 100_000,
        };
        let (names, shards_at, core_shelf) = (shelf.tables().names.clone(), at.clone(), shelf.clone());
        let core =
            ChildSpec::supervisor("core", &at, move || core(&core_shelf, core_restarts)).name(&names.core);
        let topics = ChildSpec::dynamic("topics", &at, dynamic, &names.topics);
        let sessions = ChildSpec::supervisor("sessions", &at, move || {
            let shard = |i: usize| ChildSpec::dynamic(i.to_string(), &shards_at, dynamic, &names.sessions[i]);
            let shards = (0..SESSION_SHARDS).map(shard).collect();
            SupervisorSpec::new(Strategy::OneForOne, Intensity::new(1, 5), shards)
        });
        let intensity = Intensity::new(2, 60);
        SupervisorSpec::new(Strategy::RestForOne, intensity, vec![core, topics, sessions])
    })
}

/// Each life of `core` makes its tables, under a new incarnation.
fn core(shelf: &Shelf, restarts: u32) -> SupervisorSpec {
    let NodeId {
        name,
        incarnation: Incarnation(last),
    } = shelf.tables().node.clone();
    let tables = shelf.renew(NodeId {
        name,
        incarnation: Incarnation(last + 1),
    });
    let mailmen = (0..tables.arbiters.all.len()).map(|me| Mailman::spec(&tables, me));
    let children = mailmen.chain([Router::spec(&tables)]).collect();
    SupervisorSpec::new(Strategy::OneForOne, Intensity::new(restarts, 60), children)
}

pub(super) fn connect(id: &str) -> Connect {
    Connect {
        version: ProtocolVersion::V3_1_1,
        clean_start: true,
        keep_alive_s: 0,
        client_id: id.into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

pub(super) fn will(topic: &str) -> Will {
    Will {
        topic: topic.into(),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: crate::mqtt::properties::WillProperties::default(),
    }
}

fn client_limits() -> ClientLimits {
    ClientLimits {
        topic_alias_max: 0,
        session_expiry_max_s: u32::MAX,
        ..ClientLimits::default()
    }
}

/// A client of the test: it acknowledges what it receives.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    decoder: Decoder,
    version: ProtocolVersion,
    input: BytesMut,
    packet_ids: u16,
    /// What its CONNACK said.
    pub(super) present: bool,
}

impl Client {
    fn packet_id(&mut self) -> PacketId {
        self.packet_ids = self.packet_ids % u16::MAX + 1;
        PacketId::new(self.packet_ids).expect("not 0")
    }

    pub(super) async fn send(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        encode(packet, self.version, &mut bytes).expect("it can be encoded");
        self.socket.write_all(&bytes).await.expect("the socket takes it");
    }

    /// The next packet; PUBLISHes are acknowledged on the way.
    pub(super) async fn next(&mut self) -> Packet {
        let next = async {
            loop {
                if let Some(packet) = self.decoder.decode(&mut self.input).expect("a good packet") {
                    return packet;
                }
                let len = self
                    .socket
                    .read_buf(&mut self.input)
                    .await
                    .expect("the socket reads");
                assert!(len > 0, "the broker closed the connection");
            }
        };
        let packet = tokio::time::timeout(PATIENCE, next)
            .await
            .expect("a packet comes");
        match &packet {
            Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::PubAck(Ack::success(id))).await,
                (QoS::ExactlyOnce, Some(id)) => self.send(&Packet::PubRec(Ack::success(id))).await,
                _ => {}
            },
            Packet::PubRel(ack) => self.send(&Packet::PubComp(Ack::success(ack.packet_id))).await,
            _ => {}
        }
        packet
    }

    /// The next PUBLISH: topic and payload.
    pub(super) async fn message(&mut self) -> (ByteString, String) {
        let publish = self.publish_packet().await;
        (
            publish.topic,
            String::from_utf8(publish.payload.to_vec()).expect("text"),
        )
    }

    pub(super) async fn publish_packet(&mut self) -> Publish {
        loop {
            match self.next().await {
                Packet::Publish(publish) => return publish,
                Packet::PubRel(_) | Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) => {}
                other => panic!("PUBLISH, not {other:?}"),
            }
        }
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let reasons = self.subscribe_all(&[(filter, qos)]).await;
        assert_eq!(reasons[0] as u8, qos as u8);
    }

    pub(super) async fn subscribe_all(&mut self, filters: &[(&str, QoS)]) -> Vec<ReasonCode> {
        let packet_id = self.packet_id();
        let options = |qos| SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let filters = filters
            .iter()
            .map(|(filter, qos)| (ByteString::from(*filter), options(*qos)))
            .collect();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties: SubscribeProperties::default(),
            filters,
        }))
        .await;
        match self.next().await {
            Packet::SubAck(SubAck {
                packet_id: of,
                reasons,
                ..
            }) if of == packet_id => reasons,
            other => panic!("SUBACK, not {other:?}"),
        }
    }

    pub(super) async fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.packet_id();
        let properties = UnsubscribeProperties::default();
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties,
            filters: vec![filter.into()],
        }))
        .await;
        match self.next().await {
            Packet::UnsubAck(ack) if ack.packet_id == packet_id => {}
            other => panic!("UNSUBACK, not {other:?}"),
        }
    }

    pub(super) fn publish_of(&mut self, topic: &str, payload: &str, qos: QoS) -> Packet {
        Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.into(),
            packet_id: (qos != QoS::AtMostOnce).then(|| self.packet_id()),
            properties: PublishProperties::default(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        })
    }

    /// Publishes and does not wait.
    pub(super) async fn publish(&mut self, topic: &str, payload: &str, qos: QoS) {
        let packet = self.publish_of(topic, payload, qos);
        self.send(&packet).await;
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub(super) async fn publish_acknowledged(&mut self, topic: &str, payload: &str) {
        self.publish(topic, payload, QoS::AtLeastOnce).await;
        match self.next().await {
            Packet::PubAck(ack) => assert!(!ack.reason.is_error()),
            other => panic!("PUBACK, not {other:?}"),
        }
    }

    /// Nothing more comes: asked by a ping, which is answered in order.
    pub(super) async fn expect_silence(&mut self) {
        self.send(&Packet::PingReq).await;
        assert_eq!(self.next().await, Packet::PingResp);
    }

    /// Whether the broker has closed the connection.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut byte = BytesMut::with_capacity(64);
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut byte)).await;
        !matches!(read.expect("an end comes"), Ok(len) if len > 0)
    }
}
