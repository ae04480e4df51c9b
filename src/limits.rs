//! Floor 1: every bound of the product, with its reason. Nothing grows without one of these.

use std::time::Duration;

/// Longest wait for the CONNECT of a new socket. mosquitto waits 30 s, EMQX 15 s.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// Largest MQTT packet that is accepted unless configured otherwise, in bytes (EMQX: 1 MiB).
pub const PACKET_SIZE_MAX: u32 = 1 << 20;

/// Messages queued for one session (EMQX, VerneMQ, mosquitto: 1000).
pub const SESSION_QUEUE_LEN_MAX: usize = 1000;

/// Bytes queued for one session.
pub const SESSION_QUEUE_BYTES_MAX: usize = 8 << 20;

/// Stored messages of a queue that are in memory while their client is there: eight windows, so that the next
/// page is read, which takes a millisecond, long before they are sent. The others lie in the store alone.
pub const QUEUE_HEAD_LEN_MAX: usize = 256;

/// … and their bytes.
pub const QUEUE_HEAD_BYTES_MAX: usize = 256 << 10;

/// Stored messages of a queue that are in memory while their client is away: one window, so that a client
/// that comes back need not wait for the disk. With 32,000 clients away, 1 GiB at most.
pub const QUEUE_AWAY_HEAD_LEN_MAX: usize = 32;

/// … and their bytes.
pub const QUEUE_AWAY_HEAD_BYTES_MAX: usize = 32 << 10;

/// Messages that a session asks of the store at one time, when it gathers all of them to go elsewhere.
pub const QUEUE_PAGE_LEN_MAX: usize = 1024;

/// … and their bytes.
pub const QUEUE_PAGE_BYTES_MAX: usize = 1 << 20;

/// How long a session waits before it asks a store that could not be read again.
pub const QUEUE_PAGE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// QoS 1 and 2 messages in flight to one client (EMQX: 32; mosquitto: 20).
pub const INFLIGHT_MAX: u16 = 32;

/// QoS 1 and 2 messages in flight from one client, told in CONNACK.
pub const RECEIVE_MAXIMUM: u16 = 1024;

/// Topic aliases that a 5.0 client may use unless configured otherwise; each keeps one topic name.
pub const TOPIC_ALIAS_MAX: u16 = 32;

/// Session expiry that a client gets at most unless configured otherwise: seven days in seconds.
/// EMQX has 2 hours, mosquitto and VerneMQ never expire; a queue that nobody fetches must end some day.
pub const SESSION_EXPIRY_MAX_S: u32 = 7 * 24 * 3600;

/// Topic aliases towards one client, however many more it allows.
pub const TOPIC_ALIASES_TO_CLIENT_MAX: u16 = 32;

/// Longest topic in bytes that gets an alias towards a client: what is remembered of it stays small.
pub const TOPIC_ALIASED_BYTES_MAX: usize = 1 << 10;

/// Subscriptions of one session.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// User Properties of one packet other than PUBLISH: 5 bytes on the wire cost 64 in memory, and a
/// CONNECT is decoded before anybody is authenticated.
pub const USER_PROPERTIES_MAX: usize = 256;

/// Levels of a topic name or filter: as many as mosquitto's 200 slashes make.
pub const TOPIC_LEVELS_MAX: usize = 201;

/// Bytes in the outbox of one session before the topics that feed it pause (measured, design §7).
pub const OUTBOX_BYTES_MAX: usize = 256 << 10;

/// Unacknowledged bytes of mail from one arbiter to another (measured, design §7).
pub const MAIL_CREDIT_BYTES: usize = 1 << 20;

/// An outbox that is full and makes no progress for so long is slow: QoS 0 to it is dropped.
pub const SLOW_AFTER: Duration = Duration::from_millis(150);

/// Largest frame of the registry and of the control protocol, in bytes.
pub const CONTROL_FRAME_BYTES_MAX: usize = 4 << 20;

/// Largest handshake frame, in bytes: it is read before anything is proved.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 1 << 10;

/// Longest a cookie proof may take before the socket is closed.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(3);

/// Ticks between nodes. Erlang's default would be 15 s (`net_ticktime` / 4).
pub const PEER_TICK: Duration = Duration::from_secs(1);

/// A peer from which nothing came for so long is suspect.
pub const PEER_SUSPECT_AFTER: Duration = Duration::from_secs(2);

/// A peer from which nothing came for so long is down.
pub const PEER_DOWN_AFTER: Duration = Duration::from_secs(5);

/// Longest wait of a SUBACK for other nodes, where it waits for them.
pub const SUBACK_WITHIN: Duration = Duration::from_secs(2);

/// First and last pause between attempts to reach a member that is down.
pub const RECONNECT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(2));

/// Messages (or [`FORWARD_BATCH_BYTES`], whichever is first) that a peer gathers into one batch.
pub const FORWARD_BATCH_LEN: usize = 256;

/// Bytes that a peer gathers into one batch.
pub const FORWARD_BATCH_BYTES: usize = 64 << 10;

/// Unacknowledged bytes on one link.
pub const LINK_WINDOW_BYTES: usize = 1 << 20;

/// Bytes waiting behind a closed link window; beyond it QoS 0 is dropped and counted.
pub const LINK_QUEUE_BYTES_MAX: usize = 8 << 20;

/// Nodes of one cluster whose routes are held. Full meshes of this size were never run; EMQX's largest
/// production cluster had 7 nodes, its largest test 23.
pub const NODES_MAX: usize = 256;

/// Members that left or were forced out and are remembered as such; beyond it the oldest is forgotten. Then
/// a node that was away since before may bring it back: it is dialled until it is forced out anew.
pub const TOMBSTONES_MAX: usize = 256;

/// Routes that one node may announce; about 1 GB of table here. Beyond it the node's slice is refused.
pub const ROUTES_OF_NODE_MAX: usize = 4_000_000;

/// Own route changes kept until the router takes them; beyond it peers are told to ask for a snapshot.
pub const ROUTE_CHANGES_PENDING_MAX: usize = 64 << 10;

/// Changes of a remote slice kept while its snapshot arrives; beyond it the snapshot is asked for anew.
pub const ROUTE_CHANGES_HELD_MAX: usize = 64 << 10;

/// Retained messages of one node (mosquitto: unlimited; EMQX: unlimited, recommends a limit).
pub const RETAINED_LEN_MAX: usize = 1_000_000;

/// Bytes of retained messages: topics, payloads and properties.
pub const RETAINED_BYTES_MAX: usize = 256 << 20;

/// Largest frame of the registry, in bytes: a full list of names is 185 KiB.
pub const REGISTRY_FRAME_BYTES_MAX: usize = 256 << 10;

/// Names in one registry: nodes on one host. More than any host has cores for.
pub const REGISTRY_NAMES_MAX: usize = 128;

/// Listeners that one node announces.
pub const REGISTRY_LISTENERS_MAX: usize = 16;

/// Bytes of one announced listener, `address:port` with a scheme.
pub const REGISTRY_LISTENER_BYTES_MAX: usize = 80;

/// Connections to one registry: a lease for each name and some that ask.
pub const REGISTRY_CONNECTIONS_MAX: usize = 512;

/// Connections to one registry that have not proved the cookie yet.
pub const REGISTRY_UNPROVED_MAX: usize = 64;

/// The share of one address in [`REGISTRY_UNPROVED_MAX`], so that one host cannot lock out the rest.
pub const REGISTRY_UNPROVED_PER_ADDRESS_MAX: usize = 16;

/// Failed proofs from one address within [`PROOF_FAILURE_WINDOW`] before it is not listened to.
pub const PROOF_FAILURES_MAX: u32 = 10;

/// See [`PROOF_FAILURES_MAX`].
pub const PROOF_FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// Addresses remembered for their failed proofs.
pub const PROOF_FAILURE_ADDRESSES_MAX: usize = 1024;

/// A proved registry connection without a lease that asks nothing for so long is closed.
pub const REGISTRY_IDLE_MAX: Duration = Duration::from_secs(10);

/// Longest wait for a registry to take a connection, and for each of its answers.
pub const REGISTRY_ANSWER_MAX: Duration = Duration::from_secs(3);

/// First and last pause of a node that can neither serve its registry nor register with it.
pub const REGISTRY_RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(5));

/// Longest pause before the race for a registry whose server is gone; take-over has to end within 1 s.
pub const REGISTRY_RACE_JITTER_MAX: Duration = Duration::from_millis(25);

/// A command that finds no registry, or not the node that it was told, asks again for so long: the
/// registry may just be changing hands. Nodes take over well within it.
pub const REGISTRY_TAKEN_OVER_WITHIN: Duration = Duration::from_millis(500);

/// Bytes of a session that moves to another node: subscriptions, then what is in flight, then its queue. The
/// rest is dropped and counted. The queue of a session has at most 8 MiB unless configured otherwise.
pub const SESSION_PACKED_BYTES_MAX: usize = 64 << 20;

/// Bytes of wills of other nodes' clients that one node keeps, 256 beside what each carries; more are not
/// kept, and counted. A million small wills.
pub const WILLS_HELD_BYTES_MAX: usize = 256 << 20;

/// How long the wills of a node's clients rest once it is lost: its subscribers are back elsewhere by then,
/// and a network that was cut for a moment has healed.
pub const WILLS_REST: Duration = Duration::from_secs(5);

/// How long unacknowledged messages wait for a broken link to the same life of a node to come back.
pub const LINK_RESUME_WITHIN: Duration = Duration::from_secs(10);

/// … and how long when the registry of its host says that no such node runs: a registry that only changes
/// hands knows all its names again within a second. Publishers wait for their PUBACK until then.
pub const LINK_RESUME_UNREGISTERED_WITHIN: Duration = Duration::from_secs(1);

/// How long routes of a node stay while its connection is broken and a new one is tried. A node that was
/// killed is to be gone within a second.
pub const LINK_GRACE: Duration = Duration::from_millis(500);

/// … and how long when it is our own end that crashed: the processes between nodes are back much sooner, but
/// a registry that changes hands meanwhile takes its time. Publishers wait for their PUBACK until then.
pub const LINK_CRASH_GRACE: Duration = Duration::from_secs(2);

/// Read buffer of one link, in bytes (measured, design §10).
pub const LINK_READ_BUFFER_BYTES: usize = 64 << 10;

/// Bytes that may come over a link before its other end is known to be ready; one frame more closes it. A
/// link that resumes begins with a whole window of batches, in frames as small as they once were.
pub const LINK_EARLY_BYTES_MAX: usize = 2 * LINK_WINDOW_BYTES;

/// Connections to a node's own port that are proving their cookie at one time.
pub const GATE_HANDSHAKES_MAX: usize = 64;

/// Longest that a join may take from the open link to routes and canaries both ways.
pub const JOIN_SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// Longest that a draining node waits for its peers to close their links.
pub const DRAIN_LINKS_WITHIN: Duration = Duration::from_secs(1);

/// Bytes that lie before the retainer until publishers of retained messages stop reading. It writes some
/// 400,000 messages a second; waiters look again every 50 ms, and must find enough left to do until then.
pub const TRAY_BYTES_MAX: usize = 4 << 20;

/// Longest topic whose matches an arbiter remembers, in bytes: with 4096 topics remembered, 4 MiB.
pub const MATCHED_TOPIC_BYTES_MAX: usize = 1 << 10;

/// Largest CONNECT, in bytes: it is read before anybody is known. All its strings at their longest together
/// are 320 KiB and no client has ever sent that; a certificate chain in a JWT has 10.
pub const CONNECT_BYTES_MAX: u32 = 256 << 10;

/// Bytes of a CONNECT that every socket may send before [`HELLO_BYTES_MAX`] concerns it.
pub const HELLO_FREE_BYTES: usize = 4 << 10;

/// Bytes of all CONNECTs of a node that have not come whole. Who would exceed it is closed and counted.
pub const HELLO_BYTES_MAX: usize = 64 << 20;

/// Topics (filters with local subscribers) and their delegates: one actor each.
pub const TOPICS_MAX: usize = 4_000_000;

/// Sessions below one of the 64 shards of `sessions`; more CONNECTs are answered with 0x88.
pub const SESSIONS_PER_SHARD_MAX: usize = 65_536;

/// Addresses that one listener remembers to limit each; about 6 MB. Beyond it new ones are refused.
pub const CROWD_ADDRESSES_MAX: usize = 65_536;

/// Sockets that have not sent their CONNECT; more are closed at once and counted.
pub const CONNECTIONS_MAX: usize = 65_536;

/// Peers of a node: links to as many other nodes. A full mesh is not meant for more.
pub const PEERS_MAX: usize = 64;

/// How long a stopping node waits for its sessions, and then for its links, to end in order.
pub const DRAIN_STEP_WITHIN: Duration = Duration::from_secs(8);

/// How long a node that starts waits for its name to be registered before it says that it has started.
pub const REGISTRY_SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// Rules of an ACL file. Patterns are tried one after the other for each topic that is not remembered.
pub const ACL_RULES_MAX: usize = 100_000;

/// Longest line of an ACL file in bytes: a topic filter may have 65,535.
pub const ACL_LINE_BYTES_MAX: usize = 70_000;

/// Topics of which one session remembers whether it may publish to them, and as many that it may read.
pub const ACL_MEMORY_LEN_MAX: usize = 128;

/// Largest password or ACL file in bytes: 200,000 users.
pub const ACCESS_FILE_BYTES_MAX: u64 = 64 << 20;

/// Times that one address may be wrong about one user within [`AUTH_FAILURE_WINDOW`] unless configured
/// otherwise; about all users together it may be wrong [`AUTH_FAILURES_PER_ADDRESS_FACTOR`] times as often,
/// as many clients may share an address.
pub const AUTH_FAILURES_MAX: u32 = 10;

/// See [`AUTH_FAILURES_MAX`].
pub const AUTH_FAILURES_PER_ADDRESS_FACTOR: u32 = 10;

/// How long failures of an address are remembered.
pub const AUTH_FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Addresses, and pairs of address and user, whose failures are remembered.
pub const AUTH_FAILURE_KEYS_MAX: usize = 16_384;

/// Passwords that were right and are remembered, so that argon2 is not computed at each CONNECT; 2 MB.
pub const PASSWORDS_REMEMBERED_MAX: usize = 65_536;

/// CONNECTs that wait to be authenticated; more are answered with 0x89.
pub const AUTH_QUEUE_LEN_MAX: usize = 1024;

/// Requests to the HTTP hook at one time.
pub const AUTH_HOOK_CALLS_MAX: usize = 64;

/// Largest answer of the HTTP hook in bytes.
pub const AUTH_HOOK_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Longest wait for the HTTP hook unless configured otherwise (EMQX: 5 s).
pub const AUTH_HOOK_WITHIN: Duration = Duration::from_secs(5);

/// Connections to the HTTP API at one time. A browser holds up to six for each tab.
pub const HTTP_VISITS_MAX: usize = 64;

/// Largest head of an HTTP request, in bytes.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;

/// Largest body of an HTTP request, in bytes: a message to be published, in base64.
pub const HTTP_BODY_BYTES_MAX: usize = 1 << 20;

/// Longest wait for the head of the next HTTP request of a connection; then it is closed.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(30);

/// Longest work on one HTTP request, its body included.
pub const HTTP_ANSWER_MAX: Duration = Duration::from_secs(20);

/// Longest life of one HTTP connection: whoever does not read its answers is gone then.
pub const HTTP_VISIT_MAX: Duration = Duration::from_secs(600);

/// Entries of one list that the HTTP API gives at one time.
pub const HTTP_PAGE_LEN_MAX: usize = 1000;

/// How far ahead of our own clock the time of another node's retained message may be. Beyond it one of the
/// two clocks is wrong: the message is delivered but not retained here, counted and complained of.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);

/// How long a cleared retained topic is remembered: a node that was away for longer may bring it back.
pub const RETAINED_TOMBSTONE_AGE: Duration = Duration::from_secs(3600);

/// Cleared retained topics that are remembered; beyond them the oldest is forgotten and counted.
pub const RETAINED_TOMBSTONES_MAX: usize = 100_000;

/// Bytes of their topics.
pub const RETAINED_TOMBSTONE_BYTES_MAX: usize = 16 << 20;

/// Retained topics that one frame between nodes tells of, asks for or brings.
pub const RETAINED_FRAME_LEN_MAX: usize = 1024;

/// Longest wait for the other node's answer about retained messages; then the exchange begins anew.
pub const RETAINED_ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How long a difference that an exchange could not settle (a full store) is left alone.
pub const RETAINED_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Buckets of retained messages, of 256, that an exchange looks through once the first one of a connection
/// is over: with a million messages 8 MB of topics and times.
pub const RETAINED_BUCKETS_PER_EXCHANGE: usize = 32;

/// Buckets of retained messages that are looked through in vain before the rest waits for the next second.
pub const RETAINED_BUCKETS_IN_VAIN_MAX: usize = 8;

/// Cookies that a node had before the present one and still knows; the oldest is forgotten first.
pub const COOKIES_PREVIOUS_MAX: usize = 4;

/// How long a prepared cookie keeps another rotation away (longer than its coordinator works), and how long
/// it is taken from others if its coordinator never says what became of it.
pub const COOKIE_PREPARED_FOR: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// Longest that the cookie of before may be taken after a rotation: a secret that is valid for longer has
/// not been changed.
pub const COOKIE_GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Longest wait of a rotation for the answers of all members, in each of its two steps.
pub const ROTATION_ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// Bytes that are noted and not yet safe before whoever can wait must: some tenths of a second of a disk.
pub const STORE_PENDING_BYTES_MAX: usize = 64 << 20;

/// Bytes of the store's file that are kept in memory.
pub const STORE_CACHE_BYTES: usize = 32 << 20;

/// How long changes gather for one commit when nothing was written just before, unless configured otherwise.
pub const STORE_GROUP_WINDOW: Duration = Duration::from_millis(2);

/// Time between two syncs with `sync = "interval"`, unless configured otherwise.
pub const STORE_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before a commit that has failed is tried again.
pub const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest wait for the last commit when the node stops.
pub const STORE_STOPS_WITHIN: Duration = Duration::from_secs(10);
