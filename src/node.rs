//! Floor 5: a node: boot, signals, drain.
//!
//! Boot: the cookie, then the ports, then the tree; what is wrong with the operator's settings is said in
//! one sentence before any port is open, with status 64. Drain: doors close, sessions end (5.0 clients
//! hear 0x8B), peers are told, then the tree stops in reverse order. A root that gives up ends the
//! process with status 70.

mod auditing;
mod census;
mod checking;
mod draining;
mod outline;
mod plan;
mod process;
mod rotating;
mod surroundings;

use std::io;
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use actix_rt::{Arbiter, System};
use supervisors::{ExitReason, Root, TerminateChild, TreeOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::admin::http::Entrance;
use crate::broker::crowd::NodeCrowd;
use crate::broker::door::{Address, Door, Terms};
use crate::broker::keyring::Keyring;
use crate::broker::tables::Arbiters;
use crate::broker::tls::Certificate;
use crate::cli::{EXIT_FAILED, EXIT_GAVE_UP};
use crate::cluster::connector::Drain;
use crate::cluster::stream::LinkTls;
use crate::config::{Config, Listen, ListenerConfig};
use crate::limits::{DRAIN_STEP_WITHIN, REGISTRY_SETTLES_WITHIN};
use crate::registry::actor::Settled;
use crate::registry::{Cookie, Endpoint, Identity, RegistryClient};
use crate::store::{Store, StoreConfig};
use crate::tree;
pub use outline::outline;
pub use plan::Plan;

/// Why a node did not start, in one sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The operator's to set right; no port is open.
    Operator(String),
    /// The tree could not be started.
    Start(String),
}

/// Runs a node until it is told to stop, or gives up.
///
/// # Errors
/// See [`Refusal`]: the node has not been announced to anyone.
pub fn run(config: Config) -> Result<ExitCode, Refusal> {
    System::new().block_on(async move {
        let plan = prepare(config).await.map_err(Refusal::Operator)?;
        live(plan).await
    })
}

/// Everything that can be the operator's mistake. Nothing is announced yet.
async fn prepare(config: Config) -> Result<Plan, String> {
    let cookie = config
        .cookie
        .load_or_create()
        .map_err(|error| error.to_string())?;
    let mut endpoint = Endpoint::from_environment(Some(&config.name)).map_err(|error| error.to_string())?;
    endpoint.bind.set_port(config.registry_port);
    endpoint.contact.set_port(config.registry_port);
    refuse_twin(&config, &cookie).await?;
    let keyring = Arc::new(Keyring::open(&config.auth)?);
    let link_tls = config.link_tls.as_ref().map(LinkTls::load).transpose()?;
    let store = Store::open(&StoreConfig {
        dir: config.data_dir.join("store"),
        node: config.name.clone(),
        pace: config.store,
    });
    let store = store.map_err(|error| error.to_string())?;
    let doors = open_doors(&config)?;
    let entrance = config
        .admin
        .as_ref()
        .map(|admin| Entrance::open(admin, &config.data_dir));
    let entrance = entrance.transpose()?;
    let workers: Vec<_> = (0..config.worker_threads)
        .map(|_| Arbiter::new().handle())
        .collect();
    let arbiters = Arbiters::new(
        workers,
        Arbiter::new().handle(),
        System::current().arbiter().clone(),
    );
    Ok(Plan::new(
        config,
        (cookie.into(), link_tls),
        keyring,
        endpoint,
        (doors, entrance),
        (store, Arbiter::new().handle()),
        arbiters,
    ))
}

/// A running node of the same name would make both unreachable by name.
async fn refuse_twin(config: &Config, cookie: &Cookie) -> Result<(), String> {
    let client = RegistryClient::new(cookie.clone(), Identity::command(), config.registry_port);
    match client.resolve(&config.name).await {
        Ok(twin) => Err(format!(
            "a node {} already runs (its port between nodes is {}): stop it, or choose another --name",
            config.name, twin.port
        )),
        // No registry, or one that does not know the name: the usual case.
        Err(_) => Ok(()),
    }
}

/// What a listener grants. Reads its certificate, so that a mistake in it is told before any port opens.
fn terms(config: &Config, listener: &ListenerConfig, address: &Address) -> Result<Terms, String> {
    let files = listener.tls.clone();
    let certificate = files.map(Certificate::load).transpose()?;
    Ok(Terms {
        certificate: certificate.map(Arc::new),
        ..terms_unread(config, listener, address)
    })
}

/// The same without its certificate, for a look at the tree without a start.
fn terms_unread(config: &Config, listener: &ListenerConfig, address: &Address) -> Terms {
    // Behind a proxy of this host is the whole world.
    let local = address.is_local() && !listener.proxy_protocol;
    Terms {
        allow_anonymous: config.auth.anonymous_allowed(listener.allow_anonymous, local),
        protocol: listener.protocol,
        crowd: listener.limits.door,
        proxy_protocol: listener.proxy_protocol,
        websocket_path: listener.websocket_path.clone(),
        certificate_cn_is_username: listener.certificate_cn_is_username,
        ..Terms::plain(listener.limits.connect_deadline, listener.limits.client)
    }
}

fn where_to_listen(listener: &ListenerConfig) -> Result<Address, String> {
    let listen = match &listener.listen {
        Listen::Unix(path) => return Ok(Address::Unix(path.clone())),
        Listen::Tcp(listen) => listen,
    };
    let found = (listen.host.as_str(), listen.port).to_socket_addrs().ok();
    let found = found.and_then(|mut found| found.next()).map(Address::Tcp);
    found.ok_or_else(|| {
        format!("cannot listen on {listen}: the host is not known here; give another --listen")
    })
}

/// First everything that can be wrong without a port, then the ports.
fn open_doors(config: &Config) -> Result<Vec<Door>, String> {
    let node = NodeCrowd::new(config.limits.door.connections_max);
    let planned = config.listeners.iter().map(|listener| {
        let address = where_to_listen(listener)?;
        let terms = Terms {
            node: node.clone(),
            ..terms(config, listener, &address)?
        };
        Ok((listener, address, terms))
    });
    let planned = planned.collect::<Result<Vec<_>, String>>()?;
    let opened = planned.into_iter().map(|(listener, address, terms)| {
        Door::open(&address, listener.unix_mode, terms).map_err(|error| cannot_listen(listener, &error))
    });
    opened.collect()
}

fn cannot_listen(listener: &ListenerConfig, error: &io::Error) -> String {
    let listen = &listener.listen;
    match (error.kind(), listen) {
        (io::ErrorKind::AddrInUse, Listen::Tcp(_)) => {
            format!(
                "cannot listen on {listen}: the port is in use; stop who has it, or give another --listen"
            )
        }
        (io::ErrorKind::AddrInUse, Listen::Unix(_)) => {
            format!("cannot listen on {listen}: another process serves it; stop it, or give another path")
        }
        (_, Listen::Tcp(_)) => format!("cannot listen on {listen}: {error}; give another --listen"),
        (_, Listen::Unix(_)) => {
            format!("cannot listen on {listen}: {error}; give a path in a directory that this user may write")
        }
    }
}

/// Whether a door refuses everybody: there is nothing to prove, and bringing nothing is not enough.
fn nobody_comes_in(plan: &Plan, door: &Door) -> bool {
    let terms = door.terms();
    !terms.allow_anonymous && !terms.certificate_cn_is_username && !plan.config.auth.checks_credentials()
}

async fn live(plan: Plan) -> Result<ExitCode, Refusal> {
    let began = std::time::Instant::now();
    let config = &plan.config;
    tracing::info!(node = %config.name, version = env!("CARGO_PKG_VERSION"), "node starting");
    let fingerprint = plan.cookies.current().fingerprint();
    tracing::info!(cookie = %config.cookie, %fingerprint, "cookie read");
    let sink = crate::cli::log::report_sink(config.log.format);
    let options = TreeOptions {
        sink,
        ..TreeOptions::default()
    };
    let root = supervisors::start(tree::root(&plan), options).await;
    let root = root.map_err(|error| Refusal::Start(format!("the node could not start: {error}")))?;
    // A registry that does not answer must not keep the node back: the log says what is wrong with it.
    let _ = timeout(REGISTRY_SETTLES_WITHIN, plan.registry.call(Settled)).await;
    // Set once: the tree is started once.
    let _ = plan.tree.set(root.tree());
    tracing::info!("supervision tree\n{}", crate::cli::draw_tree(&root.tree()));
    let port = plan.wing().map_or(0, |wing| wing.gate_port());
    let listeners: Vec<_> = plan.doors.iter().map(Door::url).collect();
    for door in plan.doors.iter().filter(|door| nobody_comes_in(&plan, door)) {
        tracing::warn!(
            door = %door.name(),
            "nobody can come in here: anonymous clients come from this host only; \
             set [auth] password_file, or allow_anonymous = true"
        );
    }
    // Before it is said that the node has started: whoever reads that may stop it.
    let signals = Signals::listen();
    tracing::info!(
        node = %plan.tables().node, listeners = %listeners.join(","), port, registry = %plan.endpoint.contact,
        started_in_ms = began.elapsed().as_millis() as u64, "node started"
    );
    Ok(wait_for_the_end(&plan, &root, signals).await)
}

/// What a service manager or a person at the terminal says.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// SIGHUP: what files say is read again, and no client notices. What is wrong in them is logged and
    /// changes nothing.
    async fn reload_on_hangup(hangup: &mut Signal, plan: &Plan) {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: reading passwords, rules and certificates again");
            // What is wrong with them is in the log.
            let _ = plan.reload().await;
        }
        // No signal will come any more.
        std::future::pending().await
    }
}

async fn wait_for_the_end(plan: &Plan, root: &Root, signals: io::Result<Signals>) -> ExitCode {
    let Ok(Signals {
        mut terminate,
        mut interrupt,
        mut hangup,
    }) = signals
    else {
        tracing::error!("signals cannot be received; stopping");
        return drain(plan, root).await;
    };
    let why = tokio::select! {
        reason = root.wait() => {
            tracing::error!(%reason, "the root of the supervision tree gave up; the node ends");
            return ExitCode::from(EXIT_GAVE_UP);
        }
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = plan.stop.notified() => "an operator's command",
        () = Signals::reload_on_hangup(&mut hangup, plan) => return ExitCode::from(EXIT_FAILED),
    };
    tracing::info!(node = %plan.config.name, because = why, "node stopping");
    tokio::select! {
        code = drain(plan, root) => code,
        _ = interrupt.recv() => {
            tracing::warn!("interrupted again: the node ends at once");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Doors first, then sessions, then the links; the rest of the tree in reverse order.
async fn drain(plan: &Plan, root: &Root) -> ExitCode {
    for door in &plan.doors {
        door.close();
    }
    plan.stopping.store(true, Relaxed);
    plan.tables().closing.store(true, SeqCst);
    for part in ["doors", "sessions"] {
        let stopped = timeout(DRAIN_STEP_WITHIN, plan.root.call(TerminateChild::new(part))).await;
        if !matches!(stopped, Ok(Ok(Ok(())))) {
            tracing::warn!(part, "did not stop in time; going on");
        }
    }
    if let Some(wing) = plan.wing() {
        // One that is restarting has no links to close.
        let _ = timeout(DRAIN_STEP_WITHIN, wing.connector.call(Drain)).await;
    }
    let reason = root.stop().await;
    tracing::info!(node = %plan.config.name, "node stopped");
    match reason {
        ExitReason::Normal | ExitReason::Shutdown => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_GAVE_UP),
    }
}
