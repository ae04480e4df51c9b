//! `/api/v1/…`: EMQX's verbs as far as this broker has them.
//!
//! | request | answer |
//! |---|---|
//! | `GET node` | the node |
//! | `GET nodes` | the members of the cluster, as this node sees them |
//! | `GET metrics` | the figures as JSON |
//! | `GET clients?limit=&after=` | sessions |
//! | `GET clients/{id}` | one session |
//! | `DELETE clients/{id}` | ends its connection, reason 0x98 |
//! | `GET clients/{id}/subscriptions` | its subscriptions |
//! | `GET subscriptions?limit=&after=` | those of all |
//! | `GET routes?limit=&after=` | the route table |
//! | `GET tree`, `GET tree/children?path=&limit=` | the supervision tree |
//! | `GET restarts` | what was restarted, newest first |
//! | `POST publish` | publishes `{topic, payload, payload_encoding, qos, retain}` |
//! | `GET observer` | what the page shows, in one answer |
//!
//! Lists come in parts of at most [`HTTP_PAGE_LEN_MAX`] entries: `meta.next` is the `after` of the next part.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use supervisors::Tree;

use super::answer::{Answer, done, failed, json_of, page_of, wrong_verb};
use super::hall::Hall;
use crate::admin::census::{Figures, Publication, structure};
use crate::admin::control::{restart_entry, tree_entry};
use crate::broker::storage;
use crate::limits::HTTP_PAGE_LEN_MAX;

/// Entries of a part unless the request says otherwise.
const PAGE_LEN: usize = 100;

/// Restarts that the page is given each time.
const RESTARTS_SHOWN: usize = 50;

/// What went wrong, as an answer.
type Refused = Box<Answer>;

/// The words behind `?`, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (decoded(name, true), decoded(value, true)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn after(&self) -> Option<String> {
        self.get("after").map(ToOwned::to_owned)
    }

    fn limit(&self) -> Result<usize, Refused> {
        let Some(text) = self.get("limit") else {
            return Ok(PAGE_LEN);
        };
        match text.parse() {
            Ok(limit) if (1..=HTTP_PAGE_LEN_MAX).contains(&limit) => Ok(limit),
            _ => Err(bad(&format!(
                "limit must be from 1 to {HTTP_PAGE_LEN_MAX}, not '{text}'"
            ))),
        }
    }
}

/// Percent-decoded; what is no UTF-8 becomes U+FFFD and is found nowhere.
fn decoded(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = |byte: &u8| (*byte as char).to_digit(16).map(|digit| digit as u8);
        rest = behind;
        match (first, behind) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                bytes.push(hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn bad(sentence: &str) -> Refused {
    Box::new(failed(StatusCode::BAD_REQUEST, sentence))
}

/// What cannot be told just now.
fn unavailable(sentence: String) -> Refused {
    Box::new(failed(StatusCode::SERVICE_UNAVAILABLE, &sentence))
}

fn no_client(client_id: &str) -> Refused {
    let sentence = format!("there is no client {}", client_id.escape_debug());
    Box::new(failed(StatusCode::NOT_FOUND, &sentence))
}

/// Answers a request of somebody who showed the token.
pub(super) async fn answer(hall: &Hall, method: &Method, path: &str, query: &str, body: &Bytes) -> Answer {
    let Some(place) = path.strip_prefix("/api/v1/") else {
        return failed(StatusCode::NOT_FOUND, "there is only version 1: /api/v1/…");
    };
    let query = Query::new(query);
    let parts: Vec<String> = place.split('/').map(|part| decoded(part, false)).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let answered = match (method, parts.as_slice()) {
        (&Method::POST, ["publish"]) => publish(hall, body),
        (_, ["publish"]) => Err(Box::new(wrong_verb("POST"))),
        (&Method::DELETE, ["clients", client_id]) => kick(hall, client_id).await,
        (&Method::GET | &Method::HEAD, parts) => get(hall, parts, &query).await,
        (_, ["clients", _]) => Err(Box::new(wrong_verb("GET, HEAD, DELETE"))),
        _ => Err(Box::new(wrong_verb("GET, HEAD"))),
    };
    answered.unwrap_or_else(|refused| *refused)
}

async fn get(hall: &Hall, parts: &[&str], query: &Query) -> Result<Answer, Refused> {
    let census = &hall.census;
    match parts {
        ["node"] => {
            let mut status = hall.surroundings.status().await.map_err(unavailable)?;
            if let Some(tree) = hall.tree.get() {
                (status.processes, status.restarts) = (tree.count() as u64, tree.restarts());
            }
            Ok(json_of(&status))
        }
        ["nodes"] => {
            let cluster = hall.surroundings.cluster().await.map_err(unavailable)?;
            Ok(json_of(&json!({"node": cluster.node, "data": cluster.members})))
        }
        ["metrics"] => Ok(json_of(&figures(census.figures().await.map_err(unavailable)?))),
        ["clients"] => {
            let limit = query.limit()?;
            let page = census.clients(query.after(), limit).await.map_err(unavailable)?;
            Ok(page_of(&page.entries, limit, page.next.as_deref()))
        }
        ["clients", client_id] => {
            let found = census
                .client((*client_id).to_owned())
                .await
                .map_err(unavailable)?;
            found
                .map(|detail| json_of(&detail))
                .ok_or_else(|| no_client(client_id))
        }
        ["clients", client_id, "subscriptions"] => {
            let found = census
                .subscriptions_of((*client_id).to_owned())
                .await
                .map_err(unavailable)?;
            let held = found.ok_or_else(|| no_client(client_id))?;
            Ok(page_of(&held, held.len(), None))
        }
        ["subscriptions"] => {
            let limit = query.limit()?;
            let page = census
                .subscriptions(query.after(), limit)
                .await
                .map_err(unavailable)?;
            Ok(page_of(&page.entries, limit, page.next.as_deref()))
        }
        ["routes"] => {
            let limit = query.limit()?;
            let page = census.routes(query.after(), limit).await.map_err(unavailable)?;
            Ok(page_of(&page.entries, limit, page.next.as_deref()))
        }
        ["tree"] => Ok(json_of(&json!({"data": structure(standing(hall)?.summary())}))),
        ["tree", "children"] => children(hall, query).await,
        ["restarts"] => {
            let limit = query.limit()?;
            Ok(page_of(&restarts(standing(hall)?, limit), limit, None))
        }
        ["observer"] => observer(hall, query).await,
        _ => {
            let sentence = "there is nothing of that name in /api/v1";
            Err(Box::new(failed(StatusCode::NOT_FOUND, sentence)))
        }
    }
}

fn standing(hall: &Hall) -> Result<&Tree, Refused> {
    let starting = || unavailable("the node is still starting".into());
    hall.tree.get().ok_or_else(starting)
}

/// Children of one supervisor, in parts: there may be 100,000.
async fn children(hall: &Hall, query: &Query) -> Result<Answer, Refused> {
    let limit = query.limit()?;
    let path = query
        .get("path")
        .ok_or_else(|| bad("path= names the supervisor"))?
        .to_owned();
    let tree = standing(hall)?.clone();
    if tree.describe(&path).is_none() {
        let sentence = format!("there is no process {}", path.escape_debug());
        return Err(Box::new(failed(StatusCode::NOT_FOUND, &sentence)));
    }
    // Very many are gone through: not on the router's arbiter.
    let listed = tokio::task::spawn_blocking(move || tree.children(&path)).await;
    let listed = listed.map_err(|error| unavailable(error.to_string()))?;
    let after = query.get("after");
    let from = after.and_then(|after| listed.iter().position(|info| *info.id == *after));
    let mut rest = listed.into_iter().skip(from.map_or(0, |from| from + 1));
    let entries: Vec<_> = rest.by_ref().take(limit).map(tree_entry).collect();
    let next = entries.last().filter(|_| rest.next().is_some());
    Ok(page_of(&entries, limit, next.map(|last| last.id.as_str())))
}

/// The newest first.
fn restarts(tree: &Tree, limit: usize) -> Vec<crate::admin::protocol::RestartEntry> {
    let history = tree.history();
    history.into_iter().rev().take(limit).map(restart_entry).collect()
}

async fn kick(hall: &Hall, client_id: &str) -> Result<Answer, Refused> {
    tracing::info!("admin API: clients kick {}", client_id.escape_debug());
    match hall
        .census
        .kick(client_id.to_owned())
        .await
        .map_err(unavailable)?
    {
        true => Ok(done()),
        false => Err(no_client(client_id)),
    }
}

/// A message as EMQX's API takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted {
    topic: String,
    #[serde(default)]
    payload: String,
    #[serde(default)]
    payload_encoding: Encoding,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    #[default]
    Plain,
    Base64,
}

fn publish(hall: &Hall, body: &Bytes) -> Result<Answer, Refused> {
    let posted: Posted = serde_json::from_slice(body).map_err(|error| bad(&format!("the body: {error}")))?;
    let payload = match posted.payload_encoding {
        Encoding::Plain => posted.payload.into_bytes(),
        Encoding::Base64 => BASE64_STANDARD
            .decode(posted.payload)
            .map_err(|error| bad(&format!("payload: {error}")))?,
    };
    tracing::info!("admin API: publish {}", posted.topic.escape_debug());
    let publication = Publication {
        topic: posted.topic,
        payload: payload.into(),
        qos: posted.qos,
        retain: posted.retain,
    };
    hall.census
        .publish(publication)
        .map_err(|sentence| bad(&sentence))?;
    Ok(done())
}

/// Everything that is a number, by name.
fn figures(figures: Figures) -> Value {
    let counters = figures
        .counters
        .iter()
        .map(|(name, _, value)| ((*name).to_owned(), json!(value)));
    let waiting = figures
        .waiting
        .iter()
        .map(|(peer, messages, bytes)| json!({"peer": peer, "messages": messages, "bytes": bytes}));
    let routes = figures
        .routes
        .iter()
        .map(|(node, count)| json!({"node": node, "routes": count}));
    json!({
        "node": figures.node,
        "incarnation": figures.incarnation,
        "since_ms": figures.since_ms,
        "counters": counters.collect::<serde_json::Map<_, _>>(),
        "sessions": figures.sessions,
        "connections": figures.connected,
        "retained": {"messages": figures.retained.0, "bytes": figures.retained.1},
        "store": stored(&figures.stored),
        "filters": figures.filters,
        "routes": routes.collect::<Vec<_>>(),
        "waiting": waiting.collect::<Vec<_>>(),
        "processes": figures.processes,
        "restarts": figures.restarts,
        "process": {
            "resident_bytes": figures.process.resident_bytes,
            "cpu_s": figures.process.cpu_s,
            "threads": figures.process.threads,
            "descriptors": figures.process.descriptors,
        },
    })
}

fn stored(store: &storage::Figures) -> Value {
    json!({
        "condition": store.condition.as_str(),
        "commits": store.commits,
        "commit_us": store.commit_us,
        "failures": store.failures,
        "syncs": store.syncs,
        "record_bytes": store.record_bytes,
        "written_bytes": store.file_bytes_written,
        "file_bytes": store.file_bytes,
        "changes": store.changes,
        "changes_spared": store.spared,
        "pending_records": store.pending,
        "pending_bytes": store.pending_bytes,
        "held_changes": store.held,
        "waiting_us": store.waiting_us,
        "records_damaged": store.damaged,
    })
}

/// One answer for one look of the page: what it shows of a moment belongs together.
async fn observer(hall: &Hall, query: &Query) -> Result<Answer, Refused> {
    let since_ms = query
        .get("since")
        .and_then(|since| since.parse().ok())
        .unwrap_or(0);
    let mut found = hall.census.figures().await.map_err(unavailable)?;
    let (tree, members) = (
        std::mem::take(&mut found.tree),
        std::mem::take(&mut found.members),
    );
    let now_ms = crate::admin::control::ms(std::time::SystemTime::now());
    Ok(json_of(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now_ms": now_ms,
        "figures": figures(found),
        "samples": hall.rates.since(since_ms),
        "members": members,
        "tree": tree,
        "restarts": restarts(standing(hall)?, RESTARTS_SHOWN),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_its_limit_is_bounded() {
        let query = Query::new("after=a%2Fb+c&limit=7&x");
        assert_eq!(
            (query.after().as_deref(), query.limit().ok()),
            (Some("a/b c"), Some(7))
        );
        assert_eq!(Query::new("").limit().ok(), Some(PAGE_LEN));
        for wrong in ["limit=0", "limit=1001", "limit=x", "limit=-1"] {
            assert!(Query::new(wrong).limit().is_err(), "{wrong}");
        }
        assert_eq!(decoded("a+b%zz%4", false), "a+b%zz%4");
        assert_eq!(decoded("%ff", false), "\u{fffd}");
    }
}
