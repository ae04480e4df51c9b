//! The ten steps of `ermine cluster check`, each with its fault. Goal: whatever is wrong with the other node
//! is told at its step, in a sentence that no other fault has; and a check tries the way that links take,
//! TLS included. Method: a node that is played by the test, proves the cookie, and has one thing wrong
//! with it.

use std::time::{SystemTime, UNIX_EPOCH};

use ermine::admin::protocol::{Greeting, Reach, Reply, Request};
use ermine::cluster::wire::{self, VERSIONS, VersionRange};
use ermine::limits::CONTROL_FRAME_BYTES_MAX;
use ermine::node_name::{Incarnation, NodeId, NodeName};
use ermine::registry::client::Lease;
use ermine::registry::wire::{decode, encode, read_frame, write_frame};
use ermine::registry::{Announcement, CookieJar, Identity, Proved, Purpose, RegistryClient, prove_as_server};
use tokio::net::{TcpListener, TcpStream};

use crate::check::{cookie, fault, name, runtime};
use crate::harness::host::Host;
use crate::trust_tls::{Authority, start};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";
const GHOST: &str = "ghost@127.0.0.1";

/// What is wrong with the node that the test plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    Nothing,
    /// It speaks a later language of links, and says so.
    Version,
    /// It says the right thing, and its link speaks another language.
    LinkVersion,
    Cookie,
    Clock,
    WayBack,
    Mesh,
    /// What is sent does not come back as it was.
    CanaryChanged,
    /// What it sends does not come back to it.
    CanaryBack,
    /// Small packets pass, large ones do not.
    CanaryLost,
}

/// A node without a node: registered, and served for as long as this lives.
struct Ghost {
    wrong: Wrong,
    cookies: CookieJar,
    me: NodeId,
    _lease: Lease,
}

impl Ghost {
    async fn rise(host: &Host, wrong: Wrong) -> (Self, TcpListener) {
        let me = NodeId {
            name: name(GHOST),
            incarnation: Incarnation(1),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let announcement = Announcement {
            port: listener.local_addr().expect("an address").port(),
            listeners: Vec::new(),
        };
        let identity = Identity::node(me.clone());
        let client = RegistryClient::new(cookie(host), identity, host.registry_port);
        let contact = ([127, 0, 0, 1], host.registry_port).into();
        let lease = client.register(contact, announcement).await.expect("registered");
        let cookies = if wrong == Wrong::Cookie {
            ermine::registry::Cookie::random().expect("random").into()
        } else {
            cookie(host).into()
        };
        let ghost = Self {
            wrong,
            cookies,
            me,
            _lease: lease,
        };
        (ghost, listener)
    }

    async fn haunt(self, listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let doors = [Purpose::Control, Purpose::Link];
            match prove_as_server(&mut stream, &self.cookies, &doors, &self.me).await {
                Ok(Proved {
                    purpose: Purpose::Link,
                    ..
                }) => self.link(stream).await,
                Ok(_) => self.answer(stream).await,
                Err(_) => {}
            }
        }
    }

    async fn link(&self, mut stream: TcpStream) {
        let versions = match self.wrong {
            Wrong::LinkVersion => VersionRange { min: 8, max: 9 },
            _ => VERSIONS,
        };
        // Whatever comes of it, the other side hears what we speak.
        let _ = wire::agree(&mut stream, versions).await;
        let _ = wire::get(&mut stream).await;
    }

    async fn answer(&self, mut stream: TcpStream) {
        let Ok(body) = read_frame(&mut stream, CONTROL_FRAME_BYTES_MAX).await else {
            return;
        };
        let request = decode::<Request, CONTROL_FRAME_BYTES_MAX>(&body).expect("a request");
        let reply = match request {
            Request::Greet { .. } => Reply::Greeting(self.greeting()),
            Request::Reach { nodes, canary, .. } => Reply::Reached(self.reached(nodes, canary)),
            Request::Canary(bytes) if bytes.is_empty() => Reply::Canary(bytes),
            Request::Canary(_) if self.wrong == Wrong::CanaryLost => {
                // Until the other side gives up.
                let _ = read_frame(&mut stream, CONTROL_FRAME_BYTES_MAX).await;
                return;
            }
            Request::Canary(mut bytes) => {
                if self.wrong == Wrong::CanaryChanged {
                    bytes[1000] ^= 1;
                }
                Reply::Canary(bytes)
            }
            other => panic!("{other:?}"),
        };
        for reply in [reply, Reply::Done] {
            let body = encode::<CONTROL_FRAME_BYTES_MAX>(&reply).expect("encoded");
            // Who has given up reads no more.
            let _ = write_frame(&mut stream, &body).await;
        }
    }

    fn greeting(&self) -> Greeting {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let ahead = if self.wrong == Wrong::Clock { 37_000 } else { 0 };
        let newer = (VERSIONS.max + 1, VERSIONS.max + 2);
        let members = match self.wrong {
            Wrong::Mesh => vec![name("n8@127.0.0.8")],
            _ => Vec::new(),
        };
        Greeting {
            clock_ms: since_epoch.as_millis() as u64 + ahead,
            link_versions: match self.wrong {
                Wrong::Version => newer,
                _ => (VERSIONS.min, VERSIONS.max),
            },
            members,
        }
    }

    fn reached(&self, nodes: Vec<NodeName>, canary: bool) -> Vec<Reach> {
        let failed = match self.wrong {
            Wrong::WayBack if !canary => Some("the firewall says no".to_owned()),
            Wrong::CanaryBack if canary => Some("large packets are lost".to_owned()),
            _ => None,
        };
        let reach = |node| Reach {
            node,
            failed: failed.clone(),
        };
        nodes.into_iter().map(reach).collect()
    }
}

/// Checks the ghost: the last step that passed, and what is said.
fn check(host: &Host, wrong: Wrong) -> (String, String) {
    let runtime = runtime();
    let checked = std::thread::scope(|scope| {
        let (ghost, listener) = runtime.block_on(Ghost::rise(host, wrong));
        let checked = scope.spawn(|| {
            if wrong == Wrong::Nothing {
                let out = host.ok(&["cluster", "check", GHOST, "--node", N1]);
                return (vec!["canary".into()], out);
            }
            fault(host, N1, GHOST)
        });
        runtime.block_on(async {
            tokio::select! {
                () = ghost.haunt(listener) => {}
                () = async { while !checked.is_finished() { tokio::task::yield_now().await } } => {}
            }
        });
        checked.join().expect("checked")
    });
    let (steps, said) = checked;
    (steps.last().cloned().unwrap_or_default(), said)
}

#[test]
fn whatever_is_wrong_with_the_other_node_is_told_at_its_step() {
    let host = Host::new();
    let _n1 = host.start(N1);
    let mut sentences = Vec::new();
    for (wrong, last, said) in [
        (Wrong::Nothing, "canary", "n1@127.0.0.1 can join ghost@127.0.0.1"),
        (Wrong::Cookie, "registry", "cookie mismatch"),
        (Wrong::Version, "port", "upgrade the older one"),
        (Wrong::LinkVersion, "registry", "the other node speaks 8 to 9"),
        (Wrong::Clock, "cookie", "the clock of ghost@127.0.0.1 is "),
        (
            Wrong::WayBack,
            "clock",
            "does not reach this node: the firewall says no",
        ),
        (
            Wrong::Mesh,
            "way back",
            "n8@127.0.0.8, a member of the cluster of ghost",
        ),
        (Wrong::CanaryChanged, "mesh", "changed: a proxy is in between"),
        (
            Wrong::CanaryBack,
            "mesh",
            "the canary of ghost@127.0.0.1 was lost: large packets",
        ),
        (Wrong::CanaryLost, "mesh", "large packets are lost, check the MTU"),
    ] {
        let (passed, sentence) = check(&host, wrong);
        assert!(sentence.contains(said), "{wrong:?}: {sentence}");
        assert_eq!(passed, last, "{wrong:?}: {sentence}");
        sentences.push(sentence);
    }
    // Names, hosts, registries and ports are told apart in `check.rs`.
    sentences.sort_unstable();
    sentences.dedup();
    assert_eq!(sentences.len(), 10);
}

#[test]
fn a_check_between_nodes_with_certificates_tries_the_way_that_links_take() {
    let (host, authority) = (Host::new(), Authority::new());
    let n1 = start(&host, N1, &authority.issue(&host, "n1", "127.0.0.1"));
    let n2 = start(&host, N2, &authority.issue(&host, "n2", "127.0.0.1"));
    let out = host.ok(&["cluster", "check", N2, "--node", N1]);
    assert!(
        out.contains("links over TLS") && out.contains("can join"),
        "{out}"
    );
    assert_eq!(crate::running(&host, N1), [N1], "nothing was joined");
    for node in [&n1, &n2] {
        let log = node.log.all();
        assert!(!log.contains("turned away") && !log.contains("nodeup"), "{log}");
    }
    let _plain = host.start("n3@127.0.0.1");
    let (steps, sentence) = fault(&host, N1, "n3@127.0.0.1");
    assert_eq!(steps.last().map(String::as_str), Some("registry"), "{sentence}");
    assert!(
        sentence.contains("n3@127.0.0.1 closed when it was spoken to in TLS"),
        "{sentence}"
    );
    let (_, sentence) = fault(&host, "n3@127.0.0.1", N1);
    assert!(
        sentence.contains("n1@127.0.0.1 takes links over TLS only"),
        "{sentence}"
    );
    let foreign = Authority::new().issue(&host, "n4", "127.0.0.1");
    let _stranger = start(&host, "n4@127.0.0.1", &foreign);
    let (_, sentence) = fault(&host, N1, "n4@127.0.0.1");
    assert!(sentence.contains("no TLS with n4@127.0.0.1"), "{sentence}");
}
