//! Floor 4: processes between nodes.

pub mod lane;
pub mod membership;
pub mod slice;
pub mod wire;
