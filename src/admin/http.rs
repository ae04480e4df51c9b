//! The way in over HTTP: metrics, health, the JSON API and the observer page.
//!
//! Parent:   admin (one_for_one), permanent; only where `[admin]` has an address
//! Owns:     a duplicate of the bound socket; the port itself outlives a crash ([`Entrance`])
//! Asked by: the kernel
//! Tells:    visits (start)
//! Dies of:  our bugs only; connections go on without it, those that wait are taken up by its next life
//!
//! | file | part |
//! |---|---|
//! | `http.rs` | the port, and who accepts |
//! | `http/visit.rs` | one connection |
//! | `http/hall.rs` | one request: who may ask, and where it goes |
//! | `http/api.rs` | `/api/v1/…` |
//! | `http/page.rs` | the observer page |
//! | `http/rates.rs` | what was counted each second, for the page |
//! | `http/answer.rs` | what every answer has |

mod answer;
mod api;
mod hall;
mod page;
mod rates;
mod visit;

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, StreamHandler, WrapFuture};
use actix_rt::ArbiterHandle;
use supervisors::{ChildSpec, Context, DynamicSupervisor, InitError, Name};

use crate::admin::protocol::Access;
use crate::admin::token::{TOKEN_FILE, Token};
use crate::config::AdminConfig;
pub use hall::Hall;
use visit::Visit;

/// Pause after an accept that failed, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two samples of the rates.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A bound port and the token of those who may pass. Opened before the tree starts, so that a port in use is
/// the operator's to hear of, and stays open while its listener restarts.
#[derive(Clone)]
pub struct Entrance {
    address: SocketAddr,
    socket: Arc<Mutex<Option<TcpListener>>>,
    token: Option<Token>,
    open_metrics: bool,
}

impl Entrance {
    /// Binds the port and reads the token, or makes one.
    ///
    /// # Errors
    /// One sentence; nothing is open then.
    pub fn open(config: &AdminConfig, data_dir: &Path) -> Result<Self, String> {
        let mut entrance = Self::unopened(config)?;
        let path = data_dir.join(TOKEN_FILE);
        entrance.token = Some(Token::load_or_create(&path)?);
        let bound = TcpListener::bind(entrance.address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            entrance.address = socket.local_addr()?;
            Ok(socket)
        });
        let socket = bound.map_err(|error| {
            let listen = &config.listen;
            format!("cannot listen on {listen} for the admin API: {error}; give another --admin")
        })?;
        *entrance.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
        let address = entrance.address;
        tracing::info!(%address, token = %path.display(), "admin API opened");
        Ok(entrance)
    }

    /// One that is not opened, for a look at the tree without a start.
    ///
    /// # Errors
    /// One sentence if the host is not known here.
    pub fn unopened(config: &AdminConfig) -> Result<Self, String> {
        let listen = &config.listen;
        let found = (listen.host.as_str(), listen.port).to_socket_addrs();
        let address = found.ok().and_then(|mut found| found.next());
        Ok(Self {
            address: address.ok_or_else(|| {
                format!("cannot listen on {listen} for the admin API: the host is not known here")
            })?,
            socket: Arc::default(),
            token: None,
            open_metrics: config.open_metrics,
        })
    }

    /// Where it is, and what lets in.
    #[must_use]
    pub fn access(&self) -> Access {
        Access {
            url: Some(format!("http://{}", self.address)),
            token: self.token.as_ref().map(|token| token.expose().to_owned()),
        }
    }

    fn duplicate(&self) -> std::io::Result<TcpListener> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.as_ref() {
            Some(socket) => socket.try_clone(),
            None => Err(std::io::Error::other("the port of the admin API is not open")),
        }
    }
}

/// The listener of the HTTP API.
pub struct Http {
    hall: Arc<Hall>,
    visits: Name<DynamicSupervisor>,
}

impl Http {
    /// The child of `admin`.
    #[must_use]
    pub fn spec(arbiter: &ArbiterHandle, hall: &Arc<Hall>, visits: &Name<DynamicSupervisor>) -> ChildSpec {
        let (made, under) = (hall.clone(), visits.clone());
        let init = move |ctx: &mut Context<Self>| Self::init(&made, &under, ctx);
        ChildSpec::worker(format!("http:{}", hall.entrance.address), arbiter, init)
    }

    fn init(
        hall: &Arc<Hall>,
        visits: &Name<DynamicSupervisor>,
        ctx: &mut Context<Self>,
    ) -> Result<Self, InitError> {
        let socket = tokio::net::TcpListener::from_std(hall.entrance.duplicate()?)?;
        ctx.add_stream(futures_util::stream::unfold(socket, |socket| async move {
            let accepted = socket.accept().await;
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Some((accepted.and_then(|(stream, _)| stream.into_std()), socket))
        }));
        ctx.run_interval(SAMPLE_EVERY, |http, _| http.hall.note_rates());
        Ok(Self {
            hall: hall.clone(),
            visits: visits.clone(),
        })
    }

    fn let_in(&mut self, stream: TcpStream, ctx: &mut Context<Self>) {
        let spec = Visit::spec(actix_rt::Arbiter::current(), &self.hall, stream);
        let started = self.visits.start_child(spec).into_actor(self);
        // One too many is closed at once: its place is free again within a moment.
        ctx.spawn(started.map(|started, _, _| {
            if let Err(error) = started {
                tracing::debug!(%error, "a connection to the admin API was closed at once");
            }
        }));
    }
}

impl Actor for Http {
    type Context = Context<Self>;
}

impl StreamHandler<std::io::Result<TcpStream>> for Http {
    fn handle(&mut self, accepted: std::io::Result<TcpStream>, ctx: &mut Context<Self>) {
        match accepted {
            Ok(stream) => self.let_in(stream, ctx),
            Err(error) => tracing::warn!(%error, "the admin API could not accept a connection"),
        }
    }
}
