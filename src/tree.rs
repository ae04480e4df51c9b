//! Floor 5: THE supervision tree, on one screen. Read it as an Erlang `*_sup.erl`: nothing but specs.
//!
//! Order is meaning: a child leans only on those before it. `core` falls: everything after it starts anew,
//! with fresh tables and a new incarnation. `cluster` falls: local clients notice nothing. The intensities
//! multiply up the tree: a worker of `core` may fall 5 times in a minute before `core` does, and `core`
//! twice before the root gives up, stops in order, and the process ends with status 70. These numbers are
//! the defaults; `[supervision]` of the configuration names another `intensity` for each. Where it names
//! none, only temporary children stand below, which use none up.

use supervisors::{ChildSpec, DynamicSpec, Intensity, Strategy, SupervisorSpec};

use crate::admin::control::Control;
use crate::admin::http::Http;
use crate::broker::clients::Clients;
use crate::broker::gatekeeper::Gatekeeper;
use crate::broker::listener::Listener;
use crate::broker::mailman::Mailman;
use crate::broker::retainer::Retainer;
use crate::broker::revival::Revival;
use crate::broker::router::Router;
use crate::broker::sys::Sys;
use crate::broker::wills::Wills;
use crate::cluster::connector::Connector;
use crate::cluster::discovery::Discovery;
use crate::cluster::dist::Dist;
use crate::cluster::gate::Gate;
use crate::cluster::owners::Owners;
use crate::limits::{CONNECTIONS_MAX, HTTP_VISITS_MAX, PEERS_MAX, SESSIONS_PER_SHARD_MAX, TOPICS_MAX};
use crate::node::Plan;
use crate::registry::Registry;
use crate::store::Writer;

/// The whole node.
pub fn root(plan: &Plan) -> ChildSpec {
    let below = plan.clone();
    let children = move |plan: &Plan| {
        vec![
            core(plan),
            sessions(plan),
            revival(plan),
            doors(plan),
            cluster(plan),
            admin(plan),
        ]
    };
    ChildSpec::supervisor("root", plan.control(), move || {
        let intensity = below.intensity("root", Intensity::new(2, 60));
        SupervisorSpec::new(Strategy::RestForOne, intensity, children(&below))
    })
    .name(&plan.root)
}

/// Creates the tables, which outlive every worker below it.
fn core(plan: &Plan) -> ChildSpec {
    let below = plan.clone();
    ChildSpec::supervisor("core", plan.control(), move || {
        let tables = below.renew_tables();
        let topics = DynamicSpec {
            intensity: below.intensity("topics", Intensity::new(100, 10)),
            max_children: TOPICS_MAX,
        };
        let mut children = vec![Writer::spec(&below.store, &below.store_arbiter)];
        children.extend((0..tables.arbiters.all.len()).map(|arbiter| Mailman::spec(&tables, arbiter)));
        children.extend([
            Router::spec(&tables),
            ChildSpec::dynamic("topics", below.control(), topics, &tables.names.topics),
            Clients::spec(&tables),
            Retainer::spec(&tables),
            Wills::spec(&tables),
            Gatekeeper::spec(&tables),
            Sys::spec(&tables),
        ]);
        let intensity = below.intensity("core", Intensity::new(5, 60));
        SupervisorSpec::new(Strategy::OneForOne, intensity, children)
    })
    .name(&plan.names().core)
}

/// One session per client, in shards; sessions are temporary, so they use up no intensity.
fn sessions(plan: &Plan) -> ChildSpec {
    let below = plan.clone();
    ChildSpec::supervisor("sessions", plan.control(), move || {
        let spec = DynamicSpec {
            intensity: Intensity::new(1, 5),
            max_children: SESSIONS_PER_SHARD_MAX,
        };
        let shards = below.names().sessions.iter().enumerate();
        let children =
            shards.map(|(shard, name)| ChildSpec::dynamic(shard.to_string(), below.control(), spec, name));
        let intensity = below.intensity("sessions", Intensity::new(5, 60));
        SupervisorSpec::new(Strategy::OneForOne, intensity, children.collect())
    })
}

/// Brings back what is stored, and is gone.
fn revival(plan: &Plan) -> ChildSpec {
    let (below, heirs) = (plan.clone(), plan.clone());
    Revival::spec(
        plan.control(),
        move || below.tables(),
        move || heirs.has_other_members(),
    )
}

/// Doors open last and close first ([`crate::node`] sees to that).
fn doors(plan: &Plan) -> ChildSpec {
    let below = plan.clone();
    ChildSpec::supervisor("doors", plan.control(), move || {
        let spec = DynamicSpec {
            intensity: Intensity::new(1, 5),
            max_children: CONNECTIONS_MAX,
        };
        let mut children = vec![ChildSpec::dynamic(
            "connections",
            below.control(),
            spec,
            &below.connections,
        )];
        let tables = below.tables();
        children.extend(
            below
                .doors
                .iter()
                .map(|door| Listener::spec(&tables, door, &below.connections)),
        );
        let intensity = below.intensity("doors", Intensity::new(5, 30));
        SupervisorSpec::new(Strategy::RestForOne, intensity, children)
    })
}

/// The wing between nodes; its fall takes no client along.
fn cluster(plan: &Plan) -> ChildSpec {
    let below = plan.clone();
    ChildSpec::supervisor("cluster", plan.control(), move || {
        let (wing, registry) = (below.renew_wing(), below.registry_config());
        let spec = DynamicSpec {
            intensity: Intensity::new(1, 5),
            max_children: PEERS_MAX,
        };
        let mut children = vec![
            Dist::spec(&wing),
            ChildSpec::dynamic("peers", &wing.arbiter, spec, &wing.peers),
            Gate::spec(&wing, &below.take_control()),
            ChildSpec::worker("registry", below.control(), move |_| Registry::init(&registry))
                .name(&below.registry),
            Connector::spec(&wing),
            Owners::spec(&wing, &below.tables()),
        ];
        if !below.config.places.is_empty() {
            children.push(Discovery::spec(&wing, &below.config.places));
        }
        let intensity = below.intensity("cluster", Intensity::new(3, 60));
        SupervisorSpec::new(Strategy::RestForOne, intensity, children)
    })
}

/// Who answers operators.
fn admin(plan: &Plan) -> ChildSpec {
    let below = plan.clone();
    ChildSpec::supervisor("admin", plan.control(), move || {
        let mut children = vec![Control::child(
            below.control(),
            &below.operators,
            below.control_options(),
        )];
        if let Some(entrance) = &below.entrance {
            let spec = DynamicSpec {
                intensity: Intensity::new(1, 5),
                max_children: HTTP_VISITS_MAX,
            };
            let hall = below.hall(entrance);
            children.extend([
                ChildSpec::dynamic("visits", below.control(), spec, &below.visits),
                Http::spec(below.control(), &hall, &below.visits),
            ]);
        }
        let intensity = below.intensity("admin", Intensity::new(5, 60));
        SupervisorSpec::new(Strategy::OneForOne, intensity, children)
    })
}
