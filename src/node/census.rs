//! What the rooms of a node tell whoever counts.

use std::collections::BinaryHeap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::{LocalBoxFuture, join_all};
use tokio::time::timeout;

use super::Plan;
use super::process;
use super::surroundings::{Rooms, millis, restarting};
use crate::admin::census::{Census, Figures, Page, Publication, structure};
use crate::admin::control::Surroundings;
use crate::admin::protocol::{ClientDetail, RouteEntry, SubscriptionEntry};
use crate::broker::clients::{self, KickClient, Known};
use crate::broker::counters::Snapshot;
use crate::broker::links::Link;
use crate::broker::publish;
use crate::broker::session::{Describe, ListSubscriptions, SessionInfo, Subscription};
use crate::broker::storage::{self, Storage};
use crate::broker::tables::Tables;
use crate::cluster::executor::Executor;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{ProtocolVersion, QoS};
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::routing::RouteTable;

/// A session that does not describe itself within this is busy: it is told without its figures.
const DESCRIBED_WITHIN: Duration = Duration::from_millis(500);

/// Sessions that are asked at one time.
const ASKED_AT_ONCE: usize = 64;

/// From so many entries on a list is gone through on a thread of its own, not on the router's.
const LONG: usize = 5_000;

/// Runs `look` here if it is quick, else where it keeps nobody waiting.
async fn look<T: Send + 'static>(len: usize, look: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    if len < LONG {
        return Ok(look());
    }
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|error| format!("the list could not be made: {error}"))
}

async fn known_page(plan: &Plan, after: Option<String>, limit: usize) -> Result<Page<Known>, String> {
    let tables = plan.tables();
    let len = clients::count(&tables).0;
    // One more, to see whether there is more.
    let mut entries = look(len, move || {
        clients::page(&tables, after.as_deref(), limit.saturating_add(1))
    })
    .await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries
        .last()
        .filter(|_| more)
        .map(|last| last.client_id.to_string());
    Ok(Page { entries, next })
}

async fn described(known: Known) -> ClientDetail {
    let session = known.session.whereis();
    let asked = async { Some(timeout(DESCRIBED_WITHIN, session.as_ref()?.call(Describe)).await) };
    let info = match asked.await {
        Some(Ok(Ok(info))) => Some(info),
        _ => None,
    };
    detail(&known, info)
}

fn detail(known: &Known, info: Option<SessionInfo>) -> ClientDetail {
    let session = known.session.whereis();
    let number = |of: fn(&SessionInfo) -> usize| info.as_ref().map_or(0, |info| of(info) as u64);
    let origin = info.as_ref().and_then(|info| info.origin.as_ref());
    ClientDetail {
        client_id: known.client_id.to_string(),
        connected: info.as_ref().map_or(known.attached, |info| info.attached),
        since_ms: millis(known.since),
        pid: session.as_ref().map(|session| session.pid().to_string()),
        mailbox_len: session.map_or(0, |session| session.pid().mailbox_len() as u64),
        answered: info.is_some(),
        subscriptions: number(|info| info.subscriptions),
        queue_len: number(|info| info.queue_len),
        inflight_len: number(|info| info.inflight_len),
        weight_bytes: number(|info| info.weight_bytes),
        persistent: info.as_ref().is_some_and(|info| info.persistent),
        slow: info.as_ref().is_some_and(|info| info.slow),
        protocol: info.as_ref().map(|info| protocol(info.version).into()),
        address: origin.map(|origin| origin.peer.to_string()),
        listener: origin.map(|origin| origin.listener.clone()),
        common_name: origin.and_then(|origin| origin.common_name.clone()),
        username: info
            .as_ref()
            .and_then(|info| Some(info.username.as_ref()?.to_string())),
    }
}

fn protocol(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V3_1 => "3.1",
        ProtocolVersion::V3_1_1 => "3.1.1",
        ProtocolVersion::V5 => "5.0",
    }
}

async fn subscriptions_of(known: &Known) -> Vec<SubscriptionEntry> {
    let Some(session) = known.session.whereis() else {
        return Vec::new();
    };
    let Ok(Ok(mut held)) = timeout(DESCRIBED_WITHIN, session.call(ListSubscriptions)).await else {
        return Vec::new();
    };
    held.sort_by(|one, other| one.0.cmp(&other.0));
    let client_id = known.client_id.to_string();
    held.iter()
        .map(|(filter, held)| subscription(&client_id, filter, held))
        .collect()
}

fn subscription(client_id: &str, filter: &str, held: &Subscription) -> SubscriptionEntry {
    SubscriptionEntry {
        client_id: client_id.into(),
        filter: filter.into(),
        qos: held.options.qos as u8,
        no_local: held.options.no_local,
        retain_as_published: held.options.retain_as_published,
        retain_handling: held.options.retain_handling as u8,
        identifier: held.identifier,
    }
}

impl Rooms {
    async fn client_page(&self, after: Option<String>, limit: usize) -> Result<Page<ClientDetail>, String> {
        let Page { entries: known, next } = known_page(&self.0, after, limit.max(1)).await?;
        let mut entries = Vec::with_capacity(known.len());
        for some in known.chunks(ASKED_AT_ONCE) {
            entries.extend(join_all(some.iter().cloned().map(described)).await);
        }
        Ok(Page { entries, next })
    }

    async fn subscription_page(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page<SubscriptionEntry>, String> {
        let (limit, mut after) = (limit.max(1), after);
        let mut entries = Vec::new();
        loop {
            let page = known_page(&self.0, after, ASKED_AT_ONCE).await?;
            let held = join_all(page.entries.iter().map(subscriptions_of)).await;
            for (known, held) in page.entries.iter().zip(held) {
                entries.extend(held);
                if entries.len() >= limit {
                    let last = page.next.is_none()
                        && page.entries.last().map(|last| &last.client_id) == Some(&known.client_id);
                    let next = (!last).then(|| known.client_id.to_string());
                    return Ok(Page { entries, next });
                }
            }
            match page.next {
                None => return Ok(Page { entries, next: None }),
                next => after = next,
            }
        }
    }

    async fn route_page(&self, after: Option<String>, limit: usize) -> Result<Page<RouteEntry>, String> {
        let tables = self.0.tables();
        let torn = |_| restarting("router");
        let len = tables.routes.read().map_err(torn)?.len();
        let listed = look(len, move || {
            let table = tables.routes.read().map_err(|_| restarting("router"))?;
            Ok::<_, String>(routes(&table, &tables, after.as_deref(), limit.max(1)))
        });
        listed.await?
    }

    async fn figures(&self) -> Result<Figures, String> {
        let plan = &self.0;
        let tables = plan.tables();
        let (sessions, connected) = clients::count(&tables);
        // The rest is told also while the cluster is being restarted.
        let members = self
            .cluster()
            .await
            .map_or_else(|_| Vec::new(), |cluster| cluster.members);
        let (filters, routes) = {
            let table = tables.routes.read().map_err(|_| restarting("router"))?;
            let own = (tables.node.name.clone(), table.own_len() as u64);
            let others = table
                .replicas()
                .map(|(node, held)| (node.name.clone(), held.len() as u64));
            (table.len() as u64, [own].into_iter().chain(others).collect())
        };
        let links = tables
            .links
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let waiting = links.iter().map(|link| {
            let (messages, bytes) = (link.outbox.len() as u64, link.outbox.queued() as u64);
            (link.node.name.clone(), messages, bytes)
        });
        let drift = |link: &Link| (link.node.name.clone(), link.drift.load(Relaxed) as u64);
        let (retained, retained_shared) = {
            let store = tables.retained.lock().unwrap_or_else(PoisonError::into_inner);
            let (live, dead) = (store.book().live_len(), store.book().tombstones().0);
            (
                (store.len() as u64, store.bytes() as u64),
                (live as u64, dead as u64),
            )
        };
        let wills = plan.wing().map_or((0, 0, 0), |wing| {
            let counted = |wills: &mut Executor| {
                let ((held, adopted), bytes) = (wills.counts(), wills.bytes());
                (held as u64, adopted as u64, bytes as u64)
            };
            wing.board.executor(tables.first_life(), counted)
        });
        let tree = plan.tree.get();
        Ok(Figures {
            node: tables.node.name.clone(),
            incarnation: tables.node.incarnation,
            since_ms: millis(plan.since),
            counters: tables.counted().described(),
            sessions: sessions as u64,
            connected: connected as u64,
            retained,
            retained_shared,
            stored: plan.store.figures(),
            wills,
            retained_drift: links.iter().map(drift).collect(),
            filters,
            routes,
            members,
            waiting: waiting.collect(),
            restarts: tree.map_or(0, supervisors::Tree::restarts),
            processes: tree.map_or(0, |tree| tree.count() as u64),
            tree: tree.map_or_else(Vec::new, |tree| structure(tree.summary())),
            process: process::now(),
        })
    }
}

/// A part of the route table, in the order of filters.
fn routes<L>(table: &RouteTable<L>, tables: &Tables, after: Option<&str>, limit: usize) -> Page<RouteEntry> {
    // The greatest on top: it gives way to whoever comes before it.
    let mut first = BinaryHeap::new();
    let behind = |filter: &str| after.is_none_or(|after| filter > after);
    for (filter, local, nodes) in table.routes().filter(|(filter, ..)| behind(filter)) {
        if first.len() > limit && first.peek().is_some_and(|(last, _): &(&str, _)| filter >= *last) {
            continue;
        }
        let mut names: Vec<_> = local.map(|_| tables.node.name.clone()).into_iter().collect();
        names.extend(
            nodes
                .iter()
                .filter_map(|node| Some(table.node(node)?.name.clone())),
        );
        names.sort();
        first.push((filter, names));
        if first.len() > limit + 1 {
            first.pop();
        }
    }
    let mut entries: Vec<_> = first
        .into_sorted_vec()
        .into_iter()
        .map(|(filter, nodes)| RouteEntry {
            filter: filter.to_owned(),
            nodes,
        })
        .collect();
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| last.filter.clone());
    Page { entries, next }
}

fn message(publication: Publication) -> Result<Message, String> {
    let qos = match publication.qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        other => return Err(format!("qos must be 0, 1 or 2, not {other}")),
    };
    topic::check_name(&publication.topic).map_err(|error| format!("topic: {error}"))?;
    if publication.topic.starts_with('$') {
        return Err("topic: names with a $ in front are the broker's own".into());
    }
    Ok(Message {
        topic: ByteString::from(publication.topic),
        payload: publication.payload,
        qos,
        retain: publication.retain,
        pass_through: bytes::Bytes::new(),
        expires_at: None,
        publisher: ByteString::new(),
    })
}

impl Census for Rooms {
    fn clients(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<ClientDetail>, String>> {
        Box::pin(self.client_page(after, limit))
    }

    fn client(&self, client_id: String) -> LocalBoxFuture<'_, Result<Option<ClientDetail>, String>> {
        Box::pin(async move {
            match clients::known(&self.0.tables(), &client_id) {
                Some(known) => Ok(Some(described(known).await)),
                None => Ok(None),
            }
        })
    }

    fn subscriptions(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<SubscriptionEntry>, String>> {
        Box::pin(self.subscription_page(after, limit))
    }

    fn subscriptions_of(
        &self,
        client_id: String,
    ) -> LocalBoxFuture<'_, Result<Option<Vec<SubscriptionEntry>>, String>> {
        Box::pin(async move {
            match clients::known(&self.0.tables(), &client_id) {
                Some(known) => Ok(Some(subscriptions_of(&known).await)),
                None => Ok(None),
            }
        })
    }

    fn kick(&self, client_id: String) -> LocalBoxFuture<'_, Result<bool, String>> {
        Box::pin(async move {
            let kick = KickClient(client_id.into(), ReasonCode::AdministrativeAction);
            let kicked = self.0.names().clients.call(kick).await;
            kicked.map_err(|_| restarting("keeper of clients"))
        })
    }

    fn routes(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<RouteEntry>, String>> {
        Box::pin(self.route_page(after, limit))
    }

    fn publish(&self, publication: Publication) -> Result<(), String> {
        let message = Arc::new(message(publication)?);
        publish::publish(&message).map_err(|_| restarting("router"))
    }

    fn counted(&self) -> Snapshot {
        self.0.tables().counted()
    }

    fn stored(&self) -> storage::Figures {
        self.0.store.figures()
    }

    fn figures(&self) -> LocalBoxFuture<'_, Result<Figures, String>> {
        Box::pin(self.figures())
    }
}
