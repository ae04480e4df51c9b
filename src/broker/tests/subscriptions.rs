//! Birth and death of Topics, and the routes that are their shadow.

use std::sync::Arc;

use actix::{Actor, Handler};
use supervisors::{ChildSpec, Context, InitError, Name};

use super::rig::{Rig, with_rig};
use crate::broker::links::{
    Applied, ApplyDelta, ApplySnapshot, Bell, Link, LinkUp, Outbox, RouteChange, RouteDelta, RouteVersion,
    Routes, RoutesHeld, Slice,
};
use crate::mqtt::packet::QoS;
use crate::node_name::{Incarnation, NodeId};

async fn routes(rig: &Rig) -> Vec<String> {
    let routes = rig.tables.names.router.call(Routes).await.unwrap();
    routes.into_iter().map(|(filter, _)| filter.to_string()).collect()
}

#[test]
fn a_topic_is_born_with_the_first_subscriber_and_dies_with_the_last() {
    with_rig(|rig| async move {
        let (mut here, mut there) = (rig.client("here", 0).await, rig.client("there", 1).await);
        here.subscribe("a/+", QoS::AtMostOnce).await;
        assert_eq!(rig.topics(), ["a%2F+"]);
        there.subscribe("a/+", QoS::AtMostOnce).await;
        assert_eq!(rig.topics(), ["a%2F+", "a%2F+#1"]);
        assert_eq!(routes(&rig).await, ["a/+"]);
        here.unsubscribe("a/+").await;
        let mut publisher = rig.client("publisher", 0).await;
        publisher.publish_acknowledged("a/b", "still").await;
        assert_eq!(there.message().await.1, "still");
        here.expect_silence().await;
        drop(there);
        rig.until("the Topic ends", |rig| rig.topics().is_empty()).await;
        assert!(routes(&rig).await.is_empty());
        here.subscribe("a/+", QoS::AtMostOnce).await;
        publisher.publish_acknowledged("a/b", "again").await;
        assert_eq!(here.message().await.1, "again");
    });
}

#[test]
fn a_session_that_subscribes_again_has_one_row_with_the_new_options() {
    with_rig(|rig| async move {
        let mut client = rig.client("client", 0).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        publisher.publish_acknowledged("a", "1").await;
        assert_eq!(client.publish_packet().await.qos, QoS::AtLeastOnce);
        client.expect_silence().await;
    });
}

#[test]
fn births_and_deaths_at_full_speed_lose_no_subscription() {
    with_rig(|rig| async move {
        let (mut one, mut two) = (rig.client("one", 0).await, rig.client("two", 1).await);
        for _ in 0..100 {
            let (a, b) = tokio::join!(one.subscribe_all(&[("x", QoS::AtMostOnce)]), two.unsubscribe("x"));
            assert_eq!(a.len(), 1);
            let ((), b2) = tokio::join!(one.unsubscribe("x"), two.subscribe_all(&[("x", QoS::AtMostOnce)]));
            assert_eq!((b, b2.len()), ((), 1));
            one.publish_acknowledged("x", "n").await;
            assert_eq!(two.message().await.1, "n");
        }
        two.unsubscribe("x").await;
        rig.until("the Topic ends", |rig| {
            rig.tables.ledger.lock().unwrap().seats_len() == 0
        })
        .await;
    });
}

#[test]
fn ten_thousand_filters_come_and_go_with_their_session() {
    with_rig(|rig| async move {
        let mut client = rig.client("client", 0).await;
        for chunk in 0..20 {
            let filters: Vec<String> = (0..100).map(|n| format!("many/{chunk}/{n}")).collect();
            let filters: Vec<_> = filters
                .iter()
                .map(|filter| (&**filter, QoS::AtMostOnce))
                .collect();
            assert_eq!(client.subscribe_all(&filters).await.len(), 100);
        }
        assert_eq!(rig.topics().len(), 2000);
        drop(client);
        rig.until("all Topics end", |rig| rig.topics().is_empty()).await;
    });
}

/// The near end of a link to another node, which only remembers.
#[derive(Default)]
struct Peer {
    heard: Vec<String>,
    watcher: Option<tokio::sync::mpsc::UnboundedSender<String>>,
    outbox: Arc<Outbox>,
}

impl Actor for Peer {
    type Context = Context<Self>;
}

impl Peer {
    fn hear(&mut self, what: String) {
        self.heard.push(what.clone());
        if let Some(watcher) = &self.watcher {
            let _ = watcher.send(what);
        }
    }
}

impl Handler<RouteDelta> for Peer {
    type Result = ();

    fn handle(&mut self, delta: RouteDelta, _: &mut Context<Self>) {
        for change in delta.changes {
            self.hear(match change {
                RouteChange::Add(filter) => format!("+{filter}"),
                RouteChange::Remove(filter) => format!("-{filter}"),
            });
        }
    }
}

impl Handler<Bell> for Peer {
    type Result = ();

    fn handle(&mut self, _: Bell, _: &mut Context<Self>) {
        while let Some(message) = self.outbox.take_if(|_| true) {
            self.hear(format!("{} {:?}", message.topic, message.payload));
        }
    }
}

async fn link_up(rig: &Rig) -> (NodeId, Name<Peer>, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (watcher, heard) = tokio::sync::mpsc::unbounded_channel();
    let name = Name::<Peer>::new("peer");
    let cluster = &rig.tables.arbiters.all[rig.tables.arbiters.cluster()];
    let outbox = Arc::new(Outbox::default());
    let its = outbox.clone();
    let init = move |_: &mut Context<Peer>| {
        Ok::<_, InitError>(Peer {
            watcher: Some(watcher.clone()),
            outbox: its.clone(),
            ..Peer::default()
        })
    };
    let spec = ChildSpec::worker("peer", cluster, init).name(&name);
    // Any supervisor will do.
    rig.tables.names.sessions[0].start_child(spec).await.unwrap();
    let node = NodeId {
        name: "far@10.0.0.1".parse().unwrap(),
        incarnation: Incarnation(7),
    };
    let peer = name.whereis().unwrap();
    let link = Link {
        node: node.clone(),
        routes: peer.caster(),
        outbox: outbox.clone(),
        holds: Arc::default(),
        drift: Default::default(),
    };
    outbox.open(peer.caster());
    let slice = rig.tables.names.router.call(LinkUp(link)).await.unwrap().unwrap();
    assert_eq!(slice.filters.len(), 1);
    (node, name, heard)
}

#[test]
fn a_link_hears_of_every_change_and_carries_each_message_once() {
    with_rig(|rig| async move {
        let router = rig.tables.names.router.clone();
        let mut client = rig.client("client", 0).await;
        client.subscribe("before", QoS::AtMostOnce).await;
        let (node, _, mut heard) = link_up(&rig).await;
        client.subscribe("after", QoS::AtMostOnce).await;
        assert_eq!(heard.recv().await.unwrap(), "+after");
        client.subscribe("$share/g/after", QoS::AtMostOnce).await;
        assert_eq!(heard.recv().await.unwrap(), "+$share/g/after");
        client.unsubscribe("after").await;
        assert_eq!(heard.recv().await.unwrap(), "-after");
        client.unsubscribe("before").await;
        assert_eq!(heard.recv().await.unwrap(), "-before");
        let slice = router.call(Slice).await.unwrap();
        assert_eq!(
            slice.filters.iter().map(|filter| &**filter).collect::<Vec<_>>(),
            ["$share/g/after"]
        );

        let filters = vec!["far/#".into(), "far/+".into()];
        let version = RouteVersion(2);
        let snapshot = ApplySnapshot {
            node: node.clone(),
            version,
            filters,
            first: true,
            last: true,
        };
        assert_eq!(router.call(snapshot).await.unwrap(), Applied::Applied);
        assert_eq!(
            router.call(RoutesHeld).await.unwrap(),
            [(node.clone(), 2, version)]
        );
        client.publish_acknowledged("far/x", "1").await;
        client.publish_acknowledged("elsewhere", "2").await;
        client.publish_acknowledged("far/y", "3").await;
        assert_eq!(heard.recv().await.unwrap(), "far/x b\"1\"");
        assert_eq!(heard.recv().await.unwrap(), "far/y b\"3\"");
        let changes = vec![RouteChange::Remove("far/#".into())];
        let gap = RouteDelta {
            from: RouteVersion(5),
            to: RouteVersion(6),
            changes,
        };
        let gap = ApplyDelta {
            node: node.clone(),
            delta: gap,
        };
        assert_eq!(router.call(gap).await.unwrap(), Applied::Gap);
    });
}

#[test]
fn the_routes_of_a_node_vanish_when_its_link_dies() {
    with_rig(|rig| async move {
        let router = rig.tables.names.router.clone();
        let mut client = rig.client("client", 0).await;
        client.subscribe("mine", QoS::AtMostOnce).await;
        let (node, peer, _heard) = link_up(&rig).await;
        let filters = vec!["far".into()];
        let snapshot = ApplySnapshot {
            node,
            version: RouteVersion(1),
            filters,
            first: true,
            last: true,
        };
        router.call(snapshot).await.unwrap();
        assert_eq!(routes(&rig).await, ["far", "mine"]);
        peer.whereis()
            .unwrap()
            .pid()
            .exit(supervisors::ExitReason::Killed);
        rig.until("the link is gone", |rig| {
            rig.tables.links.read().unwrap().is_empty()
        })
        .await;
        assert_eq!(routes(&rig).await, ["mine"]);
        client.publish_acknowledged("far", "to nobody").await;
        assert_eq!(rig.tables.counted().forwarded, 0);
    });
}
