//! Talks to a running server.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{Common, Failure};
use crate::auth::read_token;
use crate::config::{self, Environment, SiteConfig};
use crate::document::fields::Faults;
use crate::links::percent_encode;
use crate::model::secret::Secret;

/// How long an ordinary request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request may take that reads much of the store; the server ends it before.
const LONG_TIMEOUT: Duration = Duration::from_secs(900);

/// The variable that holds a token.
pub const TOKEN_VARIABLE: &str = "SIGNALMAN_TOKEN";

/// The variable that holds a server's address.
pub const SERVER_VARIABLE: &str = "SIGNALMAN_SERVER";

/// A server and a token for it.
pub struct ApiClient {
    server: String,
    token: Secret,
    client: Client,
    runtime: Runtime,
    /// The process that has the site's data folder, if that is known.
    pub holder: Option<String>,
}

impl ApiClient {
    /// The server of the command line, of the environment, or of the site; in this order.
    ///
    /// # Errors
    /// When there is no token.
    pub fn new(common: &Common, environment: &Environment) -> Result<Self, Failure> {
        let mut faults = Faults::default();
        let site = config::load(&common.site, environment, &mut faults);
        if !faults.allow() && common.server.is_none() && environment.get(SERVER_VARIABLE).is_none() {
            let faults: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
            let faults = faults.join("\n\n");
            return Err(Failure::misuse(format!("which server is meant cannot be told from the site; name it with --server\n\n{faults}")));
        }
        Self::of(common, environment, &site)
    }

    /// The same, for settings that have been read.
    ///
    /// # Errors
    /// When there is no token.
    pub fn of(common: &Common, environment: &Environment, site: &SiteConfig) -> Result<Self, Failure> {
        let named = common.server.clone().or_else(|| environment.get(SERVER_VARIABLE).map(ToString::to_string));
        let token = match environment.get(TOKEN_VARIABLE) {
            Some(token) => Secret::new(token.to_string()),
            None => read_token(&site.data).map_err(|error| {
                Failure::failed(format!("no token: {error}. Start the server first (`signalman serve`); if it runs elsewhere or with --data, set {TOKEN_VARIABLE} and --server"))
            })?,
        };
        let server = named.unwrap_or_else(|| format!("http://{}", site.listen)).trim_end_matches('/').to_string();
        if !reqwest::Url::parse(&server).is_ok_and(|url| url.has_host()) {
            return Err(Failure::misuse(format!("`{server}` is not an address such as http://127.0.0.1:8420")));
        }
        let failed = |error: String| Failure::failed(format!("cannot prepare requests: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        // Reading the system's certificates takes longer than most answers, and a redirect would take the token elsewhere.
        let needs_tls = server.starts_with("https:");
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .tls_built_in_native_certs(needs_tls)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { server, token, client, runtime, holder: None })
    }

    /// The JSON that an address answers with.
    ///
    /// # Errors
    /// What the server says is wrong, or that it does not answer.
    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None)
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// What the server says is wrong, or that it does not answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, Some(body))
    }

    /// Any method, with a body or without.
    ///
    /// # Errors
    /// What the server says is wrong, or that it does not answer.
    pub fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.call_with(method, path, body, &[])
    }

    /// The same with more headers.
    ///
    /// # Errors
    /// What the server says is wrong, or that it does not answer.
    pub fn call_with(&self, method: Method, path: &str, body: Option<&Value>, headers: &[(&str, String)]) -> Result<Value, Failure> {
        self.within(TIMEOUT, method, path, body, headers)
    }

    /// The same for what takes long.
    ///
    /// # Errors
    /// What the server says is wrong, or that it does not answer.
    pub fn wait(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.within(LONG_TIMEOUT, method, path, body, &[])
    }

    fn within(
        &self,
        time: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, String)],
    ) -> Result<Value, Failure> {
        self.runtime.block_on(async {
            let mut request = self.client.request(method, self.url(path)).bearer_auth(self.token.reveal()).timeout(time);
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let response = request.send().await.map_err(|error| self.silent(&error))?;
            let (status, text) = (response.status(), response.text().await.map_err(|error| self.silent(&error))?);
            let answer = serde_json::from_str::<Value>(&text);
            match answer {
                Ok(answer) if status.is_success() => Ok(answer),
                Err(error) if status.is_success() => Err(Failure::failed(format!("the answer of {} cannot be read: {error}", self.server))),
                answer => Err(problem(status.as_u16(), &answer.unwrap_or_default())),
            }
        })
    }

    /// Waits so long, or until Ctrl-C; answers whether it was that.
    pub fn is_interrupted_within(&self, span: Duration) -> bool {
        self.runtime.block_on(async {
            tokio::select! { interrupted = tokio::signal::ctrl_c() => interrupted.is_ok(), () = crate::clock::pause(span) => false }
        })
    }

    /// Opens the event stream and hands each piece of text on until the function says to end.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub fn stream(&self, after: Option<u64>, mut take: impl FnMut(&str) -> bool) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut request = self.client.get(self.url("/api/v1/stream")).bearer_auth(self.token.reveal());
            if let Some(after) = after {
                request = request.header("last-event-id", after);
            }
            let mut response = self.accepted(request).await?;
            let mut pending = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| self.silent(&error))? {
                pending.extend_from_slice(&chunk);
                while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
                    let record: Vec<u8> = pending.drain(..end + 2).collect();
                    if !take(&String::from_utf8_lossy(&record)) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    /// The answer as it comes; it may take as long as it takes.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub fn read(&self, method: Method, path: &str) -> Result<Incoming<'_>, Failure> {
        let request = self.client.request(method, self.url(path)).bearer_auth(self.token.reveal());
        let response = self.runtime.block_on(self.accepted(request))?;
        Ok(Incoming { client: self, response, pending: Bytes::new() })
    }

    async fn accepted(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.silent(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, text) = (response.status(), response.text().await.unwrap_or_default());
        Err(problem(status.as_u16(), &serde_json::from_str(&text).unwrap_or_default()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn silent(&self, error: &reqwest::Error) -> Failure {
        let hint = match &self.holder {
            _ if !error.is_connect() => String::new(),
            Some(holder) => {
                format!("; process {holder} has the data folder: if it is a server at another address, name that with --server")
            }
            None => "; start it with `signalman serve`, or name another with --server".into(),
        };
        Failure::failed(format!("no answer from {}{hint}", self.server))
    }
}

/// An answer that is read as it comes.
pub struct Incoming<'c> {
    client: &'c ApiClient,
    response: Response,
    pending: Bytes,
}

impl io::Read for Incoming<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.pending.is_empty() {
            match self.client.runtime.block_on(self.response.chunk()) {
                Ok(Some(chunk)) => self.pending = chunk,
                Ok(None) => return Ok(0),
                Err(_) => {
                    let server = &self.client.server;
                    return Err(io::Error::other(format!("the answer of {server} broke off before its end; its log may say why")));
                }
            }
        }
        let count = into.len().min(self.pending.len());
        into[..count].copy_from_slice(&self.pending.split_to(count));
        Ok(count)
    }
}

/// The address of a page of a list, with the filters that are given.
#[must_use]
pub fn listing<const N: usize>(path: &str, limit: usize, filters: [(&str, Option<String>); N]) -> String {
    let given = filters.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", percent_encode(&value?, b""))));
    format!("{path}?limit={limit}{}", given.collect::<String>())
}

/// An id as a part of an address.
///
/// # Errors
/// When it is empty or holds what no id holds.
pub fn id_part(text: &str) -> Result<&str, Failure> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if plain { Ok(text) } else { Err(Failure::misuse(format!("`{text}` is not an id: give all 26 characters, or the last 6"))) }
}

fn problem(status: u16, answer: &Value) -> Failure {
    let detail = answer["detail"].as_str().map_or_else(|| format!("the server answered {status}"), ToString::to_string);
    match status {
        400 | 422 => Failure::misuse(detail),
        _ => Failure::failed(detail),
    }
}
