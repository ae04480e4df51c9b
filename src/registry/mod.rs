//! Floor 3: names of nodes on a host, and the proof of the cookie.
