//! Links to Zipkin: one trace, or a search.

use serde_json::{Map, Value};

use super::{Options, Time, percent_encode};

const OPTIONS: &[&str] = &["url", "trace", "service", "query", "min_duration_ms", "from", "to", "limit"];

/// A link to one trace (`trace`), or to the traces of a `service` that fit `query` (`error`, `http.path=/x`).
///
/// `url` is the page's address, usually ending in `/zipkin`. `from` and `to` are RFC 3339.
///
/// # Errors
/// When an option is missing, unknown or wrong.
pub fn traces(options: &Map<String, Value>) -> Result<String, String> {
    let options = Options::new("zipkin", options, OPTIONS)?;
    let base = options.base()?;
    if let Some(trace) = options.text("trace")? {
        let hex = !trace.is_empty() && trace.len() <= 32 && trace.bytes().all(|b| b.is_ascii_hexdigit());
        return if hex {
            // Ids are lower-case hexadecimal of 16 or 32 digits.
            let width = if trace.len() > 16 { 32 } else { 16 };
            Ok(format!("{base}/traces/{:0>width$}", trace.to_lowercase()))
        } else {
            Err(format!("links.zipkin: `trace` must be a hexadecimal id, not `{trace}`"))
        };
    }
    let mut query = vec![("serviceName", options.required("service")?)];
    query.extend(options.text("query")?.map(|text| ("annotationQuery", text)));
    if let Some(ms) = options.value("min_duration_ms") {
        let ms = ms.as_u64().ok_or("links.zipkin: `min_duration_ms` must be a whole number")?;
        query.push(("minDuration", (ms * 1_000).to_string()));
    }
    if options.value("from").is_some() {
        match (options.time("from", "now")?, options.time("to", "now")?) {
            (Time::At(from), Time::At(to)) => {
                query.push(("endTs", to.to_string()));
                query.push(("lookback", (to - from).max(0).to_string()));
            }
            _ => return Err("links.zipkin: `from` and `to` must both be RFC 3339 times".into()),
        }
    }
    query.push(("limit", options.text("limit")?.unwrap_or_else(|| "10".into())));
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", percent_encode(value, b""))).collect();
    Ok(format!("{base}/?{}", pairs.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_trace_and_a_search() {
        for (options, expected) in [
            (json!({"url": "http://z/zipkin", "trace": "4D1E00C0DB9010DB"}), "http://z/zipkin/traces/4d1e00c0db9010db"),
            (
                json!({"url": "http://z/zipkin/", "service": "lock gateway", "query": "error and http.path=/x", "min_duration_ms": 5, "from": "2026-11-20T00:00:00Z", "to": "2026-11-20T01:00:00Z"}),
                "http://z/zipkin/?serviceName=lock%20gateway&annotationQuery=error%20and%20http.path%3D%2Fx&minDuration=5000&endTs=1795136400000&lookback=3600000&limit=10",
            ),
        ] {
            assert_eq!(traces(options.as_object().unwrap()).unwrap(), expected);
        }
        assert!(traces(json!({"url": "http://z", "trace": "x/../y"}).as_object().unwrap()).is_err());
    }
}
