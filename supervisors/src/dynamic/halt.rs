//! Stopping: one child by its shutdown protocol, and all of them at once.

use super::{DynamicSupervisor, State};
use crate::context::Context;
use crate::error::{ChildError, StartError};
use crate::exit::ExitReason;
use crate::report::{Cause, ChildFacts, ErrorContext};
use crate::request::Reply;
use crate::spec::Shutdown;
use crate::supervisor::{ended_as_told, supervisor_report};
use actix::AsyncContext;
use actix_rt::task::JoinHandle;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// The stop of everything.
#[derive(Default)]
pub(super) struct Halt {
    /// Children that did not end as told, grouped by reason as OTP does: how many, and the first of them.
    errors: HashMap<String, (usize, ExitReason, ChildFacts)>,
    over: bool,
}

impl DynamicSupervisor {
    pub(super) fn terminate(&mut self, id: &Arc<str>, reply: Reply<Result<(), ChildError>>) {
        let Some(child) = self.children.get_mut(id) else {
            return reply.give(Err(ChildError::NotFound));
        };
        if let State::Stopping(_, replies, _) = &mut child.state {
            return replies.push(reply);
        }
        let Some(pid) = child.pid().cloned() else {
            self.children.remove(id);
            self.pid.office().hide(id);
            return reply.give(Ok(()));
        };
        let timer = match child.spec.info.shutdown {
            // A task of its own: a context polls all its timers at every wake-up, and here there may be many.
            Shutdown::Timeout(time) => {
                let naughty = pid.clone();
                Some(actix_rt::spawn(async move {
                    tokio::time::sleep(time).await;
                    naughty.exit(ExitReason::Killed);
                }))
            }
            Shutdown::BrutalKill | Shutdown::Infinity => None,
        };
        let brutal = child.spec.info.shutdown == Shutdown::BrutalKill;
        pid.exit(if brutal {
            ExitReason::Killed
        } else {
            ExitReason::Shutdown
        });
        child.stop_with(vec![reply], timer);
    }

    /// A child that was told to stop has ended. No reason: its `init` was interrupted.
    pub(super) fn stopped(&mut self, id: &Arc<str>, reason: Option<ExitReason>) {
        let Some(child) = self.children.remove(id) else {
            return;
        };
        let facts = child.facts();
        let info = &child.spec.info;
        if let Some(reason) = reason.filter(|reason| !ended_as_told(reason, info.shutdown, info.restart)) {
            match &mut self.halt {
                Some(halt) => {
                    halt.errors
                        .entry(reason.to_string())
                        .or_insert_with(|| (0, reason, facts))
                        .0 += 1;
                }
                None => {
                    supervisor_report(
                        &self.pid,
                        ErrorContext::ShutdownError,
                        Cause::Exit(reason),
                        facts,
                        None,
                    );
                }
            }
        }
        if let State::Stopping(_, replies, timer) = child.state {
            if let Some(timer) = timer {
                timer.abort();
            }
            replies.into_iter().for_each(|reply| reply.give(Ok(())));
        }
    }

    /// Tells every child to stop, all at once.
    pub(super) fn begin_halt(&mut self, ctx: &mut Context<Self>) {
        if self.halt.is_some() {
            return;
        }
        self.halt = Some(Halt::default());
        self.children.retain(|_, child| child.pid().is_some());
        self.pid.office().show(std::iter::empty());
        let mut deadlines: BTreeMap<Duration, Vec<_>> = BTreeMap::new();
        for child in self.children.values_mut() {
            let Some(pid) = child.pid().cloned() else { continue };
            match child.spec.info.shutdown {
                Shutdown::BrutalKill => pid.exit(ExitReason::Killed),
                Shutdown::Infinity => pid.exit(ExitReason::Shutdown),
                Shutdown::Timeout(time) => {
                    pid.exit(ExitReason::Shutdown);
                    deadlines.entry(time).or_default().push(pid);
                }
            }
            child.stop_with(Vec::new(), None);
        }
        for (time, naughty) in deadlines {
            ctx.run_later(time, move |_, _| {
                naughty.iter().for_each(|pid| pid.exit(ExitReason::Killed))
            });
        }
        self.end_halt(ctx);
    }

    /// Exits when the last child is gone.
    pub(super) fn end_halt(&mut self, ctx: &mut Context<Self>) {
        let Some(halt) = &mut self.halt else { return };
        if halt.over || !self.children.is_empty() {
            return;
        }
        halt.over = true;
        for (number, reason, mut facts) in std::mem::take(&mut halt.errors).into_values() {
            facts.pid = None;
            facts.nb_children = Some(number);
            supervisor_report(
                &self.pid,
                ErrorContext::ShutdownError,
                Cause::Exit(reason),
                facts,
                None,
            );
        }
        ctx.exit(ExitReason::Shutdown);
    }
}

impl super::Child {
    fn stop_with(&mut self, mut replies: Vec<Reply<Result<(), ChildError>>>, timer: Option<JoinHandle<()>>) {
        let state = std::mem::replace(&mut self.state, State::Restarting);
        self.state = match state {
            State::Starting(pid, starter) => {
                if let Some(starter) = starter {
                    starter.give(Err(StartError::Init(ExitReason::Shutdown)));
                }
                State::Stopping(pid, replies, timer)
            }
            State::Running(pid) => State::Stopping(pid, replies, timer),
            State::Stopping(pid, mut earlier, earlier_timer) => {
                earlier.append(&mut replies);
                State::Stopping(pid, earlier, earlier_timer.or(timer))
            }
            State::Restarting => State::Restarting,
        };
    }
}
