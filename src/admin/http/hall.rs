//! One request: who may ask what, and who answers.
//!
//! | path | who may | answer |
//! |---|---|---|
//! | `/`, its style and scripts | everybody | the observer page, which knows nothing yet |
//! | `/health`, `/health/live` | everybody | 200, or 503 with what is not ready |
//! | `/metrics` | everybody, unless `open_metrics = false` | the metrics |
//! | `/api/v1/…` | who shows the token | JSON |

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::json;
use supervisors::{ProcessState, Tree};
use tokio::time::timeout;

use super::answer::{Answer, failed, found, json_of, wrong_verb};
use super::rates::Rates;
use super::{Entrance, api, page};
use crate::admin::census::Census;
use crate::admin::control::{Surroundings, ms};
use crate::admin::metrics;
use crate::limits::{HTTP_ANSWER_MAX, HTTP_BODY_BYTES_MAX};

/// Processes that are told as not ready by name.
const UNREADY_NAMED_MAX: usize = 10;

/// What visitors are led to.
pub struct Hall {
    pub(super) surroundings: Arc<dyn Surroundings>,
    pub(super) census: Arc<dyn Census>,
    pub(super) tree: Arc<OnceLock<Tree>>,
    stopping: Arc<AtomicBool>,
    pub(super) entrance: Entrance,
    pub(super) rates: Rates,
}

impl Hall {
    /// A hall of these rooms. The tree is set as soon as it stands; `stopping` when the node has begun to.
    #[must_use]
    pub fn new<R: Surroundings + Census>(
        rooms: Arc<R>,
        tree: &Arc<OnceLock<Tree>>,
        stopping: &Arc<AtomicBool>,
        entrance: &Entrance,
    ) -> Self {
        Self {
            surroundings: rooms.clone(),
            census: rooms,
            tree: tree.clone(),
            stopping: stopping.clone(),
            entrance: entrance.clone(),
            rates: Rates::default(),
        }
    }

    /// Takes a sample of what was counted.
    pub(super) fn note_rates(&self) {
        self.rates.note(ms(SystemTime::now()), &self.census.counted());
    }

    /// Answers a request, whatever it is.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let answered = timeout(HTTP_ANSWER_MAX, self.lead(request)).await;
        answered.unwrap_or_else(|_| {
            let sentence = format!("not done within {} s", HTTP_ANSWER_MAX.as_secs());
            failed(StatusCode::SERVICE_UNAVAILABLE, &sentence)
        })
    }

    async fn lead(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if !path.starts_with("/api/") {
            return match head.method {
                Method::GET | Method::HEAD => self.open(path, &head.headers).await,
                _ => wrong_verb("GET, HEAD"),
            };
        }
        if !self.may_pass(&head.headers) {
            let sentence = "show the token of this node: Authorization: Bearer …; `ermine token` prints it";
            return failed(StatusCode::UNAUTHORIZED, sentence);
        }
        let body = match Limited::new(body, HTTP_BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let sentence = format!("a body has at most {HTTP_BODY_BYTES_MAX} bytes");
                return failed(StatusCode::PAYLOAD_TOO_LARGE, &sentence);
            }
            Err(error) => return failed(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}")),
        };
        api::answer(
            self,
            &head.method,
            path,
            head.uri.query().unwrap_or_default(),
            &body,
        )
        .await
    }

    /// What everybody may see.
    async fn open(&self, path: &str, headers: &HeaderMap) -> Answer {
        if let Some(file) = page::file(path) {
            return file;
        }
        match path {
            "/health/live" => json_of(&json!({"status": "live"})),
            "/health" | "/health/ready" => self.health(),
            "/metrics" if self.entrance.open_metrics || self.may_pass(headers) => self.metrics().await,
            "/metrics" => failed(
                StatusCode::UNAUTHORIZED,
                "the metrics of this node need its token",
            ),
            _ => failed(StatusCode::NOT_FOUND, "there is nothing here: see / and /api/v1"),
        }
    }

    /// Whether the request shows the token.
    fn may_pass(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let shown = shown.and_then(|shown| shown.strip_prefix(b"Bearer "));
        match (&self.entrance.token, shown) {
            (Some(token), Some(shown)) => token.is(shown.trim_ascii()),
            _ => false,
        }
    }

    /// Ready is a node whose standing processes all run and whose doors are open. One whose store fails is
    /// ready too, as what need not be stored goes on, and says so: a balancer that took it away would take
    /// that away as well, and perhaps all nodes, if they share a disk.
    fn health(&self) -> Answer {
        let summary = self.tree.get().map(Tree::summary).unwrap_or_default();
        let unready = summary.iter().filter(|info| info.state != ProcessState::Running);
        let names: Vec<_> = unready.map(|info| info.path.to_string()).collect();
        let status = match () {
            () if self.stopping.load(Relaxed) => "stopping",
            () if summary.is_empty() => "starting",
            () if !names.is_empty() => "degraded",
            () => "ready",
        };
        let named = &names[..names.len().min(UNREADY_NAMED_MAX)];
        let store = self.census.stored().condition.as_str();
        let mut answer = json_of(&json!({"status": status, "not_running": named, "store": store}));
        if status != "ready" {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        answer
    }

    async fn metrics(&self) -> Answer {
        match self.census.figures().await {
            Ok(figures) => found(metrics::CONTENT_TYPE, Bytes::from(metrics::text(figures))),
            Err(sentence) => failed(StatusCode::SERVICE_UNAVAILABLE, &sentence),
        }
    }
}
