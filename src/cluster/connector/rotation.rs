//! How the connector changes the cookie: as the coordinator of a rotation, and as a member of one.

use std::time::{Duration, Instant, SystemTime};

use actix::{ActorFutureExt, AsyncContext, Handler, Message, ResponseFuture, WrapFuture};
use supervisors::Context;
use tokio::sync::oneshot;

use super::Connector;
use crate::cluster::board::{LinkState, Row};
use crate::cluster::membership::State;
use crate::cluster::peer::Order;
use crate::cluster::rotation::{CookieSlip, Effect, Event, Outcome, Rotation, Step};
use crate::limits::ROTATION_ANSWER_WITHIN;
use crate::node_name::NodeName;
use crate::registry::cookie::{Cookie, Fingerprint};
use crate::registry::jar::{Change, Edition, NotPrepared, Standing};
use crate::registry::sealed::{About, Sealed};

/// Operator → Connector: change the cookie of all members, or of this node. An error is the sentence for the
/// operator: then nothing was changed.
#[derive(Debug, Message)]
#[rtype(result = "Result<Rotated, String>")]
pub struct Rotate {
    /// The new one.
    pub cookie: Cookie,
    /// How long the old one is taken after the change.
    pub grace: Duration,
    /// Whether the others are told nothing.
    pub only_here: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// Fingerprint of the old cookie.
    pub before: Fingerprint,
    /// And of the new one.
    pub after: Fingerprint,
    /// What became of each member, by name.
    pub members: Vec<(NodeName, Outcome)>,
}

/// A rotation that this node coordinates.
pub(super) struct Coordinated {
    edition: Edition,
    value: Rotation,
    before: Fingerprint,
    after: Fingerprint,
    told: oneshot::Sender<Result<Rotated, String>>,
}

impl Handler<Rotate> for Connector {
    type Result = ResponseFuture<Result<Rotated, String>>;

    fn handle(&mut self, rotate: Rotate, ctx: &mut Context<Self>) -> Self::Result {
        let (told, over) = oneshot::channel();
        match self.begin(rotate, told, ctx) {
            Err(sentence) => Box::pin(async move { Err(sentence) }),
            Ok(()) => Box::pin(async move {
                let crashed = "the node's connector was restarted meanwhile: look at the log of all members";
                over.await.unwrap_or_else(|_| Err(crashed.into()))
            }),
        }
    }
}

/// As coordinator.
impl Connector {
    fn begin(
        &mut self,
        rotate: Rotate,
        told: oneshot::Sender<Result<Rotated, String>>,
        ctx: &mut Context<Self>,
    ) -> Result<(), String> {
        if self.rotation.is_some() {
            return Err("this node is rotating the cookie already".into());
        }
        let (linked, down) = self.parties(rotate.only_here)?;
        let jar = &self.cluster.cookies;
        let (before, after) = (jar.current().fingerprint(), rotate.cookie.fingerprint());
        let change = Change {
            edition: next_edition(jar.edition().max(jar.prepared().unwrap_or_default())),
            cookie: rotate.cookie,
            grace: rotate.grace,
            shared: !rotate.only_here,
        };
        tracing::info!(
            "rotating the cookie from {before} to {after}: {} nodes are told",
            linked.len()
        );
        self.rotation = Some(Coordinated {
            edition: change.edition,
            value: Rotation::new(&linked, &down),
            before,
            after,
            told,
        });
        self.await_answers(change.edition, Step::Preparing, ctx);
        for row in self.cluster.board.rows() {
            if linked.contains(&row.node.name) {
                let slip = self.sealed(&row, &change).map(|sealed| CookieSlip::Prepare {
                    edition: change.edition,
                    grace_s: seconds(change.grace),
                    sealed,
                });
                self.tell(&row, slip);
            }
        }
        let me = self.cluster.me.name.clone();
        self.prepare(change, me, ctx);
        Ok(())
    }

    /// Who is asked, this node first, and who cannot be.
    fn parties(&self, only_here: bool) -> Result<(Vec<NodeName>, Vec<NodeName>), String> {
        let (mut linked, mut down) = (vec![self.cluster.me.name.clone()], Vec::new());
        if only_here {
            return Ok((linked, down));
        }
        let members = self.membership.members();
        for (name, _) in members.filter(|(_, member)| member.state != State::Left) {
            match self.cluster.board.row(name).map(|row| row.state) {
                Some(LinkState::Up | LinkState::Suspect) => linked.push(name.clone()),
                Some(LinkState::Closing) | None => down.push(name.clone()),
                // Without grace it would be shut out, although it runs.
                Some(LinkState::Opening | LinkState::Broken) => {
                    return Err(format!("the link to {name} is just being opened: try again"));
                }
            }
        }
        Ok((linked, down))
    }

    fn await_answers(&self, edition: Edition, step: Step, ctx: &mut Context<Self>) {
        ctx.run_later(ROTATION_ANSWER_WITHIN, move |me, ctx| {
            me.coordinate(edition, Event::Late(step), ctx);
        });
    }

    /// Something happened to the rotation with that number, if it is the one.
    fn coordinate(&mut self, edition: Edition, event: Event, ctx: &mut Context<Self>) {
        let Some(coordinated) = self.rotation.as_mut().filter(|it| it.edition == edition) else {
            return;
        };
        let mut effects = Vec::new();
        coordinated.value.handle(event, &mut effects);
        for effect in effects {
            self.conduct(edition, effect, ctx);
        }
    }

    fn conduct(&mut self, edition: Edition, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Commit(names) => {
                self.await_answers(edition, Step::Committing, ctx);
                self.tell_all(&names, &CookieSlip::Commit { edition });
                self.commit(edition, self.cluster.me.name.clone(), ctx);
            }
            Effect::Abort(names) => {
                self.tell_all(&names, &CookieSlip::Abort { edition });
                self.cluster.cookies.abort(edition);
            }
            Effect::Over(over) => {
                let Some(coordinated) = self.rotation.take() else {
                    return;
                };
                let Coordinated { before, after, .. } = coordinated;
                if let Err(sentence) = &over {
                    tracing::warn!("the cookie was not rotated: {sentence}");
                }
                let rotated = over.map(|members| Rotated {
                    before,
                    after,
                    members,
                });
                // An operator who has gone away does not miss it.
                let _ = coordinated.told.send(rotated);
            }
        }
    }

    /// The connection to a member broke while it was being asked.
    pub(super) fn fell(&mut self, name: &NodeName, ctx: &mut Context<Self>) {
        if let Some(edition) = self.rotation.as_ref().map(|it| it.edition) {
            self.coordinate(edition, Event::Fell(name.clone()), ctx);
        }
    }
}

/// As member.
impl Connector {
    /// What another node says about the cookie.
    pub(super) fn cookie_slip(&mut self, from: &NodeName, slip: CookieSlip, ctx: &mut Context<Self>) {
        match slip {
            CookieSlip::Prepare {
                edition,
                grace_s,
                sealed,
            } => match self.opened(from, edition, grace_s, &sealed) {
                Some(change) => self.prepare(change, from.clone(), ctx),
                None => self.answer_prepared(edition, from, Some(unreadable(from)), ctx),
            },
            CookieSlip::Prepared { edition, refused } => {
                let refused = refused.map(|why| one_sentence(&why));
                self.coordinate(edition, Event::Prepared(from.clone(), refused), ctx);
            }
            CookieSlip::Commit { edition } => self.commit(edition, from.clone(), ctx),
            CookieSlip::Abort { edition } => self.cluster.cookies.abort(edition),
            CookieSlip::Renew {
                edition,
                grace_s,
                sealed,
            } => self.renew(from, (edition, grace_s, &sealed), ctx),
            CookieSlip::Held { edition, unwritten } => {
                self.holds(from, edition);
                let unwritten = unwritten.map(|why| one_sentence(&why));
                self.coordinate(edition, Event::Held(from.clone(), unwritten), ctx);
            }
        }
    }

    fn opened(&self, from: &NodeName, edition: Edition, grace_s: u32, sealed: &Sealed) -> Option<Change> {
        let accepted = self.cluster.cookies.accepted(Instant::now());
        let about = about(from, &self.cluster.me.name, edition, grace_s);
        let held = accepted.valid.iter().chain(&accepted.retired);
        Some(Change {
            edition,
            cookie: sealed.open(held, about)?,
            grace: Duration::from_secs(grace_s.into()),
            shared: true,
        })
    }

    /// Takes the new cookie from others, if its file can be rewritten.
    fn prepare(&mut self, change: Change, from: NodeName, ctx: &mut Context<Self>) {
        let (edition, cookie) = (change.edition, change.cookie.clone());
        let after = cookie.fingerprint();
        if let Err(why) = self.cluster.cookies.prepare(change, Instant::now()) {
            return self.answer_prepared(edition, &from, Some(why.to_string()), ctx);
        }
        let file = self.cluster.cookie_file.clone();
        let tried = on_a_thread(move || file.map_or(Ok(()), |file| cookie.replaceable(&file)));
        ctx.spawn(tried.into_actor(self).map(move |tried, me, ctx| {
            match &tried {
                Ok(()) => tracing::info!(%after, by = %from, "a new cookie is prepared: taken, not proved"),
                Err(_) => me.cluster.cookies.abort(edition),
            }
            me.answer_prepared(edition, &from, tried.err(), ctx);
        }));
    }

    fn answer_prepared(
        &mut self,
        edition: Edition,
        to: &NodeName,
        refused: Option<String>,
        ctx: &mut Context<Self>,
    ) {
        if *to == self.cluster.me.name {
            return self.coordinate(edition, Event::Prepared(to.clone(), refused), ctx);
        }
        self.tell_all(
            std::slice::from_ref(to),
            &CookieSlip::Prepared { edition, refused },
        );
    }

    /// Changes to what was prepared, writes it, and says so.
    fn commit(&mut self, edition: Edition, from: NodeName, ctx: &mut Context<Self>) {
        let Some(switched) = self.cluster.cookies.commit(edition, Instant::now()) else {
            if self.cluster.cookies.edition() == edition {
                self.answer_held(edition, &from, None, ctx);
            }
            return;
        };
        let after = switched.cookie.fingerprint();
        tracing::info!(before = %switched.before, %after, by = %from, "the cookie was rotated");
        self.holds(&from, edition);
        let file = self.cluster.cookie_file.clone();
        let written = on_a_thread(move || match file {
            Some(file) => switched.cookie.replace(&file).map_err(|error| error.to_string()),
            None => Err("it was given in ERMINE_COOKIE: set the new one there before the next start".into()),
        });
        ctx.spawn(written.into_actor(self).map(move |written, me, ctx| {
            if let Err(why) = &written {
                tracing::warn!("the new cookie holds until this node ends: {why}");
            }
            me.answer_held(edition, &from, written.err(), ctx);
        }));
    }

    fn answer_held(
        &mut self,
        edition: Edition,
        to: &NodeName,
        unwritten: Option<String>,
        ctx: &mut Context<Self>,
    ) {
        if *to == self.cluster.me.name {
            return self.coordinate(edition, Event::Held(to.clone(), unwritten), ctx);
        }
        self.tell_all(std::slice::from_ref(to), &CookieSlip::Held { edition, unwritten });
    }

    /// Another member holds a newer cookie, as far as it knows.
    fn renew(
        &mut self,
        from: &NodeName,
        (edition, grace_s, sealed): (Edition, u32, &Sealed),
        ctx: &mut Context<Self>,
    ) {
        let Some(change) = self.opened(from, edition, grace_s, sealed) else {
            return tracing::warn!("a new cookie is not taken: {}", unreadable(from));
        };
        match self.cluster.cookies.prepare(change, Instant::now()) {
            Ok(()) => self.commit(edition, from.clone(), ctx),
            Err(NotPrepared::Same) => {
                self.holds(from, edition);
                self.answer_held(edition, from, None, ctx);
            }
            // A later one is on its way to that node, or it says so again in a second.
            Err(NotPrepared::Outdated | NotPrepared::Busy) => {}
        }
    }

    /// That member proves the cookie with that number.
    fn holds(&self, name: &NodeName, edition: Edition) {
        let jar = &self.cluster.cookies;
        if let Some(row) = self.cluster.board.row(name).filter(|_| jar.edition() == edition) {
            let current = jar.current().fingerprint();
            self.cluster
                .board
                .change(&row.node, &row.orders, |row| row.cookie = current);
        }
    }

    /// Once a second: whoever is only known to hold an older cookie is given the present one, and whoever
    /// proved one that is prepared here shows that its rotation went on without us.
    pub(super) fn look_after_cookies(&mut self, ctx: &mut Context<Self>) {
        let jar = self.cluster.cookies.clone();
        for row in self.cluster.board.rows() {
            match jar.standing(row.cookie) {
                Standing::Prepared => {
                    if let Some(edition) = jar.prepared() {
                        self.commit(edition, row.node.name, ctx);
                    }
                }
                Standing::Previous if row.state == LinkState::Up => {
                    if let Some(change) = jar.to_be_shared(Instant::now()) {
                        let slip = self.sealed(&row, &change).map(|sealed| CookieSlip::Renew {
                            edition: change.edition,
                            grace_s: seconds(change.grace),
                            sealed,
                        });
                        self.tell(&row, slip);
                    }
                }
                Standing::Current | Standing::Previous | Standing::Unknown => {}
            }
        }
    }

    /// The new cookie under the one that is known to be held there.
    fn sealed(&self, row: &Row, change: &Change) -> Result<Sealed, String> {
        let shared = self.cluster.cookies.in_common(row.cookie);
        let grace_s = seconds(change.grace);
        let about = about(&self.cluster.me.name, &row.node.name, change.edition, grace_s);
        Sealed::new(&shared, &change.cookie, about).map_err(|error| error.to_string())
    }

    fn tell(&self, row: &Row, slip: Result<CookieSlip, String>) {
        match slip {
            // A Peer that has just ended is awaited in vain, or told again once it is back.
            Ok(slip) => drop(row.orders.cast(Order::Cookie(slip))),
            Err(why) => tracing::warn!("{} is not told of the new cookie: {why}", row.node.name),
        }
    }

    fn tell_all(&self, names: &[NodeName], slip: &CookieSlip) {
        for row in names.iter().filter_map(|name| self.cluster.board.row(name)) {
            self.tell(&row, Ok(slip.clone()));
        }
    }
}

fn about<'a>(from: &'a NodeName, to: &'a NodeName, edition: Edition, grace_s: u32) -> About<'a> {
    About {
        purpose: "link",
        from: from.as_str(),
        to: to.as_str(),
        numbers: [edition.0, grace_s.into()],
    }
}

fn unreadable(from: &NodeName) -> String {
    format!("the new cookie that came from {from} cannot be read with any cookie held here")
}

fn seconds(grace: Duration) -> u32 {
    u32::try_from(grace.as_secs()).unwrap_or(u32::MAX)
}

/// Greater than `last`, about the time of day, and hardly ever chosen twice.
fn next_edition(last: Edition) -> Edition {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let clock = u64::try_from(since_epoch.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
    let chance = crate::cluster::peer::random() & 0xff;
    Edition((clock << 8 | chance).max(last.0.saturating_add(1)))
}

/// What a peer says goes to an operator: short, and without control characters.
fn one_sentence(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}

/// Files are not waited for on this arbiter.
async fn on_a_thread<E: ToString + Send + 'static>(
    act: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Result<(), String> {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(format!("the file could not be looked after: {error}")),
    }
}
