//! What comes before the first MQTT byte, as the listener asks for it: PROXY header, TLS handshake,
//! WebSocket upgrade. All of it under the deadline of the CONNECT.

use std::io;

use tokio_rustls::TlsAcceptor;

use super::proxy::{self, ProxyError};
use super::upgrade::{self, UpgradeError};
use crate::broker::counters::Counters;
use crate::broker::tls;
use crate::broker::transport::{Origin, Peer, Socket, Transport};

/// Why a socket got no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    #[error("{0}")]
    Proxy(#[from] ProxyError),
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("no WebSocket: {0}")]
    Web(#[from] UpgradeError),
}

impl Turned {
    pub(super) fn count(&self, counters: &Counters) {
        match self {
            Self::Proxy(_) => counters.proxy_headers_refused.one(),
            Self::Tls(_) => counters.tls_handshakes_failed.one(),
            Self::Web(_) => counters.upgrades_refused.one(),
        }
    }
}

/// Brings a socket to where MQTT begins, and notes in its origin what that tells.
pub(super) async fn come_in(mut socket: Socket, origin: &mut Origin) -> Result<Transport, Turned> {
    if origin.terms().proxy_protocol
        && let Some(client) = proxy::read_header(&mut socket).await?
    {
        origin.came_through_proxy(Peer::Ip(client));
    }
    let mut transport = match origin.terms().certificate.as_ref().map(|held| held.config()) {
        None => Transport::Plain(socket),
        Some(config) => {
            let tls = TlsAcceptor::from(config)
                .accept(socket)
                .await
                .map_err(Turned::Tls)?;
            let (version, common_name) = tls::outcome(tls.get_ref().1);
            origin.was_secured(version, common_name);
            Transport::Tls(Box::new(tls))
        }
    };
    if origin.terms().protocol.is_web() {
        let web = upgrade::upgrade(transport, &origin.terms().websocket_path).await?;
        transport = Transport::WebSocket(Box::new(web));
    }
    Ok(transport)
}
