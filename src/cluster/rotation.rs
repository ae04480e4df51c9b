//! A new cookie for all members: docs/PROTOCOL.md, "Rotation". What is said about it between nodes, and the
//! value that coordinates it.
//!
//! Two steps, so that no node proves the new cookie to one that cannot take it yet:
//!
//! | step | event | next |
//! |---|---|---|
//! | preparing | all have prepared | committing: everybody changes |
//! | preparing | one refuses, falls or is late | over: everybody forgets it, nothing was changed |
//! | committing | all hold it | over |
//! | committing | late | over; whoever has not said so has it prepared, and is given it again |
//!
//! The coordinator is one of its own members.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::ROTATION_ANSWER_WITHIN;
use crate::node_name::NodeName;
use crate::registry::jar::Edition;
use crate::registry::sealed::Sealed;

/// What nodes tell each other about the cookie.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CookieSlip {
    /// Coordinator → member: take this cookie from others from now on.
    Prepare {
        /// Its number.
        edition: Edition,
        /// How long the old one is taken after the change, in seconds.
        grace_s: u32,
        /// The new one.
        sealed: Sealed,
    },
    /// Member → coordinator: done, or why not.
    Prepared {
        /// As it came.
        edition: Edition,
        /// A sentence; nothing was changed then.
        refused: Option<String>,
    },
    /// Coordinator → member: all have prepared it, change to it.
    Commit {
        /// As in `Prepare`.
        edition: Edition,
    },
    /// Coordinator → member: forget it.
    Abort {
        /// As in `Prepare`.
        edition: Edition,
    },
    /// To a member that is only known to hold an older one, each second: change to this one.
    Renew {
        /// Its number.
        edition: Edition,
        /// How long the older ones are still taken, in seconds.
        grace_s: u32,
        /// The new one.
        sealed: Sealed,
    },
    /// The answer to `Commit` and `Renew`: it is the one that I prove.
    Held {
        /// As it came.
        edition: Edition,
        /// Why the file of the cookie could not be rewritten, if it could not.
        unwritten: Option<String>,
    },
}

/// What became of one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It proves the new cookie.
    Changed {
        /// Why its file could not be rewritten, if it could not.
        unwritten: Option<String>,
    },
    /// It was not linked: it keeps the old cookie until it returns.
    Down,
    /// It takes the new cookie, and has not said that it changed to it.
    Unconfirmed,
}

/// What happens to a rotation.
#[derive(Clone, Debug)]
pub enum Event {
    /// A member has prepared the new cookie, or says why not.
    Prepared(NodeName, Option<String>),
    /// A member has changed to it; why its file could not be rewritten, if so.
    Held(NodeName, Option<String>),
    /// The link to a member broke.
    Fell(NodeName),
    /// [`ROTATION_ANSWER_WITHIN`] is over since this step began.
    Late(Step),
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Tell these, of which this node may be one, to change. [`Event::Late`] is awaited anew.
    Commit(Vec<NodeName>),
    /// Tell these, of which this node may be one, to forget it.
    Abort(Vec<NodeName>),
    /// The end, and the sentence if nothing was changed.
    Over(Result<Vec<(NodeName, Outcome)>, String>),
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Members are asked to take the new cookie.
    Preparing,
    /// Members are told to prove it.
    Committing,
    /// It ended.
    Over,
}

/// A rotation, as its coordinator sees it.
#[derive(Debug)]
pub struct Rotation {
    step: Step,
    waiting: BTreeSet<NodeName>,
    members: BTreeMap<NodeName, Outcome>,
}

impl Rotation {
    /// A rotation for the members that are `linked`, this node among them; `down` are the others.
    #[must_use]
    pub fn new(linked: &[NodeName], down: &[NodeName]) -> Self {
        let waiting = linked.iter().map(|name| (name.clone(), Outcome::Unconfirmed));
        let down = down.iter().map(|name| (name.clone(), Outcome::Down));
        Self {
            step: Step::Preparing,
            waiting: linked.iter().cloned().collect(),
            members: waiting.chain(down).collect(),
        }
    }

    /// How far it is.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// Takes in one event; what is to be done is appended to `out`. What comes too late changes nothing.
    pub fn handle(&mut self, event: Event, out: &mut Vec<Effect>) {
        match (self.step, event) {
            (Step::Preparing, Event::Prepared(name, None)) => {
                self.waiting.remove(&name);
                if self.waiting.is_empty() {
                    self.commit(out);
                }
            }
            (Step::Preparing, Event::Prepared(name, Some(why))) if self.waiting.contains(&name) => {
                self.abort(format!("{name} cannot change its cookie: {why}"), out);
            }
            (Step::Preparing, Event::Fell(name)) if self.is_asked(&name) => {
                self.abort(format!("the link to {name} broke: try again"), out);
            }
            (Step::Preparing, Event::Late(Step::Preparing)) => {
                let silent: Vec<&str> = self.waiting.iter().map(NodeName::as_str).collect();
                let (silent, seconds) = (silent.join(", "), ROTATION_ANSWER_WITHIN.as_secs());
                self.abort(
                    format!("{silent} did not answer within {seconds} s: look at its log"),
                    out,
                );
            }
            (Step::Committing, Event::Held(name, unwritten)) if self.waiting.remove(&name) => {
                self.members.insert(name, Outcome::Changed { unwritten });
                if self.waiting.is_empty() {
                    self.over(out);
                }
            }
            (Step::Committing, Event::Late(Step::Committing)) => self.over(out),
            _ => {}
        }
    }

    fn is_asked(&self, name: &NodeName) -> bool {
        self.members
            .get(name)
            .is_some_and(|outcome| *outcome != Outcome::Down)
    }

    fn asked(&self) -> Vec<NodeName> {
        let names = self.members.keys().filter(|name| self.is_asked(name));
        names.cloned().collect()
    }

    fn commit(&mut self, out: &mut Vec<Effect>) {
        let asked = self.asked();
        self.step = Step::Committing;
        self.waiting.extend(asked.iter().cloned());
        out.push(Effect::Commit(asked));
    }

    fn abort(&mut self, why: String, out: &mut Vec<Effect>) {
        self.step = Step::Over;
        out.push(Effect::Abort(self.asked()));
        out.push(Effect::Over(Err(format!("nothing was changed: {why}"))));
    }

    fn over(&mut self, out: &mut Vec<Effect>) {
        self.step = Step::Over;
        let members = std::mem::take(&mut self.members);
        out.push(Effect::Over(Ok(members.into_iter().collect())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        format!("{text}@h").parse().unwrap()
    }

    fn rotation() -> Rotation {
        Rotation::new(&[name("a"), name("b"), name("c")], &[name("d")])
    }

    fn feed(rotation: &mut Rotation, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        let mut out = Vec::new();
        events
            .into_iter()
            .for_each(|event| rotation.handle(event, &mut out));
        out
    }

    fn prepared(who: &str) -> Event {
        Event::Prepared(name(who), None)
    }

    fn held(who: &str) -> Event {
        Event::Held(name(who), None)
    }

    const CHANGED: Outcome = Outcome::Changed { unwritten: None };

    #[test]
    fn nobody_changes_before_all_have_prepared_and_it_ends_when_all_have_changed() {
        let mut it = rotation();
        assert_eq!(feed(&mut it, ["a", "b", "b"].map(prepared)), []);
        let all = vec![name("a"), name("b"), name("c")];
        assert_eq!(feed(&mut it, [prepared("c")]), [Effect::Commit(all)]);
        assert_eq!(feed(&mut it, ["c", "a", "a", "d"].map(held)), []);
        let members = ["a", "b", "c"].map(|who| (name(who), CHANGED));
        let members = [&members[..], &[(name("d"), Outcome::Down)]].concat();
        assert_eq!(feed(&mut it, [held("b")]), [Effect::Over(Ok(members))]);
        assert_eq!(feed(&mut it, [held("b"), Event::Late(Step::Committing)]), []);
    }

    #[test]
    fn a_refusal_a_broken_link_and_a_silent_member_change_nothing_anywhere() {
        let refusal = Event::Prepared(name("b"), Some("its disk is full".into()));
        for (event, said) in [
            (refusal, "b@h cannot change its cookie: its disk is full"),
            (Event::Fell(name("b")), "the link to b@h broke: try again"),
            (
                Event::Late(Step::Preparing),
                "b@h, c@h did not answer within 8 s: look at its log",
            ),
        ] {
            let mut it = rotation();
            let out = feed(&mut it, [prepared("a"), event, prepared("b"), prepared("c")]);
            let all = vec![name("a"), name("b"), name("c")];
            let over = Err(format!("nothing was changed: {said}"));
            assert_eq!(out, [Effect::Abort(all), Effect::Over(over)]);
        }
    }

    #[test]
    fn who_does_not_confirm_is_named_and_what_comes_out_of_step_changes_nothing() {
        let mut it = rotation();
        let early = [held("a"), Event::Late(Step::Committing), Event::Fell(name("d"))];
        assert_eq!(feed(&mut it, early), []);
        feed(&mut it, ["a", "b", "c"].map(prepared));
        assert_eq!(it.step(), Step::Committing);
        let late = [Event::Late(Step::Preparing), Event::Fell(name("c")), held("a")];
        assert_eq!(feed(&mut it, late), []);
        let unwritten = Some("read-only".to_owned());
        feed(&mut it, [Event::Held(name("b"), unwritten.clone())]);
        let out = feed(&mut it, [Event::Late(Step::Committing)]);
        let members = vec![
            (name("a"), CHANGED),
            (name("b"), Outcome::Changed { unwritten }),
            (name("c"), Outcome::Unconfirmed),
            (name("d"), Outcome::Down),
        ];
        assert_eq!(out, [Effect::Over(Ok(members))]);
    }
}
