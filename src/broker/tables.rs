//! The tables of a node's broker, and where its processes are found.
//!
//! Tables belong to `core`, as ETS tables belong to a supervisor: its spec makes them anew each time it
//! starts ([`Shelf::renew`]), and they outlive every worker below it. A crashed router finds the
//! route table and its ledger here; a crashed mailman finds the post that was on its way.
//!
//! | table | written by | read by |
//! |---|---|---|
//! | [`Tables::routes`] | the router | every publisher, past it |
//! | [`Tables::ledger`] | the router | the router's next life |
//! | [`Tables::links`] | the router | every publisher |
//! | [`Tables::post`] | mailmen | the mailman it is addressed to |
//! | [`Tables::for_clients`], … | everyone | the actor that it lies before |
//! | [`Tables::counters`] | each arbiter its own block | `sys`, admin |

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use actix_rt::ArbiterHandle;
use ahash::{AHashMap, RandomState};
use bytestring::ByteString;
use supervisors::{DynamicSupervisor, Name, Supervisor};

use super::clients::{ClientTable, Clients, Fact};
use super::confirm::Suback;
use super::counters::{Counters, Snapshot};
use super::desk::{ShareGroup, Sharing};
use super::door::Grants;
use super::gatekeeper::Gatekeeper;
use super::keeping;
use super::keyring::Keyring;
use super::links::{Keeper, Link};
use super::loans::{Crossing, Weights};
use super::mail::{FilterId, PostBox};
use super::mailman::Mailman;
use super::office::Orphans;
use super::poison::Poison;
use super::retainer::{self, Retainer};
use super::router::Router;
use super::router::ledger::Ledger;
use super::storage::Storage;
use super::tray::Tray;
use super::wills::{self, WillBook, Wills};
use crate::mqtt::topic::SharedFilter;
use crate::node_name::{Incarnation, NodeId};
use crate::routing::RouteTable;
use crate::routing::retained::{RetainedLimits, RetainedStore};
use crate::routing::stamps::HybridClock;

/// Shards of the `sessions` supervisor: no shared restart budget, short lists.
pub const SESSION_SHARDS: usize = 64;

/// Workers, the cluster arbiter and control arbiter must fit one mask of arbiters.
pub const ARBITERS_MAX: usize = 64;

/// Shared groups that ended and are remembered: more than end while a message crosses a node.
const ENDED_GROUPS_MAX: usize = 1024;

/// Groups with members elsewhere that are remembered before those are forgotten which nobody matches.
const CROSSINGS_MAX: usize = 1024;

/// The names under which the broker's processes are found; they stay the same through restarts.
#[derive(Clone)]
pub struct Names {
    /// The supervisor that the tables belong to.
    pub core: Name<Supervisor>,
    /// The router.
    pub router: Name<Router>,
    /// Client id → session.
    pub clients: Name<Clients>,
    /// Retained messages.
    pub retainer: Name<Retainer>,
    /// Wills that are due later.
    pub wills: Name<Wills>,
    /// Who decides about CONNECTs.
    pub gatekeeper: Name<Gatekeeper>,
    /// The supervisor of the Topics.
    pub topics: Name<DynamicSupervisor>,
    /// The supervisors of the sessions; see [`Names::shard`].
    pub sessions: Arc<[Name<DynamicSupervisor>]>,
    /// One mailman per arbiter, in the order of [`Arbiters::all`].
    pub mailmen: Arc<[Name<Mailman>]>,
}

impl Names {
    /// Fresh names for a node with so many arbiters (workers, cluster and control together).
    #[must_use]
    pub fn new(arbiters: usize) -> Self {
        Self {
            core: Name::new("core"),
            router: Name::new("router"),
            clients: Name::new("clients"),
            retainer: Name::new("retainer"),
            wills: Name::new("wills"),
            gatekeeper: Name::new("gatekeeper"),
            topics: Name::new("topics"),
            sessions: (0..SESSION_SHARDS)
                .map(|i| Name::new(&format!("sessions-{i}")))
                .collect(),
            mailmen: (0..arbiters).map(|i| Name::new(&format!("mail-{i}"))).collect(),
        }
    }

    /// The supervisor under which the session of a client id lives.
    #[must_use]
    pub fn shard(&self, client_id: &str) -> &Name<DynamicSupervisor> {
        // Fixed seeds: the shard must be the same for everyone who asks, on every arbiter.
        let hash = RandomState::with_seeds(1, 2, 3, 4).hash_one(client_id);
        &self.sessions[hash as usize % self.sessions.len()]
    }
}

/// The event loops of a node.
#[derive(Clone)]
pub struct Arbiters {
    /// All of them: the workers first, then the cluster arbiter, then the control arbiter.
    pub all: Vec<ArbiterHandle>,
    /// How many workers there are.
    pub workers: usize,
}

impl Arbiters {
    /// The arbiters of a node.
    ///
    /// # Panics
    /// When there is no worker, or more arbiters than [`ARBITERS_MAX`].
    #[must_use]
    pub fn new(workers: Vec<ArbiterHandle>, cluster: ArbiterHandle, control: ArbiterHandle) -> Self {
        let count = workers.len();
        assert!(count > 0 && count + 2 <= ARBITERS_MAX, "{count} worker arbiters");
        let mut all = workers;
        all.push(cluster);
        all.push(control);
        Self { all, workers: count }
    }

    /// Index of the arbiter that the processes between nodes live on.
    #[must_use]
    pub fn cluster(&self) -> usize {
        self.workers
    }

    /// Index of the arbiter of the supervisors, the router and the other single processes.
    #[must_use]
    pub fn control(&self) -> usize {
        self.workers + 1
    }

    /// The control arbiter.
    #[must_use]
    pub fn control_handle(&self) -> &ArbiterHandle {
        &self.all[self.control()]
    }
}

/// What the operator has decided of a node's broker; the same for all lives of `core`.
#[derive(Clone, Default)]
pub struct Rules {
    /// Who may come in, and do what.
    pub keyring: Arc<Keyring>,
    /// How much may be retained.
    pub retained: RetainedLimits,
    /// How shared groups choose.
    pub sharing: Sharing,
    /// What a SUBACK waits for.
    pub suback: Suback,
    /// What a client may have that is away since before this life of `core`.
    pub client: Grants,
    /// Keeps what must outlast the process; `None` where nothing does.
    pub storage: Option<Arc<dyn Storage>>,
}

/// The tables of one life of `core`.
pub struct Tables {
    /// Who this node is, in this life of `core`.
    pub node: NodeId,
    /// The event loops.
    pub arbiters: Arbiters,
    /// Where processes are found.
    pub names: Names,
    /// Topic filter → where it is subscribed.
    pub routes: Routes,
    /// What the router remembers of Topics and requests.
    pub ledger: Mutex<Ledger>,
    /// The nodes that stand. Changes together with the version of `routes`.
    pub links: RwLock<Vec<Link>>,
    /// Who settles with other nodes where a session is; `None` before there was a link.
    keeper: RwLock<Option<Arc<dyn Keeper>>>,
    /// Incarnation of the first tables of this process, if these are not.
    first_life: OnceLock<Incarnation>,
    /// The members of each `$share/…` filter. Entries come and go with the router's decisions.
    shares: Mutex<AHashMap<ByteString, Arc<ShareGroup>>>,
    /// The last groups that ended: what was on its way to them goes to who has members now.
    ended: Mutex<VecDeque<(FilterId, ByteString)>>,
    /// How this node chooses among the nodes of each group that has members elsewhere.
    crossings: Mutex<AHashMap<Arc<str>, Arc<Crossing>>>,
    /// How many members of them other nodes have.
    pub weights: Weights,
    /// How they choose.
    sharing: Sharing,
    /// What a SUBACK waits for.
    pub suback: Suback,
    /// Keeps what must outlast the process, if anything does.
    pub storage: Option<Arc<dyn Storage>>,
    /// What a client may have that has come back from the store and has not connected.
    pub client_limits: Grants,
    /// The arbiters on which something waits for the store, one flag for each.
    pub(super) awaiting_store: Arc<[AtomicBool]>,
    /// The node stops: nobody is promised anything, for what one did not get must be sent again to all.
    pub closing: AtomicBool,
    /// Whether the retained messages of the store are in `retained`; written by the retainer.
    pub retained_read: AtomicBool,
    /// Client id → session; written by Clients.
    pub clients: Mutex<ClientTable>,
    /// Topic → retained message; written by the retainer.
    pub retained: Mutex<RetainedStore>,
    /// When something was retained, as all nodes understand it.
    pub clock: HybridClock,
    /// Whether a link to another node ever stood; written by the router.
    pub linked: AtomicBool,
    /// Bytes of CONNECTs that have not come whole; written by connections.
    pub hello_bytes: AtomicUsize,
    /// Wills that wait for their delay; written by Wills.
    pub wills: Mutex<WillBook>,
    /// Whether there may be wills of clients that fell with an earlier life.
    pub wills_rest: AtomicBool,
    /// What sessions told Clients.
    pub for_clients: Tray<Fact>,
    /// What publishers and sessions asked of the retainer.
    pub for_retainer: Tray<retainer::Request>,
    /// What sessions asked of Wills.
    pub for_wills: Tray<wills::Request>,
    /// What fallen sessions left in place.
    pub orphans: Orphans,
    /// Clients whose sessions crash over what they send; written by sessions that crash.
    pub poison: Poison,
    /// Who may come in, and do what; belongs to the node.
    pub keyring: Arc<Keyring>,
    /// What an heir of these tables inherits.
    rules: Rules,
    /// Mail on its way, one box per arbiter, in the order of [`Arbiters::all`].
    pub post: Vec<PostBox>,
    /// One block per arbiter, in the order of [`Arbiters::all`].
    pub counters: Vec<Counters>,
}

impl Tables {
    /// Empty tables of a node with the default [`Rules`].
    #[must_use]
    pub fn new(node: NodeId, arbiters: Arbiters, names: Names) -> Arc<Self> {
        Self::ruled(node, arbiters, names, Rules::default())
    }

    /// Empty tables.
    #[must_use]
    pub fn ruled(node: NodeId, arbiters: Arbiters, names: Names, rules: Rules) -> Arc<Self> {
        let count = arbiters.all.len();
        let awaiting_store: Arc<[AtomicBool]> = (0..count).map(|_| AtomicBool::new(false)).collect();
        if let Some(storage) = &rules.storage {
            storage.listen(keeping::listener(&awaiting_store, &names));
        }
        Arc::new(Self {
            node,
            arbiters,
            names,
            routes: Routes::default(),
            ledger: Mutex::default(),
            links: RwLock::default(),
            keeper: RwLock::default(),
            first_life: OnceLock::new(),
            clients: Mutex::default(),
            retained: Mutex::new(RetainedStore::new(rules.retained)),
            clock: HybridClock::default(),
            linked: AtomicBool::new(false),
            hello_bytes: AtomicUsize::new(0),
            wills: Mutex::default(),
            wills_rest: AtomicBool::new(false),
            orphans: Orphans::default(),
            poison: Poison::default(),
            keyring: rules.keyring.clone(),
            shares: Mutex::default(),
            ended: Mutex::default(),
            crossings: Mutex::default(),
            weights: Weights::default(),
            sharing: rules.sharing.clone(),
            suback: rules.suback,
            storage: rules.storage.clone(),
            client_limits: rules.client.clone(),
            awaiting_store,
            closing: AtomicBool::new(false),
            retained_read: AtomicBool::new(false),
            rules,
            for_clients: Tray::default(),
            for_retainer: Tray::default(),
            for_wills: Tray::default(),
            post: (0..count).map(|_| PostBox::default()).collect(),
            counters: (0..count).map(|_| Counters::default()).collect(),
        })
    }

    /// The group of a `$share/…` filter, made if there is none; `None` for any other filter.
    #[must_use]
    pub fn share_group(&self, filter: &ByteString) -> Option<Arc<ShareGroup>> {
        let Ok(Some(SharedFilter { group: name, .. })) = SharedFilter::parse(filter) else {
            return None;
        };
        let strategy = self.sharing.of(name);
        // An insert is all that happens under this lock: a poisoned one holds a whole map.
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let group = shares.entry(filter.clone());
        Some(
            group
                .or_insert_with(|| ShareGroup::new(filter.clone(), self.counters.len(), strategy))
                .clone(),
        )
    }

    /// The whole filter of a shared group, and its members here if there are any.
    pub(super) fn share_heirs(&self, id: FilterId) -> Option<(ByteString, Option<Arc<ShareGroup>>)> {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = shares.values().find(|group| group.filter() == id) {
            return Some((group.text().clone(), Some(group.clone())));
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, text) = ended.iter().find(|(ended, _)| *ended == id)?;
        // Somebody may have joined anew.
        Some((text.clone(), shares.get(text).cloned()))
    }

    /// How this node chooses among the nodes that have members of this group.
    pub(super) fn crossing(&self, text: &Arc<str>) -> Arc<Crossing> {
        let mut crossings = self.crossings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = crossings.get(text) {
            return known.clone();
        }
        if crossings.len() >= CROSSINGS_MAX {
            crossings.retain(|_, crossing| Arc::strong_count(crossing) > 1);
        }
        let shared = SharedFilter::parse(text).ok().flatten();
        let strategy = self.sharing.of(shared.map_or("", |shared| shared.group));
        let crossing = Crossing::new(text.clone(), strategy);
        crossings.insert(text.clone(), crossing.clone());
        crossing
    }

    /// Shared groups that have members, or had until just now.
    #[must_use]
    pub fn share_groups_len(&self) -> usize {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Every shared group with members here: its whole filter, members with a connection, and without.
    #[must_use]
    pub fn share_counts(&self) -> Vec<(ByteString, u32, u32)> {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = shares
            .values()
            .map(|group| (group.text().clone(), group.online_len(), group.away_len()));
        counts.filter(|(_, online, away)| online + away > 0).collect()
    }

    /// Forgets the group of a filter that has ended.
    pub(super) fn forget_group(&self, filter: &ByteString) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = shares.remove(filter) else {
            return;
        };
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() >= ENDED_GROUPS_MAX {
            ended.pop_front();
        }
        ended.push_back((group.filter(), filter.clone()));
    }

    /// Who is asked before a CONNECT is served, if anybody is.
    #[must_use]
    pub fn keeper(&self) -> Option<Arc<dyn Keeper>> {
        self.keeper.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this one is asked.
    pub fn set_keeper(&self, keeper: Arc<dyn Keeper>) {
        *self.keeper.write().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// The first life of this process: the wills of all its lives are this node's to publish.
    #[must_use]
    pub fn first_life(&self) -> Incarnation {
        *self.first_life.get().unwrap_or(&self.node.incarnation)
    }

    /// Whether the life of `core` that these tables belong to goes on. Once it is over, nobody dispatches
    /// what is published here: what must not be lost waits in a tray for the heir.
    #[must_use]
    pub fn stand(&self) -> bool {
        self.names.core.whereis().is_some()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counted(&self) -> Snapshot {
        Snapshot::of(&self.counters)
    }
}

/// Where a filter's subscribers of this node sit: one of these for the plain filter and one for each
/// `$share` group of it.
#[derive(Clone, Debug)]
pub struct Seats {
    /// The subscribed filter.
    pub filter: FilterId,
    /// The arbiters that have rows of it, one bit each.
    pub arbiters: u64,
    /// The group, if it is shared: exactly one member gets each message.
    pub share: Option<Arc<ShareGroup>>,
}

/// The table was torn by a panic of its writer. `core` must make new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a table of the broker is torn: its writer panicked inside a write")]
pub struct Torn;

/// The route table and the version by which publishers see, without a lock, that what they remember of it
/// still stands.
#[derive(Default)]
pub struct Routes {
    table: RwLock<RouteTable<Arc<[Seats]>>>,
    version: AtomicU64,
}

impl Routes {
    /// Grows with every change that a match could see.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Reads the table.
    ///
    /// # Errors
    /// [`Torn`]: a writer panicked.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, RouteTable<Arc<[Seats]>>>, Torn> {
        self.table.read().map_err(|_| Torn)
    }

    /// Changes the table; the router alone may. Publishers see the new version before the lock is free.
    ///
    /// # Errors
    /// [`Torn`]: an earlier writer panicked; the table was not touched.
    pub(super) fn write<R>(
        &self,
        change: impl FnOnce(&mut RouteTable<Arc<[Seats]>>) -> R,
    ) -> Result<R, Torn> {
        let mut table = self.table.write().map_err(|_| Torn)?;
        let before = table.version();
        let result = change(&mut table);
        if table.version() != before {
            self.version.fetch_add(1, Release);
        }
        Ok(result)
    }

    /// What publishers remember is void, although the table is the same: a link came or went.
    pub(super) fn outdate(&self) {
        self.version.fetch_add(1, Release);
    }
}

/// Where the tables of the present life of `core` are found by the specs of what starts after it.
#[derive(Clone)]
pub struct Shelf(Arc<Mutex<Arc<Tables>>>);

impl Shelf {
    /// A shelf with its first tables.
    #[must_use]
    pub fn new(tables: Arc<Tables>) -> Self {
        Self(Arc::new(Mutex::new(tables)))
    }

    /// The present tables.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        // Nothing can panic while this lock is held, so a poisoned one still holds whole tables.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts fresh tables on the shelf, for a new life of `core`, under a new identity. Of the old ones they
    /// inherit the wills of the clients that fell with them and the clock, and nothing else.
    pub fn renew(&self, node: NodeId) -> Arc<Tables> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (arbiters, names) = (shelf.arbiters.clone(), shelf.names.clone());
        let fresh = Tables::ruled(node, arbiters, names, shelf.rules.clone());
        wills::bequeath(&shelf, &fresh);
        let _ = fresh.first_life.set(shelf.first_life());
        fresh.clock.follow(&shelf.clock);
        *shelf = fresh.clone();
        fresh
    }
}
