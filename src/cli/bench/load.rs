//! The load: HTTP/1.1 written by hand on plain connections, because a general client would cost more than the server that is measured.

use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is used again and again.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    host: String,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("cannot set up a connection: {error}"))?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 * 1_024), host: address.to_string() })
    }

    /// Posts a body to the bench webhook.
    pub(super) async fn post(&mut self, body: &str, key: Option<&str>) -> Result<Answer, String> {
        let key = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
        let head = format!(
            "POST /api/v1/webhooks/bench HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{key}content-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.call(head.as_bytes()).await
    }

    /// Gets an address with the token.
    pub(super) async fn get(&mut self, path: &str, token: &str) -> Result<Answer, String> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\r\n", self.host);
        self.call(head.as_bytes()).await
    }

    async fn call(&mut self, request: &[u8]) -> Result<Answer, String> {
        let broken = |error: std::io::Error| format!("a connection broke: {error}");
        self.stream.write_all(request).await.map_err(broken)?;
        self.buffer.clear();
        loop {
            if let Some(answer) = parse(&self.buffer) {
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(broken)? == 0 {
                return Err("the server closed a connection".into());
            }
        }
    }
}

/// The answer, once it is whole.
fn parse(buffer: &[u8]) -> Option<Answer> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&buffer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")));
    let length: usize = length?.1.trim().parse().ok()?;
    let body = buffer.get(end + 4..end + 4 + length)?.to_vec();
    Some(Answer { status, body })
}

/// An event of about 300 bytes.
pub(super) fn event(kind: &str, number: u64) -> String {
    format!(
        "{{\"kind\":\"{kind}\",\"n\":{number},\"host\":\"lock-gateway-{:04}.sh-a.example.com\",\"app\":\"bike-unlock\",\"values\":{{\"cpu\":81.5,\"memory\":64.25,\"qps\":1830}},\"labels\":{{\"env\":\"prod\",\"dc\":\"sh-a\",\"team\":\"locks\"}},\"message\":\"unlock latency above the limit for three polls in a row, see the dashboard\",\"version\":\"2016.12.29.006\"}}",
        number % 10_000
    )
}

/// Durations, and their order.
#[derive(Default)]
pub(super) struct Timings(Vec<u64>);

impl Timings {
    pub(super) fn since(&mut self, start: Instant) {
        self.0.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add_us(&mut self, us: u64) {
        self.0.push(us);
    }

    pub(super) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which the given hundredths lie, in milliseconds.
    pub(super) fn percentile_ms(&mut self, hundredths: usize) -> f64 {
        self.0.sort_unstable();
        let index = (self.0.len() * hundredths / 100).min(self.0.len().saturating_sub(1));
        #[allow(clippy::cast_precision_loss, reason = "microseconds of a benchmark fit a double")]
        self.0.get(index).map_or(0.0, |us| *us as f64 / 1_000.0)
    }
}
