//! Requests to other systems: those of packs only to granted origins; all of them bounded, never redirected.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url};
use serde_json::{Map, Value};

use crate::model::failure::Failure;
use crate::model::ids::ExecutionId;
use crate::model::pack::Pack;
use crate::model::reason::Reason;
use crate::model::secret::Masks;
use crate::template::text::plain;

/// The largest reply.
pub const MAX_REPLY_BYTES: usize = 4 << 20;

/// How much of an error reply is shown.
const SHOWN_CHARACTERS: usize = 500;

/// Says which execution sent a request, so that an event it causes is known as ours: `<execution> <depth>`.
pub const CAUSE_HEADER: &str = "signalman-cause";

/// How long to wait for a connection.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The client that every outgoing request shares.
///
/// # Errors
/// When the system's certificates cannot be read.
pub fn client() -> Result<Client, reqwest::Error> {
    let agent = concat!("signalman/", env!("CARGO_PKG_VERSION"));
    Client::builder().no_proxy().user_agent(agent).redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT_TIMEOUT).build()
}

/// A request that is to be sent.
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
pub async fn send(client: &Client, pack: &Pack, outbound: Outbound) -> Result<Reply, Failure> {
    let target = origin(&outbound.url).map_err(|error| Failure::misuse(format!("http: {error}")))?;
    if !pack.capabilities.http.contains(&target) {
        return Err(Failure::capability(&pack.reference, &format!("call {target}"), &format!("http: [\"{target}\"]")));
    }
    let (method, url, expect, masks) = (outbound.method, outbound.url.clone(), outbound.expect.clone(), outbound.masks.clone());
    let reply = exchange(client, outbound).await?;
    let status = reply.status;
    let expected = if expect.is_empty() { (200..300).contains(&status) } else { expect.contains(&status) };
    if expected {
        return Ok(reply);
    }
    let shown = reply.shown(&masks);
    let message = format!("{method} {url} answered {status}: {shown}");
    Err(Failure { reason: Reason::RefusedByTarget, message, retry: status == 429 || status >= 500 })
}

/// Sends a request that the site itself asks for and reads the whole reply, whatever its status.
///
/// # Errors
/// When nobody answers, or the reply is too large.
pub async fn exchange(client: &Client, outbound: Outbound) -> Result<Reply, Failure> {
    let (method, url, most) = (outbound.method, outbound.url.clone(), outbound.reply_bytes);
    let request = build(client, outbound)?;
    let unreachable = |error: &reqwest::Error| Failure {
        reason: Reason::Unreachable,
        message: format!("{method} {url}: {}", innermost(error)),
        retry: true,
    };
    let mut response = client.execute(request).await.map_err(|error| unreachable(&error))?;
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned())));
    let headers = headers.collect();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > most {
            let message = format!("{method} {url}: the reply is larger than {most} bytes");
            return Err(Failure { reason: Reason::OutputTooLarge, message, retry: false });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply { status, headers, body })
}

fn build(client: &Client, outbound: Outbound) -> Result<reqwest::Request, Failure> {
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
    let request = client.request(method, url).headers(headers);
    let request = match outbound.body {
        Some(body) => request.body(body),
        None => request,
    };
    request.build().map_err(|error| Failure::misuse(format!("http: {}", innermost(&error))))
}

/// The cause at the bottom of an error: “connection refused” instead of “error sending request”.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
