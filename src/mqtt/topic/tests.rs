use proptest::prelude::*;

use super::*;

#[test]
fn what_the_broker_tells_of_itself_is_reserved_and_nothing_else() {
    assert!(
        ["$SYS", "$SYS/", "$SYS/broker/uptime"]
            .iter()
            .all(|name| is_reserved(name))
    );
    assert!(
        ["$SYSTEM", "$sys/a", "a/$SYS", "$share/x", ""]
            .iter()
            .all(|name| !is_reserved(name))
    );
}

#[test]
fn names_are_checked_against_every_rule() {
    // [MQTT3-4.7.1-1] [MQTT3-4.7.3-1..3] [MQTT-4.7.0-1] [MQTT-4.7.3-1..3]
    for good in [
        "/",
        "a",
        "a/b",
        "/a",
        "a/",
        "//",
        "$SYS/x",
        "$share/g/a",
        " ",
        "𐀀/é",
        "a b/c",
    ] {
        assert_eq!(check_name(good), Ok(()), "{good:?}");
    }
    assert_eq!(check_name(""), Err(TopicError::Empty));
    assert_eq!(check_name("a\0b"), Err(TopicError::Nul));
    for bad in ["#", "+", "a/+", "a/#", "a+b", "x#"] {
        assert_eq!(check_name(bad), Err(TopicError::Wildcard), "{bad:?}");
    }
    assert_eq!(check_name(&"a".repeat(TOPIC_BYTES_MAX)), Ok(()));
    assert_eq!(
        check_name(&"a".repeat(TOPIC_BYTES_MAX + 1)),
        Err(TopicError::TooLong)
    );
    assert_eq!(check_name(&"/".repeat(TOPIC_LEVELS_MAX - 1)), Ok(()));
    assert_eq!(
        check_name(&"/".repeat(TOPIC_LEVELS_MAX)),
        Err(TopicError::TooManyLevels)
    );
}

#[test]
fn filters_are_checked_against_every_rule() {
    // [MQTT3-4.7.1-2..3] [MQTT3-4.7.3-1..3] [MQTT-4.7.1-1..2] [MQTT-4.7.3-1..3]
    for good in [
        "#",
        "+",
        "/",
        "+/+",
        "/+",
        "+/#",
        "a/+/b/#",
        "$SYS/#",
        "$share/g/#",
        "$share/g//",
        "$share",
    ] {
        assert_eq!(check_filter(good), Ok(()), "{good:?}");
    }
    assert_eq!(check_filter(""), Err(TopicError::Empty));
    assert_eq!(check_filter("a\0"), Err(TopicError::Nul));
    for bad in [
        "a/#/b", "a#", "#a", "a+/b", "+a", "a/+b", "##", "++", "#/", "a/##",
    ] {
        assert_eq!(check_filter(bad), Err(TopicError::WildcardPlacement), "{bad:?}");
    }
    assert_eq!(check_filter("$share/"), Err(TopicError::ShareName));
    assert_eq!(check_filter("$share//a"), Err(TopicError::ShareName));
    assert_eq!(check_filter("$share/+/a"), Err(TopicError::ShareName));
    assert_eq!(check_filter("$share/g"), Err(TopicError::ShareFilter));
    assert_eq!(check_filter("$share/g/"), Err(TopicError::ShareFilter));
    let deep = "+/".repeat(TOPIC_LEVELS_MAX - 1) + "#";
    assert_eq!(check_filter(&deep), Ok(()));
    assert_eq!(check_filter(&format!("$share/g/{deep}")), Ok(()));
    assert_eq!(check_filter(&format!("+/{deep}")), Err(TopicError::TooManyLevels));
    assert_eq!(check_syntax(&format!("+/{deep}")), Ok(()));
    assert_eq!(check_syntax("$share/g"), Ok(()));
}

#[test]
fn the_examples_of_the_standard_match_as_it_says() {
    // [MQTT3-3.3.2-3] [MQTT3-4.7.3-4] [MQTT-3.3.2-3] [MQTT-4.7.3-4]
    let matching = [
        ("sport/tennis/player1/#", "sport/tennis/player1"),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
        ("sport/#", "sport"),
        ("#", "a/b"),
        ("#", "/"),
        ("sport/tennis/+", "sport/tennis/player1"),
        ("sport/+", "sport/"),
        ("+/+", "/finance"),
        ("/+", "/finance"),
        ("+", "a"),
        ("$SYS/#", "$SYS/x"),
        ("$SYS/#", "$SYS"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients"),
        ("a/+/c/#", "a/b/c/d/e"),
        ("+/b/#", "a/b"),
    ];
    for (filter, name) in matching {
        assert!(matches(filter, name), "{filter} {name}");
    }
    let different = [
        ("sport/tennis/+", "sport/tennis/player1/ranking"),
        ("sport/+", "sport"),
        ("+", "/finance"),
        ("#", "$SYS/x"),
        ("+/monitor/Clients", "$SYS/monitor/Clients"),
        ("+", "$SYS"),
        ("a", "A"),
        ("a", "a/"),
        ("a/", "a"),
        ("/a", "a"),
        ("a/b/c", "a/b"),
        ("a/b", "a/b/c"),
        ("a/+/#", "a"),
    ];
    for (filter, name) in different {
        assert!(!matches(filter, name), "{filter} {name}");
    }
}

#[test]
fn a_shared_filter_has_two_parts() {
    // [MQTT-4.8.2-1..2]
    let parts = |filter| SharedFilter::parse(filter).map(|shared| shared.map(|s| (s.group, s.filter)));
    assert_eq!(parts("$share/g/a/b"), Ok(Some(("g", "a/b"))));
    assert_eq!(parts("$share/g//"), Ok(Some(("g", "/"))));
    assert_eq!(parts("$share"), Ok(None));
    assert_eq!(parts("a/$share/g/b"), Ok(None));
    assert_eq!(parts("$shared/g/b"), Ok(None));
}

/// The rules as ten lines of recursion.
fn model(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, name @ ..]) => model(filter, name),
        ([wanted, filter @ ..], [level, name @ ..]) => wanted == level && model(filter, name),
        _ => false,
    }
}

proptest! {
    #[test]
    fn matching_agrees_with_the_model(
        filter in "([ab+]?/){0,4}([ab+#]?)",
        name in "\\$?([ab]?/){0,4}[ab]?",
    ) {
        prop_assume!(check_filter(&filter).is_ok() && check_name(&name).is_ok());
        let hidden = name.starts_with('$') && filter.starts_with(['+', '#']);
        let filter_levels: Vec<_> = filter.split('/').collect();
        let name_levels: Vec<_> = name.split('/').collect();
        prop_assert_eq!(matches(&filter, &name), !hidden && model(&filter_levels, &name_levels));
    }

    #[test]
    fn every_name_is_a_filter_that_matches_itself(name in "[^+#\0]{1,40}") {
        prop_assume!(check_filter(&name).is_ok());
        prop_assert_eq!(check_name(&name), Ok(()));
        prop_assert!(matches(&name, &name));
    }

    #[test]
    fn checking_never_panics(text in any::<String>()) {
        let _ = (check_name(&text), check_filter(&text), check_syntax(&text));
    }
}
