//! What the specs of the tree are made from: the configuration, the arbiters, the names, and where the
//! tables and the wing of the present life are found.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use actix_rt::ArbiterHandle;
use supervisors::{DynamicSupervisor, Intensity, Name, Supervisor, Tree};
use tokio::sync::Notify;

use super::surroundings::Rooms;
use crate::admin::control::{Control, ControlOptions, Serve};
use crate::admin::http::{Entrance, Hall};
use crate::admin::protocol::Access;
use crate::broker::door::{Door, Grants};
use crate::broker::keyring::Keyring;
use crate::broker::tables::{Arbiters, Names, Rules, Shelf, Tables};
use crate::cluster::Cluster;
use crate::cluster::gate::TakeControl;
use crate::cluster::members_file;
use crate::cluster::stream::LinkTls;
use crate::config::Config;
use crate::limits::{REGISTRY_LISTENER_BYTES_MAX, REGISTRY_LISTENERS_MAX};
use crate::node_name::{Incarnation, NodeId};
use crate::registry::{Announcement, CookieJar, Endpoint, Registry, RegistryConfig};
use crate::store::Store;

/// The plan of a node; cloning shares it.
#[derive(Clone)]
pub struct Plan(Arc<Inner>);

/// See [`Plan`].
pub struct Inner {
    /// What the operator set.
    pub config: Config,
    /// The cookie, and after a rotation those of before.
    pub cookies: CookieJar,
    /// How links are encrypted, if they are.
    pub link_tls: Option<LinkTls>,
    /// Who may come in, and do what.
    pub keyring: Arc<Keyring>,
    /// Where the registry of this host is.
    pub endpoint: Endpoint,
    /// The bound MQTT ports.
    pub doors: Vec<Door>,
    /// The bound port of the HTTP API, if there is one.
    pub entrance: Option<Entrance>,
    /// What outlasts the process.
    pub store: Arc<Store>,
    /// The arbiter of its writer, whose thread waits for the disk.
    pub store_arbiter: ArbiterHandle,
    /// The root of the tree.
    pub root: Name<Supervisor>,
    /// The supervisor of sockets that have not spoken.
    pub connections: Name<DynamicSupervisor>,
    /// The supervisor of those who ask over HTTP.
    pub visits: Name<DynamicSupervisor>,
    /// Who holds this node's name in the registry.
    pub registry: Name<Registry>,
    /// Who answers operators.
    pub operators: Name<Control>,
    /// The live tree, set once it stands.
    pub tree: Arc<OnceLock<Tree>>,
    /// Rung when an operator stops the node.
    pub stop: Notify,
    /// The doors are closed: the node is ready for nobody any more.
    pub stopping: Arc<AtomicBool>,
    /// When the node was started.
    pub since: SystemTime,
    arbiters: Arbiters,
    names: Names,
    shelf: Mutex<Option<Shelf>>,
    wing: Mutex<Option<Cluster>>,
    incarnation: Mutex<Incarnation>,
}

impl std::ops::Deref for Plan {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Plan {
    /// The plan of a node whose ports are bound.
    #[must_use]
    pub fn new(
        config: Config,
        (cookies, link_tls): (CookieJar, Option<LinkTls>),
        keyring: Arc<Keyring>,
        endpoint: Endpoint,
        (doors, entrance): (Vec<Door>, Option<Entrance>),
        (store, store_arbiter): (Arc<Store>, ArbiterHandle),
        arbiters: Arbiters,
    ) -> Self {
        let names = Names::new(arbiters.all.len());
        Self(Arc::new(Inner {
            config,
            cookies,
            link_tls,
            keyring,
            endpoint,
            doors,
            entrance,
            store,
            store_arbiter,
            root: Name::new("root"),
            connections: Name::new("connections"),
            visits: Name::new("visits"),
            registry: Name::new("registry"),
            operators: Name::new("control"),
            tree: Arc::default(),
            stop: Notify::new(),
            stopping: Arc::default(),
            since: SystemTime::now(),
            arbiters,
            names,
            shelf: Mutex::default(),
            wing: Mutex::default(),
            incarnation: Mutex::new(Incarnation(0)),
        }))
    }

    /// The control arbiter.
    #[must_use]
    pub fn control(&self) -> &ArbiterHandle {
        self.arbiters.control_handle()
    }

    /// The intensity that the operator has set for a supervisor, or else its default.
    #[must_use]
    pub fn intensity(&self, supervisor: &'static str, default: Intensity) -> Intensity {
        self.config.supervision.of(supervisor).unwrap_or(default)
    }

    /// The names of the broker's processes.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Fresh tables for a new life of `core`, under a new incarnation.
    #[must_use]
    pub fn renew_tables(&self) -> Arc<Tables> {
        let node = NodeId {
            name: self.config.name.clone(),
            incarnation: self.next_incarnation(),
        };
        let mut shelf = lock(&self.shelf);
        if let Some(shelf) = shelf.as_ref() {
            return shelf.renew(node);
        }
        let (arbiters, names) = (self.arbiters.clone(), self.names.clone());
        let rules = Rules {
            keyring: self.keyring.clone(),
            retained: self.config.limits.retained,
            sharing: self.config.sharing.clone(),
            suback: self.config.suback,
            client: Grants::of_doors(self.config.limits.client, &self.doors),
            storage: Some(self.store.clone()),
        };
        let tables = Tables::ruled(node, arbiters, names, rules);
        *shelf = Some(Shelf::new(tables.clone()));
        tables
    }

    /// Greater than any before, of this process and of earlier ones (as long as the clock goes forward).
    fn next_incarnation(&self) -> Incarnation {
        let micros = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |age| age.as_micros() as u64);
        let mut last = lock(&self.incarnation);
        *last = Incarnation(micros.max(last.0 + 1));
        *last
    }

    /// The tables of the present life of `core`.
    ///
    /// # Panics
    /// Before `core` has started: who asks stands after it in the tree.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        lock(&self.shelf).as_ref().expect("core starts first").tables()
    }

    /// What a new life of the wing between nodes shares.
    #[must_use]
    pub fn renew_wing(&self) -> Cluster {
        let port = match self.wing() {
            Some(before) => before.gate_port(),
            None => self.config.dist_port,
        };
        let arbiter = &self.arbiters.all[self.arbiters.cluster()];
        let me = (self.tables().node.clone(), self.cookies.clone());
        let file = self.members_file();
        let mut wing = Cluster::new(
            me,
            self.config.registry_port,
            port,
            file,
            arbiter,
            &self.names.router,
        );
        wing.tls = self.link_tls.clone();
        wing.cookie_file = self.config.cookie.file().map(Into::into);
        let wing = match self.wing() {
            Some(before) if before.me == wing.me => wing.heir_of(&before),
            _ => wing,
        };
        *lock(&self.wing) = Some(wing.clone());
        wing
    }

    /// Whether this node remembers other members of a cluster.
    #[must_use]
    pub fn has_other_members(&self) -> bool {
        let members = members_file::load(&self.members_file(), &self.config.name);
        members.is_ok_and(|members| !members.is_empty())
    }

    fn members_file(&self) -> PathBuf {
        self.config.data_dir.join("members")
    }

    /// The wing between nodes, once it has started.
    #[must_use]
    pub fn wing(&self) -> Option<Cluster> {
        lock(&self.wing).clone()
    }

    /// What the registry is to say of this node.
    #[must_use]
    pub fn registry_config(&self) -> RegistryConfig {
        let plan = self.clone();
        // What does not fit the registry's bounds is not announced: it is there for people to read.
        let urls = self.doors.iter().map(Door::url);
        let short = urls.filter(|url| url.len() <= REGISTRY_LISTENER_BYTES_MAX);
        let listeners: Vec<String> = short.take(REGISTRY_LISTENERS_MAX).collect();
        let announcement = move || Announcement {
            port: plan.wing().map_or(0, |wing| wing.gate_port()),
            listeners: listeners.clone(),
        };
        RegistryConfig {
            cookies: self.cookies.clone(),
            me: self.tables().node.clone(),
            endpoint: self.endpoint,
            announcement: Arc::new(announcement),
        }
    }

    /// Gives a control connection to whoever answers operators now.
    #[must_use]
    pub fn take_control(&self) -> TakeControl {
        let operators = self.operators.clone();
        Arc::new(move |connection| {
            let served = connection
                .stream
                .into_std()
                .map(|stream| operators.cast(Serve { stream }));
            if !matches!(served, Ok(Ok(()))) {
                tracing::warn!("a command was not answered: nobody serves operators just now");
            }
        })
    }

    /// Reads the password file, the ACL file and the certificates again, also those between nodes, without
    /// dropping a client or a link; one sentence for each, `Err` where what was there before stays. Also in
    /// the log.
    pub async fn reload(&self) -> Vec<Result<String, String>> {
        let plan = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut said = plan.keyring.reload();
            said.extend(plan.doors.iter().filter_map(Door::reload));
            said.extend(plan.link_tls.as_ref().map(LinkTls::reload));
            said
        });
        let failed = |error| vec![Err(format!("the files could not be read again: {error}"))];
        let said = read.await.unwrap_or_else(failed);
        for sentence in &said {
            match sentence {
                Ok(sentence) => tracing::info!("reload: {sentence}"),
                Err(sentence) => tracing::error!("reload: {sentence}"),
            }
        }
        said
    }

    /// What Control is given.
    #[must_use]
    pub fn control_options(&self) -> ControlOptions {
        let rooms = Arc::new(Rooms(self.clone()));
        ControlOptions {
            surroundings: rooms.clone(),
            census: rooms,
            tree: self.tree.clone(),
            allow_crash: self.config.allow_crash,
            access: match &self.entrance {
                Some(entrance) => entrance.access(),
                None => Access {
                    url: None,
                    token: None,
                },
            },
        }
    }

    /// What those who ask over HTTP are led to.
    #[must_use]
    pub fn hall(&self, entrance: &Entrance) -> Arc<Hall> {
        let rooms = Arc::new(Rooms(self.clone()));
        Arc::new(Hall::new(rooms, &self.tree, &self.stopping, entrance))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Whole values are put in and taken out under these locks: a poisoned one is whole too.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
