//! Goal: every request gets its answer, and what is refused gets its sentence. Method: Control in a
//! tree of its own, in surroundings that are made up, asked over real sockets.

mod census;

use super::*;
use crate::admin::protocol::{Member, Steering};
use crate::node_name::Incarnation;
use std::sync::Mutex;
use supervisors::{Intensity, Root, Strategy, SupervisorSpec, TreeOptions};
use tokio::net::TcpListener;

#[derive(Default)]
struct Village {
    told: Mutex<Vec<String>>,
}

impl Village {
    fn tell(&self, what: &str) {
        self.told.lock().unwrap().push(what.into());
    }
}

fn here() -> NodeName {
    "n1@h".parse().unwrap()
}

impl Surroundings for Village {
    fn status(&self) -> LocalBoxFuture<'_, Result<NodeStatus, String>> {
        let status = NodeStatus {
            node: here(),
            incarnation: Incarnation(1),
            version: "0".into(),
            since_ms: 0,
            listeners: vec![],
            dist_port: 1,
            clients: 2,
            sessions: 3,
            routes: 4,
            processes: 0,
            restarts: 0,
            peers: 0,
            allow_crash: false,
            counters: vec![],
        };
        Box::pin(async move { Ok(status) })
    }

    fn routes(&self) -> LocalBoxFuture<'_, Result<Vec<RouteEntry>, String>> {
        let route = |n: usize| RouteEntry {
            filter: format!("t/{n}"),
            nodes: vec![here()],
        };
        Box::pin(async move { Ok((0..2000).map(route).collect()) })
    }

    fn clients(&self) -> LocalBoxFuture<'_, Result<Vec<ClientEntry>, String>> {
        Box::pin(async { Err("the clients are away".into()) })
    }

    fn listeners(&self) -> Vec<ListenerEntry> {
        Vec::new()
    }

    fn audit(&self) -> LocalBoxFuture<'_, Result<NodeAudit, String>> {
        Box::pin(async { Err("no books are kept".into()) })
    }

    fn cluster(&self) -> LocalBoxFuture<'_, Result<ClusterStatus, String>> {
        let members: Vec<Member> = Vec::new();
        Box::pin(async move {
            Ok(ClusterStatus {
                node: here(),
                members,
                left: Vec::new(),
                forced_out: None,
            })
        })
    }

    fn join(&self, other: NodeName, steps: mpsc::Sender<JoinStep>) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            for (step, ok) in [("name", true), ("registry", other == here())] {
                let detail = other.to_string();
                let _ = steps
                    .send(JoinStep {
                        step: step.into(),
                        ok,
                        detail,
                    })
                    .await;
            }
            if other == here() {
                Ok(())
            } else {
                Err("no such node".into())
            }
        })
    }

    fn leave(&self) -> LocalBoxFuture<'_, Result<(), String>> {
        self.tell("leave");
        Box::pin(async { Ok(()) })
    }

    fn expel(&self, node: NodeName) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move { Err(format!("{node} is no member")) })
    }

    fn drain(&self, order: DrainOrder, _: mpsc::Sender<JoinStep>) -> LocalBoxFuture<'_, Result<(), String>> {
        let told = order.rate > 0;
        Box::pin(async move { told.then_some(()).ok_or_else(|| "no rate".into()) })
    }

    fn check(
        &self,
        other: NodeName,
        steps: mpsc::Sender<JoinStep>,
    ) -> LocalBoxFuture<'_, Result<(), String>> {
        self.join(other, steps)
    }

    fn greet(&self, _: NodeName, clock_ms: u64) -> LocalBoxFuture<'_, Result<Greeting, String>> {
        let greeting = Greeting {
            clock_ms,
            link_versions: (1, 1),
            members: Vec::new(),
        };
        Box::pin(async move { Ok(greeting) })
    }

    fn reach(&self, _: NodeName, nodes: Vec<NodeName>, _: bool) -> LocalBoxFuture<'_, Vec<Reach>> {
        let reached = nodes.into_iter().map(|node| Reach { node, failed: None });
        let reached = reached.collect();
        Box::pin(async move { reached })
    }

    fn reload(&self) -> LocalBoxFuture<'_, Vec<Result<String, String>>> {
        Box::pin(async { vec![Ok("read".into()), Err("not read".into())] })
    }

    fn rotate(&self, order: RotateOrder) -> LocalBoxFuture<'_, Result<Rotated, String>> {
        let rotated = Rotated {
            before: "1".into(),
            after: "2".into(),
            grace_s: order.grace_s,
            members: Vec::new(),
        };
        Box::pin(async move { Ok(rotated) })
    }

    fn store(&self, _: StoreOrder) -> LocalBoxFuture<'_, Result<Contents, String>> {
        Box::pin(async { Err("there is none".into()) })
    }

    fn lose_route(&self, node: NodeName) -> LocalBoxFuture<'_, Result<(), String>> {
        self.tell(&format!("lose a route of {node}"));
        Box::pin(async { Ok(()) })
    }

    fn stop(&self) {
        self.tell("stop");
    }
}

/// Does nothing.
struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

struct Stand {
    root: Root,
    control: Name<Control>,
    village: Arc<Village>,
}

async fn stand(allow_crash: bool) -> Stand {
    let arbiter = actix_rt::Arbiter::current();
    let control = Name::new("control");
    let village = Arc::new(Village::default());
    let tree = Arc::new(OnceLock::new());
    let options = ControlOptions {
        surroundings: village.clone(),
        census: village.clone(),
        access: Access {
            url: None,
            token: Some("secret".into()),
        },
        tree: tree.clone(),
        allow_crash,
    };
    let child = Control::child(&arbiter, &control, options);
    let idle = ChildSpec::worker("idle", &arbiter, |_: &mut Context<Idle>| Ok(Idle));
    let spec = move || {
        let intensity = Intensity {
            restarts: 3,
            period: Duration::from_secs(60),
        };
        SupervisorSpec::new(Strategy::OneForOne, intensity, vec![child.clone(), idle.clone()])
    };
    let root = supervisors::start(
        ChildSpec::supervisor("root", &arbiter, spec),
        TreeOptions::default(),
    );
    let root = root.await.unwrap();
    tree.set(root.tree()).ok().unwrap();
    Stand {
        root,
        control,
        village,
    }
}

impl Stand {
    /// A connection that Control serves, as the gate hands it over.
    async fn connection(&self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        self.control
            .cast(Serve {
                stream: stream.into_std().unwrap(),
            })
            .ok()
            .unwrap();
        client
    }

    async fn ask(&self, request: Request) -> Vec<Reply> {
        let mut stream = self.connection().await;
        let body = wire::encode::<CONTROL_FRAME_BYTES_MAX>(&request).unwrap();
        wire::write_frame(&mut stream, &body).await.unwrap();
        let mut replies = Vec::new();
        while let Ok(body) = wire::read_frame(&mut stream, CONTROL_FRAME_BYTES_MAX).await {
            replies.push(wire::decode::<Reply, CONTROL_FRAME_BYTES_MAX>(&body).unwrap());
        }
        replies
    }
}

#[actix::test]
async fn a_status_has_what_the_tree_knows() {
    let stand = stand(true).await;
    let replies = stand.ask(Request::Status).await;
    let [Reply::Status(status), Reply::Done] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    assert_eq!(
        (status.clients, status.processes, status.allow_crash),
        (2, 3, true)
    );
}

#[actix::test]
async fn the_tree_is_listed_parents_first() {
    let stand = stand(false).await;
    let replies = stand.ask(Request::Tree).await;
    let [Reply::Tree(entries), Reply::Done] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    let paths: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["root", "root/control", "root/idle"]);
    assert_eq!(entries[0].strategy.as_deref(), Some("one_for_one"));
    assert_eq!(entries[0].intensity.as_deref(), Some("3/60s"));
    assert_eq!(entries[1].kind, "worker");
}

#[actix::test]
async fn a_long_list_comes_in_chunks() {
    let stand = stand(false).await;
    let replies = stand.ask(Request::Routes).await;
    assert_eq!(replies.len(), 5);
    let routes = |reply: &Reply| {
        if let Reply::Routes(chunk) = reply {
            chunk.len()
        } else {
            0
        }
    };
    assert_eq!(replies.iter().map(routes).sum::<usize>(), 2000);
    assert_eq!(replies[4], Reply::Done);
}

#[actix::test]
async fn a_failure_is_the_sentence_of_who_failed() {
    let stand = stand(false).await;
    assert_eq!(
        stand.ask(Request::Clients).await,
        [Reply::Failed("the clients are away".into())]
    );
}

#[actix::test]
async fn a_join_tells_its_steps_and_ends_with_the_cluster_or_the_reason() {
    let stand = stand(false).await;
    let good = stand.ask(Request::Join { other: here() }).await;
    assert!(matches!(
        good.as_slice(),
        [Reply::Step(_), Reply::Step(_), Reply::Cluster(_), Reply::Done]
    ));
    let bad = stand
        .ask(Request::Join {
            other: "n2@h".parse().unwrap(),
        })
        .await;
    let [Reply::Step(_), Reply::Step(last), Reply::Failed(sentence)] = bad.as_slice() else {
        panic!("{bad:?}")
    };
    assert_eq!((last.ok, sentence.as_str()), (false, "no such node"));
}

#[actix::test]
async fn a_crash_needs_a_node_that_allows_it() {
    let stand = stand(false).await;
    let refused = Reply::Failed("this node was not started with --allow-crash".into());
    assert_eq!(
        stand
            .ask(Request::Crash {
                path: "root/control".into()
            })
            .await,
        [refused]
    );
    assert!(stand.root.tree().history().is_empty());
}

#[actix::test]
async fn a_crashed_actor_is_restarted_and_the_history_has_it() {
    let stand = stand(true).await;
    let unknown = Reply::Failed("not_found: there is no process x: see `ermine tree`".into());
    assert_eq!(stand.ask(Request::Crash { path: "x".into() }).await, [unknown]);
    // Control panics itself here: its connection breaks after the answer.
    let replies = stand
        .ask(Request::Crash {
            path: "control".into(),
        })
        .await;
    assert_eq!(replies[0], Reply::Crashed("root/control".into()));
    while stand.root.tree().history().is_empty() {
        tokio::task::yield_now().await;
    }
    let replies = stand.ask(Request::Restarts).await;
    let [Reply::Restarts(entries), Reply::Done] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    assert_eq!(
        (entries[0].path.as_str(), entries[0].outcome.as_str()),
        ("root/control", "restarted")
    );
    assert!(
        entries[0].reason.contains("crashed by an operator"),
        "{}",
        entries[0].reason
    );
}

#[actix::test]
async fn a_child_is_stopped_started_and_seen_in_between() {
    let stand = stand(false).await;
    let steer = |how, path: &str| {
        stand.ask(Request::Steer {
            how,
            path: path.into(),
        })
    };
    let done = [Reply::Steered("root/idle".into()), Reply::Done];
    let running = Reply::Failed("root/idle: running: there is nothing to start".into());
    assert_eq!(steer(Steering::StartChild, "idle").await, [running]);
    assert_eq!(steer(Steering::StopChild, "idle").await, done);
    let replies = stand.ask(Request::Children { path: "root".into() }).await;
    let [Reply::Tree(entries), Reply::Done] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    let states: Vec<_> = entries
        .iter()
        .map(|entry| (&*entry.path, &*entry.state))
        .collect();
    let whole = [
        ("root", "running"),
        ("root/control", "running"),
        ("root/idle", "stopped"),
    ];
    assert_eq!(states, whole);
    assert_eq!(steer(Steering::StartChild, "idle").await, done);
    let refused = Reply::Failed("root is the whole node: `ermine stop` stops it".into());
    assert_eq!(steer(Steering::StartChild, "root").await, [refused]);
}

#[actix::test]
async fn a_kill_needs_a_node_that_allows_it() {
    let kill = || Request::Steer {
        how: Steering::Kill,
        path: "idle".into(),
    };
    let refused = Reply::Failed("this node was not started with --allow-crash".into());
    assert_eq!(stand(false).await.ask(kill()).await, [refused]);
    let stand = stand(true).await;
    assert_eq!(
        stand.ask(kill()).await,
        [Reply::Steered("root/idle".into()), Reply::Done]
    );
    while stand.root.tree().restarts() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        stand.root.tree().history()[0].reason,
        supervisors::ExitReason::Killed
    );
}

#[actix::test]
async fn stop_is_answered_before_the_node_stops() {
    let stand = stand(false).await;
    assert_eq!(stand.ask(Request::Stop).await, [Reply::Done]);
    while stand.village.told.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*stand.village.told.lock().unwrap(), ["stop"]);
}

#[actix::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    let stand = stand(false).await;
    let mut garbage = stand.connection().await;
    wire::write_frame(&mut garbage, b"what is this?").await.unwrap();
    assert!(
        wire::read_frame(&mut garbage, CONTROL_FRAME_BYTES_MAX)
            .await
            .is_err()
    );
    let mut long = stand.connection().await;
    tokio::io::AsyncWriteExt::write_all(&mut long, &u32::MAX.to_be_bytes())
        .await
        .unwrap();
    assert!(
        wire::read_frame(&mut long, CONTROL_FRAME_BYTES_MAX)
            .await
            .is_err()
    );
    assert!(matches!(
        stand.ask(Request::Status).await.as_slice(),
        [Reply::Status(_), Reply::Done]
    ));
}

#[actix::test]
async fn one_command_too_many_is_refused_with_a_sentence() {
    let stand = stand(false).await;
    let mut waiting = Vec::new();
    for _ in 0..CONTROL_CONNECTIONS_MAX {
        waiting.push(stand.connection().await);
    }
    let mut refused = stand.connection().await;
    let body = wire::read_frame(&mut refused, CONTROL_FRAME_BYTES_MAX)
        .await
        .unwrap();
    let reply = wire::decode::<Reply, CONTROL_FRAME_BYTES_MAX>(&body).unwrap();
    assert_eq!(
        reply,
        Reply::Failed("the node already answers 64 commands: try again".into())
    );
    drop(waiting);
    loop {
        // As soon as Control has seen that one of them is gone.
        let replies = stand.ask(Request::ClusterStatus).await;
        if matches!(replies.as_slice(), [Reply::Cluster(_), Reply::Done]) {
            break;
        }
    }
}
