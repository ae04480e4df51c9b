//! What every answer has: a type, a length, and the headers that keep browsers from doing more with it than
//! it is meant for.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// The page may load its own three files and ask its own node, nothing else; it cannot be framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// There is no header of CORS: pages of other origins are refused by every browser.
const ALWAYS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// Something that was found.
pub(super) fn found(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// A value as JSON.
pub(super) fn json_of(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => found("application/json", text),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A part of a list, and the key behind which the next part begins.
pub(super) fn page_of<T: Serialize>(entries: &[T], limit: usize, next: Option<&str>) -> Answer {
    json_of(&json!({"data": entries, "meta": {"limit": limit, "next": next}}))
}

/// Why not, in one sentence.
pub(super) fn failed(status: StatusCode, sentence: &str) -> Answer {
    let body = json!({"error": sentence}).to_string();
    let mut answer = found("application/json", body);
    *answer.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        let realm = HeaderValue::from_static("Bearer realm=\"ermine\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
    }
    answer
}

/// The path is right and the verb is not.
pub(super) fn wrong_verb(allowed: &'static str) -> Answer {
    let sentence = format!("the verbs here are {allowed}");
    let mut answer = failed(StatusCode::METHOD_NOT_ALLOWED, &sentence);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// Done, with nothing to tell.
pub(super) fn done() -> Answer {
    let mut answer = found("application/json", Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
