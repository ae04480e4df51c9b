//! What a session does, event by event.
