//! What one session may do: the rules, who it is, and a bounded memory of what was decided.

use std::sync::Arc;

use ahash::AHashMap;
use bytestring::ByteString;

use super::acl::{Acl, Action, Subject};
use super::identity::Identity;
use crate::limits::ACL_MEMORY_LEN_MAX;

/// The rights of one session. A session that no rule binds has none of these.
#[derive(Debug)]
pub struct Rights {
    acl: Arc<Acl>,
    /// The rules came with the client and not from the file: a reload does not touch them.
    own: bool,
    username: Option<ByteString>,
    client_id: ByteString,
    /// Of topics, as they were decided; emptied when full, and by a reload.
    written: AHashMap<Box<str>, bool>,
    read: AHashMap<Box<str>, bool>,
}

impl Rights {
    /// The rights of a client; `None` if no rule binds it. `file` are the rules of the ACL file, if there
    /// is one.
    #[must_use]
    pub fn of(identity: &Identity, client_id: &str, file: Option<Arc<Acl>>) -> Option<Box<Self>> {
        if identity.superuser {
            return None;
        }
        let own = identity.acl.is_some();
        let acl = identity.acl.clone().or(file)?;
        Some(Box::new(Self {
            acl,
            own,
            // Copies: the originals keep the frame of the CONNECT alive.
            username: identity.username.as_ref().map(|name| ByteString::from(&**name)),
            client_id: ByteString::from(client_id),
            written: AHashMap::new(),
            read: AHashMap::new(),
        }))
    }

    /// New rules of the ACL file. Nothing is done if they are those it has.
    pub fn renew(&mut self, file: &Arc<Acl>) {
        if !self.own && !Arc::ptr_eq(&self.acl, file) {
            self.acl = file.clone();
            self.written = AHashMap::new();
            self.read = AHashMap::new();
        }
    }

    /// Whether the client may do `action` with a topic.
    pub fn allow(&mut self, action: Action, topic: &str) -> bool {
        let memory = match action {
            Action::Write => &mut self.written,
            Action::Read => &mut self.read,
        };
        if let Some(allowed) = memory.get(topic) {
            return *allowed;
        }
        let subject = Subject {
            username: self.username.as_deref(),
            client_id: &self.client_id,
        };
        let allowed = self.acl.allows(&subject, action, topic);
        if memory.len() >= ACL_MEMORY_LEN_MAX {
            memory.clear();
        }
        memory.insert(topic.into(), allowed);
        allowed
    }

    /// Whether the client may subscribe to a filter; asked rarely, so not remembered.
    #[must_use]
    pub fn allow_subscription(&self, filter: &str) -> bool {
        let subject = Subject {
            username: self.username.as_deref(),
            client_id: &self.client_id,
        };
        self.acl.allows_subscription(&subject, filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(text: &str) -> Arc<Acl> {
        Arc::new(Acl::parse(text).unwrap())
    }

    fn alice() -> Identity {
        Identity::user("alice".into())
    }

    #[test]
    fn without_rules_and_for_superusers_there_are_no_rights_to_ask() {
        assert!(Rights::of(&alice(), "c", None).is_none());
        let superuser = Identity {
            superuser: true,
            ..alice()
        };
        assert!(Rights::of(&superuser, "c", Some(acl(""))).is_none());
    }

    #[test]
    fn a_reload_is_seen_at_once_although_decisions_are_remembered() {
        let mut rights = Rights::of(&alice(), "c", Some(acl("user alice\ntopic read a"))).unwrap();
        for _ in 0..2 {
            assert!(rights.allow(Action::Read, "a") && !rights.allow(Action::Write, "a"));
        }
        rights.renew(&acl("user alice\ntopic write a"));
        for _ in 0..2 {
            assert!(!rights.allow(Action::Read, "a") && rights.allow(Action::Write, "a"));
        }
    }

    #[test]
    fn rules_of_a_token_stand_in_place_of_the_file_and_outlast_its_reload() {
        let token = Identity {
            acl: Some(acl("pattern own/%u")),
            ..alice()
        };
        let mut rights = Rights::of(&token, "c", Some(acl("user alice\ntopic file"))).unwrap();
        rights.renew(&acl("user alice\ntopic file"));
        assert!(rights.allow(Action::Read, "own/alice") && !rights.allow(Action::Read, "file"));
        assert!(rights.allow_subscription("own/#") && !rights.allow_subscription("file"));
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut rights = Rights::of(&alice(), "c", Some(acl("user alice\ntopic read a/#"))).unwrap();
        for n in 0..3 * ACL_MEMORY_LEN_MAX {
            assert!(rights.allow(Action::Read, &format!("a/{n}")));
            assert!(rights.read.len() <= ACL_MEMORY_LEN_MAX);
        }
    }
}
