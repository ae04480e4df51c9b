//! Messages on their way to other nodes, and shared groups with members there: see [`super::super::loans`].

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Holds, Keep, Match};
use crate::broker::desk::Turn;
use crate::broker::links::{Link, Outbound, Outbox};
use crate::broker::loans::{Across, LOANS_MAX, Loan, Loans, NODES_TRIED_MAX};
use crate::broker::mail::{Receipt, To};
use crate::broker::office::Office;
use crate::broker::publish::Share;
use crate::broker::tables::Seats;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;
use crate::routing::stamps::HybridTime;

/// Nodes at which a message of a group finds only members without a connection, before one of those gets it.
const PREFERENCES_TRIED_MAX: u8 = 2;

/// Messages for other nodes that one tick gathers.
#[derive(Default)]
pub(in crate::broker) struct Forwards(Vec<(Arc<Outbox>, Vec<Outbound>)>);

impl Forwards {
    /// How many there are.
    pub(in crate::broker) fn len(&self) -> usize {
        self.0.iter().map(|(_, messages)| messages.len()).sum()
    }

    pub(super) fn push(&mut self, outbox: &Arc<Outbox>, message: Outbound) {
        let known = self.0.iter_mut().find(|(known, _)| Arc::ptr_eq(known, outbox));
        match known {
            Some((_, messages)) => messages.push(message),
            None => self.0.push((outbox.clone(), vec![message])),
        }
    }

    /// Takes everything, to be given to [`hand_over`].
    pub(in crate::broker) fn take(&mut self) -> std::vec::IntoIter<(Arc<Outbox>, Vec<Outbound>)> {
        std::mem::take(&mut self.0).into_iter()
    }
}

/// Once per link and tick. Of what a link does not take that was given up, or is down, shared groups
/// are given to other nodes.
pub(in crate::broker) fn hand_over((outbox, mut messages): (Arc<Outbox>, Vec<Outbound>)) {
    if outbox.is_released() {
        messages.retain_mut(|outbound| {
            let keep = !give_again(outbound, &outbox, false);
            if !keep {
                outbox.renounce(outbound);
            }
            keep
        });
    }
    let mut lost = outbox.lay(messages);
    lost.retain_mut(|outbound| !give_again(outbound, &outbox, false));
    count_lost(&lost);
}

/// Counts messages for another node that were given up, as it did not come back in time.
pub fn count_lost<'a>(lost: impl IntoIterator<Item = &'a Outbound>) {
    let Some(office) = Office::here() else { return };
    for outbound in lost {
        let counters = office.counters();
        if outbound.only_retained {
            counters.dropped_link_retained.one();
        } else {
            counters.dropped_link_down.one();
        }
    }
}

/// The node behind this outbox is down, or gone: other nodes get the groups that it was to serve, as far as
/// there are any. Whether nothing is left of the message. QoS 0 stays where it is: it was sent at most once.
/// `sent` tells whether the node may have had it.
#[must_use]
pub fn give_again(outbound: &mut Outbound, gone: &Arc<Outbox>, sent: bool) -> bool {
    let Some(loans) = &mut outbound.loans else {
        return false;
    };
    let Some(office) = Office::here().filter(|_| outbound.message.qos > QoS::AtMostOnce) else {
        return false;
    };
    let Ok(found) = office.find(&outbound.message.topic) else {
        return false;
    };
    let (message, share) = (&outbound.message, &mut outbound.share);
    loans.groups.retain(|loan| {
        let next = Loan {
            tried: loan.tried + 1,
            dup: loan.dup || sent,
            ..loan.clone()
        };
        !office.give_one_again(&found, next, message, share, gone)
    });
    let nothing = loans.only && loans.groups.is_empty();
    if loans.groups.is_empty() && !loans.only {
        outbound.loans = None;
    }
    if nothing {
        office.counters().forwards_taken_back.one();
    }
    nothing
}

impl Match {
    /// The members of a group on this node.
    fn own(&self, group: &str) -> Option<&Seats> {
        let across = self.across.iter().filter_map(|across| across.own.as_ref());
        let mut groups = self.seats.iter().chain(across);
        groups.find(|seats| seats.share.as_ref().is_some_and(|own| **own.text() == *group))
    }

    /// A group with members on other nodes.
    fn across(&self, group: &str) -> Option<&Across> {
        self.across.iter().find(|across| *across.crossing.group == *group)
    }

    /// Another node with members of a group, of those whose link `may`.
    fn elsewhere(&self, group: &str, message: &Message, may: impl Fn(&Link) -> bool) -> Option<&Link> {
        let may = |link: Option<usize>| link.is_some_and(|link| may(&self.links[link]));
        let chosen = self.across(group)?.choose(message, may)?;
        self.links.get(chosen.link?)
    }
}

impl Office {
    /// A group that has members on other nodes is part of a match.
    pub(super) fn add_across(&self, found: &mut Match, group: &Arc<str>, nodes: impl Iterator<Item = Link>) {
        let mut links = Vec::new();
        for link in nodes {
            let known = found.links.iter().position(|known| known.node == link.node);
            let position = known.unwrap_or(found.links.len());
            links.push((position, link.node.name.clone()));
            if known.is_none() {
                found.links.push(link);
            }
        }
        if links.is_empty() {
            return;
        }
        let is_own = |seats: &Seats| seats.share.as_ref().is_some_and(|own| **own.text() == **group);
        let own = found.seats.iter().position(is_own);
        let own = own.map(|position| found.seats.remove(position));
        let (crossing, me) = (self.tables().crossing(group), &self.tables().node.name);
        let across = Across::new(crossing, own, me, links.into_iter(), &self.tables().weights);
        found.across.push(across);
    }

    /// Publishes what groups of several nodes match: each is served by one node, and no node gets the message
    /// twice.
    pub(super) fn publish_across(
        &self,
        found: &Match,
        message: &Arc<Message>,
        retained: Option<HybridTime>,
        receipt: Option<Receipt>,
        holds: &mut Holds,
    ) {
        let mut lent: SmallVec<[Option<Box<Loans>>; 4]> = found.links.iter().map(|_| None).collect();
        for across in &found.across {
            match across.choose(message, |_| true).map(|chosen| chosen.link) {
                Some(Some(link)) => {
                    let loans = lent[link].get_or_insert_default();
                    loans.add(Loan {
                        group: across.crossing.group.clone(),
                        tried: 0,
                        dup: false,
                    });
                    if loans.groups.len() == LOANS_MAX {
                        loans.only = true;
                        self.forward(
                            &found.links[link],
                            lent[link].take(),
                            message,
                            retained.map(Keep::Too),
                            receipt,
                            holds,
                        );
                    }
                }
                Some(None) => {
                    let own = across.own.iter();
                    own.for_each(|seats| self.hand_to_desks(seats, message, receipt, holds));
                }
                None => {
                    self.counters().topic_entries.one();
                    self.counters().dropped_no_member.one();
                }
            }
        }
        for (position, mut loans) in lent.into_iter().enumerate() {
            let plain = position < found.plain_links;
            if let Some(loans) = &mut loans {
                loans.only = !plain;
            }
            if plain || loans.is_some() || retained.is_some() {
                let only = !plain && loans.is_none();
                let keep = retained.map(if only { Keep::Only } else { Keep::Too });
                self.forward(&found.links[position], loans, message, keep, receipt, holds);
            }
        }
    }

    /// Another node lent us a group: a member gets the message, or another node that has some.
    pub(super) fn serve(
        &self,
        found: &Match,
        loan: &Loan,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        holds: &mut Holds,
    ) {
        let across = found.across(&loan.group);
        // Who chose us may not know yet that the last connection of a member is gone.
        let better = loan.tried < PREFERENCES_TRIED_MAX && across.is_some_and(Across::is_better_elsewhere);
        if better || !self.serve_here(found, loan, message, receipt, holds) {
            let turn = Turn {
                dup: loan.dup,
                tried: loan.tried,
                ..Turn::default()
            };
            self.counters().topic_entries.one();
            self.give_away(&loan.group, message, None, turn);
        }
    }

    fn serve_here(
        &self,
        found: &Match,
        loan: &Loan,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        holds: &mut Holds,
    ) -> bool {
        let Some(seats) = found.own(&loan.group) else {
            return false;
        };
        let member = seats.share.as_ref().and_then(|group| group.choose(message));
        let Some(member) = member else { return false };
        holds.published = true;
        let turn = Turn {
            nth: member.nth,
            dup: loan.dup,
            hops: 0,
            tried: loan.tried,
        };
        self.hand_to_desk(member.arbiter, seats.filter, To::Member(turn), message, receipt);
        if self.is_paused(seats.filter) {
            holds.add(seats.filter);
        }
        true
    }

    /// A group has no members here any more: another node that has some gets its message, with the share that
    /// its publisher waits for.
    pub(in crate::broker) fn give_away(
        &self,
        group: &str,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        turn: Turn,
    ) {
        let found = self
            .find(&message.topic)
            .ok()
            .filter(|_| turn.tried < NODES_TRIED_MAX);
        let may = |link: &Link| message.qos > QoS::AtMostOnce || !link.outbox.is_full();
        let across = found.as_ref().and_then(|found| found.across(group));
        let link = found
            .as_ref()
            .and_then(|found| found.elsewhere(group, message, may));
        let (Some(across), Some(link)) = (across, link) else {
            return self.find_no_member(receipt);
        };
        self.counters().shared_given_again.one();
        self.counters().topic_entries_given_away.one();
        let loan = Loan {
            group: across.crossing.group.clone(),
            tried: turn.tried + 1,
            dup: turn.dup,
        };
        // It takes the receipt's share over.
        let share = receipt.map(|receipt| Share::of(receipt, self.tables()));
        self.lend_only(link, loan, message, share);
    }

    /// One group of a message whose node is down: true when somebody else has it.
    fn give_one_again(
        &self,
        found: &Match,
        loan: Loan,
        message: &Arc<Message>,
        share: &mut Option<Share>,
        gone: &Arc<Outbox>,
    ) -> bool {
        if loan.tried > NODES_TRIED_MAX {
            return false;
        }
        let other = |link: &Link| !Arc::ptr_eq(&link.outbox, gone);
        let may = |link: Option<usize>| link.is_none_or(|link| other(&found.links[link]));
        let across = found.across(&loan.group);
        let chosen = across.and_then(|across| across.choose(message, may));
        if let Some(link) = chosen.and_then(|chosen| chosen.link) {
            let share = share.as_mut().map(Share::split);
            self.lend_only(&found.links[link], loan, message, share);
        } else {
            // What a desk here has is taken: its publisher need not wait for more.
            let mut holds = self.lane_holds.take();
            let served = self.serve_here(found, &loan, message, None, &mut holds);
            self.lane_holds.replace(holds);
            if !served {
                return false;
            }
        }
        self.counters().shared_given_again.one();
        true
    }

    fn lend_only(&self, link: &Link, loan: Loan, message: &Arc<Message>, share: Option<Share>) {
        let loans = Loans::only(loan);
        let outbound = Outbound {
            message: message.clone(),
            share,
            loans: Some(Box::new(loans)),
            retained: None,
            only_retained: false,
        };
        self.enqueue(link, outbound);
    }
}
