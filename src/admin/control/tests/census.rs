//! Goal: lists come whole, part by part; who is not there is told so. Method: a village of three hundred.

use super::*;
use crate::admin::census::{Figures, Page, Publication};
use crate::admin::protocol::{ClientDetail, SubscriptionEntry};
use crate::broker::counters::Snapshot;

const INHABITANTS: usize = 1200;

fn detail(n: usize) -> ClientDetail {
    ClientDetail {
        client_id: format!("c{n:04}"),
        connected: true,
        since_ms: 0,
        pid: None,
        mailbox_len: 0,
        answered: true,
        address: None,
        listener: None,
        username: None,
        common_name: None,
        protocol: Some("5.0".into()),
        persistent: false,
        subscriptions: 1,
        queue_len: 0,
        inflight_len: 0,
        weight_bytes: 0,
        slow: false,
    }
}

fn subscription(client_id: String) -> SubscriptionEntry {
    SubscriptionEntry {
        client_id,
        filter: "t".into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
        identifier: None,
    }
}

fn part<T>(all: Vec<T>, key: fn(&T) -> &str, after: Option<String>, limit: usize) -> Page<T> {
    let behind = |entry: &T| after.as_deref().is_none_or(|after| key(entry) > after);
    let mut entries: Vec<T> = all.into_iter().filter(behind).collect();
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|last| key(last).to_owned());
    Page { entries, next }
}

impl Census for Village {
    fn clients(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<ClientDetail>, String>> {
        let all = (0..INHABITANTS).map(detail).collect();
        Box::pin(async move { Ok(part(all, |entry| &entry.client_id, after, limit)) })
    }

    fn client(&self, client_id: String) -> LocalBoxFuture<'_, Result<Option<ClientDetail>, String>> {
        let found = (0..INHABITANTS)
            .map(detail)
            .find(|detail| detail.client_id == client_id);
        Box::pin(async move { Ok(found) })
    }

    fn subscriptions(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<SubscriptionEntry>, String>> {
        let all = (0..INHABITANTS)
            .map(|n| subscription(detail(n).client_id))
            .collect();
        Box::pin(async move { Ok(part(all, |entry| &entry.client_id, after, limit)) })
    }

    fn subscriptions_of(
        &self,
        client_id: String,
    ) -> LocalBoxFuture<'_, Result<Option<Vec<SubscriptionEntry>>, String>> {
        Box::pin(async move { Ok(Some(vec![subscription(client_id)])) })
    }

    fn kick(&self, client_id: String) -> LocalBoxFuture<'_, Result<bool, String>> {
        self.tell(&format!("kick {client_id}"));
        Box::pin(async move { Ok(client_id == "c0007") })
    }

    fn routes(&self, _: Option<String>, _: usize) -> LocalBoxFuture<'_, Result<Page<RouteEntry>, String>> {
        Box::pin(async { Err("not asked here".into()) })
    }

    fn publish(&self, _: Publication) -> Result<(), String> {
        Err("not asked here".into())
    }

    fn counted(&self) -> Snapshot {
        Snapshot::default()
    }

    fn stored(&self) -> crate::broker::storage::Figures {
        unreachable!("nobody asks")
    }

    fn figures(&self) -> LocalBoxFuture<'_, Result<Figures, String>> {
        Box::pin(async { Err("the figures are away".into()) })
    }
}

#[actix::test]
async fn clients_come_in_parts_until_all_or_enough_are_told() {
    let stand = stand(false).await;
    let told = async |after: Option<&str>, limit| {
        let after = after.map(Into::into);
        let replies = stand.ask(Request::ClientDetails { after, limit }).await;
        assert_eq!(replies.last(), Some(&Reply::Done));
        let chunks = replies.into_iter().filter_map(|reply| match reply {
            Reply::ClientDetails(chunk) => Some(chunk),
            _ => None,
        });
        chunks
            .flatten()
            .map(|detail| detail.client_id)
            .collect::<Vec<_>>()
    };
    let all: Vec<_> = (0..INHABITANTS).map(|n| detail(n).client_id).collect();
    assert_eq!(told(None, 0).await, all);
    assert_eq!(told(None, 700).await, all[..700]);
    assert_eq!(told(Some("c0009"), 2).await, ["c0010", "c0011"]);
}

#[actix::test]
async fn one_client_is_told_with_its_subscriptions_and_an_unknown_one_is_refused() {
    let stand = stand(false).await;
    let ask = |client_id: &str| {
        let client_id = client_id.to_owned();
        stand.ask(Request::Client { client_id })
    };
    let replies = ask("c0007").await;
    assert_eq!(
        replies,
        [
            Reply::ClientDetails(vec![detail(7)]),
            Reply::Subscriptions(vec![subscription("c0007".into())]),
            Reply::Done
        ]
    );
    let unknown = Reply::Failed("there is no client x: see `ermine clients`".into());
    assert_eq!(ask("x").await, std::slice::from_ref(&unknown));
    let kick = |client_id: &str| {
        let client_id = client_id.to_owned();
        stand.ask(Request::Kick { client_id })
    };
    assert_eq!(kick("c0007").await, [Reply::Done]);
    assert_eq!(kick("x").await, [unknown]);
    assert_eq!(*stand.village.told.lock().unwrap(), ["kick c0007", "kick x"]);
}

#[actix::test]
async fn what_cannot_be_counted_is_a_sentence_and_the_token_is_told() {
    let stand = stand(false).await;
    let away = Reply::Failed("the figures are away".into());
    assert_eq!(stand.ask(Request::Metrics).await, [away]);
    let replies = stand.ask(Request::Access).await;
    assert!(matches!(&replies[0], Reply::Access(access) if access.token.as_deref() == Some("secret")));
}
