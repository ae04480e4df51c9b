use proptest::prelude::*;

use super::*;

fn acl(text: &str) -> Acl {
    Acl::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn named<'a>(username: &'a str, client_id: &'a str) -> Subject<'a> {
    Subject {
        username: Some(username),
        client_id,
    }
}

const NOBODY: Subject<'static> = Subject {
    username: None,
    client_id: "c",
};

/// The example of mosquitto's own `aclfile.example`, with what its comments say.
const MOSQUITTO: &str = "
# This affects access control for clients with no username.
topic read $SYS/#

# This only affects clients with username \"roger\".
user roger
topic foo/bar

# This affects all clients.
pattern write $SYS/broker/connection/%c/state
";

#[test]
fn the_example_of_mosquitto_means_the_same() {
    let acl = acl(MOSQUITTO);
    assert!(acl.allows(&NOBODY, Action::Read, "$SYS/broker/uptime"));
    assert!(!acl.allows(&NOBODY, Action::Write, "$SYS/broker/uptime"));
    let roger = named("roger", "r1");
    for action in [Action::Read, Action::Write] {
        assert!(acl.allows(&roger, action, "foo/bar"));
        assert!(
            !acl.allows(&roger, action, "$SYS/broker/uptime"),
            "only anonymous"
        );
        assert!(!acl.allows(&NOBODY, action, "foo/bar"));
    }
    assert!(acl.allows(&roger, Action::Write, "$SYS/broker/connection/r1/state"));
    assert!(!acl.allows(&roger, Action::Read, "$SYS/broker/connection/r1/state"));
    assert!(!acl.allows(&roger, Action::Write, "$SYS/broker/connection/r2/state"));
    assert_eq!(acl.len(), 3);
}

#[test]
fn deny_wins_within_a_section_wherever_it_stands_and_users_win_over_patterns() {
    for text in [
        "user a\ntopic home/#\ntopic deny home/safe/#\npattern deny home/attic\npattern read x/%u",
        "pattern read x/%u\npattern deny home/attic\nuser a\ntopic deny home/safe/#\ntopic home/#",
    ] {
        let acl = acl(text);
        let a = named("a", "c");
        assert!(acl.allows(&a, Action::Write, "home/kitchen"));
        assert!(!acl.allows(&a, Action::Read, "home/safe"));
        assert!(!acl.allows(&a, Action::Read, "home/safe/door"));
        assert!(
            acl.allows(&a, Action::Read, "home/attic"),
            "the user's line comes first"
        );
        assert!(acl.allows(&a, Action::Read, "x/a") && !acl.allows(&a, Action::Read, "x/b"));
        assert!(!acl.allows(&named("b", "c"), Action::Read, "home/kitchen"));
        assert!(acl.allows(&named("b", "c"), Action::Read, "x/b"));
    }
}

#[test]
fn no_rules_refuse_everything() {
    let acl = acl("# nothing\n");
    assert!(acl.is_empty());
    assert!(!acl.allows(&NOBODY, Action::Read, "t"));
    assert!(!acl.allows_subscription(&named("a", "c"), "#"));
}

#[test]
fn a_name_with_a_wildcard_widens_no_pattern() {
    let acl = acl("pattern readwrite u/%u/#\npattern readwrite c/%c/+\npattern deny n/%c");
    assert!(acl.allows(&named("a", "x"), Action::Read, "u/a/b"));
    assert!(!acl.allows(&named("+", "x"), Action::Read, "u/a/b"));
    assert!(!acl.allows(&named("#", "x"), Action::Read, "u/a/b"));
    assert!(!acl.allows(&named("a", "+"), Action::Write, "c/x/s"));
    assert!(
        !acl.allows(&named("a", "+"), Action::Write, "u/a/b"),
        "no way round a deny"
    );
    assert!(
        !acl.allows(&NOBODY, Action::Write, "u//b"),
        "%u is nothing without a name"
    );
    // Two placeholders, and a percent sign that is none.
    let acl = super::Acl::parse("pattern %u/%c/100%/%x").unwrap();
    assert!(acl.allows(&named("a", "b"), Action::Write, "a/b/100%/%x"));
}

#[test]
fn topics_may_contain_spaces_and_words() {
    let acl = acl("topic read\ntopic write my topic\ntopic two words\n\ttopic\tread\ttabs ");
    assert!(acl.allows(&NOBODY, Action::Write, "read"), "a topic called read");
    assert!(acl.allows(&NOBODY, Action::Write, "my topic"));
    assert!(!acl.allows(&NOBODY, Action::Read, "my topic"));
    assert!(acl.allows(&NOBODY, Action::Read, "two words"));
    assert!(acl.allows(&NOBODY, Action::Read, "tabs"));
    let acl = super::Acl::parse("user Jo Doe\ntopic t").unwrap();
    assert!(acl.allows(&named("Jo Doe", "c"), Action::Read, "t"));
}

#[test]
fn each_mistake_is_told_with_its_line() {
    let error = |text: &str| Acl::parse(text).unwrap_err().to_string();
    assert_eq!(error("\nuser\n"), "line 2: `user` needs a name");
    assert_eq!(error("topic"), "line 1: `topic` needs a topic filter");
    assert_eq!(
        error("# ok\ntopics a"),
        "line 2: 'topics' is none of user, topic and pattern"
    );
    assert_eq!(
        error("topic read a/#/b"),
        "line 1: 'a/#/b' is no topic filter: + must stand alone in its level and # alone in the last level"
    );
    assert!(error(&format!("topic {}", "x".repeat(ACL_LINE_BYTES_MAX))).contains("longer than"));
}

#[test]
fn a_subscription_is_granted_if_something_readable_could_come_of_it() {
    let acl = acl("user a\ntopic read home/+/temperature\ntopic write cmd/#\ntopic deny home/safe/#");
    let a = named("a", "c");
    for granted in [
        "#",
        "home/#",
        "home/+/temperature",
        "home/kitchen/temperature",
        "+/+/temperature",
    ] {
        assert!(acl.allows_subscription(&a, granted), "{granted}");
        assert!(
            acl.allows_subscription(&a, &format!("$share/g/{granted}")),
            "{granted}"
        );
    }
    for refused in [
        "cmd/#",
        "home",
        "home/x/humidity",
        "home/safe/#",
        "home/safe/temperature",
        "other",
    ] {
        assert!(!acl.allows_subscription(&a, refused), "{refused}");
        assert!(
            !acl.allows_subscription(&a, &format!("$share/g/{refused}")),
            "{refused}"
        );
    }
    assert!(!acl.allows_subscription(&a, "$share/g"));
    // What is hidden from wildcards is not read by them.
    let acl = super::Acl::parse("topic read $SYS/#").unwrap();
    assert!(!acl.allows_subscription(&NOBODY, "#") && acl.allows_subscription(&NOBODY, "$SYS/broker/+"));
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![Just("a"), Just("b"), Just("+"), Just("$x")];
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, rest)| {
        let mut filter = levels.join("/");
        if rest {
            filter.push_str("/#");
        }
        filter
    })
}

/// All topic names of up to four levels over a small alphabet.
fn names() -> Vec<String> {
    let mut names: Vec<String> = ["a", "b", "z", "$x"].map(String::from).to_vec();
    let mut last = names.clone();
    for _ in 0..4 {
        last = last
            .iter()
            .flat_map(|name| ["a", "b", "z", "$x"].map(|level| format!("{name}/{level}")))
            .collect();
        names.extend(last.iter().cloned());
    }
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn covering_and_overlapping_are_what_the_names_say(rule in filter(), other in filter()) {
        let names = names();
        let hit = |filter: &str| names.iter().filter(|name| matches(filter, name)).collect::<Vec<_>>();
        let (by_rule, by_other) = (hit(&rule), hit(&other));
        prop_assert_eq!(covers(&rule, &other), by_other.iter().all(|name| by_rule.contains(name)));
        prop_assert_eq!(overlap(&rule, &other), by_other.iter().any(|name| by_rule.contains(name)));
    }

    #[test]
    fn no_text_makes_it_panic(text in "(user|topic|pattern|deny|read| |\n|%u|%c|#|\\+|/|a){0,30}") {
        if let Ok(acl) = Acl::parse(&text) {
            let subject = named("u", "c");
            let read = acl.allows(&subject, Action::Read, "a/u");
            prop_assert!(!read || acl.allows_subscription(&subject, "a/u"));
        }
    }
}
