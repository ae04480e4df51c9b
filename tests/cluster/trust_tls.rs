//! TLS between nodes. Goal: links are encrypted between nodes whose certificates one authority has signed;
//! whoever lacks one, or sits in the middle with one, opens no link, and both sides say why. Method: real
//! nodes with certificates made by the test; a man in the middle with a certificate as good as theirs.

use std::path::PathBuf;

use ermine::cluster::stream::{LinkStream, LinkTls, LinkTlsFiles};
use ermine::mqtt::packet::QoS;
use ermine::registry::{HandshakeError, Identity, Proved, Purpose, prove_as_client};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::Options;
use crate::harness::host::{Host, Node, eventually};
use crate::trust::{cookie, own_port};
use crate::{await_route, running};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";

/// Signs the certificates of nodes.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for `host`, in files whose names begin with `name`.
    pub(crate) fn issue(&self, at: &Host, name: &str, host: &str) -> LinkTlsFiles {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let write = |kind: &str, text: String| -> PathBuf {
            let path = at.home().join(format!("{name}.{kind}"));
            std::fs::write(&path, text).expect("written");
            path
        };
        LinkTlsFiles {
            certificate: write("pem", certificate.pem()),
            key: write("key", key.serialize_pem()),
            ca: write("ca", self.pem.clone()),
        }
    }
}

pub(crate) fn start(host: &Host, name: &str, files: &LinkTlsFiles) -> Node {
    let LinkTlsFiles { certificate, key, ca } = files;
    let file = host.home().join(format!("{name}.toml"));
    let text = format!("[cluster]\ntls = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n");
    std::fs::write(&file, text).expect("written");
    host.start_with(name, &["--config", file.to_str().expect("a path of ours")])
}

#[track_caller]
fn join_fails(host: &Host, from: &str, to: &str, said: &str) {
    let (err, _) = host.fails(&["cluster", "join", to, "--node", from]);
    assert!(err.contains(said), "{said:?} is not in: {err}");
}

#[test]
fn nodes_with_certificates_of_one_authority_are_a_cluster() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue(&host, "both", "127.0.0.1");
    let (n1, n2) = (start(&host, N1, &files), start(&host, N2, &files));
    host.ok(&["cluster", "join", N2, "--node", N1]);
    assert_eq!(running(&host, N2), [N1, N2]);
    let mut subscriber = Options::new("s").connect(n2.mqtt);
    subscriber.subscribe("over/tls", QoS::AtLeastOnce);
    await_route(&host, N1, "over/tls", &[N2]);
    let mut publisher = Options::new("p").connect(n1.mqtt);
    // Longer than what TLS takes at once, and many.
    let long = "x".repeat(100_000);
    for number in 0..100 {
        publisher.publish("over/tls", &format!("{number} {long}"), QoS::AtLeastOnce);
    }
    for number in 0..100 {
        assert_eq!(subscriber.text(), format!("{number} {long}"));
    }
    // No link without it, whatever is proved.
    let plain = crate::trust::prove(own_port(&host, N1), &cookie(&host), Purpose::Link, N1);
    assert!(
        matches!(plain, Err(HandshakeError::WrongDoor { .. })),
        "{plain:?}"
    );
}

#[test]
fn a_node_without_certificates_and_one_with_them_both_say_so() {
    let (host, authority) = (Host::new(), Authority::new());
    let secure = start(&host, N1, &authority.issue(&host, "n1", "127.0.0.1"));
    let plain = host.start(N2);
    join_fails(
        &host,
        N1,
        N2,
        "n2@127.0.0.1 closed when it was spoken to in TLS: set [cluster] tls",
    );
    plain.await_log("its side", |line| {
        line.contains("it speaks TLS, and this node has no certificate")
    });
    join_fails(
        &host,
        N2,
        N1,
        "n1@127.0.0.1 takes links over TLS only: set [cluster] tls here too",
    );
    secure.await_log("its side", |line| line.contains("it wanted to link without TLS"));
}

#[test]
fn a_certificate_of_another_authority_or_host_opens_no_link() {
    let (host, authority) = (Host::new(), Authority::new());
    let n1 = start(&host, N1, &authority.issue(&host, "n1", "127.0.0.1"));
    let stranger = start(&host, N2, &Authority::new().issue(&host, "n2", "127.0.0.1"));
    join_fails(&host, N1, N2, "no TLS with n2@127.0.0.1");
    stranger.await_log("its side", |line| line.contains("no TLS with it"));
    let _elsewhere = start(&host, "n3@127.0.0.1", &authority.issue(&host, "n3", "127.0.0.9"));
    join_fails(&host, N1, "n3@127.0.0.1", "each for the host of its name");
    drop(n1);
}

#[test]
fn wrong_files_are_told_before_the_node_starts() {
    let (host, authority) = (Host::new(), Authority::new());
    let good = authority.issue(&host, "good", "127.0.0.1");
    let other_key = LinkTlsFiles {
        key: authority.issue(&host, "other", "127.0.0.1").key,
        ..good.clone()
    };
    let missing = LinkTlsFiles {
        ca: host.home().join("nowhere.pem"),
        ..good
    };
    for (files, said) in [
        (other_key, "belongs together"),
        (missing, "as ca of [cluster] tls"),
    ] {
        let sentence = LinkTls::load(&files).err().expect("refused");
        assert!(sentence.contains(said), "{sentence}");
    }
    let file = host.home().join("half.toml");
    std::fs::write(&file, "[cluster]\ntls = { key = \"k\" }\n").expect("written");
    let (err, status) = host.fails(&["check-config", file.to_str().expect("a path of ours")]);
    assert_eq!(status, 64);
    assert!(
        err.contains("half.toml:2: [cluster] tls has no certificate"),
        "{err}"
    );
}

/// One who has a certificate of the authority and not the cookie, between two who have both.
async fn relay(listener: TcpListener, tls: LinkTls, target: std::net::SocketAddr) {
    let (victim, _) = listener.accept().await.expect("accepted");
    let mut victim = tls.accept(victim).await.expect("TLS with the victim");
    let server = TcpStream::connect(target).await.expect("connected");
    let mut server = tls.connect("127.0.0.1", server).await.expect("TLS with the node");
    // Ends when either closes.
    let _ = tokio::io::copy_bidirectional(&mut victim, &mut server).await;
}

#[test]
fn a_man_in_the_middle_with_a_good_certificate_opens_no_link() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue(&host, "n1", "127.0.0.1");
    let n1 = start(&host, N1, &files);
    let (door, secret) = (own_port(&host, N1), cookie(&host));
    let victim = LinkTls::load(&files).expect("good");
    let insider = LinkTls::load(&authority.issue(&host, "insider", "127.0.0.1")).expect("good");
    let prove = async |at: std::net::SocketAddr| -> Result<Proved, HandshakeError> {
        let stream = TcpStream::connect(at).await.expect("connected");
        let mut stream = victim.connect("127.0.0.1", stream).await.expect("TLS");
        let expect = N1.parse().expect("a name");
        prove_as_client(
            &mut stream,
            &secret,
            Purpose::Link,
            &Identity::command(),
            Some(&expect),
        )
        .await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let direct = prove(door).await;
        assert!(direct.is_ok(), "{direct:?}");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let at = listener.local_addr().expect("an address");
        let (relayed, ()) = tokio::join!(prove(at), relay(listener, insider, door));
        let refused = matches!(relayed, Err(HandshakeError::CookieMismatch { .. }));
        assert!(refused, "{relayed:?}");
    });
    n1.await_log("its side", |line| line.contains("turned away: cookie mismatch"));
}

/// The certificate that a node shows on its own port to one whose files are these.
fn shown(host: &Host, node: &str, files: &LinkTlsFiles) -> Vec<u8> {
    let door = own_port(host, node);
    let tls = LinkTls::load(files).expect("good");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stream = TcpStream::connect(door).await.expect("connected");
        let LinkStream::Tls(stream, _) = tls.connect("127.0.0.1", stream).await.expect("TLS") else {
            panic!("not encrypted")
        };
        let chain = stream.get_ref().1.peer_certificates().expect("a certificate");
        chain[0].to_vec()
    })
}

/// What the nodes read: the same certificate for both, in the same places.
fn put(files: &LinkTlsFiles, from: &LinkTlsFiles, authorities: &[&Authority]) {
    std::fs::copy(&from.certificate, &files.certificate).expect("copied");
    std::fs::copy(&from.key, &files.key).expect("copied");
    let ca: String = authorities
        .iter()
        .map(|authority| authority.pem.as_str())
        .collect();
    std::fs::write(&files.ca, ca).expect("written");
}

#[test]
fn certificates_and_their_authority_are_replaced_without_dropping_a_link() {
    let (host, old, new) = (Host::new(), Authority::new(), Authority::new());
    let files = old.issue(&host, "both", "127.0.0.1");
    let (first, second) = (
        old.issue(&host, "first", "127.0.0.1"),
        new.issue(&host, "second", "127.0.0.1"),
    );
    put(&files, &first, &[&old]);
    let (n1, n2) = (start(&host, N1, &files), start(&host, N2, &files));
    host.ok(&["cluster", "join", N2, "--node", N1]);
    let before = shown(&host, N1, &files);
    // Trust both authorities, then change the certificates, then trust the new one alone.
    for (issued, authorities) in [
        (&first, &[&old, &new][..]),
        (&second, &[&old, &new]),
        (&second, &[&new]),
    ] {
        put(&files, issued, authorities);
        for name in [N1, N2] {
            let said = host.ok(&["reload", "--node", name]);
            assert!(said.contains("links: certificate and ca read again"), "{said}");
        }
    }
    assert_ne!(shown(&host, N1, &files), before);
    assert_eq!(running(&host, N1), [N1, N2]);
    for node in [&n1, &n2] {
        let log = node.log.all();
        assert!(
            !log.contains("nodedown") && !log.contains("over a new connection"),
            "{log}"
        );
    }
    // What is wrong is told, and what was read before stays.
    std::fs::write(&files.certificate, "no certificate").expect("written");
    let (err, _) = host.fails(&["reload", "--node", N1]);
    assert!(
        err.contains("links: ") && err.contains("the certificate in use is kept"),
        "{err}"
    );
    put(&files, &second, &[&new]);
    // A link that is opened now is opened with them.
    let mark = n2.log.len();
    host.ok(&["crash", "root/cluster/dist", "--node", N1]);
    n2.log.wait_after(mark, "a new connection", |line| {
        line.contains("is back over a new connection") || line.contains("nodeup n1")
    });
    eventually("both run", || (running(&host, N2).len() == 2).then_some(()));
    let stranger = start(&host, "n3@127.0.0.1", &old.issue(&host, "n3", "127.0.0.1"));
    join_fails(&host, N1, "n3@127.0.0.1", "no TLS with n3@127.0.0.1");
    drop(stranger);
}

/// The ports on which a process listens, from `/proc`.
fn listening(pid: u32) -> Vec<u16> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let links = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let sockets: Vec<String> = links.map(|link| link.display().to_string()).collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("the table");
    let port_of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let own = sockets.contains(&format!("socket:[{}]", fields.get(9)?));
        let port = fields.get(1)?.split(':').nth(1)?;
        (own && fields[3] == "0A").then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().filter_map(port_of).collect()
}

#[test]
fn the_carrier_s_own_port_lets_nobody_in() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue(&host, "n1", "127.0.0.1");
    let n1 = start(&host, N1, &files);
    let known = [n1.mqtt.port(), own_port(&host, N1).port(), host.registry_port];
    let mut ports = listening(n1.pid());
    assert!(
        known.iter().all(|port| ports.contains(port)),
        "{known:?} in {ports:?}"
    );
    ports.retain(|port| !known.contains(port));
    assert_eq!(ports.len(), 1, "ractor's: {ports:?}");
    let tls = LinkTls::load(&files).expect("good");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let stream = TcpStream::connect(("127.0.0.1", ports[0]))
            .await
            .expect("connected");
        let refused = tls
            .connect("127.0.0.1", stream)
            .await
            .expect_err("no certificate");
        assert!(refused.to_string().contains("alert"), "{refused}");
        // What ractor itself would say first, in the clear: the length of a frame, and a frame.
        let mut stream = TcpStream::connect(("127.0.0.1", ports[0]))
            .await
            .expect("connected");
        let frame = [&8_u64.to_be_bytes()[..], b"nonsense"].concat();
        stream.write_all(&frame).await.expect("sent");
        let mut answer = Vec::new();
        // An alert of TLS or nothing; then it is closed.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02x?}");
    });
}
