//! Carries requests to a list of expected ones, each with its reply. Nothing leaves the process. For pack tests and rehearsals.
//!
//! What was sent, and what was expected and never came, is kept for [`Scripted::met`] and [`Scripted::unmet`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::{Request, Url};
use serde_json::{Map, Value, json};

use super::{Reply, Transport, told, too_large, unreachable};
use crate::clock::{self, Clock};
use crate::expect::{Difference, Expected, Extent, Wording};
use crate::model::failure::Failure;
use crate::model::json::RawJson;
use crate::model::place::Place;
use crate::model::reason::Reason;

/// A request that is expected, and what it is answered.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Where it is written.
    pub place: Place,
    /// The method, in capitals.
    pub method: String,
    /// The origin, `scheme://host:port`; nothing for any.
    pub origin: Option<String>,
    /// The path, as it goes over the wire.
    pub path: String,
    /// The query, each name with its value.
    pub query: Option<Expected>,
    /// Headers, names in lower case; others may be there.
    pub headers: Option<Expected>,
    /// The body.
    pub body: Option<Body>,
    /// How often it is expected.
    pub times: u32,
    /// The answer.
    pub answer: Answer,
    /// What passes before it, of the clock's time.
    pub after: Duration,
}

/// What is expected of a body.
#[derive(Clone, Debug)]
pub enum Body {
    /// JSON.
    Json(Expected),
    /// Text.
    Text(Wording),
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With a reply.
    Reply(Reply),
    /// Not at all; this is why.
    Unreachable(String),
}

impl Exchange {
    /// Reads `METHOD /path?query` or `METHOD http://host:port/path?query`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn of(place: Place, expected: &str, answer: Answer) -> Result<Self, String> {
        let wrong = || format!("`{expected}` is no request; write it as `GET /path` or `GET http://host/path`");
        let (method, address) = expected.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
        let address = address.trim();
        let has_origin = !address.starts_with('/');
        // Both kinds are parsed as whole addresses, so that the path is escaped as that of a request is.
        let url = Url::parse(&if has_origin { address.to_string() } else { format!("http://any{address}") }).map_err(|_| wrong())?;
        if method.chars().any(|c| !c.is_ascii_uppercase()) || method.is_empty() {
            return Err(wrong());
        }
        let query = url.query().map(|_| Expected::new(&query(&url), Extent::Whole)).transpose()?;
        let origin = if has_origin { Some(super::origin(address)?) } else { None };
        let path = url.path().to_string();
        Ok(Self { place, method: method.into(), origin, path, query, headers: None, body: None, times: 1, answer, after: Duration::ZERO })
    }

    /// How a request differs from this one; nothing if it is the one expected.
    #[must_use]
    pub fn differences(&self, sent: &Sent) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut differs = |path: &str, expected: &str, got: &str| {
            if expected != got {
                found.push(Difference { path: path.into(), expected: Some(expected.into()), got: Some(got.into()) });
            }
        };
        differs("method", &self.method, &sent.method);
        if let Some(origin) = &self.origin {
            differs("origin", origin, &sent.origin);
        }
        differs("path", &self.path, &sent.path);
        let mut compare = |what: &str, expected: &Expected, got: &Value| {
            let below = |path: String| if path.is_empty() { what.to_string() } else { format!("{what}.{path}") };
            found.extend(expected.differences(got).into_iter().map(|one| Difference { path: below(one.path), ..one }));
        };
        if let Some(query) = &self.query {
            compare("query", query, &sent.query);
        }
        if let Some(headers) = &self.headers {
            compare("headers", headers, &Value::Object(sent.headers.clone()));
        }
        match &self.body {
            None => {}
            Some(Body::Json(expected)) => match &sent.json {
                Some(json) => compare("json", expected, json),
                None => {
                    found.push(Difference {
                        path: "json".into(),
                        expected: Some(expected.written()),
                        got: Some(sent.body.as_str().into()),
                    });
                }
            },
            Some(Body::Text(wording)) if wording.fits(&sent.body) => {}
            Some(Body::Text(wording)) => {
                found.push(Difference {
                    path: "body".into(),
                    expected: Some(wording.to_string().into()),
                    got: Some(sent.body.as_str().into()),
                });
            }
        }
        found
    }
}

/// A request that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When.
    pub at: DateTime<Utc>,
    /// The method.
    pub method: String,
    /// Where to, `scheme://host:port`.
    pub origin: String,
    /// The path.
    pub path: String,
    /// Each name of the query with its value; several values are a list.
    pub query: Value,
    /// The headers, names in lower case.
    pub headers: Map<String, Value>,
    /// The body as text.
    pub body: String,
    /// The body as JSON, if it is.
    pub json: Option<Value>,
    /// Which expectation it met.
    pub met: Option<usize>,
}

impl Sent {
    fn of(request: &Request, at: DateTime<Utc>) -> Self {
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let body = String::from_utf8_lossy(body).into_owned();
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned())));
        Self {
            at,
            method: request.method().to_string(),
            origin: super::origin(request.url().as_str()).unwrap_or_default(),
            path: request.url().path().to_string(),
            query: query(request.url()),
            headers: headers.collect(),
            json: RawJson::parse(&body).ok().and_then(|raw| raw.value().ok()),
            body,
            met: None,
        }
    }
}

/// The query of an address as a map.
fn query(url: &Url) -> Value {
    let mut map: Map<String, Value> = Map::new();
    for (name, value) in url.query_pairs() {
        match map.get_mut(&*name) {
            None => {
                map.insert(name.into_owned(), json!(value));
            }
            Some(Value::Array(values)) => values.push(json!(value)),
            Some(first) => *first = json!([first.clone(), value]),
        }
    }
    Value::Object(map)
}

/// Answers as the list says.
pub struct Scripted {
    clock: Arc<dyn Clock>,
    exchanges: Vec<Exchange>,
    in_order: bool,
    played: Mutex<Played>,
}

#[derive(Default)]
struct Played {
    sent: Vec<Sent>,
    /// How often each exchange has been met.
    met: Vec<u32>,
}

impl Scripted {
    /// A list, to be met in its order or in any.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, exchanges: Vec<Exchange>, in_order: bool) -> Self {
        let played = Played { sent: Vec::new(), met: vec![0; exchanges.len()] };
        Self { clock, exchanges, in_order, played: Mutex::new(played) }
    }

    fn played(&self) -> MutexGuard<'_, Played> {
        self.played.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was expected, in the order of the list.
    #[must_use]
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// Every request that was sent, in the order of time.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.played().sent.clone()
    }

    /// What was expected and did not come, or not as often; and how often it came.
    #[must_use]
    pub fn unmet(&self) -> Vec<(&Exchange, u32)> {
        let played = self.played();
        self.exchanges.iter().zip(played.met.iter().copied()).filter(|(exchange, met)| *met < exchange.times).collect()
    }

    /// Finds the exchange that a request meets, and notes both.
    fn meet(&self, mut sent: Sent) -> Option<&Exchange> {
        let mut played = self.played();
        let open = |index: &usize| played.met[*index] < self.exchanges[*index].times;
        let candidates = (0..self.exchanges.len()).filter(open).take(if self.in_order { 1 } else { usize::MAX });
        sent.met = candidates.into_iter().find(|index| self.exchanges[*index].differences(&sent).is_empty());
        let met = sent.met;
        played.sent.push(sent);
        let index = met?;
        played.met[index] += 1;
        Some(&self.exchanges[index])
    }
}

#[async_trait]
impl Transport for Scripted {
    async fn carry(&self, request: Request, most_bytes: usize) -> Result<Reply, Failure> {
        let told = told(&request);
        let Some(exchange) = self.meet(Sent::of(&request, self.clock.now())) else {
            let message = format!("{told}: this request is not expected");
            return Err(Failure { reason: Reason::Unreachable, message, retry: false });
        };
        if !exchange.after.is_zero() {
            clock::sleep(&*self.clock, exchange.after).await;
        }
        match &exchange.answer {
            Answer::Unreachable(why) => Err(unreachable(&told, why)),
            Answer::Reply(reply) if reply.body.len() > most_bytes => Err(too_large(&told, most_bytes)),
            Answer::Reply(reply) => Ok(reply.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;
    use crate::outbound::{Outbound, exchange};

    fn answers(status: u16) -> Answer {
        Answer::Reply(Reply { status, headers: Map::new(), body: b"ok".to_vec() })
    }

    fn scripted(expected: &[&str], in_order: bool) -> (SimulatedClock, Scripted) {
        let clock = SimulatedClock::at(DateTime::UNIX_EPOCH);
        let place = Place { file: "t.yaml".into(), line: 1, column: 1 };
        let exchanges = expected.iter().map(|expected| Exchange::of(place.clone(), expected, answers(200)).unwrap()).collect();
        (clock.clone(), Scripted::new(Arc::new(clock), exchanges, in_order))
    }

    async fn asks(scripted: &Scripted, method: &'static str, url: &str) -> Result<u16, String> {
        exchange(scripted, Outbound::plain(method, url)).await.map(|reply| reply.status).map_err(|failure| failure.message)
    }

    #[tokio::test]
    async fn requests_meet_their_expectations_in_order_or_in_any() {
        let expected = ["GET /v2/apps//shop", "POST http://x.test/jobs?dry=1&dry=2"];
        for in_order in [true, false] {
            let (_, scripted) = scripted(&expected, in_order);
            assert!(asks(&scripted, "POST", "http://y.test/jobs?dry=1&dry=2").await.is_err());
            assert!(asks(&scripted, "POST", "http://x.test/jobs?dry=1").await.is_err());
            assert_eq!(asks(&scripted, "POST", "http://x.test/jobs?dry=1&dry=2").await.is_ok(), !in_order);
            assert_eq!(asks(&scripted, "GET", "http://z.test/v2/apps//shop").await, Ok(200));
            let why = "GET http://z.test/v2/apps//shop: this request is not expected";
            assert_eq!(asks(&scripted, "GET", "http://z.test/v2/apps//shop?a=secret").await, Err(why.into()));
            assert_eq!(scripted.unmet().len(), usize::from(in_order));
            assert_eq!(scripted.sent().iter().filter(|sent| sent.met.is_some()).count(), if in_order { 1 } else { 2 });
        }
    }

    #[tokio::test]
    async fn differences_name_the_part() {
        let (_, scripted) = scripted(&["PUT /jobs"], true);
        let mut put = Outbound::plain("PUT", "http://u:p%20w@x.test/job");
        put.set_json(&json!({"n": 1}));
        assert!(exchange(&scripted, put).await.is_err());
        let sent = scripted.sent().remove(0);
        assert_eq!(sent.headers["authorization"], "Basic dTpwIHc=");
        let mut expected = scripted.exchanges()[0].clone();
        expected.body = Some(Body::Json(Expected::new(&json!({"n": 2}), Extent::Whole).unwrap()));
        let paths: Vec<String> = expected.differences(&sent).into_iter().map(|one| one.path).collect();
        assert_eq!(paths, ["path", "json.n"]);
    }

    #[tokio::test]
    async fn a_late_reply_takes_time_of_the_clock_only() {
        let (clock, mut scripted) = scripted(&["GET /"], true);
        scripted.exchanges[0].after = Duration::from_secs(10_000);
        scripted.exchanges[0].answer = Answer::Unreachable("connection refused".into());
        let mut asked = Box::pin(asks(&scripted, "GET", "http://x.test/"));
        assert!(futures_util::poll!(asked.as_mut()).is_pending());
        clock.advance_to(clock.next_awaited().unwrap());
        assert_eq!(asked.await, Err("GET http://x.test/: connection refused".into()));
        assert_eq!(clock.now().timestamp(), 10_000);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let place = Place { file: "t.yaml".into(), line: 1, column: 1 };
        for wrong in ["/path", "get /path", "GET path", "GET ftp://x/", ""] {
            assert!(Exchange::of(place.clone(), wrong, answers(200)).is_err(), "{wrong}");
        }
    }
}
