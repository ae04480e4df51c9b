//! What the router knows of its Topics, as a value: birth and death of each, and what waits for them.
//!
//! A filter has one *seat* on each arbiter with subscribers of it: the first is the Topic's own, the
//! others are its delegates'. Only the router opens and closes seats, and it closes one only if the seat
//! told that it is vacant *and* has dispatched everything that was sent to it: birth and death cannot
//! cross.
//!
//! | seat \ event | `ask` | `opened` | `open_failed` | `vacant`, nothing on its way | `closed` |
//! |---|---|---|---|---|---|
//! | Opening | waits | Open: census, then all that waited | gone, what waited is refused | – | – |
//! | Open | sent | – | – | Closing (the Topic's own: when it is the last) | – |
//! | Closing | waits | – | – | – | gone; Opening if something waits |
//!
//! The ledger lives in the tables. A new life of the router calls [`Ledger::recover`]: what waited is
//! forgotten (the sessions ask again), every open seat is opened again, which finds who sits there.

use std::sync::Arc;

use ahash::AHashMap;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::Census;
use crate::broker::desk::ShareGroup;
use crate::broker::mail::{Errand, FilterId, Ticket};
use crate::broker::tables::Seats;
use crate::mqtt::topic::SharedFilter;

/// Something that the router is to do, in order.
#[derive(Debug)]
pub enum Order {
    /// Start the seat's actor, then call [`Ledger::opened`] or [`Ledger::open_failed`].
    Open(Place),
    /// End the seat's actor, then call [`Ledger::closed`].
    Close(Place),
    /// Send an errand to the seat.
    Post(Place, Errand),
    /// The subscribers of this plain filter sit elsewhere now: see [`Ledger::seats`].
    Route(ByteString),
    /// The errand with this ticket cannot be done: the seat could not be opened.
    Refuse(Ticket),
    /// The errand with this ticket has nothing to do: there is no such subscription.
    Unknown(Ticket),
    /// The shared group of this filter has ended.
    ForgetGroup(ByteString),
}

/// One seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The filter.
    pub filter: FilterId,
    /// Its text, `$share/…` included.
    pub text: ByteString,
    /// Where.
    pub arbiter: usize,
    /// The child's id below `topics`.
    pub child: Arc<str>,
}

/// The ledger. See the module's doc.
#[derive(Debug, Default)]
pub struct Ledger {
    filters: AHashMap<FilterId, Filter>,
    ids: AHashMap<ByteString, FilterId>,
    /// Plain filter → it and its shared groups.
    families: AHashMap<ByteString, SmallVec<[FilterId; 1]>>,
    filters_made: u64,
    requests_made: u64,
    censuses_made: u64,
}

#[derive(Debug)]
struct Filter {
    text: ByteString,
    /// Without `$share/group/`: what topics are matched against.
    plain: ByteString,
    share: Option<Arc<ShareGroup>>,
    /// The Topic's own first.
    seats: SmallVec<[Seat; 1]>,
}

#[derive(Debug)]
struct Seat {
    arbiter: usize,
    state: SeatState,
    /// The last question how it stands.
    census: u64,
    /// Errands that the seat had dispatched before that question; unknown until it answers.
    base: Option<u64>,
    /// Errands that were sent since.
    sent: u64,
    /// Whether it has subscribers, so that publishers send there.
    rows: bool,
    /// Whether it has told that it is vacant, and nothing was sent since.
    vacant: bool,
    /// Its actor's id below `topics`.
    child: Arc<str>,
    waiting: Vec<Errand>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SeatState {
    Opening,
    Open,
    Closing,
}

impl Ledger {
    /// A number for a request to the router; never used twice, also not by another life of it.
    pub fn next_request(&mut self) -> u64 {
        self.requests_made += 1;
        self.requests_made
    }

    /// Topics and delegates that are open or about to be.
    #[must_use]
    pub fn seats_len(&self) -> usize {
        self.filters.values().map(|filter| filter.seats.len()).sum()
    }

    /// An errand for the rows of a filter on an arbiter. A join makes the seat that it needs.
    pub fn ask(
        &mut self,
        text: &ByteString,
        arbiter: usize,
        errand: Errand,
        group: impl FnOnce() -> Option<Arc<ShareGroup>>,
        out: &mut Vec<Order>,
    ) {
        let joins = matches!(errand, Errand::Join { .. });
        let id = match self.ids.get(text) {
            Some(id) => *id,
            None if joins => self.make(text, group()),
            None => return out.extend(errand.ticket().map(Order::Unknown)),
        };
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        if !filter.seats.iter().any(|seat| seat.arbiter == arbiter) {
            if !joins {
                return out.extend(errand.ticket().map(Order::Unknown));
            }
            let child = filter.child(arbiter);
            filter.seats.push(Seat::opening(arbiter, child));
            out.extend(filter.seat(id, arbiter).map(|(place, _)| Order::Open(place)));
        }
        let Some((place, seat)) = filter.seat(id, arbiter) else {
            return;
        };
        if seat.state == SeatState::Open {
            seat.post(place, errand, out);
        } else {
            seat.waiting.push(errand);
        }
    }

    /// The seat's actor runs.
    pub fn opened(&mut self, id: FilterId, arbiter: usize, out: &mut Vec<Order>) {
        self.censuses_made += 1;
        let number = self.censuses_made;
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        let Some((place, seat)) = filter.seat(id, arbiter) else {
            return;
        };
        if seat.state != SeatState::Opening {
            return;
        }
        seat.state = SeatState::Open;
        seat.ask_census(number, place.clone(), out);
        for errand in std::mem::take(&mut seat.waiting) {
            seat.post(place.clone(), errand, out);
        }
    }

    /// The seat's actor could not be started: what waits for it is refused.
    pub fn open_failed(&mut self, id: FilterId, arbiter: usize, out: &mut Vec<Order>) {
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        let Some((_, seat)) = filter.seat(id, arbiter) else {
            return;
        };
        out.extend(seat.waiting.iter().filter_map(Errand::ticket).map(Order::Refuse));
        self.drop_seat(id, arbiter, out);
    }

    /// A seat that was open has lost its actor for good: it is to be opened again.
    pub fn lost(&mut self, id: FilterId, arbiter: usize, out: &mut Vec<Order>) {
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        if let Some((place, seat)) = filter.seat(id, arbiter)
            && seat.state == SeatState::Open
        {
            seat.state = SeatState::Opening;
            out.push(Order::Open(place));
        }
    }

    /// The seat has so many subscribers after a join.
    pub fn joined(&mut self, id: FilterId, arbiter: usize, rows: usize, out: &mut Vec<Order>) {
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        let plain = filter.plain.clone();
        if let Some((_, seat)) = filter.seat(id, arbiter)
            && rows > 0
            && !std::mem::replace(&mut seat.rows, true)
        {
            out.push(Order::Route(plain));
        }
    }

    /// The seat tells how many errands it has dispatched in all and how many subscribers it has. An answer
    /// to a question of an earlier life of the router says nothing: others may be behind it in the mail.
    pub fn census(&mut self, census: &Census, out: &mut Vec<Order>) {
        let Census {
            number,
            filter: id,
            arbiter,
            errands,
            rows,
        } = *census;
        let seat = self
            .filters
            .get_mut(&id)
            .and_then(|filter| filter.seat(id, arbiter));
        let Some((_, seat)) = seat.filter(|(_, seat)| seat.census == number) else {
            return;
        };
        // Errands keep their order, so none that was sent after the question is in the answer.
        seat.base = Some(errands);
        if rows > 0 {
            self.joined(id, arbiter, rows, out);
        } else {
            self.vacant(id, arbiter, errands, out);
        }
    }

    /// The seat has no subscribers and has dispatched so many errands in all.
    pub fn vacant(&mut self, id: FilterId, arbiter: usize, errands: u64, out: &mut Vec<Order>) {
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        let plain = filter.plain.clone();
        let Some((_, seat)) = filter.seat(id, arbiter) else {
            return;
        };
        if seat.state != SeatState::Open || seat.base.map(|base| base + seat.sent) != Some(errands) {
            return;
        }
        seat.vacant = true;
        if std::mem::replace(&mut seat.rows, false) {
            out.push(Order::Route(plain));
        }
        self.settle(id, out);
    }

    /// Closes what is vacant: delegates at once, the Topic's own seat when it is the last.
    fn settle(&mut self, id: FilterId, out: &mut Vec<Order>) {
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        let alone = filter.seats.len() == 1;
        for position in 0..filter.seats.len() {
            let arbiter = filter.seats[position].arbiter;
            let Some((place, seat)) = filter.seat(id, arbiter) else {
                continue;
            };
            if seat.state == SeatState::Open && seat.vacant && (position > 0 || alone) {
                seat.state = SeatState::Closing;
                out.push(Order::Close(place));
            }
        }
    }

    /// The seat's actor has ended.
    pub fn closed(&mut self, id: FilterId, arbiter: usize, out: &mut Vec<Order>) {
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        let Some((place, seat)) = filter.seat(id, arbiter) else {
            return;
        };
        if seat.state != SeatState::Closing {
            return;
        }
        if seat.waiting.is_empty() {
            self.drop_seat(id, arbiter, out);
        } else {
            seat.state = SeatState::Opening;
            out.push(Order::Open(place));
        }
    }

    /// Where the subscribers of a plain filter sit: it and its shared groups.
    #[must_use]
    pub fn seats(&self, plain: &str) -> Vec<Seats> {
        let family = self.families.get(plain).into_iter().flatten();
        let filters = family.filter_map(|id| Some((*id, self.filters.get(id)?)));
        let seats = filters.map(|(filter, known)| Seats {
            filter,
            arbiters: known.arbiters(),
            share: known.share.clone(),
        });
        seats.filter(|seats| seats.arbiters != 0).collect()
    }

    /// A new life of the router begins: see the module's doc.
    pub fn recover(&mut self, out: &mut Vec<Order>) {
        for (id, filter) in &mut self.filters {
            out.push(Order::Route(filter.plain.clone()));
            for arbiter in filter
                .seats
                .iter()
                .map(|seat| seat.arbiter)
                .collect::<SmallVec<[_; 4]>>()
            {
                let Some((place, seat)) = filter.seat(*id, arbiter) else {
                    continue;
                };
                seat.waiting.clear();
                match seat.state {
                    // Who sits there already is found, watched and asked for a census.
                    SeatState::Opening | SeatState::Open => {
                        seat.state = SeatState::Opening;
                        out.push(Order::Open(place));
                    }
                    SeatState::Closing => out.push(Order::Close(place)),
                }
            }
        }
    }

    fn make(&mut self, text: &ByteString, share: Option<Arc<ShareGroup>>) -> FilterId {
        self.filters_made += 1;
        let id = FilterId(self.filters_made);
        // Copies of their own: the SUBSCRIBE's frame is not kept alive by a name.
        let text = ByteString::from(&**text);
        let plain = match SharedFilter::parse(&text) {
            Ok(Some(shared)) => ByteString::from(shared.filter),
            _ => text.clone(),
        };
        self.ids.insert(text.clone(), id);
        self.families.entry(plain.clone()).or_default().push(id);
        self.filters.insert(
            id,
            Filter {
                text,
                plain,
                share,
                seats: SmallVec::new(),
            },
        );
        id
    }

    fn drop_seat(&mut self, id: FilterId, arbiter: usize, out: &mut Vec<Order>) {
        let Some(filter) = self.filters.get_mut(&id) else {
            return;
        };
        filter.seats.retain(|seat| seat.arbiter != arbiter);
        out.push(Order::Route(filter.plain.clone()));
        if !filter.seats.is_empty() {
            return self.settle(id, out);
        }
        let Some(filter) = self.filters.remove(&id) else {
            return;
        };
        self.ids.remove(&filter.text);
        if let Some(family) = self.families.get_mut(&filter.plain) {
            family.retain(|member| *member != id);
            if family.is_empty() {
                self.families.remove(&filter.plain);
            }
        }
        if filter.share.is_some() {
            out.push(Order::ForgetGroup(filter.text));
        }
    }
}

impl Filter {
    fn seat(&mut self, id: FilterId, arbiter: usize) -> Option<(Place, &mut Seat)> {
        let text = self.text.clone();
        let seat = self.seats.iter_mut().find(|seat| seat.arbiter == arbiter)?;
        Some((
            Place {
                filter: id,
                text,
                arbiter,
                child: seat.child.clone(),
            },
            seat,
        ))
    }

    /// The id of a seat's actor: the filter, and for a delegate `#` and its arbiter. A `#` with
    /// something behind it is in no valid filter, so no two ids are equal.
    fn child(&self, arbiter: usize) -> Arc<str> {
        match self.seats.is_empty() {
            true => Arc::from(&*self.text),
            false => format!("{}#{arbiter}", self.text).into(),
        }
    }

    fn arbiters(&self) -> u64 {
        self.seats
            .iter()
            .filter(|seat| seat.rows)
            .fold(0, |mask, seat| mask | 1 << seat.arbiter)
    }
}

impl Seat {
    fn opening(arbiter: usize, child: Arc<str>) -> Self {
        Self {
            arbiter,
            state: SeatState::Opening,
            census: 0,
            base: None,
            sent: 0,
            rows: false,
            vacant: false,
            child,
            waiting: Vec::new(),
        }
    }

    fn post(&mut self, place: Place, errand: Errand, out: &mut Vec<Order>) {
        self.sent += 1;
        self.vacant = false;
        out.push(Order::Post(place, errand));
    }

    fn ask_census(&mut self, number: u64, place: Place, out: &mut Vec<Order>) {
        (self.census, self.base, self.sent, self.vacant) = (number, None, 0, false);
        out.push(Order::Post(place, Errand::Census(number)));
    }
}

#[cfg(test)]
mod tests;
