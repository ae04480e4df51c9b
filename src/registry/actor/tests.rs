//! Two registries under one supervisor, as two nodes of one host would be, and one of them crashed.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use actix::Arbiter;
use supervisors::intensity::Intensity;
use supervisors::{ChildSpec, Name, Root, Strategy, SupervisorSpec, TreeOptions, start};

use super::*;
use crate::node_name::Incarnation;
use crate::registry::cookie::Cookie;
use crate::registry::wire::Refusal;

fn config(short: &str, endpoint: Endpoint, port: u16) -> RegistryConfig {
    let name = format!("{short}@{}", endpoint.bind.ip()).parse().unwrap();
    RegistryConfig {
        cookies: Cookie::from_text("0123456789abcdef0123456789abcdef")
            .unwrap()
            .into(),
        me: NodeId {
            name,
            incarnation: Incarnation(1),
        },
        endpoint,
        announcement: Arc::new(move || Announcement {
            port,
            listeners: vec![],
        }),
    }
}

fn child(id: &'static str, endpoint: Endpoint, port: u16, name: &Name<Registry>) -> ChildSpec {
    let config = config(id, endpoint, port);
    ChildSpec::worker(id, &Arbiter::current(), move |_| Registry::init(&config)).name(name)
}

/// Asks until the answer is the one awaited, for 10 s at most.
async fn status_of(name: &Name<Registry>, awaited: impl Fn(&Standing) -> bool) -> Standing {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(standing) = name.call(Status).await
            && awaited(&standing)
        {
            return standing;
        }
        assert!(Instant::now() < deadline, "in vain");
        tokio::task::yield_now().await;
    }
}

async fn two_nodes(host: [u8; 4]) -> (Root, Endpoint, Name<Registry>, Name<Registry>) {
    let free = TcpListener::bind((Ipv4Addr::from(host), 0)).unwrap();
    let bind = free.local_addr().unwrap();
    drop(free);
    let endpoint = Endpoint { bind, contact: bind };
    let (first, second) = (Name::new("first"), Name::new("second"));
    let (first_held, second_held) = (first.clone(), second.clone());
    let arbiter = Arbiter::current();
    let root = ChildSpec::supervisor("root", &arbiter, move || {
        let children = vec![
            child("n1", endpoint, 4001, &first_held),
            child("n2", endpoint, 4002, &second_held),
        ];
        SupervisorSpec::new(
            Strategy::OneForOne,
            Intensity {
                restarts: 3,
                period: Duration::from_secs(5),
            },
            children,
        )
    });
    (
        start(root, TreeOptions::default()).await.unwrap(),
        endpoint,
        first,
        second,
    )
}

#[actix::test]
async fn a_crashed_registry_is_taken_over_and_comes_back_with_a_lease() {
    let (root, endpoint, first, second) = two_nodes([127, 77, 2, 1]).await;
    let serving = |standing: &Standing| matches!(standing, Standing::Serving { .. });
    let leased = |standing: &Standing| matches!(standing, Standing::Leased { .. });
    let standing = status_of(&first, serving).await;
    let address = endpoint.bind.to_string();
    assert_eq!(
        standing,
        Standing::Serving {
            address: address.clone(),
            turned_away: TurnedAway::default()
        }
    );
    status_of(&second, leased).await;

    let crash = Instant::now();
    root.tree().crash("root/n1", "a test says so").unwrap();
    // Either may win the race for the port; what counts is that both are there again, in time.
    let one_of_each = async {
        loop {
            let (one, two) = (first.call(Status).await, second.call(Status).await);
            match (one, two) {
                (Ok(one), Ok(two)) if (serving(&one) && leased(&two)) || (leased(&one) && serving(&two)) => {
                    let names = first.call(Names).await.unwrap();
                    if names.is_ok_and(|list| list.names.len() == 2) {
                        break;
                    }
                }
                _ => (),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), one_of_each)
        .await
        .expect("both hold their names again");
    assert!(
        crash.elapsed() < Duration::from_secs(1),
        "took {:?}",
        crash.elapsed()
    );
    root.stop().await;
}

#[actix::test]
async fn names_and_addresses_are_answered_in_either_role() {
    let (root, endpoint, first, second) = two_nodes([127, 77, 2, 2]).await;
    status_of(&first, |standing| matches!(standing, Standing::Serving { .. })).await;
    status_of(&second, |standing| matches!(standing, Standing::Leased { .. })).await;
    let n2: NodeName = format!("n2@{}", endpoint.bind.ip()).parse().unwrap();
    let n9: NodeName = format!("n9@{}", endpoint.bind.ip()).parse().unwrap();
    for asked in [&first, &second] {
        let list = asked.call(Names).await.unwrap().unwrap();
        assert_eq!((list.port, list.names.len()), (endpoint.bind.port(), 2));
        assert_eq!(asked.call(Resolve(n2.clone())).await.unwrap().unwrap().port, 4002);
        let unknown = asked.call(Resolve(n9.clone())).await.unwrap().unwrap_err();
        assert!(
            matches!(unknown, ClientError::Unknown { refusal: Refusal::Unknown(known), .. }
            if known.len() == 2)
        );
    }
    second
        .cast(Announce(Announcement {
            port: 4012,
            listeners: vec!["h:1883".into()],
        }))
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while first.call(Resolve(n2.clone())).await.unwrap().unwrap().port != 4012 {
        assert!(Instant::now() < deadline, "in vain");
        tokio::task::yield_now().await;
    }
    root.stop().await;
}
