//! Where a client comes from: through which door, from which address, proved by which certificate.

use std::fmt;
use std::net::SocketAddr;

use crate::broker::door::{Protocol, Seat, Terms};

/// The other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address; behind a proxy that tells, the client's own.
    Ip(SocketAddr),
    /// A process of this host, through a unix socket.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Where a client comes from. Holds the client's seat at its door: dropped with the transport.
#[derive(Debug)]
pub struct Origin {
    seat: Seat,
    peer: Peer,
    /// Beside the common case, a plain socket without a proxy.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    proxy: Option<Peer>,
    tls_version: Option<&'static str>,
    common_name: Option<String>,
}

/// Where a client comes from, for people: the part of an [`Origin`] that can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginInfo {
    /// See [`Origin::listener`].
    pub listener: String,
    /// See [`Origin::transport`].
    pub transport: &'static str,
    /// See [`Origin::peer`].
    pub peer: Peer,
    /// See [`Origin::proxy`].
    pub proxy: Option<Peer>,
    /// See [`Origin::tls_version`].
    pub tls_version: Option<&'static str>,
    /// See [`Origin::common_name`].
    pub common_name: Option<String>,
}

impl Origin {
    /// A socket of `peer` that has just come through the door.
    #[must_use]
    pub fn new(seat: Seat, peer: Peer) -> Self {
        Self {
            seat,
            peer,
            more: None,
        }
    }

    /// The proxy said whom it speaks for.
    pub fn came_through_proxy(&mut self, client: Peer) {
        self.more.get_or_insert_default().proxy = Some(self.peer);
        self.peer = client;
    }

    /// The TLS handshake is over. `common_name` is that of a client certificate which was verified.
    pub fn was_secured(&mut self, version: &'static str, common_name: Option<String>) {
        let more = self.more.get_or_insert_default();
        more.tls_version = Some(version);
        more.common_name = common_name;
    }

    /// Name of the listener in the tree, as `tls:0.0.0.0:8883`.
    #[must_use]
    pub fn listener(&self) -> &str {
        self.seat.door().name()
    }

    /// What the listener grants.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        self.seat.door().terms()
    }

    /// Who is at the other end; behind a proxy, the client that it speaks for.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The proxy that passed the client on, if the listener expects one and it named a client.
    #[must_use]
    pub fn proxy(&self) -> Option<Peer> {
        self.more.as_ref()?.proxy
    }

    /// Whether the client is on this host: a loopback address or a unix socket. A proxy on this host does
    /// not make its clients local.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self.peer {
            Peer::Ip(address) => address.ip().to_canonical().is_loopback(),
            Peer::Unix => true,
        }
    }

    /// `tcp`, `unix`, `tls`, `ws` or `wss`.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match (self.terms().protocol, self.seat.door().address().is_unix()) {
            (Protocol::Mqtt, false) => "tcp",
            (Protocol::Mqtt, true) => "unix",
            (Protocol::Mqtts, _) => "tls",
            (Protocol::Ws, _) => "ws",
            (Protocol::Wss, _) => "wss",
        }
    }

    /// `TLSv1.2` or `TLSv1.3`, under TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        self.more.as_ref()?.tls_version
    }

    /// The common name of the client's certificate, which was verified against `client_ca`.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.more.as_ref()?.common_name.as_deref()
    }

    /// The user name that the certificate proves, if the listener takes names from certificates. Such a
    /// client needs no password.
    #[must_use]
    pub fn certificate_username(&self) -> Option<&str> {
        self.common_name()
            .filter(|_| self.terms().certificate_cn_is_username)
    }

    /// All of it, for people.
    #[must_use]
    pub fn describe(&self) -> OriginInfo {
        OriginInfo {
            listener: self.listener().to_owned(),
            transport: self.transport(),
            peer: self.peer,
            proxy: self.proxy(),
            tls_version: self.tls_version(),
            common_name: self.common_name().map(str::to_owned),
        }
    }
}
