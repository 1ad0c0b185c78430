//! Carries requests over the network.

use async_trait::async_trait;
use reqwest::{Client, Request};
use serde_json::Value;

use super::{Reply, Transport, told, too_large, unreachable};
use crate::model::failure::Failure;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The network; all senders share its connections.
pub struct Network(Client);

impl Network {
    /// Prepares the connections.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new() -> Result<Self, reqwest::Error> {
        let agent = concat!("signalman/", env!("CARGO_PKG_VERSION"));
        let client = Client::builder().no_proxy().user_agent(agent).redirect(reqwest::redirect::Policy::none());
        Ok(Self(client.connect_timeout(CONNECT_TIMEOUT).build()?))
    }
}

#[async_trait]
impl Transport for Network {
    async fn carry(&self, request: Request, most_bytes: usize) -> Result<Reply, Failure> {
        let told = told(&request);
        let silent = |error: reqwest::Error| unreachable(&told, &innermost(&error));
        let mut response = self.0.execute(request).await.map_err(silent)?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned())));
        let headers = headers.collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            if body.len() + chunk.len() > most_bytes {
                return Err(too_large(&told, most_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, headers, body })
    }
}

/// The cause at the bottom of an error: “connection refused” instead of “error sending request”.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
