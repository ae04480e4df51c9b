//! Floor 5: THE supervision tree, on one screen.
