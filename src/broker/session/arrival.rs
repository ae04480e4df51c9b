//! What a session begins with: a socket, and what there was of it before.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use supervisors::InitError;

use super::reviving::Ticket;
use crate::access::identity::Identity;
use crate::broker::keeping::Lasting;
use crate::broker::office::Office;
use crate::broker::port::Port;
use crate::broker::transport::{Origin, Parked};
use crate::session::event::Attach;
use crate::session::lasting::Restored;

/// A socket whose CONNECT has been read and allowed, on its way to its session.
#[derive(Debug)]
pub struct Arrival {
    /// The CONNECT and what the client is allowed; goes into
    /// [`Event::Attach`](crate::session::event::Event::Attach).
    pub attach: Box<Attach>,
    /// The transport, off every event loop.
    pub transport: Parked,
    /// Where the client comes from.
    pub origin: Origin,
    /// What was read behind the CONNECT.
    pub read_ahead: BytesMut,
    /// Who the client has proved to be.
    pub identity: Identity,
}

/// What a session had before this process of it.
#[derive(Clone, Debug, Default)]
pub enum Past {
    /// Nothing.
    #[default]
    None,
    /// What another node had of it.
    Moved(Bytes),
    /// What the store has of it.
    Stored(Box<Restored>, Ticket),
}

impl Past {
    /// The worker on which it must start, if it may not on any.
    #[must_use]
    pub fn worker(&self) -> Option<usize> {
        match self {
            Self::Stored(_, ticket) => ticket.orphan().map(|orphan| orphan.port.arbiter.into()),
            Self::None | Self::Moved(_) => None,
        }
    }

    /// The port of a session that starts here: that which its predecessor has left behind, or a new one.
    pub(super) fn port(
        &self,
        office: &Office,
        client_id: &ByteString,
        lasting: Option<Lasting>,
    ) -> Result<Rc<Port>, InitError> {
        let Self::Stored(_, ticket) = self else {
            return Ok(office.open_port(client_id.clone()));
        };
        match (ticket.orphan(), office.tables().orphans.of(client_id)) {
            (Some(orphan), _) => {
                let port = office.adopt(client_id, orphan);
                port.ok_or_else(|| InitError::failed("what its predecessor left is gone"))
            }
            (None, Some(_)) => Err(InitError::failed(
                "the store was read before its predecessor fell",
            )),
            (None, None) => {
                let port = office.open_port(client_id.clone());
                port.lasting.set(lasting);
                Ok(port)
            }
        }
    }

    /// When its client was served last, as far as that is known.
    #[must_use]
    pub fn served(&self) -> SystemTime {
        match self {
            Self::Stored(restored, _) => {
                let ms = restored.record.away_since_ms.unwrap_or(restored.record.noted_ms);
                SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
            }
            Self::None | Self::Moved(_) => SystemTime::now(),
        }
    }
}

/// An arrival that waits to be taken by one session. It lies here while requests about it may be lost to
/// a crash: who finds it still open asks again.
#[derive(Clone, Debug)]
pub struct Claim(Arc<Mutex<Option<Arrival>>>);

impl Claim {
    /// Lays an arrival down.
    #[must_use]
    pub fn new(arrival: Arrival) -> Self {
        Self(Arc::new(Mutex::new(Some(arrival))))
    }

    /// Of a session that starts without a socket.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Takes the arrival; `None` if somebody has.
    #[must_use]
    pub fn take(&self) -> Option<Arrival> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nobody has taken it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
