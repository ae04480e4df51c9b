//! Floor 5: what operators ask a live node.
