//! The one table of what is served: every route with its method, address, permission, and what goes in and comes out. The router is
//! built from it, and so are `/api/v1/openapi.json` and `docs/reference/api.md`; a route that is not in it does not exist.
//!
//! Each part of the API has its rows in its own file, in a `ROUTES`; [`PARTS`] lists them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter};

use super::problem::{Problem, with_instance};
use super::{
    ApiState, actions, chat, events, executions, health, keys, listing, openapi, reload, rules, sensors, site, store, stream, webhooks,
};
use crate::auth::permission::Permission;
use crate::document::fault::nearest;
use crate::engine::ingest::bearer;

/// The header with the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything that is served, part by part.
const PARTS: &[&[Route]] = &[
    health::ROUTES,
    openapi::ROUTES,
    site::ROUTES,
    webhooks::ROUTES,
    events::ROUTES,
    rules::ROUTES,
    executions::ROUTES,
    actions::ROUTES,
    listing::ROUTES,
    sensors::ROUTES,
    keys::ROUTES,
    chat::ROUTES,
    stream::ROUTES,
    store::ROUTES,
    reload::ROUTES,
];

/// Every route, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static Route> {
    PARTS.iter().copied().flatten()
}

/// A method that a route answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of HTTP")]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    /// Its name in HTTP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// A parameter in the query of an address.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its type in JSON Schema.
    pub kind: &'static str,
    /// What it does.
    pub summary: &'static str,
}

/// A row of the table: one method of one address.
#[derive(Clone, Copy)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The address; `{name}` stands for a part of it.
    pub path: &'static str,
    /// What its caller must be allowed to do.
    pub permission: Permission,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What may stand in the query; anything else is refused. The routes that anybody may call take what comes.
    pub query: &'static [Parameter],
    /// The schema of the body, if it takes one.
    pub body: Option<&'static str>,
    /// The status of the answer when all is well.
    pub status: u16,
    /// The media type of that answer.
    pub media: &'static str,
    /// The schema of that answer, if it is JSON.
    pub answer: Option<&'static str>,
    /// The problems that it answers with, beside those of every route.
    pub problems: &'static [u16],
    handler: Handler,
}

/// Puts the function that answers under a method. Each such function is of another type; this is how they all fit one table.
type Handler = fn(MethodFilter) -> MethodRouter<Arc<ApiState>>;

/// A row for `GET`.
pub(super) const fn get(path: &'static str, permission: Permission, summary: &'static str, handler: Handler) -> Route {
    row(Method::Get, path, permission, summary, handler)
}

/// A row for `POST`.
pub(super) const fn post(path: &'static str, permission: Permission, summary: &'static str, handler: Handler) -> Route {
    row(Method::Post, path, permission, summary, handler)
}

/// A row for another method.
pub(super) const fn row(method: Method, path: &'static str, permission: Permission, summary: &'static str, handler: Handler) -> Route {
    let (query, problems): (&[Parameter], &[u16]) = (&[], &[]);
    Route { method, path, permission, summary, query, body: None, status: 200, media: "application/json", answer: None, problems, handler }
}

impl Route {
    /// Takes these in its query.
    pub(super) const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// Takes a body of this schema.
    pub(super) const fn takes(self, schema: &'static str) -> Self {
        Self { body: Some(schema), ..self }
    }

    /// Answers 200 with this schema.
    pub(super) const fn answers(self, schema: &'static str) -> Self {
        Self { answer: Some(schema), ..self }
    }

    /// Answers 202 with this schema.
    pub(super) const fn accepts(self, schema: &'static str) -> Self {
        Self { status: 202, answer: Some(schema), ..self }
    }

    /// Answers with something that is no JSON.
    pub(super) const fn sends(self, media: &'static str) -> Self {
        Self { media, ..self }
    }

    /// Answers with these problems too.
    pub(super) const fn or(self, problems: &'static [u16]) -> Self {
        Self { problems, ..self }
    }
}

/// The router of everything that is served.
pub fn router(state: Arc<ApiState>) -> Router {
    let mut of_path: BTreeMap<&'static str, Vec<&'static Route>> = BTreeMap::new();
    for route in all() {
        of_path.entry(route.path).or_default().push(route);
    }
    let mut router = Router::new();
    for (path, routes) in of_path {
        router = router.route(path, methods(&state, &routes));
    }
    let identify = middleware::from_fn_with_state(Arc::clone(&state), identify);
    router.fallback(|| async { Problem::not_found("there is nothing at this address") }).layer(identify).with_state(state)
}

/// The longest id of a request that a client may choose, in bytes.
const MAX_REQUEST_ID: usize = 64;

/// Gives every answer the id of its request: the client's, if it sent a plain one, else a fresh one.
async fn identify(State(state): State<Arc<ApiState>>, request: Request, next: Next) -> Response<Body> {
    let is_plain =
        |text: &&str| (1..=MAX_REQUEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_plain).map(ToString::to_string);
    let id = given.unwrap_or_else(|| state.engine.ids.request(state.engine.clock.now()).to_string());
    let mut response = with_instance(next.run(request).await, &id);
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// All methods of one address. `HEAD` is answered as `GET` without the body.
fn methods(state: &Arc<ApiState>, routes: &[&'static Route]) -> MethodRouter<Arc<ApiState>> {
    let mut methods = MethodRouter::new();
    let mut allowed = vec!["OPTIONS"];
    for route in routes {
        let handler = (route.handler)(route.method.filter());
        methods = methods.merge(handler.route_layer(middleware::from_fn_with_state((Arc::clone(state), *route), guard)));
        allowed.push(route.method.name());
        if route.method == Method::Get {
            allowed.push("HEAD");
        }
    }
    allowed.sort_unstable();
    let allow = allowed.join(", ");
    let told = allow.clone();
    methods
        .on(MethodFilter::OPTIONS, move || async move { (StatusCode::NO_CONTENT, [("allow", told)]) })
        .fallback(move || async move { Problem::method_not_allowed(&allow) })
}

/// Lets a request pass that may have what it asks for, and says whose it is.
async fn guard(State((state, route)): State<(Arc<ApiState>, &'static Route)>, mut request: Request, next: Next) -> Response<Body> {
    if route.permission != Permission::Open {
        let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let Some(principal) = given.and_then(|token| state.tokens.principal(token)) else {
            let detail = "`Authorization: Bearer …` with a token is needed; the first one is in data/admin.token";
            return Problem::unauthorized(detail).into_response();
        };
        if !state.tokens.may(&principal, route.permission) {
            return Problem::forbidden(route.permission).into_response();
        }
        if let Err(problem) = check_query(route, request.uri()) {
            return problem.into_response();
        }
        request.extensions_mut().insert(principal);
    }
    next.run(request).await
}

/// Refuses what the route does not know: a filter with a typing error would answer with everything.
fn check_query(route: &Route, uri: &Uri) -> Result<(), Problem> {
    let names =
        uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap_or(pair));
    for name in names {
        if route.query.iter().all(|known| known.name != name) {
            let known: Vec<&str> = route.query.iter().map(|known| known.name).collect();
            let hint = match (nearest(name, known.iter().copied()), known.is_empty()) {
                (Some(nearest), _) => format!("; did you mean `{nearest}`?"),
                (None, true) => "; this address takes none".into(),
                (None, false) => format!("; it takes {}", known.join(", ")),
            };
            return Err(Problem::field(name, format!("there is no query parameter `{name}`{hint}")));
        }
    }
    Ok(())
}
