//! What waits is bounded, and who has gone away is not decided about.

use std::net::TcpListener;
use std::time::Duration;

use actix_rt::System;
use supervisors::{Intensity, Root, Strategy, SupervisorSpec, TreeOptions};

use super::*;
use crate::access::identity::Method;
use crate::access::settings::{HookSettings, Settings};
use crate::broker::tables::{Arbiters, Names, Rules};
use crate::node_name::{Incarnation, NodeId};

fn alice() -> Credentials {
    Credentials {
        client_id: "c".into(),
        username: Some("alice".into()),
        password: None,
        address: None,
        certificate_name: None,
        listener: "tcp".into(),
        allow_anonymous: false,
    }
}

/// A gatekeeper that asks a server which never answers.
async fn patient(port: u16) -> (Root, Arc<Tables>) {
    let settings = Settings {
        chain: vec![Method::Http],
        http: Some(HookSettings {
            url: format!("http://127.0.0.1:{port}/").parse().expect("a URL"),
            within: Duration::from_secs(60),
        }),
        ..Settings::default()
    };
    let keyring = Arc::new(Keyring::open(&settings).expect("no file is named"));
    let here = System::current().arbiter().clone();
    let arbiters = Arbiters::new(vec![here.clone()], here.clone(), here.clone());
    let node = NodeId {
        name: "test@127.0.0.1".parse().expect("a node name"),
        incarnation: Incarnation(1),
    };
    let names = Names::new(3);
    let rules = Rules {
        keyring,
        ..Rules::default()
    };
    let tables = Tables::ruled(node, arbiters, names, rules);
    let made = tables.clone();
    let root = ChildSpec::supervisor("root", &here, move || {
        let children = vec![Gatekeeper::spec(&made)];
        SupervisorSpec::new(Strategy::OneForOne, Intensity::new(3, 60), children)
    });
    let root = supervisors::start(root, TreeOptions::default()).await;
    (root.expect("the tree starts"), tables)
}

fn ask(tables: &Tables) -> oneshot::Receiver<Result<Identity, Denial>> {
    let (answer, answered) = oneshot::channel();
    let request = Authenticate {
        credentials: alice(),
        answer,
    };
    tables.names.gatekeeper.cast(request).expect("it runs");
    answered
}

#[test]
fn beyond_the_bound_the_server_is_busy_and_a_crash_tells_everybody_who_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    System::new().block_on(async move {
        let (root, tables) = patient(port).await;
        // The first fill the calls, the next the queue.
        let mut waiting: Vec<_> = (0..AUTH_HOOK_CALLS_MAX + AUTH_QUEUE_LEN_MAX)
            .map(|_| ask(&tables))
            .collect();
        let busy = ask(&tables).await.expect("answered");
        assert_eq!(busy, Err(Denial::Busy));
        assert!(
            waiting.iter_mut().all(|waiting| waiting.try_recv().is_err()),
            "the others wait"
        );
        root.tree()
            .crash("root/gatekeeper", "a test wants it")
            .expect("it is there");
        for waiting in waiting {
            assert!(waiting.await.is_err(), "dropped: to be asked again");
        }
        root.stop().await;
    });
}
