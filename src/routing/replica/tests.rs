//! Written with the next change.
