//! Floor 5: a node: boot, signals, drain.
