//! The tour with mosquitto_pub, mosquitto_sub and mosquitto_rr, as they are used on a command line.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::PATIENCE;
use crate::harness::host::text;
use crate::rig::{Place, Steps, installed};
use crate::rumqttc_both::{name, settle};

const VERSIONS: [(&str, &str); 3] = [("mqttv31", "3.1"), ("mqttv311", "3.1.1"), ("mqttv5", "5.0")];

/// One of the commands with a version.
pub(crate) struct Mosquitto<'a> {
    pub(crate) place: &'a Place,
    pub(crate) version: &'a str,
    /// The port of a door with TLS, and the file of the authority of its certificate.
    pub(crate) door: Option<(u16, &'a str)>,
}

impl Mosquitto<'_> {
    fn is_v5(&self) -> bool {
        self.version == "mqttv5"
    }

    fn command(&self, program: &str, port: u16, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let port = self.door.map_or(port, |(secure, _)| secure);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", self.version]);
        if let Some((_, ca)) = self.door {
            command.args(["--cafile", ca]);
        }
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Publishes; fails if mosquitto_pub does.
    #[track_caller]
    fn publish(&self, arguments: &[&str]) {
        let port = self.place.publish().port();
        let output = self.command("mosquitto_pub", port, arguments).output();
        done(output.expect("mosquitto_pub runs"));
    }

    /// Starts a subscriber that gives up after a while.
    fn spawn(&self, arguments: &[&str]) -> Child {
        let patience = PATIENCE.as_secs().to_string();
        let mut command = self.command("mosquitto_sub", self.place.subscribe().port(), arguments);
        command.args(["-W", &patience]);
        command.spawn().expect("mosquitto_sub runs")
    }

    /// Starts a subscriber of a filter of its own, and awaits that publishers reach it.
    fn subscribe(&self, filter: &str, arguments: &[&str]) -> Child {
        let mut all = vec!["-t", filter];
        all.extend(arguments);
        let child = self.spawn(&all);
        settle(self.place, filter);
        child
    }
}

/// Standard output of a command that must have succeeded.
#[track_caller]
fn done(output: Output) -> String {
    let err = text(&output.stderr);
    assert!(output.status.success(), "{}: {err}", output.status);
    assert!(err.is_empty(), "{err}");
    text(&output.stdout)
}

/// The lines that a subscriber wrote until it had all it waited for.
#[track_caller]
fn lines(child: Child) -> Vec<String> {
    let out = done(child.wait_with_output().expect("mosquitto_sub ends"));
    out.lines().map(str::to_owned).collect()
}

#[test]
fn mosquitto_speaks_all_versions() {
    if installed("mosquitto").is_none() {
        return;
    }
    for place in [Place::one_node(), Place::two_nodes()] {
        let nodes = if place.nodes.len() > 1 { ", two nodes" } else { "" };
        for (version, told) in VERSIONS {
            let mut steps = Steps::new(&format!("mosquitto {told}{nodes}"));
            let it = Mosquitto {
                place: &place,
                version,
                door: None,
            };
            alike(&mut steps, &it);
            if place.nodes.len() == 1 {
                on_one_node(&mut steps, &it);
            }
            if it.is_v5() {
                only_v5(&mut steps, &it);
            }
            steps.finish();
        }
    }
}

#[test]
fn mosquitto_needs_the_right_password() {
    if installed("mosquitto").is_none() {
        return;
    }
    let place = Place::with_password();
    let mut steps = Steps::new("mosquitto, password");
    for (version, told) in VERSIONS {
        let it = Mosquitto {
            place: &place,
            version,
            door: None,
        };
        steps.step(
            &format!("{told}: only the right name and password are let in"),
            || {
                let message = ["-t", "t", "-m", "x", "-q", "1"];
                it.publish(&[&message[..], &["-u", "ann", "-P", "secret"]].concat());
                for wrong in [
                    &["-u", "ann", "-P", "wrong"][..],
                    &["-u", "nobody", "-P", "secret"],
                    &[],
                ] {
                    let mut command = it.command("mosquitto_pub", place.publish().port(), &message);
                    let output = command.args(wrong).output().expect("mosquitto_pub runs");
                    assert!(!output.status.success(), "{wrong:?} was let in");
                }
            },
        );
    }
    steps.finish();
}

/// Through a door of its own.
pub(crate) fn through(steps: &mut Steps, it: &Mosquitto<'_>) {
    alike(steps, it);
    only_v5(steps, it);
    steps.step("a certificate of an unknown authority is not trusted", || {
        let mut command = Command::new("mosquitto_pub");
        let (port, _) = it.door.expect("a door with TLS");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-t",
            "t",
            "-m",
            "x",
            "--tls-use-os-certs",
        ]);
        assert!(!command.output().expect("mosquitto_pub runs").status.success());
    });
}

fn alike(steps: &mut Steps, it: &Mosquitto<'_>) {
    steps.step(
        "QoS 0, 1 and 2 in both directions: the lower of both holds",
        || qos(it),
    );
    steps.step("two thousand lines at QoS 1 and 2 in order without loss", || {
        flow(it)
    });
    steps.step("large (900 kB) and empty payloads", || payloads(it));
    steps.step("topics in every script, wildcards", || topics(it));
    steps.step("a will when the client is killed", || will(it));
    steps.step(
        "a persistent session keeps messages while its client is away",
        || away(it),
    );
}

fn on_one_node(steps: &mut Steps, it: &Mosquitto<'_>) {
    steps.step("retained: set, cleared", || retained(it));
    steps.step("shared: three members get each message once", || shared(it));
    steps.step("$SYS", || {
        let sub = it.spawn(&["-t", "$SYS/broker/version", "-C", "1"]);
        assert!(lines(sub)[0].contains("rmine"));
    });
}

fn only_v5(steps: &mut Steps, it: &Mosquitto<'_>) {
    steps.step("properties arrive as they were sent", || properties(it));
    steps.step("mosquitto_rr gets its response", || request(it));
    steps.step(
        "a topic alias of the client, an expiry that is counted down",
        || alias(it),
    );
}

fn qos(it: &Mosquitto<'_>) {
    for granted in 0..3 {
        let topic = name("qos");
        let filter = format!("{topic}/+");
        let asked = granted.to_string();
        let sub = it.subscribe(&filter, &["-q", &asked, "-F", "%t %q %r %p", "-C", "3"]);
        let mut wanted = Vec::new();
        for sent in 0..3 {
            let to = format!("{topic}/{sent}");
            it.publish(&["-t", &to, "-q", &sent.to_string(), "-m", "hello"]);
            wanted.push(format!("{to} {} 0 hello", sent.min(granted)));
        }
        assert_eq!(lines(sub), wanted);
    }
}

fn flow(it: &Mosquitto<'_>) {
    for qos in ["1", "2"] {
        let topic = name("flow");
        let sub = it.subscribe(&topic, &["-q", "2", "-C", "2000"]);
        let port = it.place.publish().port();
        let mut command = it.command("mosquitto_pub", port, &["-t", &topic, "-q", qos, "-l"]);
        let mut publisher = command.stdin(Stdio::piped()).spawn().expect("mosquitto_pub runs");
        let mut input = publisher.stdin.take().expect("piped");
        let wanted: Vec<_> = (0..2000).map(|number| number.to_string()).collect();
        writeln!(input, "{}", wanted.join("\n")).expect("written");
        drop(input);
        assert_eq!(lines(sub), wanted, "QoS {qos}");
        done(publisher.wait_with_output().expect("mosquitto_pub ends"));
    }
}

fn payloads(it: &Mosquitto<'_>) {
    let topic = name("size");
    let file = it.place.host.home().join("large");
    let large = "x".repeat(900_000);
    std::fs::write(&file, &large).expect("written");
    let sub = it.subscribe(&topic, &["-q", "2", "-C", "2", "-F", "%l %p"]);
    it.publish(&["-t", &topic, "-q", "2", "-f", file.to_str().expect("text")]);
    it.publish(&["-t", &topic, "-q", "2", "-n"]);
    assert_eq!(lines(sub), [format!("900000 {large}"), "0 ".to_string()]);
}

fn topics(it: &Mosquitto<'_>) {
    let topic = name("unicode");
    let filter = format!("{topic}/+/gęślą/#");
    let sub = it.subscribe(&filter, &["-C", "3", "-v"]);
    let matching = ["東京/gęślą/気温", "🦦/gęślą", "/gęślą//a"].map(|end| format!("{topic}/{end}"));
    it.publish(&["-t", &format!("{topic}/other"), "-m", "unheard"]);
    for to in &matching {
        it.publish(&["-t", to, "-m", "heard", "-q", "1"]);
    }
    assert_eq!(lines(sub), matching.map(|to| format!("{to} heard")));
}

fn will(it: &Mosquitto<'_>) {
    let (topic, own) = (name("will"), name("own"));
    let watcher = it.subscribe(&topic, &["-C", "1", "-F", "%q %p", "-q", "1"]);
    let mut dying = it.subscribe(
        &own,
        &[
            "--will-topic",
            &topic,
            "--will-payload",
            "gone",
            "--will-qos",
            "1",
        ],
    );
    dying.kill().expect("killed");
    dying.wait().expect("reaped");
    assert_eq!(lines(watcher), ["1 gone"]);
}

fn away(it: &Mosquitto<'_>) {
    let (topic, id) = (name("offline"), name("away"));
    let stays = if it.is_v5() {
        vec!["-x", "60", "-c"]
    } else {
        vec!["-c"]
    };
    let me = ["-i", &id, "-t", &topic, "-q", "2"];
    // -E: it leaves as soon as it has subscribed.
    lines(it.spawn(&[&me[..], &stays, &["-E"]].concat()));
    settle(it.place, &topic);
    for number in 0..20 {
        let qos = (1 + number % 2).to_string();
        it.publish(&["-t", &topic, "-q", &qos, "-m", &number.to_string()]);
    }
    let mut got = lines(it.spawn(&[&me[..], &stays, &["-C", "20"]].concat()));
    // libmosquitto hands on QoS 2 with its PUBREL, so after QoS 1 that was sent later.
    got.sort_by_key(|line| line.parse::<u32>().expect("a number"));
    assert_eq!(
        got,
        (0..20).map(|number: u32| number.to_string()).collect::<Vec<_>>()
    );
}

fn retained(it: &Mosquitto<'_>) {
    let topic = name("retained");
    it.publish(&["-t", &topic, "-m", "kept", "-r", "-q", "1"]);
    let sub = it.spawn(&["-t", &topic, "-C", "1", "-F", "%r %q %p", "-q", "2"]);
    assert_eq!(lines(sub), ["1 1 kept"]);
    it.publish(&["-t", &topic, "-r", "-n", "-q", "1"]);
    // What comes after a cleared one is live.
    let sub = it.subscribe(&topic, &["-C", "1", "-F", "%r %p"]);
    it.publish(&["-t", &topic, "-m", "live"]);
    assert_eq!(lines(sub), ["0 live"]);
}

fn shared(it: &Mosquitto<'_>) {
    let topic = name("jobs");
    let filter = format!("$share/group/{topic}");
    let end = name("end");
    let members: Vec<_> = (0..3)
        .map(|number| {
            // A filter of its own, subscribed last, tells when it is there.
            let own = format!("{end}/{number}/#");
            let member = it.spawn(&["-t", &filter, "-t", &own, "-C", "21", "-q", "1"]);
            settle(it.place, &own);
            member
        })
        .collect();
    for number in 0..60 {
        it.publish(&["-t", &topic, "-q", "1", "-m", &number.to_string()]);
    }
    for number in 0..3 {
        it.publish(&["-t", &format!("{end}/{number}/x"), "-q", "1", "-m", "end"]);
    }
    let mut all: Vec<_> = members.into_iter().flat_map(lines).collect();
    all.retain(|line| line != "end");
    all.sort_by_key(|line| line.parse::<u32>().expect("a number"));
    assert_eq!(
        all,
        (0..60).map(|number: u32| number.to_string()).collect::<Vec<_>>()
    );
}

fn properties(it: &Mosquitto<'_>) {
    let topic = name("properties");
    let sub = it.subscribe(&topic, &["-C", "1", "-F", "%C|%D|%F|%R|%P|%p", "-q", "2"]);
    let sent = [
        ["content-type", "text/plain"],
        ["correlation-data", "42"],
        ["payload-format-indicator", "1"],
        ["response-topic", "answers/here"],
    ];
    let mut arguments = vec!["-t", &topic, "-q", "2", "-m", "hello"];
    for [key, value] in &sent {
        arguments.extend(["-D", "publish", key, value]);
    }
    for (key, value) in [("b", "2"), ("a", "1"), ("a", "ü")] {
        arguments.extend(["-D", "publish", "user-property", key, value]);
    }
    it.publish(&arguments);
    assert_eq!(lines(sub), ["text/plain|42|1|answers/here|b:2 a:1 a:ü|hello"]);
}

fn request(it: &Mosquitto<'_>) {
    let (topic, answers) = (name("ask"), name("answers"));
    let asked = it.subscribe(&topic, &["-C", "1", "-F", "%R %p"]);
    let arguments = ["-t", &topic, "-e", &answers, "-m", "question", "-W", "20"];
    let mut asker = it.command("mosquitto_rr", it.place.subscribe().port(), &arguments);
    let asker = asker.spawn().expect("mosquitto_rr runs");
    assert_eq!(lines(asked), [format!("{answers} question")]);
    settle(it.place, &answers);
    it.publish(&["-t", &answers, "-m", "answer", "-q", "1"]);
    assert_eq!(lines(asker), ["answer"]);
}

fn alias(it: &Mosquitto<'_>) {
    let topic = name("alias");
    let sub = it.subscribe(&topic, &["-C", "1", "-F", "%t %E %p", "-q", "1"]);
    let expiry = ["-D", "publish", "message-expiry-interval", "100"];
    let alias = ["-D", "publish", "topic-alias", "3"];
    it.publish(&[&["-t", &topic, "-q", "1", "-m", "hello"][..], &expiry, &alias].concat());
    let got = lines(sub);
    let wanted = [100, 99].map(|left| format!("{topic} {left} hello"));
    assert!(wanted.contains(&got[0]), "{got:?}");
}
