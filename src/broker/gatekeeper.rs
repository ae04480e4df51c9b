//! The gatekeeper: decides about CONNECTs where that takes time, in argon2 or at an HTTP server.
//!
//! Parent:   core (one_for_one), permanent: connections lean on it as they lean on clients
//! Owns:     the CONNECTs that wait to be decided (their connections ask again); files, keys and counted
//!           failures belong to the [`super::keyring`], which outlives it
//! Asked by: Connection ([`Authenticate`])
//! Tells:    nobody
//! Dies of:  our bugs only; no connected client notices
//!
//! Hashing runs on threads of its own, so many at a time, and calls to the HTTP server as tasks, so many
//! at a time; each kind has its queue, so that a server that hangs holds up no password. What waits beyond
//! [`AUTH_QUEUE_LEN_MAX`] is answered with 0x89 and counted. Who has gone away meanwhile costs nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message as ActixMessage, WrapFuture};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use supervisors::{ChildSpec, Context};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::keyring::{Hook, Keyring, Step};
use super::tables::Tables;
use crate::access::hook::{self, Answer};
use crate::access::identity::{Credentials, Denial, Identity};
use crate::access::passwords::Check;
use crate::limits::{AUTH_HOOK_ANSWER_BYTES_MAX, AUTH_HOOK_CALLS_MAX, AUTH_QUEUE_LEN_MAX};

/// Connection → Gatekeeper: may it come in? An answer that is dropped was lost in a crash: ask again. Who
/// drops the other end no longer waits.
#[derive(Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Authenticate {
    /// What it brought.
    pub credentials: Credentials,
    /// Who waits.
    pub answer: oneshot::Sender<Result<Identity, Denial>>,
}

/// A CONNECT that waits.
struct Job {
    credentials: Credentials,
    /// The link of the chain that comes after the one it waits for.
    next: usize,
    answer: oneshot::Sender<Result<Identity, Denial>>,
}

/// The actor.
pub struct Gatekeeper {
    tables: Arc<Tables>,
    to_hash: VecDeque<Job>,
    to_ask: VecDeque<Job>,
    hashing: usize,
    hashing_max: usize,
    asking: usize,
}

impl Gatekeeper {
    /// The child of `core`.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>) -> ChildSpec {
        let made = tables.clone();
        // Half of the cores at most: whoever is connected is to be served while others come in.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let init = move |_: &mut Context<Self>| {
            Ok(Self {
                tables: made.clone(),
                to_hash: VecDeque::new(),
                to_ask: VecDeque::new(),
                hashing: 0,
                hashing_max: (cores / 2).clamp(1, 8),
                asking: 0,
            })
        };
        ChildSpec::worker("gatekeeper", tables.arbiters.control_handle(), init).name(&tables.names.gatekeeper)
    }

    fn keyring(&self) -> &Keyring {
        &self.tables.keyring
    }

    /// Brings a CONNECT to the next link of the chain that takes time, or to its end.
    fn advance(&mut self, mut job: Job, ctx: &mut Context<Self>) {
        loop {
            match self.keyring().follow(job.next, &job.credentials) {
                Step::Decided(decision) => return self.decide(job, decision),
                Step::Token(next) => {
                    job.next = next;
                    if let Some(decision) = self.keyring().token(&job.credentials) {
                        return self.decide(job, decision);
                    }
                }
                Step::Passwords(next) => {
                    if let Some(identity) = self.recalled(&job.credentials) {
                        return self.decide(job, Ok(identity));
                    }
                    job.next = next;
                    self.to_hash.push_back(job);
                    return self.hash(ctx);
                }
                Step::Hook(next) => {
                    job.next = next;
                    self.to_ask.push_back(job);
                    return self.ask(ctx);
                }
            }
        }
    }

    /// Who it is, if the password was right before.
    fn recalled(&self, credentials: &Credentials) -> Option<Identity> {
        let (username, password) = (credentials.username.as_ref()?, credentials.password.as_ref()?);
        let passwords = self.keyring().passwords()?;
        let recalled = passwords.recalls(username, password.bytes());
        recalled.then(|| Identity::user(username.clone()))
    }

    fn decide(&self, job: Job, decision: Result<Identity, Denial>) {
        let credentials = &job.credentials;
        let username = credentials.username.as_deref();
        match &decision {
            Ok(_) if username.is_some() => self.keyring().note(credentials.address, username, true),
            Err(Denial::WrongCredentials) => self.keyring().note(credentials.address, username, false),
            _ => {}
        }
        // A connection that has gone away does not miss it.
        let _ = job.answer.send(decision);
    }

    /// Whether a job is still to be done when its turn has come. Failures may have been counted meanwhile.
    fn still_wanted(&self, job: Job) -> Option<Job> {
        let credentials = &job.credentials;
        if job.answer.is_closed() {
            return None;
        }
        if self
            .keyring()
            .is_barred(credentials.address, credentials.username.as_deref())
        {
            self.decide(job, Err(Denial::Barred));
            return None;
        }
        Some(job)
    }

    fn hash(&mut self, ctx: &mut Context<Self>) {
        while self.hashing < self.hashing_max {
            let Some(job) = self.to_hash.pop_front() else {
                return;
            };
            let Some(job) = self.still_wanted(job) else {
                continue;
            };
            let Some(passwords) = self.keyring().passwords() else {
                self.decide(job, Err(Denial::Unavailable));
                continue;
            };
            self.hashing += 1;
            let credentials = job.credentials.clone();
            let checked = tokio::task::spawn_blocking(move || {
                let password = credentials
                    .password
                    .as_ref()
                    .map_or(&[][..], |secret| secret.bytes());
                passwords.check(credentials.username.as_deref().unwrap_or_default(), password)
            });
            ctx.spawn(checked.into_actor(self).map(|checked, me, ctx| {
                me.hashing -= 1;
                match checked {
                    Ok(check) => me.hashed(job, check, ctx),
                    Err(_) => me.decide(job, Err(Denial::Unavailable)),
                }
                me.hash(ctx);
            }));
        }
    }

    fn hashed(&mut self, job: Job, check: Check, ctx: &mut Context<Self>) {
        match (check, job.credentials.username.clone()) {
            (Check::Right, Some(username)) => self.decide(job, Ok(Identity::user(username))),
            (Check::Wrong, _) => self.decide(job, Err(Denial::WrongCredentials)),
            (Check::Unknown | Check::Right, _) => self.advance(job, ctx),
        }
    }

    fn ask(&mut self, ctx: &mut Context<Self>) {
        while self.asking < AUTH_HOOK_CALLS_MAX {
            let Some(job) = self.to_ask.pop_front() else {
                return;
            };
            let Some(job) = self.still_wanted(job) else {
                continue;
            };
            let Some(hook) = self.keyring().hook() else {
                self.decide(job, Err(Denial::Unavailable));
                continue;
            };
            self.asking += 1;
            let asked = async move {
                let answer = call(&hook, &job.credentials).await;
                (job, answer)
            };
            ctx.spawn(asked.into_actor(self).map(|(job, answer), me, ctx| {
                me.asking -= 1;
                me.answered(job, answer, ctx);
                me.ask(ctx);
            }));
        }
    }

    fn answered(&mut self, job: Job, answer: Answer, ctx: &mut Context<Self>) {
        match answer {
            Answer::Allow { superuser } => {
                let identity = Identity {
                    username: job.credentials.username.clone(),
                    superuser,
                    ..Identity::default()
                };
                self.decide(job, Ok(identity));
            }
            Answer::Deny => self.decide(job, Err(Denial::WrongCredentials)),
            Answer::Ignore => self.advance(job, ctx),
            // Whoever cannot be asked has not allowed it.
            Answer::Broken => self.decide(job, Err(Denial::Unavailable)),
        }
    }
}

/// Asks the HTTP server; whatever goes wrong is a broken answer, and a line in the log.
async fn call(hook: &Hook, credentials: &Credentials) -> Answer {
    let url = &hook.url;
    match timeout(hook.within, post(url, credentials)).await {
        Ok(Ok((status, body))) => {
            let answer = hook::answer(status, &body);
            if answer == Answer::Broken {
                tracing::warn!(%url, status, "the answer of the HTTP server was not understood");
            }
            answer
        }
        Ok(Err(error)) => {
            tracing::warn!(%url, %error, "the HTTP server could not be asked");
            Answer::Broken
        }
        Err(_) => {
            let within_ms = hook.within.as_millis() as u64;
            tracing::warn!(%url, within_ms, "the HTTP server did not answer in time");
            Answer::Broken
        }
    }
}

type HookError = Box<dyn std::error::Error + Send + Sync>;

async fn post(url: &hook::Url, credentials: &Credentials) -> Result<(u16, Vec<u8>), HookError> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let body = hook::question(credentials);
    let request = Request::post(&url.path)
        .header(header::HOST, &url.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(bytes::Bytes::copy_from_slice(&body)))?;
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), AUTH_HOOK_ANSWER_BYTES_MAX);
        let body = body.collect().await?.to_bytes().to_vec();
        Ok::<_, HookError>((status, body))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The server closes when it has answered; the answer is then read already.
        _ = connection => exchange.await,
    }
}

impl Actor for Gatekeeper {
    type Context = Context<Self>;
}

impl Handler<Authenticate> for Gatekeeper {
    type Result = ();

    fn handle(&mut self, asked: Authenticate, ctx: &mut Context<Self>) {
        let job = Job {
            credentials: asked.credentials,
            next: 0,
            answer: asked.answer,
        };
        if self.to_hash.len() + self.to_ask.len() >= AUTH_QUEUE_LEN_MAX {
            return self.decide(job, Err(Denial::Busy));
        }
        if let Some(job) = self.still_wanted(job) {
            self.advance(job, ctx);
        }
    }
}

#[cfg(test)]
mod tests;
