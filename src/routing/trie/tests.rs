use proptest::prelude::*;

use super::*;
use crate::limits::TOPIC_LEVELS_MAX;

/// The oracle: MQTT 4.7 word for word, slow.
pub(crate) fn naive_match(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.first(), topic.first()) {
            (Some(&"#"), _) => true,
            (None, None) => true,
            (Some(&"+"), Some(_)) => levels(&filter[1..], &topic[1..]),
            (Some(word), Some(level)) => word == level && levels(&filter[1..], &topic[1..]),
            _ => false,
        }
    }
    levels(
        &filter.split('/').collect::<Vec<_>>(),
        &topic.split('/').collect::<Vec<_>>(),
    )
}

fn found(trie: &Trie<String>, topic: &str) -> Vec<String> {
    let mut filters = Vec::new();
    trie.matches(topic, &mut |filter| filters.push(filter.clone()));
    filters.sort();
    filters
}

fn trie_of(filters: &[&str]) -> Trie<String> {
    let mut trie = Trie::new();
    for filter in filters {
        trie.insert(filter, (*filter).to_owned());
    }
    trie
}

#[test]
fn the_examples_of_the_standard_hold() {
    // [MQTT3-3.3.2-3] [MQTT3-4.7.3-4] [MQTT-3.3.2-3] [MQTT-4.7.3-4]
    let trie = trie_of(&[
        "sport/tennis/player1/#",
        "sport/#",
        "#",
        "sport/tennis/#",
        "+",
        "+/tennis/#",
        "sport/+/player1",
        "sport/tennis/+",
        "sport/+",
        "+/+",
        "/+",
    ]);
    assert_eq!(found(&trie, "sport"), ["#", "+", "sport/#"]);
    assert_eq!(found(&trie, "sport/"), ["#", "+/+", "sport/#", "sport/+"]);
    assert_eq!(found(&trie, "/finance"), ["#", "+/+", "/+"]);
    let player = found(&trie, "sport/tennis/player1");
    let expected = [
        "#",
        "+/tennis/#",
        "sport/#",
        "sport/+/player1",
        "sport/tennis/#",
        "sport/tennis/+",
        "sport/tennis/player1/#",
    ];
    assert_eq!(player, expected);
}

#[test]
fn a_leading_wildcard_does_not_match_a_dollar_topic() {
    // [MQTT3-4.7.2-1] [MQTT-4.7.2-1]
    let trie = trie_of(&[
        "#",
        "+/broker/version",
        "+/#",
        "$SYS/#",
        "$SYS/+/version",
        "$SYS/broker/version",
    ]);
    let expected = ["$SYS/#", "$SYS/+/version", "$SYS/broker/version"];
    assert_eq!(found(&trie, "$SYS/broker/version"), expected);
    assert_eq!(
        found(&trie, "a$/broker/version"),
        ["#", "+/#", "+/broker/version"]
    );
    assert_eq!(found(&trie, "$SYS"), ["$SYS/#"]);
}

#[test]
fn an_inserted_value_replaces_the_old_one() {
    let mut trie = Trie::new();
    assert_eq!(trie.insert("a/+", 1), None);
    assert_eq!(trie.insert("a/+", 2), Some(1));
    assert_eq!(
        (trie.get("a/+"), trie.get("a/b"), trie.len()),
        (Some(&2), None, 1)
    );
    *trie.get_mut("a/+").unwrap() = 3;
    assert_eq!(trie.remove("a/+"), Some(3));
    assert_eq!(trie.remove("a/+"), None);
}

#[test]
fn removing_a_filter_keeps_its_relatives_and_prunes_the_rest() {
    let mut trie = trie_of(&["a/+/c", "a/+/c/d/e/+", "a/+/c/#", "a/b"]);
    trie.remove("a/+/c/d/e/+");
    assert_eq!((trie.wildcards.nodes_len(), trie.wildcards.words_len()), (4, 2));
    assert_eq!(found(&trie, "a/x/c"), ["a/+/c", "a/+/c/#"]);
    trie.remove("a/+/c");
    assert_eq!(found(&trie, "a/x/c"), ["a/+/c/#"]);
    trie.remove("a/+/c/#");
    assert_eq!(trie.wildcards.nodes_len(), 1);
    assert_eq!(found(&trie, "a/b"), ["a/b"]);
}

#[test]
fn topics_and_filters_at_and_beyond_the_bound_of_levels_are_harmless() {
    let deep = |levels: usize| vec!["x"; levels].join("/");
    let mut trie = trie_of(&["#", "x/#"]);
    let full = format!("{}/+", deep(TOPIC_LEVELS_MAX - 1));
    trie.insert(&full, full.clone());
    let rest = format!("{}/#", deep(TOPIC_LEVELS_MAX));
    trie.insert(&rest, rest.clone());
    let beyond = format!("+/{}", deep(60_000));
    trie.insert(&beyond, beyond.clone());
    let mut expected = vec!["#".to_owned(), "x/#".into(), full, rest.clone()];
    expected.sort();
    assert_eq!(found(&trie, &deep(TOPIC_LEVELS_MAX)), expected);
    expected.retain(|filter| filter.ends_with('#'));
    assert_eq!(found(&trie, &deep(60_001)), expected);
    assert_eq!(trie.remove(&beyond), Some(beyond));
}

#[test]
fn many_plus_levels_do_not_explode() {
    let mut trie = Trie::new();
    for bits in 0..1024_u32 {
        let level = |bit: u32| if bits >> bit & 1 == 1 { "+" } else { "x" };
        trie.insert(&(0..10).map(level).collect::<Vec<_>>().join("/"), bits);
    }
    let mut count = 0;
    trie.matches("x/x/x/x/x/x/x/x/x/x", &mut |_| count += 1);
    assert_eq!(count, 1024);
}

/// Few words, so that filters and topics meet often.
fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "+", "$x", "a+", "#b"]);
    (prop::collection::vec(level, 1..5), any::<bool>()).prop_map(|(levels, rest)| {
        let mut text = levels.join("/");
        if rest {
            text.push_str("/#");
        }
        // The lone number sign comes about in no other way.
        if text == "a/#" { "#".into() } else { text }
    })
}

fn topic() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$x", "c"]);
    prop::collection::vec(level, 1..6).prop_map(|levels| levels.join("/"))
}

proptest! {
    #[test]
    fn the_trie_is_a_list_with_a_naive_matcher(
        steps in prop::collection::vec((any::<bool>(), filter()), 1..60),
        topics in prop::collection::vec(topic(), 1..20),
    ) {
        let (mut trie, mut model) = (Trie::new(), Vec::<String>::new());
        for (add, filter) in steps {
            let had = model.contains(&filter);
            model.retain(|held| *held != filter);
            if add {
                prop_assert_eq!(trie.insert(&filter, filter.clone()).is_some(), had);
                model.push(filter);
            } else {
                prop_assert_eq!(trie.remove(&filter).is_some(), had);
            }
        }
        prop_assert_eq!(trie.len(), model.len());
        model.sort();
        for topic in topics {
            let matching = model.iter().filter(|filter| naive_match(filter, &topic));
            prop_assert_eq!(found(&trie, &topic), matching.cloned().collect::<Vec<_>>());
        }
        let mut listed: Vec<_> = trie.iter().map(|(filter, _)| filter.to_owned()).collect();
        listed.sort();
        prop_assert_eq!(&listed, &model);
        for filter in &model {
            prop_assert!(trie.remove(filter).is_some());
        }
        prop_assert_eq!(trie.wildcards.nodes_len(), 1);
    }
}
