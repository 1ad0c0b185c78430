//! Requests to other systems: those of packs only to granted origins; all of them bounded, redirected only where the sender asks for it.
//!
//! What is decided about a request stands here. [`Transport`] carries it: [`network`] over the network, [`scripted`] to a list of replies.

pub mod network;
pub mod scripted;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request, Url};
use serde_json::{Map, Value};

use crate::model::failure::Failure;
use crate::model::ids::ExecutionId;
use crate::model::pack::Pack;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::template::text::plain;

/// The largest reply.
pub const MAX_REPLY_BYTES: usize = 4 << 20;

/// The most redirects that one request follows.
const MAX_REDIRECTS: usize = 5;

/// How much of an error reply is shown.
const SHOWN_CHARACTERS: usize = 500;

/// Says which execution sent a request, so that an event it causes is known as ours: `<execution> <depth>`.
pub const CAUSE_HEADER: &str = "signalman-cause";

/// Port: carries requests whose sender may send them. Knows nothing of packs and executions.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends a request as it is and reads the whole reply, of at most so many bytes, whatever its status. Ends when it is dropped.
    ///
    /// # Errors
    /// When nobody answers, or the reply is too large.
    async fn carry(&self, request: Request, most_bytes: usize) -> Result<Reply, Failure>;
}

/// A request that is to be sent.
#[derive(Clone)]
pub struct Outbound {
    /// The method.
    pub method: &'static str,
    /// The address.
    pub url: String,
    /// Headers.
    pub headers: Map<String, Value>,
    /// Added to the address.
    pub query: Map<String, Value>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// Whether the body is JSON.
    pub json: bool,
    /// The statuses that are no error; empty for 200 to 299.
    pub expect: Vec<u16>,
    /// The execution that sends it, if one does.
    pub execution: Option<ExecutionId>,
    /// The depth of that execution.
    pub depth: u32,
    /// Its number among the execution's requests that change something.
    pub number: Option<u32>,
    /// Hides what must not be shown when the reply is an error.
    pub masks: Masks,
    /// The largest reply, in bytes.
    pub reply_bytes: usize,
    /// Whether redirects are followed, each to a granted origin only; of requests that change nothing.
    pub follow: bool,
}

impl Outbound {
    /// A request of an execution, without anything extra.
    #[must_use]
    pub fn new(method: &'static str, url: &str, execution: ExecutionId, depth: u32) -> Self {
        Self { execution: Some(execution), depth, ..Self::plain(method, url) }
    }

    /// A request that no execution sends.
    #[must_use]
    pub fn plain(method: &'static str, url: &str) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Map::new(),
            query: Map::new(),
            body: None,
            json: false,
            expect: Vec::new(),
            execution: None,
            depth: 0,
            number: None,
            masks: Masks::default(),
            reply_bytes: MAX_REPLY_BYTES,
            follow: false,
        }
    }

    /// Sends a value as JSON.
    pub fn set_json(&mut self, value: &Value) {
        self.body = Some(value.to_string().into_bytes());
        self.json = true;
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Map<String, Value>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The beginning of the body, without secrets, as it is shown in an error.
    #[must_use]
    pub fn shown(&self, masks: &Masks) -> String {
        let mut text = self.text();
        // Before it is cut, or the beginning of a secret would stay.
        masks.text(&mut text);
        text.chars().take(SHOWN_CHARACTERS).collect::<String>().trim().to_string()
    }

    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The origin of an address, `scheme://host:port`, the port always said.
///
/// # Errors
/// When it is no http or https address.
pub fn origin(url: &str) -> Result<String, String> {
    let parsed = Url::parse(url).map_err(|error| format!("`{url}` is not an address: {error}"))?;
    match (parsed.scheme(), parsed.host_str(), parsed.port_or_known_default()) {
        (scheme @ ("http" | "https"), Some(host), Some(port)) => Ok(format!("{scheme}://{host}:{port}")),
        _ => Err(format!("`{url}` is not an http or https address")),
    }
}

/// Sends a request of a pack and reads the whole reply.
///
/// # Errors
/// When the pack may not call that origin, nobody answers, the reply is too large, or the status is not expected.
pub async fn send(transport: &dyn Transport, pack: &Pack, mut outbound: Outbound) -> Result<Reply, Failure> {
    let mut here = granted(pack, &outbound.url, "call")?;
    for _ in 0..=MAX_REDIRECTS {
        let reply = exchange(transport, outbound.clone()).await?;
        let Some(next) = redirect(&outbound, &reply) else { return expected(&outbound, reply) };
        let there = granted(pack, &next, "follow a redirect to")?;
        if std::mem::replace(&mut here, there.clone()) != there {
            // What was meant for one system is not told to another.
            outbound.headers.retain(|name, _| !["authorization", "cookie"].contains(&name.to_lowercase().as_str()));
        }
        outbound.query.clear();
        outbound.url = next;
    }
    let message = format!("{} {} was redirected more than {MAX_REDIRECTS} times", outbound.method, outbound.url);
    Err(Failure { reason: Reason::RefusedByTarget, message, retry: false })
}

/// The origin of an address that a pack may call.
fn granted(pack: &Pack, url: &str, what: &str) -> Result<String, Failure> {
    let target = origin(url).map_err(|error| Failure::misuse(format!("http: {error}")))?;
    if pack.capabilities.http.contains(&target) {
        return Ok(target);
    }
    Err(Failure::capability(&pack.reference, &format!("{what} {target}"), &format!("http: [\"{target}\"]")))
}

/// Where a reply leads that is to be followed.
fn redirect(outbound: &Outbound, reply: &Reply) -> Option<String> {
    let leads = outbound.follow && [301, 302, 303, 307, 308].contains(&reply.status) && !outbound.expect.contains(&reply.status);
    let location = Some(reply.header("location")).filter(|location| leads && !location.is_empty())?;
    Url::parse(&outbound.url).and_then(|url| url.join(location)).ok().map(Into::into)
}

fn expected(outbound: &Outbound, reply: Reply) -> Result<Reply, Failure> {
    let (method, url, status) = (outbound.method, &outbound.url, reply.status);
    if if outbound.expect.is_empty() { (200..300).contains(&status) } else { outbound.expect.contains(&status) } {
        return Ok(reply);
    }
    let shown = reply.shown(&outbound.masks);
    let mut message = format!("{method} {url} answered {status}: {shown}");
    if (300..400).contains(&status) && !reply.header("location").is_empty() {
        message.push_str(&format!("; it leads to {}, and redirects are followed with `follow: true` only", reply.header("location")));
        outbound.masks.text(&mut message);
    }
    Err(Failure { reason: Reason::RefusedByTarget, message, retry: status == 429 || status >= 500 })
}

/// Sends a request that the site itself asks for and reads the whole reply, whatever its status.
///
/// # Errors
/// When nobody answers, or the reply is too large.
pub async fn exchange(transport: &dyn Transport, outbound: Outbound) -> Result<Reply, Failure> {
    let most_bytes = outbound.reply_bytes;
    transport.carry(build(outbound)?, most_bytes).await
}

fn build(outbound: Outbound) -> Result<Request, Failure> {
    let mut url = Url::parse(&outbound.url).map_err(|error| Failure::misuse(format!("http: `{}`: {error}", outbound.url)))?;
    for (name, value) in &outbound.query {
        url.query_pairs_mut().append_pair(name, &plain(value));
    }
    let method = Method::from_bytes(outbound.method.as_bytes()).map_err(|_| Failure::misuse("http: not a method"))?;
    let mut headers = HeaderMap::new();
    let mut set = |name: &str, value: &str| -> Result<(), Failure> {
        let wrong = || Failure::misuse(format!("http: header `{name}` is not valid"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        Ok(())
    };
    if outbound.json {
        set("content-type", "application/json")?;
    }
    for (name, value) in &outbound.headers {
        set(name, &plain(value))?;
    }
    // Ours last: whoever writes a script must not be able to hide that a request is ours, or that it is a repeat.
    if let Some(execution) = outbound.execution {
        set(CAUSE_HEADER, &format!("{execution} {}", outbound.depth))?;
        if let Some(number) = outbound.number {
            set("idempotency-key", &format!("{execution}-{number}"))?;
        }
    }
    // What an address says of user and password is a header, too; one that is given stands.
    let user = (!url.username().is_empty() || url.password().is_some())
        .then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())));
    if let Some((user, password)) = user {
        let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
        headers.entry(AUTHORIZATION).or_insert(value.map_err(|_| Failure::misuse("http: user and password make no valid header"))?);
        let _ = url.set_username("").and_then(|()| url.set_password(None)); // an address with a user has a host, so it can
    }
    let mut request = Request::new(method, url);
    *request.headers_mut() = headers;
    *request.body_mut() = outbound.body.map(Into::into);
    Ok(request)
}

/// A part of an address without percent signs.
fn decoded(part: &str) -> String {
    let pair = Url::parse(&format!("http://x/?={}", part.replace('+', "%2B")));
    pair.ok().and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned())).unwrap_or_default()
}

/// A request as errors show it: without its query, which may hold secrets in a form that nobody would recognise.
fn told(request: &Request) -> String {
    let mut url = request.url().clone();
    url.set_query(None);
    format!("{} {url}", request.method())
}

/// Nobody answered.
fn unreachable(request: &str, why: &str) -> Failure {
    Failure { reason: Reason::Unreachable, message: format!("{request}: {why}"), retry: true }
}

/// The reply is longer than is taken.
fn too_large(request: &str, most_bytes: usize) -> Failure {
    let message = format!("{request}: the reply is larger than {most_bytes} bytes");
    Failure { reason: Reason::OutputTooLarge, message, retry: false }
}
