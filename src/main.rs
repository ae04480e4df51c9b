//! The `ermine` binary.
fn main() {}
