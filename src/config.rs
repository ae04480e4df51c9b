//! Floor 5: what an operator may set, and what is wrong with what they set.
