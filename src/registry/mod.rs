//! Floor 3: names of nodes on a host, and the proof of the cookie.
//!
//! Read `docs/PROTOCOL.md` first; [`handshake`] cites its steps. Values: [`cookie`], [`handshake`],
//! [`jar`], [`sealed`], [`names`], [`attempts`], [`endpoint`], [`wire`]. Sockets: [`server`], [`client`], and
//! [`holder`], which
//! chooses between them. One actor: [`Registry`].

pub mod actor;
pub mod attempts;
pub mod client;
pub mod cookie;
pub mod endpoint;
pub mod handshake;
pub mod holder;
pub mod jar;
pub mod names;
pub mod render;
pub mod sealed;
pub mod server;
pub mod wire;

pub use actor::{Announce, Names, Registry, RegistryConfig, Resolve, Standing, Status};
pub use client::{ClientError, RegistryClient};
pub use cookie::{Cookie, CookieError, CookieSource};
pub use endpoint::{Endpoint, EndpointError};
pub use handshake::{HandshakeError, Identity, Proved, Purpose, prove_as_client, prove_as_server};
pub use jar::CookieJar;
pub use wire::{Announcement, Refusal, Registration};
