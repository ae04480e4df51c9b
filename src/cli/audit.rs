//! `ermine audit`: is every message accounted for, on each node and in the cluster?
//!
//! Every member is asked for its books; while a sum is not right they are asked again, for messages may be on
//! their way. What an account is, and when it must balance, stands in `docs/OPERATIONS.md`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::admin::protocol::{AccountEntry, DealingsEntry, NodeAudit, Reply, Request};
use crate::cli::args::AuditArgs;
use crate::cli::commands::{Found, say};
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::table::Table;
use crate::node_name::NodeName;

/// Pause before the books are asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// Begins the names of counters of drops.
const DROPPED: &str = "dropped_";

/// Asks until every sum is right, or the time is over.
pub(super) async fn run(args: AuditArgs) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(args.within.into());
    let found = Found::find(&args.list.node, None).await?;
    let cluster = found.one(Request::ClusterStatus, |reply| match reply {
        Reply::Cluster(status) => Some(status),
        _ => None,
    });
    let members: Vec<NodeName> = cluster
        .await?
        .members
        .into_iter()
        .map(|member| member.node)
        .collect();
    let (mut nodes, mut unreached) = (Vec::new(), BTreeMap::new());
    for member in members {
        match found.other(&member).await {
            Ok(node) => nodes.push(node),
            Err(failure) => drop(unreached.insert(member, failure.sentence().to_owned())),
        }
    }
    let mut before: Option<Books> = None;
    loop {
        let books = ask(&nodes, &unreached).await;
        let late = Instant::now() >= deadline;
        if books.is_balanced() || late {
            return tell(&books, before.as_ref(), args.list.output.json);
        }
        before = Some(books);
        sleep(PAUSE).await;
    }
}

async fn ask(nodes: &[Found], unreached: &BTreeMap<NodeName, String>) -> Books {
    let mut books = Books {
        unreached: unreached.clone(),
        ..Books::default()
    };
    for node in nodes {
        let audit = node.one(Request::Audit, |reply| match reply {
            Reply::Audit(audit) => Some(audit),
            _ => None,
        });
        match audit.await {
            Ok(audit) => books.nodes.push(audit),
            Err(failure) => {
                let sentence = failure.sentence().to_owned();
                books.unreached.insert(node.name().clone(), sentence);
            }
        }
    }
    books
}

/// Prints the books; those that are not right are the failure.
fn tell(books: &Books, before: Option<&Books>, json: bool) -> Result<(), Failure> {
    say(&if json {
        show::as_json(&books.to_json())
    } else {
        books.to_text()
    });
    if books.is_balanced() {
        return Ok(());
    }
    let still = before.is_some_and(|before| before.nodes == books.nodes);
    Err(Failure::command(match (books.nodes.is_empty(), still) {
        (true, _) => "no node could be asked for its books".to_owned(),
        (_, true) => format!("{}, and nothing moved: that is a bug of ermine", books.troubles()),
        (_, false) => format!(
            "{}, but messages were on their way all the time: ask again when the nodes rest",
            books.troubles()
        ),
    }))
}

/// The books of all nodes that could be asked, at one time or nearly so.
#[derive(Default)]
struct Books {
    nodes: Vec<NodeAudit>,
    /// Members that could not be asked, and why.
    unreached: BTreeMap<NodeName, String>,
}

/// Messages that went from one node to another.
struct Passage<'a> {
    from: &'a NodeName,
    to: &'a NodeName,
    acknowledged: u64,
    came: u64,
    /// Messages for whichever node that the one gave up, some of which the other may have had.
    given_up: u64,
}

impl Passage<'_> {
    /// Messages that came although they had been given up: their acknowledgement was lost with a link.
    fn unheard(&self) -> u64 {
        self.came.saturating_sub(self.acknowledged).min(self.given_up)
    }

    fn missing(&self) -> i64 {
        self.acknowledged as i64 + self.unheard() as i64 - self.came as i64
    }
}

/// What went to, and came from, lives of nodes that cannot be asked any more.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
struct Unknown {
    acknowledged: u64,
    came: u64,
}

fn sum(entries: &[(String, u64)], wanted: impl Fn(&str) -> bool) -> u64 {
    let wanted = entries.iter().filter(|(name, _)| wanted(name));
    wanted.map(|(_, count)| count).sum()
}

fn is_drop(name: &str) -> bool {
    name.starts_with(DROPPED)
}

fn missing(account: &AccountEntry) -> i64 {
    let all = |entries: &[(String, u64)]| sum(entries, |_| true) as i64;
    all(&account.came) - all(&account.went) - all(&account.held)
}

impl Books {
    fn is_balanced(&self) -> bool {
        !self.nodes.is_empty() && self.troubles().is_empty()
    }

    /// What is not right, in words; empty if nothing is.
    fn troubles(&self) -> String {
        let mut wrong = Vec::new();
        for node in &self.nodes {
            for account in node.accounts.iter().filter(|account| missing(account) != 0) {
                wrong.push(format!(
                    "{} of {} ({:+})",
                    account.account,
                    node.node,
                    missing(account)
                ));
            }
        }
        for passage in self.passages().iter().filter(|passage| passage.missing() != 0) {
            let Passage { from, to, .. } = passage;
            wrong.push(format!("messages from {from} to {to} ({:+})", passage.missing()));
        }
        match self.moved() {
            Some((away, came)) if away != came => {
                wrong.push(format!(
                    "copies that moved with sessions ({:+})",
                    away as i64 - came as i64
                ));
            }
            _ => {}
        }
        if wrong.is_empty() {
            return String::new();
        }
        format!("not accounted for: {}", wrong.join(", "))
    }

    /// The accounts of all nodes added up.
    fn cluster(&self) -> Vec<AccountEntry> {
        let mut sums: Vec<AccountEntry> = Vec::new();
        for account in self.nodes.iter().flat_map(|node| &node.accounts) {
            match sums.iter_mut().find(|sum| sum.account == account.account) {
                Some(sum) => {
                    add(&mut sum.came, &account.came);
                    add(&mut sum.went, &account.went);
                    add(&mut sum.held, &account.held);
                }
                None => sums.push(account.clone()),
            }
        }
        sums
    }

    /// Who dealt with whom, of the nodes that were asked: what one says that the other has taken, and what
    /// that says that came.
    fn passages(&self) -> Vec<Passage<'_>> {
        let mut passages = Vec::new();
        for from in &self.nodes {
            for to in self.nodes.iter().filter(|to| to.node != from.node) {
                let (there, here) = (dealings(from, to), dealings(to, from));
                if there.is_some() || here.is_some() {
                    passages.push(Passage {
                        from: &from.node,
                        to: &to.node,
                        acknowledged: there.map_or(0, |dealings| dealings.acknowledged),
                        came: here.map_or(0, |dealings| dealings.came),
                        given_up: given_up(from),
                    });
                }
            }
        }
        passages
    }

    /// By node: what its lives that cannot be asked took along, and brought.
    fn unknown(&self) -> BTreeMap<&NodeName, Unknown> {
        let mut unknown = BTreeMap::new();
        for seen in self.nodes.iter().flat_map(|node| &node.dealings) {
            let told = self.nodes.iter().any(|node| is_of(seen, node));
            let Unknown { acknowledged, came } = unknown.entry(&seen.node).or_default();
            *acknowledged += seen.acknowledged_before + if told { 0 } else { seen.acknowledged };
            *came += seen.came_before + if told { 0 } else { seen.came };
        }
        unknown.retain(|_, unknown| *unknown != Unknown::default());
        unknown
    }

    /// Copies that went away with their sessions, and that came with them; `None` where some went to, or came
    /// from, who cannot be asked.
    fn moved(&self) -> Option<(u64, u64)> {
        if !self.unreached.is_empty() || !self.unknown().is_empty() {
            return None;
        }
        let copies = self
            .cluster()
            .into_iter()
            .find(|account| account.account == "copies")?;
        let away = sum(&copies.went, |name| name == "moved_away");
        Some((away, sum(&copies.came, |name| name == "moved_in")))
    }

    fn to_text(&self) -> String {
        let mut table = Table::new(&["NODE", "ACCOUNT", ">CAME", ">WENT", ">DROPPED", ">HELD", ""]);
        let cluster = self.cluster();
        let nodes = self.nodes.iter().map(|node| (node.node.as_str(), &node.accounts));
        for (name, accounts) in nodes.chain([("cluster", &cluster)]) {
            for (nth, account) in accounts.iter().enumerate() {
                table.row(row(if nth == 0 { name } else { "" }, account));
            }
        }
        let mut text = table.render();
        let drops = cluster.iter().flat_map(|account| &account.went);
        let drops: Vec<String> = drops
            .filter(|(name, count)| is_drop(name) && *count > 0)
            .map(|(name, count)| format!("{} {count}", &name[DROPPED.len()..]))
            .collect();
        if !drops.is_empty() {
            text.push_str(&format!("\ndropped: {}\n", drops.join(", ")));
        }
        for passage in self.passages() {
            let Passage { from, to, .. } = passage;
            let (acknowledged, came) = (passage.acknowledged, passage.came);
            let mark = mark(passage.missing());
            let unheard = match passage.unheard() {
                0 => String::new(),
                unheard => format!(", {unheard} of them given up before that was heard"),
            };
            text.push_str(&format!(
                "{from} → {to}: {acknowledged} acknowledged, {came} came{unheard}  {mark}\n"
            ));
        }
        if let Some((away, came)) = self.moved().filter(|moved| *moved != (0, 0)) {
            let mark = mark(away as i64 - came as i64);
            text.push_str(&format!(
                "with sessions: {away} moved away, {came} moved in  {mark}\n"
            ));
        }
        for (node, Unknown { acknowledged, came }) in self.unknown() {
            text.push_str(&format!(
                "unknown: {acknowledged} messages that {node} took along, {came} came from it\n"
            ));
        }
        for (node, why) in &self.unreached {
            text.push_str(&format!("not asked: {node}: {why}\n"));
        }
        text
    }

    fn to_json(&self) -> Value {
        let accounts = |accounts: &[AccountEntry]| -> Vec<Value> { accounts.iter().map(account).collect() };
        let nodes = self.nodes.iter().map(|node| {
            json!({
                "node": node.node, "incarnation": node.incarnation,
                "accounts": accounts(&node.accounts),
            })
        });
        let passages = self.passages().into_iter().map(|passage| {
            json!({
                "from": passage.from, "to": passage.to, "acknowledged": passage.acknowledged,
                "came": passage.came, "unheard": passage.unheard(), "missing": passage.missing(),
            })
        });
        let unknown = self.unknown().into_iter().map(|(node, unknown)| {
            json!({ "node": node, "acknowledged": unknown.acknowledged, "came": unknown.came })
        });
        let unreached = self.unreached.iter();
        let unreached = unreached.map(|(node, why)| json!({ "node": node, "reason": why }));
        let moved = self
            .moved()
            .map(|(away, came)| json!({ "away": away, "in": came }));
        json!({
            "balanced": self.is_balanced(),
            "nodes": nodes.collect::<Vec<_>>(),
            "cluster": accounts(&self.cluster()),
            "between": passages.collect::<Vec<_>>(),
            "moved": moved,
            "unknown": unknown.collect::<Vec<_>>(),
            "not_asked": unreached.collect::<Vec<_>>(),
        })
    }
}

fn is_of(seen: &DealingsEntry, node: &NodeAudit) -> bool {
    seen.node == node.node && seen.incarnation == node.incarnation
}

/// Messages for other nodes that were dropped or taken back, the other node having had them or not.
fn given_up(node: &NodeAudit) -> u64 {
    let links = node.accounts.iter().find(|account| account.account == "links");
    let lost = |name: &str| {
        name == "forwards_taken_back" || name.starts_with("dropped_link_") && name != "dropped_link_full"
    };
    links.map_or(0, |links| sum(&links.went, lost))
}

/// What one has to do with this life of the other.
fn dealings<'a>(of: &'a NodeAudit, with: &NodeAudit) -> Option<&'a DealingsEntry> {
    of.dealings.iter().find(|dealings| is_of(dealings, with))
}

fn add(sums: &mut [(String, u64)], entries: &[(String, u64)]) {
    for (sum, entry) in sums.iter_mut().zip(entries) {
        sum.1 += entry.1;
    }
}

fn mark(missing: i64) -> String {
    match missing {
        0 => "✓".into(),
        missing => format!("✗ {missing:+}"),
    }
}

fn row(node: &str, account: &AccountEntry) -> [String; 7] {
    let number = |count: u64| count.to_string();
    [
        node.to_owned(),
        account.account.clone(),
        number(sum(&account.came, |_| true)),
        number(sum(&account.went, |name| !is_drop(name))),
        number(sum(&account.went, is_drop)),
        number(sum(&account.held, |_| true)),
        mark(missing(account)),
    ]
}

fn account(account: &AccountEntry) -> Value {
    let object = |entries: &[(String, u64)], wanted: fn(&str) -> bool| -> Map<String, Value> {
        let wanted = entries.iter().filter(|(name, _)| wanted(name));
        let named = wanted.map(|(name, count)| {
            let name = name.strip_prefix(DROPPED).unwrap_or(name);
            (name.to_owned(), (*count).into())
        });
        named.collect()
    };
    json!({
        "account": account.account,
        "came": object(&account.came, |_| true),
        "went": object(&account.went, |name| !is_drop(name)),
        "dropped": object(&account.went, is_drop),
        "held": object(&account.held, |_| true),
        "missing": missing(account),
    })
}

#[cfg(test)]
mod tests;
