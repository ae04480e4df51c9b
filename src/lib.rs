//! Ermine, a clustered MQTT broker that works the way Erlang/OTP works.
//!
//! The map of the house, floor by floor; a room leans only on floors below its own.
//!
//! | floor | rooms | holds |
//! |---|---|---|
//! | 5 | [`cli`] · [`config`] · [`node`] · [`tree`] · [`admin`] | builds everything, imported by nobody |
//! | 4 | [`cluster`] · [`store`] | wings: processes between nodes; what outlasts the process |
//! | 3 | [`broker`] · [`registry`] | processes on one node, on actix |
//! | 2 | [`session`] · [`routing`] · [`access`] | values: the session, the tables, who may do what |
//! | 1 | [`mqtt`] · [`node_name`] · [`limits`] | values: packets, names, the numbers |
//! | 0 | the crate [`supervisors`] | OTP on actix; knows nothing of MQTT |

pub mod access;
pub mod admin;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod limits;
pub mod mqtt;
pub mod node;
pub mod node_name;
pub mod registry;
pub mod routing;
pub mod session;
pub mod store;
pub mod tree;
