//! Every error of the API: a problem document (RFC 9457), with what to do.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::auth::permission::Permission;
use crate::document::fault::Fault;
use crate::engine::RequestError;
use crate::engine::ingest::Refused;
use crate::journal::AcceptError;
use crate::model::reason::Reason;
use crate::sensors::webhooks::Rejected;
use crate::store::StoreError;

/// How long a sender is asked to wait when too much arrives, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// A problem document.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    errors: Vec<Value>,
    reason: Option<Reason>,
    allow: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), errors: Vec::new(), reason: None, allow: None }
    }

    /// The kind of problem, the same for the same title: `urn:signalman:problem:not-found`.
    fn kind(&self) -> String {
        let words: Vec<&str> = self.title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        format!("urn:signalman:problem:{}", words.join("-").to_lowercase())
    }

    /// The request is wrong.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The request is not valid", detail)
    }

    /// One field of the request, or one parameter of its query, is wrong.
    pub fn field(name: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { errors: vec![json!({"field": name, "detail": detail})], ..Self::invalid(detail) }
    }

    /// A file of the site would not be taken; everything that is wrong with it.
    #[must_use]
    pub fn faulty(title: &'static str, faults: &[Fault]) -> Self {
        let detail: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let error =
            |fault: &Fault| json!({"detail": fault.message, "line": fault.place.line, "column": fault.place.column, "hint": fault.hint});
        let errors = faults.iter().map(error).collect();
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, title, detail.join("\n")) }
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", detail)
    }

    /// The caller did not say who it is.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Not authorized", detail)
    }

    /// The caller is known, and may not do that.
    #[must_use]
    pub fn forbidden(needed: Permission) -> Self {
        let detail = format!("this token may not do that: it needs the permission `{}`", needed.name());
        Self::new(StatusCode::FORBIDDEN, "Not allowed", detail)
    }

    /// What the request depends on is not so any more.
    pub fn precondition(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "It has changed meanwhile", detail)
    }

    /// The method is not one that the address has; these are.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        let detail = format!("this address exists, but not with this method; it has {allow}");
        Self { allow: Some(allow.to_string()), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail) }
    }

    /// The body is too large.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes; the site's `limits.body` sets this");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", detail)
    }

    /// The body did not arrive in time.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time", "send the whole body without long pauses")
    }

    /// The site's files are faulty.
    #[must_use]
    pub fn faulty_site(faults: &[String]) -> Self {
        let errors = faults.iter().take(100).map(|fault| json!({"detail": fault})).collect();
        let detail = format!("the site runs on as it was:\n\n{}", faults.join("\n\n"));
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "The site's files are faulty", detail) }
    }

    /// Something else has to end first.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Not possible now", detail)
    }

    /// Too much arrives.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self { reason: Some(Reason::Overloaded), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "Too much at once", detail) }
    }

    /// The store cannot be used.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { reason: Some(Reason::StoreUnavailable), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "The store cannot be used", detail) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NotFound(detail) => Self::not_found(detail),
            RequestError::Invalid(faults) => {
                let errors = faults.iter().map(|fault| json!({"detail": fault})).collect();
                Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "The parameters do not fit the action", faults.join("; ")) }
            }
            RequestError::NotAnId(detail) => Self::invalid(detail),
            RequestError::Conflict(detail) => Self::new(StatusCode::CONFLICT, "Not possible now", detail),
            RequestError::Overloaded(detail) => Self::overloaded(detail),
            RequestError::Store(error) => error.into(),
        }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let detail = rejected.faults.iter().take(5).map(|(index, fault)| match index {
            Some(index) => format!("event {index}: {fault}"),
            None => fault.clone(),
        });
        let errors = rejected.faults.iter().filter_map(|(index, fault)| index.map(|index| json!({"index": index, "detail": fault})));
        let errors: Vec<Value> = errors.take(100).collect();
        Self { errors, ..Self::invalid(detail.collect::<Vec<_>>().join("; ")) }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown(detail) => Self::not_found(detail),
            Refused::Unauthorized(detail) => Self::unauthorized(detail),
            Refused::Rejected(rejected) => rejected.into(),
            Refused::Accept(AcceptError::Overloaded(detail)) => Self::overloaded(detail),
            Refused::Accept(AcceptError::Unavailable(detail)) => Self::unavailable(detail),
            Refused::Accept(error @ AcceptError::BodyDiffers { .. }) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "The Idempotency-Key was used before", error.to_string())
            }
        }
    }
}

/// The document of an answer that tells of a problem.
#[derive(Clone)]
struct Document(Arc<Value>);

/// Says in a problem which request had it.
#[must_use]
pub fn with_instance(mut response: Response<Body>, request: &str) -> Response<Body> {
    if let Some(Document(document)) = response.extensions_mut().remove() {
        let mut document = Value::clone(&document);
        document["instance"] = format!("urn:signalman:request:{request}").into();
        *response.body_mut() = Body::from(document.to_string());
    }
    response
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut document = json!({"type": self.kind(), "title": self.title, "status": self.status.as_u16(), "detail": self.detail});
        if !self.errors.is_empty() {
            document["errors"] = Value::from(self.errors);
        }
        if let Some(reason) = self.reason {
            document["reason"] = json!(reason);
        }
        let mut response = Response::new(Body::from(document.to_string()));
        response.extensions_mut().insert(Document(Arc::new(document)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
