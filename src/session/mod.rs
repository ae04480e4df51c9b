//! Floor 2: the session of one client as a value.

pub mod event;
