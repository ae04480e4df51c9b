//! Ownership, step by step.
