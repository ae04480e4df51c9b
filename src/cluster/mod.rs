//! Floor 4: processes between nodes.
