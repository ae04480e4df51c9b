//! Control: answers the commands of operators.
//!
//! Parent:   admin (one_for_one), permanent
//! Owns:     the control connections; they end with it, and their commands are typed again
//! Asked by: Gate (Serve), and through its connections by `ermine` commands
//! Tells:    whoever a command is about, through [`Surroundings`]
//! Dies of:  our bugs only; garbage on a connection closes that connection
//!
//! One task for each connection, at most [`CONTROL_CONNECTIONS_MAX`]. A connection brings one request
//! and is closed after its answer, so a lost one leaves nothing behind.

mod answers;
mod path;
mod steering;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message, WrapFuture};
use actix_rt::ArbiterHandle;
use futures_util::future::LocalBoxFuture;
use supervisors::{ChildSpec, Context, Name, Tree};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admin::census::Census;
use crate::admin::protocol::{
    Access, ClientEntry, ClusterStatus, DrainOrder, Greeting, JoinStep, ListenerEntry, NodeAudit, NodeStatus,
    Reach, Reply, Request, RotateOrder, Rotated, RouteEntry, StoreOrder,
};
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::node_name::NodeName;
use crate::registry::wire;
use crate::store::tools::Contents;
pub(crate) use answers::{ms, outline_entry, restart_entry, tree_entry};

/// Commands that are answered at the same time. A `tree --watch` is a new one each second.
pub const CONTROL_CONNECTIONS_MAX: usize = 64;

/// Longest wait for the request of a proved connection.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// Longest wait until the operator has taken one reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

/// Longest work on one command. A join waits for a route table and has its own deadlines within this.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// Longest drain: its rate is the operator's.
const DRAIN_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// What the node around it does for Control. Every `Err` is one sentence for the operator.
pub trait Surroundings: Send + Sync + 'static {
    /// The node; what the tree knows is filled in by Control.
    fn status(&self) -> LocalBoxFuture<'_, Result<NodeStatus, String>>;
    /// The route table in the order of filters.
    fn routes(&self) -> LocalBoxFuture<'_, Result<Vec<RouteEntry>, String>>;
    /// The sessions in the order of client ids.
    fn clients(&self) -> LocalBoxFuture<'_, Result<Vec<ClientEntry>, String>>;
    /// The listeners in the order of the configuration.
    fn listeners(&self) -> Vec<ListenerEntry>;
    /// The node's books.
    fn audit(&self) -> LocalBoxFuture<'_, Result<NodeAudit, String>>;
    /// The cluster as this node sees it.
    fn cluster(&self) -> LocalBoxFuture<'_, Result<ClusterStatus, String>>;
    /// Joins another node and tells each step as it ends.
    fn join(&self, other: NodeName, steps: mpsc::Sender<JoinStep>) -> LocalBoxFuture<'_, Result<(), String>>;
    /// Leaves the cluster.
    fn leave(&self) -> LocalBoxFuture<'_, Result<(), String>>;
    /// Forces a member out.
    fn expel(&self, node: NodeName) -> LocalBoxFuture<'_, Result<(), String>>;
    /// Sends the clients away and leaves the cluster; tells each step as it ends.
    fn drain(
        &self,
        order: DrainOrder,
        steps: mpsc::Sender<JoinStep>,
    ) -> LocalBoxFuture<'_, Result<(), String>>;
    /// Finds out whether another node could be joined; tells each step as it ends. Changes nothing.
    fn check(&self, other: NodeName, steps: mpsc::Sender<JoinStep>)
    -> LocalBoxFuture<'_, Result<(), String>>;
    /// What a node that checks is told.
    fn greet(&self, from: NodeName, clock_ms: u64) -> LocalBoxFuture<'_, Result<Greeting, String>>;
    /// Whether these nodes are reached from here, for a node that checks.
    fn reach(&self, from: NodeName, nodes: Vec<NodeName>, canary: bool) -> LocalBoxFuture<'_, Vec<Reach>>;
    /// Reads files again: one sentence for each, `Err` where what was there before stays.
    fn reload(&self) -> LocalBoxFuture<'_, Vec<Result<String, String>>>;
    /// Changes the cookie of this node, or of its cluster.
    fn rotate(&self, order: RotateOrder) -> LocalBoxFuture<'_, Result<Rotated, String>>;
    /// Looks through the store, or copies it.
    fn store(&self, order: StoreOrder) -> LocalBoxFuture<'_, Result<Contents, String>>;
    /// Lets the router lose a route of that node without a word, as a bug would.
    fn lose_route(&self, node: NodeName) -> LocalBoxFuture<'_, Result<(), String>>;
    /// Begins to stop the node; returns at once.
    fn stop(&self);
}

/// The part of the configuration and of the node that Control needs.
#[derive(Clone)]
pub struct ControlOptions {
    /// The rooms that commands are about.
    pub surroundings: Arc<dyn Surroundings>,
    /// Who counts.
    pub census: Arc<dyn Census>,
    /// Where the HTTP API is.
    pub access: Access,
    /// The tree, set as soon as it stands: Control is itself in it.
    pub tree: Arc<OnceLock<Tree>>,
    /// Whether `ermine crash` and `ermine kill` are allowed.
    pub allow_crash: bool,
}

/// Gate → Control: a connection whose cookie proof was for `control`. Not answered; the connection is.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Serve {
    /// Nothing was said on it after the proof. Blocking or not does not matter.
    pub stream: std::net::TcpStream,
}

/// The actor.
pub struct Control {
    options: ControlOptions,
    /// Connections that are served now.
    open: usize,
}

impl Control {
    /// The child of `admin`.
    #[must_use]
    pub fn child(arbiter: &ArbiterHandle, name: &Name<Self>, options: ControlOptions) -> ChildSpec {
        let init = move |_: &mut Context<Self>| {
            Ok(Self {
                options: options.clone(),
                open: 0,
            })
        };
        ChildSpec::worker("control", arbiter, init).name(name)
    }
}

impl Actor for Control {
    type Context = Context<Self>;
}

impl Handler<Serve> for Control {
    type Result = ();

    fn handle(&mut self, Serve { stream }: Serve, ctx: &mut Context<Self>) {
        if self.open == CONTROL_CONNECTIONS_MAX {
            tracing::warn!("control: refused, {CONTROL_CONNECTIONS_MAX} commands are being answered");
            return refuse(&stream);
        }
        let connection = match Connection::new(stream) {
            Ok(connection) => connection,
            Err(error) => {
                return tracing::debug!("a control connection was lost before its request: {error}");
            }
        };
        self.open += 1;
        let served = connection.serve(self.options.clone());
        ctx.spawn(served.into_actor(self).map(|(), me, _| me.open -= 1));
    }
}

/// Says that there are too many, if the socket takes it at once.
fn refuse(mut stream: &std::net::TcpStream) {
    let sentence = format!("the node already answers {CONTROL_CONNECTIONS_MAX} commands: try again");
    if let Ok(body) = wire::encode::<CONTROL_FRAME_BYTES_MAX>(&Reply::Failed(sentence)) {
        let len = u32::try_from(body.len()).unwrap_or_default();
        let frame = [&len.to_be_bytes()[..], &body].concat();
        let _ = stream
            .set_nonblocking(true)
            .and_then(|()| std::io::Write::write_all(&mut stream, &frame));
    }
}

/// One connection with one request.
struct Connection {
    stream: TcpStream,
    from: SocketAddr,
}

impl Connection {
    /// The stream on this arbiter: it was accepted on another one.
    fn new(stream: std::net::TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        let from = stream.peer_addr()?;
        Ok(Self {
            stream: TcpStream::from_std(stream)?,
            from,
        })
    }

    async fn serve(mut self, options: ControlOptions) {
        let request = match self.request().await {
            Ok(request) => request,
            Err(why) => return tracing::warn!(from = %self.from, "control: closed, {why}"),
        };
        if request.changes() {
            tracing::info!(from = %self.from, "control: {}", request.words());
        } else {
            tracing::debug!(from = %self.from, "control: {}", request.words());
        }
        let (stop, deadline) = match &request {
            Request::Drain(order) => (order.stop, DRAIN_DEADLINE),
            // A large store on a slow disk.
            Request::Store(_) => (false, DRAIN_DEADLINE),
            request => (*request == Request::Stop, COMMAND_DEADLINE),
        };
        let surroundings = options.surroundings.clone();
        let answered = timeout(deadline, answers::answer(&options, request, &mut self)).await;
        let end = match answered {
            Ok(Ok(())) => Reply::Done,
            Ok(Err(sentence)) => Reply::Failed(sentence),
            Err(_) => Reply::Failed(format!(
                "not done within {} s: see the node's log",
                deadline.as_secs()
            )),
        };
        if let Reply::Failed(sentence) = &end {
            tracing::info!(from = %self.from, "control: failed: {sentence}");
        }
        // Who is no longer there does not miss the end.
        let _ = self.reply(&end).await;
        if stop && end == Reply::Done {
            surroundings.stop();
        }
    }

    async fn request(&mut self) -> Result<Request, String> {
        let frame = timeout(
            REQUEST_DEADLINE,
            wire::read_frame(&mut self.stream, CONTROL_FRAME_BYTES_MAX),
        );
        let frame = frame
            .await
            .map_err(|_| "no request came".to_owned())?
            .map_err(|error| error.to_string())?;
        wire::decode::<Request, CONTROL_FRAME_BYTES_MAX>(&frame).map_err(|error| error.to_string())
    }

    /// Sends a reply; an error means that there is nobody to answer.
    async fn reply(&mut self, reply: &Reply) -> Result<(), String> {
        let body = wire::encode::<CONTROL_FRAME_BYTES_MAX>(reply).map_err(|error| error.to_string())?;
        match timeout(REPLY_DEADLINE, wire::write_frame(&mut self.stream, &body)).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err("the operator does not read".into()),
        }
    }
}

#[cfg(test)]
mod tests;
