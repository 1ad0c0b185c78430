//! Links to Grafana dashboards, before and after they got ids.

use serde_json::{Map, Value};

use super::{Options, percent_encode};

const OPTIONS: &[&str] = &["url", "version", "uid", "slug", "variables", "from", "to", "panel", "org"];

/// A link to a dashboard, or to one panel of it.
///
/// Options: `url`, `version` (default 9), `uid` (from 5 on), `slug` (before 5; else decoration), `variables` (a map; a list repeats
/// the variable, `"*"` is all), `from` and `to` (RFC 3339 or `now-1h`), `panel`, `org`.
///
/// # Errors
/// When an option is missing, unknown or wrong.
pub fn dashboard(options: &Map<String, Value>) -> Result<String, String> {
    let options = Options::new("grafana", options, OPTIONS)?;
    let version_text = options.text("version")?.unwrap_or_else(|| "9".into());
    let version: u32 = version_text
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .ok_or_else(|| format!("links.grafana: `version` must be a number, not `{version_text}`"))?;
    let slug = options.text("slug")?;
    let path = if version < 5 {
        let slug = slug.ok_or("links.grafana needs `slug` before version 5")?;
        format!("/dashboard/db/{}", percent_encode(&slug, b""))
    } else {
        let slug = slug.map(|slug| format!("/{}", percent_encode(&slug, b""))).unwrap_or_default();
        format!("/d/{}{slug}", percent_encode(&options.required("uid")?, b""))
    };
    let mut query: Vec<(String, String)> = Vec::new();
    if let Some(org) = options.text("org")? {
        query.push(("orgId".into(), org));
    }
    for (name, value) in variables(&options)? {
        let value = if value == "*" { if version < 5 { "All".into() } else { "$__all".into() } } else { value };
        query.push((format!("var-{name}"), value));
    }
    for end in ["from", "to"] {
        if options.value(end).is_some() {
            query.push((end.into(), options.time(end, "now")?.ms()));
        }
    }
    let mut url = format!("{}{path}", options.base()?);
    if let Some(panel) = options.text("panel")? {
        query.push((if version < 7 { "panelId" } else { "viewPanel" }.into(), panel));
    }
    let mut pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", percent_encode(name, b""), percent_encode(value, b"$"))).collect();
    if version < 7 && options.value("panel").is_some() {
        pairs.push("fullscreen".into());
    }
    if !pairs.is_empty() {
        url = format!("{url}?{}", pairs.join("&"));
    }
    Ok(url)
}

fn variables(options: &Options<'_>) -> Result<Vec<(String, String)>, String> {
    let Some(value) = options.value("variables") else { return Ok(Vec::new()) };
    let Value::Object(map) = value else { return Err(format!("links.grafana: `variables` must be a map, not {value}")) };
    let mut pairs = Vec::new();
    for (name, value) in map {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        pairs.extend(values.iter().map(|value| (name.clone(), crate::template::text::plain(value))));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn old_and_new() {
        for (options, expected) in [
            (
                json!({"url": "http://g/", "uid": "abc", "slug": "lock-gateway", "org": 1, "variables": {"app": "bike unlock", "dc": ["a", "b"]}, "from": "now-1h", "to": "now", "panel": 3}),
                "http://g/d/abc/lock-gateway?orgId=1&var-app=bike%20unlock&var-dc=a&var-dc=b&from=now-1h&to=now&viewPanel=3",
            ),
            (
                json!({"url": "http://g", "version": 4, "slug": "lock", "variables": {"app": "*"}, "from": "2026-11-20T00:00:00Z", "to": "2026-11-20T01:00:00Z", "panel": 3}),
                "http://g/dashboard/db/lock?var-app=All&from=1795132800000&to=1795136400000&panelId=3&fullscreen",
            ),
            (json!({"url": "http://g", "version": "6.7", "uid": "u", "panel": 1}), "http://g/d/u?panelId=1&fullscreen"),
            (json!({"url": "http://g", "uid": "u", "variables": {"app": "*"}}), "http://g/d/u?var-app=$__all"),
        ] {
            assert_eq!(dashboard(options.as_object().unwrap()).unwrap(), expected);
        }
        assert!(dashboard(json!({"url": "http://g", "version": 4}).as_object().unwrap()).unwrap_err().contains("needs `slug`"));
        assert!(dashboard(json!({"url": "http://g"}).as_object().unwrap()).unwrap_err().contains("needs `uid`"));
    }
}
