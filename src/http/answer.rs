//! What a handler returns: JSON with an ETag, or an error in JSON.
//!
//! Errors quote what was asked and say what to do; one that another store would not have, or
//! that passes when there is a leader again, is 503 and carries the leader as far as it is
//! known.

use axum::body::Body;
use axum::http::{header, HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::{json, Value};

const JSON: &str = "application/json; charset=utf-8";

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// 400: it makes no sense; quotes what.
    BadRequest(String),
    /// 404: there is no such thing.
    NotFound(String),
    /// 405: the path takes other methods.
    MethodNotAllowed {
        /// What was asked, such as `DELETE /health`.
        asked: String,
        /// Methods that are allowed, as in the header `Allow`.
        allowed: &'static str,
    },
    /// 415: the body is of another type than expected.
    UnsupportedMediaType(String),
    /// 421: the port speaks something else.
    Misdirected(String),
    /// 503: another moment may do better.
    Unavailable {
        /// What is missing.
        why: String,
        /// The placement driver's leader, if it is known.
        leader: Option<Value>,
    },
}

impl Failure {
    /// A failure that no leader could mend.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Failure::Unavailable {
            why: why.into(),
            leader: None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Failure::BadRequest(_) => StatusCode::BAD_REQUEST,
            Failure::NotFound(_) => StatusCode::NOT_FOUND,
            Failure::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Failure::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Failure::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
            Failure::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What kind it is, in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::BadRequest(_) => "bad-request",
            Failure::NotFound(_) => "not-found",
            Failure::MethodNotAllowed { .. } => "method-not-allowed",
            Failure::UnsupportedMediaType(_) => "unsupported-media-type",
            Failure::Misdirected(_) => "misdirected",
            Failure::Unavailable { .. } => "unavailable",
        }
    }

    /// As it is sent.
    pub fn response(&self) -> Response {
        let message = match self {
            Failure::MethodNotAllowed { asked, allowed } => {
                format!("{asked}: this path takes {allowed}")
            }
            Failure::BadRequest(why)
            | Failure::NotFound(why)
            | Failure::UnsupportedMediaType(why)
            | Failure::Misdirected(why)
            | Failure::Unavailable { why, .. } => why.clone(),
        };
        let mut body = json!({ "success": false, "error": self.word(), "message": message });
        if let Failure::Unavailable { leader, .. } = self {
            body["leader"] = leader.clone().unwrap_or(Value::Null);
        }
        let mut response = json_response(self.status(), &body);
        let headers = response.headers_mut();
        match self {
            Failure::MethodNotAllowed { allowed, .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Failure::Unavailable { .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// JSON, with an ETag by which a client can ask again for nothing.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    etag: String,
}

impl Answer {
    /// 200.
    pub fn json(value: &impl Serialize) -> Answer {
        Answer::with_status(StatusCode::OK, value)
    }

    /// As [`json`](Self::json), under another status.
    pub fn with_status(status: StatusCode, value: &impl Serialize) -> Answer {
        let body = encode(value);
        let etag = format!("W/\"{}\"", digest(&body));
        Answer { status, body, etag }
    }

    /// 200, whose ETag begins with `revision`.
    pub fn revised(revision: u64, value: &impl Serialize) -> Answer {
        let body = encode(value);
        let etag = format!("W/\"{revision}-{}\"", digest(&body));
        Answer {
            status: StatusCode::OK,
            body,
            etag,
        }
    }

    /// As it is sent to a client that sent `headers`: 304 if it has it already.
    pub fn response(self, method: &Method, headers: &HeaderMap) -> Response {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let mut response = if reads && self.status == StatusCode::OK && has(headers, &self.etag) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            bytes_response(self.status, JSON, self.body)
        };
        if let (true, Ok(etag)) = (reads, HeaderValue::from_str(&self.etag)) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

/// `body` under `status`; never kept by caches without asking again.
pub fn bytes_response(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// Sixteen hex digits that differ when the bytes do.
pub fn digest(bytes: &[u8]) -> String {
    let half = bytes.len() / 2;
    let (left, right) = (&bytes[..half], &bytes[half..]);
    format!(
        "{:08x}{:08x}",
        crc32fast::hash(bytes),
        crc32fast::hash(left) ^ crc32fast::hash(right).rotate_left(7)
    )
}

/// Whether the client says that it has what `etag` stands for.
pub fn has(headers: &HeaderMap, etag: &str) -> bool {
    let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let asked = headers.get_all(header::IF_NONE_MATCH);
    asked
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim() == "*" || weak(tag) == weak(etag))
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    bytes_response(status, JSON, encode(value))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut body = serde_json::to_vec(value).expect("maps with text keys, and numbers");
    // A shell's prompt belongs on a line of its own.
    body.push(b'\n');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn what_a_client_has_is_not_sent_again() {
        let answer = || Answer::revised(7, &json!({ "nodes": [] }));
        let etag = answer().etag;
        assert!(etag.starts_with("W/\"7-"), "{etag}");
        let status = |method: Method, asked: &str| {
            let headers = headers(header::IF_NONE_MATCH, asked);
            answer().response(&method, &headers).status().as_u16()
        };
        let strong = etag.trim_start_matches("W/");
        assert_eq!(status(Method::GET, &etag), 304);
        assert_eq!(status(Method::HEAD, strong), 304);
        assert_eq!(status(Method::GET, &format!("\"old\", {etag}")), 304);
        assert_eq!(status(Method::GET, "*"), 304);
        assert_eq!(status(Method::GET, "\"7\""), 200);
        assert_eq!(status(Method::PUT, &etag), 200);
        let fresh = answer().response(&Method::GET, &HeaderMap::new());
        assert_eq!(fresh.headers()[header::ETAG], etag.as_str());
        assert_eq!(fresh.headers()[header::CONTENT_TYPE], JSON);
    }

    #[test]
    fn other_bytes_have_another_digest() {
        let texts: [&[u8]; 5] = [b"", b"a", b"b", b"ab", b"ba"];
        let digests: std::collections::BTreeSet<String> =
            texts.iter().map(|text| digest(text)).collect();
        assert_eq!(digests.len(), texts.len());
    }

    #[test]
    fn failures_carry_their_remedy() {
        let not_allowed = Failure::MethodNotAllowed {
            asked: "DELETE /health".into(),
            allowed: "GET, HEAD",
        };
        let response = not_allowed.response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
        let unavailable = Failure::Unavailable {
            why: "range 1 has no leader".into(),
            leader: Some(json!({ "store": 2 })),
        };
        assert_eq!(unavailable.response().status(), 503);
        assert_eq!(unavailable.response().headers()[header::RETRY_AFTER], "1");
    }
}
