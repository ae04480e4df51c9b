//! Floor 3: the processes of one node.
