use tokio::io::AsyncReadExt;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::limits::REGISTRY_UNPROVED_PER_ADDRESS_MAX;
use crate::node_name::Incarnation;
use crate::registry::cookie::Cookie;
use crate::registry::handshake::{Identity, prove_as_client};

fn cookie() -> Cookie {
    Cookie::from_text("0123456789abcdef0123456789abcdef").unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId {
        name: name.parse().unwrap(),
        incarnation: Incarnation(1),
    }
}

fn proved(identity: Identity) -> Proved {
    Proved {
        identity,
        purpose: Purpose::Registry,
        version: 1,
        cookie: cookie().fingerprint(),
    }
}

async fn bound() -> (TcpListener, std::rc::Rc<Server>) {
    let listener = TcpListener::bind(("127.77.3.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (
        listener,
        std::rc::Rc::new(Server::new(cookie(), node("n1@h"), address)),
    )
}

#[tokio::test]
async fn only_a_node_of_this_host_can_register() {
    let (_, server) = bound().await;
    let register = || Request::Register(Announcement::default());
    let refused = |request, proved, is_local| match server.answer(request, LeaseId(1), &proved, is_local) {
        Reply::Refused(refusal) => refusal.to_string(),
        reply => panic!("{reply:?}"),
    };
    assert_eq!(
        refused(register(), proved(Identity::node(node("n2@far"))), false),
        "only nodes on the registry's own host can register"
    );
    assert_eq!(
        refused(register(), proved(Identity::command()), true),
        "only a node can register, not a command"
    );
    assert_eq!(
        refused(
            Request::Register(Announcement {
                port: 1,
                listeners: vec![String::new(); 17]
            }),
            proved(Identity::node(node("n2@h"))),
            true
        ),
        "the announcement is too large: at most 16 listeners of at most 80 bytes each"
    );
    let answer = server.answer(
        register(),
        LeaseId(1),
        &proved(Identity::node(node("n2@h"))),
        true,
    );
    assert!(matches!(answer, Reply::Registered { .. }));
    assert_eq!(server.list().names.len(), 1);
}

#[tokio::test]
async fn whoever_looks_up_from_another_host_is_answered() {
    let (_, server) = bound().await;
    server
        .register_own(Announcement {
            port: 4001,
            listeners: vec![],
        })
        .unwrap();
    let far = proved(Identity::node(node("n2@far")));
    let resolve = Request::Resolve(node("n1@h").name);
    assert!(matches!(
        server.answer(resolve, LeaseId(1), &far, false),
        Reply::Resolved(_)
    ));
    assert!(matches!(
        server.answer(Request::Names, LeaseId(1), &far, false),
        Reply::Names(_)
    ));
}

#[tokio::test]
async fn silent_connections_are_bounded_and_counted_and_make_room_when_they_go() {
    let test = async {
        let (listener, server) = bound().await;
        let address = server.address();
        let serving = std::rc::Rc::clone(&server);
        let task = spawn_local(async move { match serving.serve(listener).await {} });
        let mut silent = Vec::new();
        for _ in 0..REGISTRY_UNPROVED_PER_ADDRESS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut one_more = TcpStream::connect(address).await.unwrap();
        assert!(one_more.read_u8().await.is_err(), "closed without a word");
        assert_eq!(
            server.turned_away(),
            TurnedAway {
                crowded: 1,
                ..TurnedAway::default()
            }
        );
        drop(silent);
        while server.turned_away().unproved < REGISTRY_UNPROVED_PER_ADDRESS_MAX as u64 {
            tokio::task::yield_now().await;
        }
        let mut welcome = TcpStream::connect(address).await.unwrap();
        let me = Identity::command();
        prove_as_client(&mut welcome, &cookie(), Purpose::Registry, &me, None)
            .await
            .unwrap();
        task.abort();
    };
    LocalSet::new().run_until(test).await;
}
