//! Whole nodes' worth of registry on real sockets. Each test has its own loopback address, so that
//! tests do not meet; a node dies when its task is aborted, which closes its sockets as the kernel would.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use super::*;
use crate::node_name::Incarnation;
use crate::registry::cookie::Cookie;
use crate::registry::handshake::{HandshakeError, Purpose, prove_as_client};
use crate::registry::wire::{self, Reply, Request};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Node {
    role: watch::Receiver<Role>,
    announcement: watch::Sender<Announcement>,
    task: AbortHandle,
}

fn cookie(text: &str) -> Cookie {
    Cookie::from_text(text).unwrap()
}

/// An address and port that no other test has.
async fn endpoint() -> Endpoint {
    static LAST: AtomicU8 = AtomicU8::new(1);
    let host = [127, 77, 1, LAST.fetch_add(1, Ordering::Relaxed)];
    let bind = TcpListener::bind((std::net::Ipv4Addr::from(host), 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    Endpoint { bind, contact: bind }
}

fn name(short: &str, endpoint: Endpoint) -> NodeId {
    let name = format!("{short}@{}", endpoint.bind.ip()).parse().unwrap();
    NodeId {
        name,
        incarnation: Incarnation(1),
    }
}

fn start_as(me: NodeId, secret: &str, endpoint: Endpoint, port: u16) -> Node {
    let (announcement, announced) = watch::channel(Announcement {
        port,
        listeners: vec![],
    });
    let (role_sender, role) = watch::channel(Role::Seeking { problem: None });
    let holder = Holder::new(cookie(secret), me, endpoint, announced, role_sender);
    let task = spawn_local(async move { match holder.hold().await {} }).abort_handle();
    Node {
        role,
        announcement,
        task,
    }
}

fn start(short: &str, endpoint: Endpoint, port: u16) -> Node {
    start_as(name(short, endpoint), SECRET, endpoint, port)
}

impl Node {
    async fn until(&mut self, reached: impl FnMut(&Role) -> bool) -> Role {
        let wait = timeout(Duration::from_secs(10), self.role.wait_for(reached));
        wait.await.expect("within 10 s").expect("the node runs").clone()
    }

    async fn serves(&mut self) -> Rc<Server> {
        match self.until(|role| matches!(role, Role::Serving(_))).await {
            Role::Serving(server) => server,
            _ => unreachable!("awaited just now"),
        }
    }

    async fn leased_from(&mut self, short: &str) {
        self.until(|role| matches!(role, Role::Leased { server, .. } if server.name.short() == short))
            .await;
    }

    async fn problem(&mut self) -> String {
        match self
            .until(|role| matches!(role, Role::Seeking { problem: Some(_) }))
            .await
        {
            Role::Seeking {
                problem: Some(problem),
            } => problem.to_string(),
            _ => unreachable!("awaited just now"),
        }
    }
}

fn client(endpoint: Endpoint) -> RegistryClient {
    RegistryClient::new(cookie(SECRET), Identity::command(), endpoint.bind.port())
}

async fn names(endpoint: Endpoint) -> Vec<(String, u16)> {
    let list = client(endpoint)
        .names(&endpoint.bind.ip().to_string())
        .await
        .unwrap();
    list.names
        .iter()
        .map(|it| (it.node.name.short().to_owned(), it.port))
        .collect()
}

/// Asks until the answer is the one awaited: the registry says nothing unasked.
async fn names_become(endpoint: Endpoint, awaited: &[(&str, u16)]) {
    let ask = async {
        loop {
            let names = names(endpoint).await;
            if names
                .iter()
                .map(|(name, port)| (name.as_str(), *port))
                .eq(awaited.iter().copied())
            {
                break;
            }
        }
    };
    timeout(Duration::from_secs(10), ask).await.expect("within 10 s");
}

async fn on_one_thread(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn the_first_node_serves_the_others_lease_and_a_dead_one_is_forgotten() {
    on_one_thread(async {
        let at = endpoint().await;
        let mut first = start("n1", at, 4001);
        assert_eq!(first.serves().await.address(), at.bind);
        let mut second = start("n2", at, 4002);
        second.leased_from("n1").await;
        assert_eq!(names(at).await, [("n1".into(), 4001), ("n2".into(), 4002)]);
        let resolved = client(at).resolve(&name("n2", at).name).await.unwrap();
        assert_eq!((resolved.node, resolved.port), (name("n2", at), 4002));
        second.task.abort();
        names_become(at, &[("n1", 4001)]).await;
    })
    .await;
}

#[tokio::test]
async fn when_the_server_dies_one_takes_over_and_the_rest_register_within_a_second() {
    on_one_thread(async {
        let at = endpoint().await;
        let mut first = start("n1", at, 4001);
        first.serves().await;
        let mut others = [
            start("n2", at, 4002),
            start("n3", at, 4003),
            start("n4", at, 4004),
        ];
        for other in &mut others {
            other.leased_from("n1").await;
        }
        let death = Instant::now();
        first.task.abort();
        let mut serving = 0;
        for other in &mut others {
            let again = other.until(|role| match role {
                Role::Serving(_) => true,
                Role::Leased { server, .. } => server.name.short() != "n1",
                Role::Seeking { .. } => false,
            });
            serving += usize::from(matches!(again.await, Role::Serving(_)));
        }
        assert_eq!(serving, 1);
        assert!(
            death.elapsed() < Duration::from_secs(1),
            "took {:?}",
            death.elapsed()
        );
        names_become(at, &[("n2", 4002), ("n3", 4003), ("n4", 4004)]).await;
        let mut first = start("n1", at, 4005);
        first.until(|role| matches!(role, Role::Leased { .. })).await;
        names_become(at, &[("n1", 4005), ("n2", 4002), ("n3", 4003), ("n4", 4004)]).await;
    })
    .await;
}

#[tokio::test]
async fn a_port_held_by_something_else_is_named_and_taken_when_it_is_free() {
    on_one_thread(async {
        let at = endpoint().await;
        let stranger = TcpListener::bind(at.bind).await.unwrap();
        let answers = spawn_local(async move {
            // Kept open: a close with our words unread would be a reset, which may overtake the answer.
            let mut streams = Vec::new();
            while let Ok((mut stream, _)) = stranger.accept().await {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                streams.push(stream);
            }
        });
        let mut node = start("n1", at, 4001);
        assert_eq!(
            node.problem().await,
            format!(
                "this node is not registered: {} is held by something that is not an Ermine registry: \
                 free the port, or set ERMINE_REGISTRY_PORT",
                at.bind
            )
        );
        answers.abort();
        node.serves().await;
    })
    .await;
}

#[tokio::test]
async fn a_registry_of_another_cookie_is_a_mismatch_on_both_sides_and_goes_on() {
    on_one_thread(async {
        let at = endpoint().await;
        let mut first = start("n1", at, 4001);
        let server = first.serves().await;
        let mut other = start_as(name("n2", at), "another-cookie-of-decent-length", at, 4002);
        let problem = other.problem().await;
        let ours = cookie("another-cookie-of-decent-length").fingerprint();
        assert_eq!(
            problem,
            format!(
                "this node is not registered: the registry at {} was reached, but: cookie mismatch with \
                 the node there: it does not hold our cookie (fingerprint {ours}): \
                 compare `ermine cookie fingerprint` on both sides",
                at.bind
            )
        );
        assert!(server.turned_away().unproved >= 1);
        assert_eq!(names(at).await, [("n1".into(), 4001)]);
        first.task.abort();
        other.serves().await;
    })
    .await;
}

#[tokio::test]
async fn a_second_node_of_one_name_is_refused_until_the_first_is_gone() {
    on_one_thread(async {
        let at = endpoint().await;
        let _keeper = start("n0", at, 4000).serves().await;
        let first = start("n1", at, 4001);
        names_become(at, &[("n0", 4000), ("n1", 4001)]).await;
        let twin = NodeId {
            incarnation: Incarnation(2),
            ..name("n1", at)
        };
        let mut twin = start_as(twin, SECRET, at, 4002);
        assert_eq!(
            twin.problem().await,
            format!(
                "this node is not registered: the registry at {} refused: the name n1@{} is in use: a living \
                 node of that name takes links at port 4001; stop it or choose another name with --name",
                at.bind,
                at.bind.ip()
            )
        );
        first.task.abort();
        twin.leased_from("n0").await;
    })
    .await;
}

#[tokio::test]
async fn a_new_announcement_reaches_the_registry_from_either_role() {
    on_one_thread(async {
        let at = endpoint().await;
        let mut first = start("n1", at, 4001);
        first.serves().await;
        let mut second = start("n2", at, 4002);
        second.leased_from("n1").await;
        first.announcement.send_replace(Announcement {
            port: 4011,
            listeners: vec![],
        });
        second.announcement.send_replace(Announcement {
            port: 4012,
            listeners: vec![],
        });
        names_become(at, &[("n1", 4011), ("n2", 4012)]).await;
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_not_ours_is_named() {
    on_one_thread(async {
        let nowhere: SocketAddr = "192.0.2.1:4366".parse().unwrap();
        let mut node = start(
            "n1",
            Endpoint {
                bind: nowhere,
                contact: nowhere,
            },
            4001,
        );
        let problem = node.problem().await;
        assert!(
            problem.starts_with("the registry cannot be served at 192.0.2.1:4366 ("),
            "{problem}"
        );
        assert!(
            problem.ends_with("set ERMINE_REGISTRY_PORT or ERMINE_REGISTRY_ADDRESS to what this host allows")
        );
    })
    .await;
}

#[tokio::test]
async fn each_failed_question_has_its_own_sentence() {
    on_one_thread(async {
        let at = endpoint().await;
        let host = at.bind.ip().to_string();
        let dead = client(at).names(&host).await.unwrap_err();
        assert_eq!(
            dead.to_string(),
            format!(
                "there is no registry at {}: \
                 no node runs on that host, or ERMINE_REGISTRY_PORT differs there",
                at.bind
            )
        );
        let _server = start("n1", at, 4001).serves().await;
        let unknown = client(at).resolve(&name("n9", at).name).await.unwrap_err();
        assert_eq!(
            unknown.to_string(),
            format!(
                "n9@{host} is not registered at {} (the only name there is n1@{host}): \
                 start it, or correct the name",
                at.bind
            )
        );
        let nowhere = client(at)
            .names("no-such-host.invalid")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            nowhere.starts_with("the registry at no-such-host.invalid:"),
            "{nowhere}"
        );
        assert!(
            nowhere.ends_with("check the host name, the network and the firewall"),
            "{nowhere}"
        );
        let command = client(at)
            .register(at.contact, Announcement::default())
            .await
            .unwrap_err();
        assert_eq!(
            command.to_string(),
            format!(
                "the registry at {} refused: only a node can register, not a command",
                at.bind
            )
        );
    })
    .await;
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_loses_its_own_connection_only() {
    on_one_thread(async {
        let at = endpoint().await;
        let mut first = start("n1", at, 4001);
        let server = first.serves().await;
        let mut second = start("n2", at, 4002);
        second.leased_from("n1").await;

        let mut stranger = TcpStream::connect(at.bind).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(
            wire::read_frame(&mut stranger, 64).await.is_err(),
            "closed without a word"
        );
        assert_eq!(server.turned_away().unproved, 1);

        let mut proved = TcpStream::connect(at.bind).await.unwrap();
        let me = Identity::command();
        prove_as_client(&mut proved, &cookie(SECRET), Purpose::Registry, &me, None)
            .await
            .unwrap();
        wire::send(&mut proved, &Request::Names).await.unwrap();
        assert!(matches!(wire::receive(&mut proved).await, Ok(Reply::Names(_))));
        wire::write_frame(&mut proved, b"garbage").await.unwrap();
        assert!(wire::receive::<Reply>(&mut proved).await.is_err());

        let mut link = TcpStream::connect(at.bind).await.unwrap();
        let refused = prove_as_client(&mut link, &cookie(SECRET), Purpose::Link, &me, None).await;
        assert_eq!(refused, Err(HandshakeError::WrongDoor { asked: Purpose::Link }));
        assert_eq!(names(at).await, [("n1".into(), 4001), ("n2".into(), 4002)]);
    })
    .await;
}
