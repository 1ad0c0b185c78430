//! Carries requests over the network.
//!
//! A name is looked up once, what it stands for is judged, and exactly that is connected to. A name that leads to this machine, to its
//! link or to where a cloud tells secrets is refused: whoever grants a name does not grant that. `localhost` says what it is, and so does
//! an address; other names of that kind are for the site to allow.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Request};
use serde_json::Value;

use super::{Reply, Transport, told, too_large, unreachable};
use crate::model::failure::Failure;
use crate::model::reason::Reason;

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
        Self::allowing(BTreeSet::new())
    }

    /// The same, where these names may stand for addresses of this machine and its link.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn allowing(local_names: BTreeSet<String>) -> Result<Self, reqwest::Error> {
        Self::resolving(Resolver { local_names: Arc::new(local_names), look_up })
    }

    fn resolving(resolver: Resolver) -> Result<Self, reqwest::Error> {
        let agent = concat!("signalman/", env!("CARGO_PKG_VERSION"));
        let client = Client::builder().no_proxy().user_agent(agent).redirect(reqwest::redirect::Policy::none());
        let client = client.dns_resolver(Arc::new(resolver));
        Ok(Self(client.connect_timeout(CONNECT_TIMEOUT).build()?))
    }
}

#[async_trait]
impl Transport for Network {
    async fn carry(&self, request: Request, most_bytes: usize) -> Result<Reply, Failure> {
        let told = told(&request);
        let silent = |error: reqwest::Error| match forbidden(&error) {
            Some(message) => Failure { reason: Reason::CapabilityMissing, message: format!("{told}: {message}"), retry: false },
            None => unreachable(&told, &innermost(&error)),
        };
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

/// Asks the system for the addresses of a name.
fn look_up(name: String) -> futures_util::future::BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
}

#[derive(Clone)]
struct Resolver {
    local_names: Arc<BTreeSet<String>>,
    look_up: fn(String) -> futures_util::future::BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let own = self.clone();
        Box::pin(async move {
            let name = name.as_str().trim_end_matches('.').to_lowercase();
            // Not asked for: whoever answers could say something else.
            if name == "localhost" || name.ends_with(".localhost") {
                let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                return Ok(Box::new(both.map(|address| SocketAddr::new(address, 0)).into_iter()) as Addrs);
            }
            let found = (own.look_up)(name.clone()).await?;
            let (near, far): (Vec<SocketAddr>, Vec<SocketAddr>) = found.into_iter().partition(|address| is_near(address.ip()));
            match near.first() {
                Some(_) if own.local_names.contains(&name) => Ok(Box::new(near.into_iter().chain(far)) as Addrs),
                Some(address) if far.is_empty() => Err(Box::new(Forbidden { name, address: address.ip() }) as _),
                _ => Ok(Box::new(far.into_iter()) as Addrs),
            }
        })
    }
}

/// Addresses at which clouds tell secrets to whoever asks from the machine, besides those of the link.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether an address belongs to this machine, its link, or the cloud's own services.
fn is_near(address: IpAddr) -> bool {
    let address = address.to_canonical();
    METADATA.contains(&address)
        || match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast(),
        }
}

/// A name that leads where a name may not lead.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` is the address {address}, which belongs to this machine or its link; grant the address itself, or let the site allow the name: \
     add `outbound: {{local_names: [{name}]}}` to signalman.yaml"
)]
struct Forbidden {
    name: String,
    address: IpAddr,
}

/// What was said if a name was refused.
fn forbidden(error: &reqwest::Error) -> Option<String> {
    let mut cause: &dyn std::error::Error = error;
    loop {
        if let Some(forbidden) = cause.downcast_ref::<Forbidden>() {
            return Some(forbidden.to_string());
        }
        cause = cause.source()?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::outbound::{Outbound, exchange};

    static ASKED: AtomicUsize = AtomicUsize::new(0);

    /// Names as a hostile server of names would answer; it says something else the second time.
    #[allow(clippy::needless_pass_by_value, reason = "as names are looked up")]
    fn hostile(name: String) -> futures_util::future::BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let found = match name.as_str() {
            "loop.test" | "allowed.test" => vec![address("127.0.0.1")],
            "meta.test" => vec![address("169.254.169.254")],
            "mapped.test" => vec![address("::ffff:169.254.169.254")],
            "rebind.test" => {
                let first = ASKED.fetch_add(1, Ordering::SeqCst) == 0;
                vec![address(if first { "192.0.2.1" } else { "127.0.0.1" })]
            }
            _ => vec![],
        };
        Box::pin(async move { Ok(found) })
    }

    async fn said(url: &str) -> Failure {
        let resolver = Resolver { local_names: Arc::new(BTreeSet::from(["allowed.test".to_string()])), look_up: hostile };
        let network = Network::resolving(resolver).unwrap();
        exchange(&network, Outbound::plain("GET", url)).await.expect_err("nobody answers there")
    }

    #[tokio::test]
    async fn a_name_does_not_lead_to_this_machine() {
        for (url, address) in [
            ("http://loop.test:9/", "127.0.0.1"),
            ("http://LOOP.test.:9/", "127.0.0.1"),
            ("http://meta.test/", "169.254.169.254"),
            ("http://mapped.test/", "::ffff:169.254.169.254"),
        ] {
            let failure = said(url).await;
            assert_eq!((failure.reason, failure.retry), (Reason::CapabilityMissing, false), "{url}: {}", failure.message);
            assert!(failure.message.contains(&format!("is the address {address}, which belongs")), "{}", failure.message);
        }
        assert_eq!(
            said("http://loop.test:9/").await.message,
            "GET http://loop.test:9/: `loop.test` is the address 127.0.0.1, which belongs to this machine or its link; grant the address \
             itself, or let the site allow the name: add `outbound: {local_names: [loop.test]}` to signalman.yaml"
        );
    }

    #[tokio::test]
    async fn an_address_localhost_and_what_the_site_allows_say_what_they_are() {
        for url in ["http://127.0.0.1:9/", "http://localhost:9/", "http://a.localhost:9/", "http://allowed.test:9/"] {
            assert_eq!(said(url).await.reason, Reason::Unreachable, "{url}");
        }
    }

    #[tokio::test]
    async fn what_was_judged_is_what_is_connected_to() {
        let resolver = Resolver { local_names: Arc::default(), look_up: hostile };
        let first: Vec<SocketAddr> = resolver.resolve("rebind.test".parse().unwrap()).await.ok().unwrap().collect();
        assert_eq!(first, ["192.0.2.1:0".parse().unwrap()]);
        assert_eq!(ASKED.load(Ordering::SeqCst), 1, "the name was looked up once");
        let second = resolver.resolve("rebind.test".parse().unwrap()).await.err().expect("the second answer is refused");
        assert!(second.to_string().contains("127.0.0.1"));
    }

    #[test]
    fn near_is_what_belongs_to_this_machine() {
        for near in [
            "127.8.8.8",
            "0.0.0.0",
            "169.254.1.1",
            "::1",
            "::",
            "fe80::1",
            "100.100.100.200",
            "::ffff:127.0.0.1",
            "fd00:ec2::254",
            "224.0.0.1",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }
}
