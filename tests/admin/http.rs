//! HTTP by hand, so that every header is seen; and a node with its admin API switched on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::harness::PATIENCE;
use crate::harness::host::{Host, Node, free_port, text};

pub(crate) const N1: &str = "n1@127.0.0.1";

/// A node with the API, and the token of it.
pub(crate) struct Observed {
    pub(crate) host: Host,
    pub(crate) node: Node,
    pub(crate) admin: SocketAddr,
    pub(crate) token: String,
}

/// Status, head and body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// What comes back for these bytes, until the other side closes.
pub(crate) fn raw(admin: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(admin).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    // One that is closed at once may not take all of it.
    let _ = socket.write_all(request);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    text(&answer)
}

pub(crate) fn parsed(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no status in {answer:?}")),
        head: head.into(),
        body: body.into(),
    }
}

/// One request on a connection of its own.
pub(crate) fn request(admin: SocketAddr, verb: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let len = body.len();
    let head = format!("{verb} {path} HTTP/1.1\r\nHost: ermine\r\nConnection: close\r\n");
    let text = format!("{head}Content-Length: {len}\r\n{more}\r\n{body}");
    parsed(&raw(admin, text.as_bytes()))
}

impl Observed {
    pub(crate) fn start() -> Self {
        let host = Host::new();
        let listen = format!("127.0.0.1:{}", free_port());
        let node = host.start_with(N1, &["--admin", &listen]);
        let token = host.ok(&["token"]).trim().to_owned();
        Self {
            host,
            node,
            admin: listen.parse().expect("an address"),
            token,
        }
    }

    /// A request that shows the token.
    pub(crate) fn api(&self, verb: &str, path: &str, body: &str) -> Answer {
        let shown = format!("Authorization: Bearer {}", self.token);
        request(self.admin, verb, &format!("/api/v1/{path}"), &[&shown], body)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.api("GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// A request of anybody.
    pub(crate) fn open(&self, path: &str) -> Answer {
        request(self.admin, "GET", path, &[], "")
    }
}
