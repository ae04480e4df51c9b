//! What a session costs.

use super::*;
use crate::session::queue::Outgoing;

#[test]
fn an_idle_session_is_small() {
    // A million of them must fit: the value, its client id and one subscription on the heap.
    let session = size_of::<Session>();
    let subscription = size_of::<(ByteString, crate::session::Subscription)>();
    let strings = 2 * 64;
    assert!(
        session + subscription + strings <= 512,
        "{session} + {subscription} + {strings} bytes"
    );
    assert!(
        size_of::<Outgoing>() <= 48,
        "a queued message costs {} bytes",
        size_of::<Outgoing>()
    );
}

#[test]
fn events_and_effects_are_moved_cheaply() {
    assert!(size_of::<Event>() <= 192, "{}", size_of::<Event>());
    assert!(size_of::<Effect>() <= 192, "{}", size_of::<Effect>());
}
