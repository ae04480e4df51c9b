//! Each way to get a configuration wrong has its own sentence, and the sentence is what is tested.

use super::*;
use std::path::Path;

mod listeners;
mod store;

fn environment() -> Environment {
    Environment {
        home: Some("/home/kim".into()),
        cookie: None,
        registry_port: None,
    }
}

/// The configuration of a file with this text; errors name the file `e.toml`.
fn of_file(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.toml");
    std::fs::write(&path, text).unwrap();
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    let place = format!("{}/", folder.path().display());
    Config::load(&flags, &environment()).map_err(|error| error.to_string().replace(&place, ""))
}

fn refused(text: &str) -> String {
    of_file(text).unwrap_err()
}

fn of_flags(flags: &Flags) -> Result<Config, String> {
    Config::load(flags, &environment()).map_err(|error| error.to_string())
}

#[test]
fn without_file_and_flags_a_node_listens_on_loopback_only() {
    let config = of_flags(&Flags::default()).unwrap();
    assert_eq!(config.name.as_str(), "ermine@127.0.0.1");
    assert_eq!(
        config.listeners,
        [ListenerConfig::plain(
            "127.0.0.1:1883".parse().unwrap(),
            Limits::default()
        )]
    );
    assert_eq!(config.data_dir, Path::new("/home/kim/.ermine/ermine@127.0.0.1"));
    assert_eq!(config.cookie.to_string(), "/home/kim/.ermine.cookie");
    assert_eq!((config.registry_port, config.dist_port), (4366, 0));
    assert!(!config.allow_crash);
    assert!((1..=WORKER_THREADS_MAX).contains(&config.worker_threads));
}

const EVERY_KEY: &str = r#"
name = "n7@10.0.0.7"
cookie_file = "~/secret"
data_dir = "/var/lib/ermine"
registry_port = 5366
dist_port = 5367
allow_crash = true
worker_threads = 3
listener = [{ listen = "[::1]:1884" }, { listen = "mqtt.example:0" }]
[log]
format = "json"
level = "debug"
[limits]
connect_deadline_s = 5
packet_size_max = 0x1_0000
inflight_max = 1
receive_maximum = 2
queue_len_max = 3
queue_bytes_max = 4
topic_alias_max = 5
subscriptions_max = 6
session_expiry_max_s = 4_294_967_295
keep_alive_max_s = 7
"#;

#[test]
fn every_key_of_a_file_is_read() {
    let config = of_file(EVERY_KEY).unwrap();
    assert_eq!(config.name.as_str(), "n7@10.0.0.7");
    assert_eq!(config.cookie.to_string(), "/home/kim/secret");
    assert_eq!(config.data_dir, Path::new("/var/lib/ermine"));
    assert_eq!(
        (config.registry_port, config.dist_port, config.worker_threads),
        (5366, 5367, 3)
    );
    assert!(config.allow_crash);
    let shown: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| listener.listen.to_string())
        .collect();
    assert_eq!(shown, ["[::1]:1884", "mqtt.example:0"]);
    assert_eq!(
        config.log,
        LogConfig {
            format: LogFormat::Json,
            level: LogLevel::Debug
        }
    );
    assert_eq!(config.limits.connect_deadline.as_secs(), 5);
    let client = config.limits.client;
    assert_eq!(
        (
            client.packet_size_max,
            client.inflight_max,
            client.receive_maximum
        ),
        (65_536, 1, 2)
    );
    assert_eq!(
        (
            client.queue_len_max,
            client.queue_bytes_max,
            client.topic_alias_max
        ),
        (3, 4, 5)
    );
    let rest = (
        client.subscriptions_max,
        client.session_expiry_max_s,
        client.keep_alive_max_s,
    );
    assert_eq!(rest, (6, u32::MAX, 7));
}

#[test]
fn flags_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.toml");
    std::fs::write(
        &path,
        "name = \"a@h\"\ndist_port = 1\n[[listener]]\nlisten = \"0.0.0.0:1\"\n",
    )
    .unwrap();
    let flags = Flags {
        config: Some(path),
        name: Some("b@h".into()),
        listen: vec!["127.0.0.1:2".into(), "127.0.0.1:3".into()],
        cookie_file: Some("c".into()),
        log_format: Some("json".into()),
        ..Flags::default()
    };
    let config = of_flags(&flags).unwrap();
    assert_eq!((config.name.as_str(), config.dist_port), ("b@h", 1));
    let shown: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| listener.listen.to_string())
        .collect();
    assert_eq!(shown, ["127.0.0.1:2", "127.0.0.1:3"]);
    assert_eq!(config.cookie.to_string(), "c");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.data_dir, Path::new("/home/kim/.ermine/b@h"));
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_one_and_its_line() {
    assert_eq!(
        refused("\nnmae = \"a@h\"\n"),
        "e.toml:2: unknown key 'nmae'; did you mean 'name'?"
    );
    assert_eq!(
        refused("cookie-file = \"c\""),
        "e.toml:1: unknown key 'cookie-file'; did you mean 'cookie_file'?"
    );
    assert_eq!(
        refused("[[listener]]\nlisten = \"h:1\"\n[[listener]]\nlisen = \"h:2\""),
        "e.toml:4: unknown key 'lisen' in [[listener]]; did you mean 'listen'?"
    );
    assert_eq!(
        refused("level = \"info\""),
        "e.toml:1: unknown key 'level'; it belongs to [log]"
    );
    assert_eq!(
        refused("inflight = 3"),
        "e.toml:1: unknown key 'inflight'; did you mean 'inflight_max' of [limits]?"
    );
    assert_eq!(
        refused("[log]\nx = 1"),
        "e.toml:2: unknown key 'x' in [log]; the keys there are format, level"
    );
}

#[test]
fn a_wrong_type_says_what_is_wanted_and_what_was_found() {
    assert_eq!(
        refused("name = 7"),
        "e.toml:1: name must be a text in quotes, not a number"
    );
    assert_eq!(
        refused("allow_crash = \"yes\""),
        "e.toml:1: allow_crash must be true or false, not a text"
    );
    assert_eq!(
        refused("dist_port = \"7\""),
        "e.toml:1: dist_port must be a number from 0 to 65535, not a text"
    );
    assert_eq!(
        refused("log = \"text\""),
        "e.toml:1: log must be a section, [log], not a text"
    );
    assert_eq!(
        refused("[listener]\nlisten = \"h:1\""),
        "e.toml:1: listener must be a list of sections, [[listener]] with two brackets, not a section"
    );
    assert_eq!(
        refused("listener = [1]"),
        "e.toml:1: listener must be a list of sections, [[listener]] with two brackets, not a number"
    );
}

#[test]
fn a_value_out_of_range_says_the_range() {
    assert_eq!(
        refused("[limits]\n\ninflight_max = 0"),
        "e.toml:3: inflight_max must be a number from 1 to 65535, not 0"
    );
    assert_eq!(
        refused("dist_port = -1"),
        "e.toml:1: dist_port must be a number from 0 to 65535, not -1"
    );
    assert_eq!(
        refused("worker_threads = 1000"),
        "e.toml:1: worker_threads must be a number from 1 to 48, not 1000"
    );
    assert_eq!(
        refused("data_dir = \"\""),
        "e.toml:1: data_dir is empty; give a value or leave it out"
    );
    let level = refused("[log]\nlevel = \"loud\"");
    assert_eq!(
        level,
        "e.toml:2: level must be one of error, warn, info, debug, trace, not 'loud'"
    );
}

#[test]
fn a_malformed_name_or_address_says_its_form() {
    assert_eq!(
        refused("name = \"ermine\""),
        "e.toml:1: node name 'ermine' must have the form name@host, for example ermine@127.0.0.1"
    );
    let listen = |text: &str| refused(&format!("[[listener]]\nlisten = \"{text}\""));
    assert_eq!(
        listen("1883"),
        "e.toml:2: listen must be HOST:PORT, for example 127.0.0.1:1883, not '1883'"
    );
    assert_eq!(
        listen(":1883"),
        "e.toml:2: listen must be HOST:PORT, for example 127.0.0.1:1883, not ':1883'"
    );
    assert_eq!(
        listen("h:99999"),
        "e.toml:2: listen must end with a port from 0 to 65535, not '99999' as in 'h:99999'"
    );
    assert_eq!(
        listen("::1:1883"),
        "e.toml:2: listen must have an IPv6 address in brackets, for example [::1]:1883, not '::1:1883'"
    );
    assert_eq!(
        refused("[[listener]]"),
        "e.toml:1: [[listener]] needs an address, for example listen = \"127.0.0.1:1883\""
    );
    assert_eq!(
        refused("[[listener]]\nlisten=\"h:1\"\n[[listener]]\nlisten=\"h:1\""),
        "h:1 is listed twice; leave out one of the listeners"
    );
}

#[test]
fn what_is_not_toml_or_not_a_file_is_told_with_its_place() {
    assert!(refused("name = \"a@h\"\nname = \"b@h\"").starts_with("e.toml:2: not TOML: duplicate key"));
    assert!(refused("a = [").starts_with("e.toml:1: not TOML: "));
    let missing = Flags {
        config: Some("/nowhere/e.toml".into()),
        ..Flags::default()
    };
    let sentence = of_flags(&missing).unwrap_err();
    assert!(sentence.starts_with("cannot read the configuration file /nowhere/e.toml: No such file"));
    let endless = Flags {
        config: Some("/dev/zero".into()),
        ..Flags::default()
    };
    assert!(of_flags(&endless).unwrap_err().contains("larger than 1 MiB"));
}

#[test]
fn a_bad_flag_is_named() {
    let name = Flags {
        name: Some("x@y@z".into()),
        ..Flags::default()
    };
    assert!(
        of_flags(&name)
            .unwrap_err()
            .starts_with("--name: node name 'x@y@z' must have the form")
    );
    let listen = Flags {
        listen: vec!["x".into()],
        ..Flags::default()
    };
    assert!(
        of_flags(&listen)
            .unwrap_err()
            .starts_with("--listen must be HOST:PORT")
    );
    let level = Flags {
        log_level: Some("x".into()),
        ..Flags::default()
    };
    assert!(
        of_flags(&level)
            .unwrap_err()
            .starts_with("--log-level must be one of error, warn")
    );
    let threads = Flags {
        worker_threads: Some(0),
        ..Flags::default()
    };
    assert_eq!(
        of_flags(&threads).unwrap_err(),
        "--worker-threads must be from 1 to 48, not 0"
    );
}

#[test]
fn the_environment_names_the_cookie_and_the_registry_port() {
    let mut environment = environment();
    environment.cookie = Some("0123456789abcdef".to_owned().into());
    environment.registry_port = Some("14366".into());
    let config = Config::load(&Flags::default(), &environment).unwrap();
    assert_eq!(
        (config.cookie.to_string().as_str(), config.registry_port),
        ("ERMINE_COOKIE", 14_366)
    );
    assert!(
        !format!("{config:?}").contains("0123456789abcdef"),
        "the secret is never shown"
    );
    let flags = Flags {
        cookie_file: Some("c".into()),
        ..Flags::default()
    };
    let config = Config::load(&flags, &environment).unwrap();
    assert_eq!(config.cookie.to_string(), "c");
    environment.registry_port = Some("none".into());
    let sentence = Config::load(&flags, &environment).unwrap_err().to_string();
    assert_eq!(
        sentence,
        "ERMINE_REGISTRY_PORT must be a port from 1 to 65535, not 'none'"
    );
}

#[test]
fn without_a_home_the_missing_places_must_be_named() {
    let environment = Environment::default();
    let sentence = Config::load(&Flags::default(), &environment)
        .unwrap_err()
        .to_string();
    assert_eq!(
        sentence,
        "HOME is not set, so the data directory has no default place; name it with --data-dir"
    );
    let flags = Flags {
        data_dir: Some("d".into()),
        ..Flags::default()
    };
    let sentence = Config::load(&flags, &environment).unwrap_err().to_string();
    assert!(sentence.starts_with("there is no place for a cookie"));
}

#[test]
fn the_data_directory_is_made_and_a_file_in_its_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = folder.path().join("a/b");
    let flags = Flags {
        data_dir: Some(wanted.clone()),
        ..Flags::default()
    };
    of_flags(&flags).unwrap().prepare_data_dir().unwrap();
    assert!(wanted.is_dir());
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let flags = Flags {
        data_dir: Some(file),
        ..Flags::default()
    };
    let sentence = of_flags(&flags)
        .unwrap()
        .prepare_data_dir()
        .unwrap_err()
        .to_string();
    assert!(sentence.contains("cannot make the data directory") && sentence.contains("--data-dir"));
}

#[test]
fn limits_of_the_node_and_its_queues_are_read_and_told_as_they_are_written() {
    let limits = of_file(
        "[limits]\nqueue_policy = \"drop_oldest\"\nqueue_qos0 = true\nmessage_rate = 100\n\
         connections_max = 7\nretained_len_max = 9",
    );
    let limits = limits.unwrap().limits;
    assert_eq!(limits.retained.len_max, 9);
    let told = limits.effective();
    let value = |name: &str| {
        told.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| &**value)
    };
    assert_eq!(value("queue_policy"), Some("drop_oldest"));
    assert_eq!(value("queue_qos0"), Some("true"));
    assert_eq!(value("message_rate"), Some("100"));
    assert_eq!(value("byte_rate"), Some("0"));
    assert_eq!(value("connections_max"), Some("7"));
    assert_eq!(limits.of_listener().door.connections_max, 0, "that is the node's");
    assert_eq!(
        refused("[limits]\nqueue_policy = \"newest\""),
        "e.toml:2: queue_policy must be one of drop_newest, drop_oldest, not 'newest'"
    );
}

#[test]
fn shared_groups_have_a_strategy_for_all_and_one_for_each_that_is_named() {
    use crate::broker::desk::ShareStrategy;
    let config = of_file(
        r#"
        [shared_subscriptions]
        strategy = "sticky"
        [shared_subscriptions.groups]
        billing = "hash_topic"
        "#,
    )
    .unwrap();
    assert_eq!(config.sharing.of("any"), ShareStrategy::Sticky);
    assert_eq!(config.sharing.of("billing"), ShareStrategy::HashTopic);
    assert_eq!(of_file("").unwrap().sharing.of("any"), ShareStrategy::RoundRobin);
    assert_eq!(
        refused("[shared_subscriptions]\nstrategy = \"robin\""),
        "e.toml:2: strategy must be one of round_robin, random, sticky, hash_clientid, hash_topic, \
         not 'robin'"
    );
    assert!(refused("[shared_subscriptions]\nstrategies = \"random\"").contains("did you mean 'strategy'?"));
}

#[test]
fn a_listener_has_the_node_s_limits_but_for_what_it_says_itself() {
    let config = of_file(
        "[[listener]]\nlisten = \"h:1\"\nbyte_rate = 5\nconnections_max = 3\nqueue_qos0 = true\n\
         [[listener]]\nlisten = \"h:2\"\n\
         [limits]\nbyte_rate = 9\nmessage_rate = 8\nconnections_max = 7",
    );
    let config = config.unwrap();
    let [first, second] = &config.listeners[..] else {
        panic!("{:?}", config.listeners)
    };
    assert_eq!(
        (first.limits.client.byte_rate, first.limits.client.message_rate),
        (5, 8)
    );
    assert_eq!(
        (second.limits.client.byte_rate, second.limits.client.message_rate),
        (9, 8)
    );
    assert!(first.limits.client.queue_qos0 && !second.limits.client.queue_qos0);
    assert_eq!(
        (
            first.limits.door.connections_max,
            second.limits.door.connections_max
        ),
        (3, 0)
    );
    assert_eq!(config.limits.door.connections_max, 7);
    assert_eq!(
        refused("[[listener]]\nlisten = \"h:1\"\nretained_len_max = 3"),
        "e.toml:3: unknown key 'retained_len_max' in [[listener]]; it belongs to [limits]"
    );
}
