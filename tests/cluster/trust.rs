//! Who is let in between nodes. Goal: what was said in one handshake is worth nothing in another one, and
//! whoever guesses is not listened to for long. Method: raw sockets against a node's own port; an attacker
//! in the middle records, changes or forwards what the two sides say.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;

use ermine::registry::{Cookie, HandshakeError, Identity, Proved, Purpose, prove_as_client};

use crate::harness::host::{Host, Node};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";

/// What a server answers to a wrong proof: docs/PROTOCOL.md, `Refused`.
const REFUSED: [u8; 2] = [5, 1];

pub(crate) fn own_port(host: &Host, name: &str) -> SocketAddr {
    let names = host.json(&["names"]);
    let found = names
        .as_array()
        .expect("an array")
        .iter()
        .find(|row| row["name"] == name);
    let port = found.and_then(|row| row["port"].as_u64()).expect("a port");
    SocketAddr::from(([127, 0, 0, 1], port as u16))
}

pub(crate) fn cookie(host: &Host) -> Cookie {
    Cookie::load(&host.home().join(".ermine.cookie")).expect("the node made it")
}

/// The honest client, which dials `at` and wants to reach `expect`.
pub(crate) fn prove(
    at: SocketAddr,
    cookie: &Cookie,
    purpose: Purpose,
    expect: &str,
) -> Result<Proved, HandshakeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut stream = tokio::net::TcpStream::connect(at).await.expect("connected");
        let expect = expect.parse().expect("a name");
        prove_as_client(&mut stream, cookie, purpose, &Identity::command(), Some(&expect)).await
    })
}

fn send(stream: &mut TcpStream, frame: &[u8]) {
    let len = (frame.len() as u32).to_be_bytes();
    stream.write_all(&[&len[..], frame].concat()).expect("sent");
}

/// `None`: the other side closed.
fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

type Frames = Vec<Vec<u8>>;

/// An attacker at a port of its own: forwards one handshake to `target`, frame by frame, after `change`.
/// Joined, it tells the frames of the client and those of the server.
struct Middle {
    at: SocketAddr,
    done: JoinHandle<(Frames, Frames)>,
}

impl Middle {
    fn before(target: SocketAddr, change: fn(&mut [u8])) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let at = listener.local_addr().expect("an address");
        let done = std::thread::spawn(move || {
            let (mut victim, _) = listener.accept().expect("accepted");
            let mut server = TcpStream::connect(target).expect("connected");
            let (mut said, mut answered) = (Vec::new(), Vec::new());
            while let Some(mut frame) = receive(&mut victim) {
                said.push(frame.clone());
                change(&mut frame);
                send(&mut server, &frame);
                let Some(answer) = receive(&mut server) else {
                    let _ = victim.shutdown(Shutdown::Both);
                    break;
                };
                send(&mut victim, &answer);
                answered.push(answer);
            }
            (said, answered)
        });
        Self { at, done }
    }

    fn heard(self) -> (Frames, Frames) {
        self.done.join().expect("the attacker did not fail")
    }
}

#[test]
fn a_recorded_handshake_opens_nothing_a_second_time() {
    let host = Host::new();
    let n1 = host.start(N1);
    let door = own_port(&host, N1);
    for purpose in [Purpose::Control, Purpose::Link] {
        let middle = Middle::before(door, |_| ());
        prove(middle.at, &cookie(&host), purpose, N1).expect("recorded while it succeeds");
        let (said, _) = middle.heard();
        assert_eq!(said.len(), 2, "hello and proof");
        let mark = n1.log.len();
        let mut replay = TcpStream::connect(door).expect("connected");
        send(&mut replay, &said[0]);
        receive(&mut replay).expect("a challenge with a fresh nonce");
        send(&mut replay, &said[1]);
        assert_eq!(receive(&mut replay).as_deref(), Some(&REFUSED[..]));
        assert_eq!(receive(&mut replay), None, "then it is closed");
        n1.log
            .wait_after(mark, "the refusal", |line| line.contains("cookie mismatch"));
    }
    host.ok(&["status"]);
}

#[test]
fn a_proof_for_one_node_opens_no_other() {
    let host = Host::new();
    let (n1, n2) = (host.start(N1), host.start(N2));
    // The victim wants n1; whoever answers there relays it to n2.
    let middle = Middle::before(own_port(&host, N2), |_| ());
    let mark = n2.log.len();
    let ended = prove(middle.at, &cookie(&host), Purpose::Link, N1);
    assert!(
        matches!(ended, Err(HandshakeError::WrongNode { .. })),
        "{ended:?}"
    );
    n2.log.wait_after(mark, "its side", |line| {
        line.contains("turned away") && line.contains("n2@127.0.0.1 was reached, not n1@127.0.0.1")
    });
    drop(n1);
}

#[test]
fn a_relay_that_changes_purpose_name_or_nonce_proves_nothing() {
    let host = Host::new();
    let _n1 = host.start(N1);
    let door = own_port(&host, N1);
    // Hello has the purpose at byte 9 and the nonce from 10 on.
    let to_link = |frame: &mut [u8]| {
        if frame[0] == 1 {
            frame[9] = 1;
        }
    };
    let other_nonce = |frame: &mut [u8]| {
        if frame[0] == 1 {
            frame[10] ^= 1;
        }
    };
    // ClientProof ends with `expect` and the 32 bytes of the proof: the host's last digit.
    let other_name = |frame: &mut [u8]| {
        if frame[0] == 3 {
            let last = frame.len() - 33;
            frame[last] = b'2';
        }
    };
    let changes: [fn(&mut [u8]); 3] = [to_link, other_nonce, other_name];
    for change in changes {
        let middle = Middle::before(door, change);
        let ended = prove(middle.at, &cookie(&host), Purpose::Control, N1);
        assert!(
            matches!(ended, Err(HandshakeError::CookieMismatch { .. })),
            "{ended:?}"
        );
        let (_, answered) = middle.heard();
        assert_eq!(answered.last().map(Vec::as_slice), Some(&REFUSED[..]));
    }
}

/// An address of this host that is not loopback. No packet is sent.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn an_address_that_fails_to_prove_the_cookie_too_often_is_not_listened_to() {
    let Some(address) = outer_address() else {
        eprintln!("skipped: this host has no address but loopback, which is never barred");
        return;
    };
    let host = Host::new();
    let name = format!("n1@{address}");
    let n1: Node = host.start(&name);
    let door = SocketAddr::new(address, own_port(&host, &name).port());
    let wrong = Cookie::from_text("another-cookie-of-decent-length").expect("a cookie");
    for attempt in 0..ermine::limits::PROOF_FAILURES_MAX {
        let ended = prove(door, &wrong, Purpose::Link, &name);
        assert!(
            matches!(ended, Err(HandshakeError::CookieMismatch { .. })),
            "{attempt}: {ended:?}"
        );
    }
    // From here on not even the right one is heard.
    for _ in 0..3 {
        let ended = prove(door, &cookie(&host), Purpose::Control, &name);
        let closed = matches!(
            ended,
            Err(HandshakeError::Closed { .. } | HandshakeError::Io { .. })
        );
        assert!(closed, "{ended:?}");
    }
    n1.await_log("who was not heard", |line| {
        line.contains("closed unheard") && line.contains("failed to prove the cookie too often")
    });
    // Loopback is another address, and the bar is lifted when the window is over.
    let local = SocketAddr::new([127, 0, 0, 1].into(), door.port());
    prove(local, &cookie(&host), Purpose::Control, &name).expect("heard");
    crate::harness::host::eventually("the window is over", || {
        prove(door, &cookie(&host), Purpose::Control, &name).ok()
    });
}
