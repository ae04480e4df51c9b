//! The sums of the audit, over books that are made up.

use super::*;
use crate::node_name::Incarnation;

fn entries(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

fn copies(offered: u64, moved_in: u64, delivered: u64, moved_away: u64, full: u64) -> AccountEntry {
    AccountEntry {
        account: "copies".into(),
        came: entries(&[("offered", offered), ("moved_in", moved_in)]),
        went: entries(&[
            ("delivered", delivered),
            ("moved_away", moved_away),
            ("dropped_queue_full", full),
        ]),
        held: entries(&[("queues", 1)]),
    }
}

fn node(name: &str, copies: AccountEntry, dealings: &[(&str, u64, u64, u64)]) -> NodeAudit {
    let dealings = dealings
        .iter()
        .map(|(name, incarnation, acknowledged, came)| DealingsEntry {
            node: name.parse().unwrap(),
            incarnation: Incarnation(*incarnation),
            acknowledged: *acknowledged,
            came: *came,
            acknowledged_before: 0,
            came_before: 0,
        });
    NodeAudit {
        node: name.parse().unwrap(),
        incarnation: Incarnation(1),
        accounts: vec![copies],
        dealings: dealings.collect(),
    }
}

fn two(came: u64) -> Books {
    Books {
        nodes: vec![
            node("a@h", copies(10, 0, 6, 2, 1), &[("b@h", 1, 7, 4)]),
            node("b@h", copies(4, 2, 5, 0, 0), &[("a@h", 1, 4, came)]),
        ],
        unreached: BTreeMap::new(),
    }
}

#[test]
fn what_all_nodes_tell_is_added_up_and_compared_with_each_other() {
    let books = two(7);
    assert!(books.is_balanced(), "{}", books.troubles());
    let text = books.to_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "NODE     ACCOUNT  CAME  WENT  DROPPED  HELD",
            "a@h      copies     10     8        1     1  ✓",
            "b@h      copies      6     5        0     1  ✓",
            "cluster  copies     16    13        1     2  ✓",
            "",
            "dropped: queue_full 1",
            "a@h → b@h: 7 acknowledged, 7 came  ✓",
            "b@h → a@h: 4 acknowledged, 4 came  ✓",
            "with sessions: 2 moved away, 2 moved in  ✓",
        ]
    );
    let json = books.to_json();
    assert_eq!(json["balanced"], true);
    assert_eq!(json["cluster"][0]["dropped"]["queue_full"], 1);
    assert_eq!(json["between"][0]["missing"], 0);
}

#[test]
fn what_is_missing_is_told_where_and_how_much() {
    let mut books = two(5);
    books.nodes[1].accounts[0].went[0].1 = 4;
    assert!(!books.is_balanced());
    assert_eq!(
        books.troubles(),
        "not accounted for: copies of b@h (+1), messages from a@h to b@h (+2)"
    );
    assert!(
        books
            .to_text()
            .contains("b@h      copies      6     4        0     1  ✗ +1")
    );
    assert_eq!(books.to_json()["balanced"], false);
}

#[test]
fn what_a_node_took_along_that_cannot_be_asked_is_unknown_and_no_trouble() {
    let mut books = two(7);
    books.nodes.pop();
    let why = "node b@h is not running".to_owned();
    books.unreached.insert("b@h".parse().unwrap(), why);
    assert!(books.is_balanced(), "{}", books.troubles());
    let text = books.to_text();
    assert!(
        text.contains("unknown: 7 messages that b@h took along, 4 came from it\n"),
        "{text}"
    );
    assert!(
        text.contains("not asked: b@h: node b@h is not running\n"),
        "{text}"
    );
    // It is there again, as another life.
    let mut books = two(7);
    books.nodes[1].incarnation = Incarnation(2);
    (
        books.nodes[1].dealings[0].acknowledged,
        books.nodes[1].dealings[0].came,
    ) = (0, 0);
    assert!(books.is_balanced(), "{}", books.troubles());
    assert_eq!(books.to_json()["unknown"][0]["acknowledged"], 7);
}

#[test]
fn what_came_although_it_had_been_given_up_is_no_trouble() {
    let mut books = two(9);
    assert_eq!(
        books.troubles(),
        "not accounted for: messages from a@h to b@h (-2)"
    );
    books.nodes[0].accounts.push(AccountEntry {
        account: "links".into(),
        came: entries(&[("forwarded", 16)]),
        went: entries(&[
            ("forwards_acknowledged", 7),
            ("dropped_link_full", 6),
            ("dropped_link_down", 3),
        ]),
        held: vec![],
    });
    assert!(books.is_balanced(), "{}", books.troubles());
    let text = books.to_text();
    let line = "a@h → b@h: 7 acknowledged, 9 came, 2 of them given up before that was heard  ✓";
    assert!(text.contains(line), "{text}");
    books.nodes[0].accounts[1].went[2].1 = 1;
    books.nodes[0].accounts[1].came[0].1 = 14;
    assert_eq!(
        books.troubles(),
        "not accounted for: messages from a@h to b@h (-1)"
    );
}

#[test]
fn no_books_at_all_are_not_balanced() {
    assert!(!Books::default().is_balanced());
}
