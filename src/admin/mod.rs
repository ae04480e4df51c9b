//! Floor 5: what operators ask a live node.
//!
//! [`protocol`] is the language of the command line, [`client`] its asking side, [`control`] the answering
//! side: an actor of the node that is given every connection whose cookie proof was for `control`.
//! [`http`] is the same for programs and browsers: metrics, health, the JSON API and the observer page.
//! What both tell comes from [`census`], and as numbers from [`metrics`].

pub mod census;
pub mod client;
pub mod control;
pub mod http;
pub mod metrics;
pub mod protocol;
pub mod token;
