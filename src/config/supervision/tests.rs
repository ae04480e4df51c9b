//! What can be said in `[supervision]`, and the sentence for each mistake.

use super::*;
use crate::config::{Config, Environment, Flags};

fn of_file(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.toml");
    std::fs::write(&path, text).unwrap();
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    let environment = Environment {
        home: Some("/home/kim".into()),
        ..Environment::default()
    };
    let place = format!("{}/", folder.path().display());
    Config::load(&flags, &environment).map_err(|error| error.to_string().replace(&place, ""))
}

fn refused(line: &str) -> String {
    of_file(&format!("[supervision]\n{line}\n")).unwrap_err()
}

#[test]
fn an_intensity_can_be_set_for_each_supervisor_and_the_others_keep_theirs() {
    let config = of_file(
        "[supervision]\ncore = { restarts = 50, period_ms = 1500 }\nroot = { restarts = 0, period_ms = 1 }",
    );
    let supervision = config.unwrap().supervision;
    let core = Intensity {
        restarts: 50,
        period: Duration::from_millis(1500),
    };
    assert_eq!(supervision.of("core"), Some(core));
    assert_eq!(supervision.of("root").map(|root| root.restarts), Some(0));
    assert_eq!(supervision.of("topics"), None);
}

#[test]
fn what_was_set_is_what_the_tree_would_be_started_with() {
    let lines = SUPERVISORS.map(|name| format!("{name} = {{ restarts = 77, period_ms = 7000 }}\n"));
    let config = of_file(&format!("[supervision]\n{}", lines.concat())).unwrap();
    let changed = crate::node::outline(config).unwrap();
    let ids = changed.iter().filter(|outline| {
        outline
            .intensity
            .is_some_and(|intensity| intensity == Intensity::new(77, 7))
    });
    let mut ids: Vec<_> = ids.map(|outline| &*outline.id).collect();
    ids.sort_unstable();
    let mut all = SUPERVISORS;
    all.sort_unstable();
    assert_eq!(ids, all, "each key is the id of a supervisor, and reaches it");
}

#[test]
fn each_mistake_has_its_sentence() {
    let lacking = "e.toml:2: core lacks period_ms: an intensity is so many restarts in such a time, \
                   for example core = { restarts = 5, period_ms = 60000 }";
    let number =
        "e.toml:2: core must be an intensity, for example core = { restarts = 5, period_ms = 60000 }";
    let cases = [
        ("core = { restarts = 5 }", lacking),
        ("core = 5", number),
        (
            "core = { restarts = -1, period_ms = 1 }",
            "e.toml:2: restarts must be a number from 0 to 10000, not -1",
        ),
        (
            "core = { restarts = 1, period_ms = 0 }",
            "e.toml:2: period_ms must be a number from 1 to 86400000, not 0",
        ),
        (
            "core = { restarts = 1, period_ms = 1.5 }",
            "e.toml:2: period_ms must be a number from 1 to 86400000, not a number with a fraction",
        ),
        (
            "core = { restarts = 1, period = 1 }",
            "e.toml:2: unknown key 'period' in an intensity of [supervision]; did you mean 'period_ms'?",
        ),
        (
            "topic = { restarts = 1, period_ms = 1 }",
            "e.toml:2: unknown key 'topic' in [supervision]; did you mean 'topics'?",
        ),
        (
            "xyz = { restarts = 1, period_ms = 1 }",
            "e.toml:2: unknown key 'xyz' in [supervision]; the keys there are root, core, topics, sessions, \
             doors, cluster, admin",
        ),
    ];
    for (line, sentence) in cases {
        assert_eq!(refused(line), sentence);
    }
}
