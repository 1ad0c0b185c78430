//! Links to Kibana Discover, for versions 4 to 8.

use serde_json::{Map, Value, json};

use super::rison::encode;
use super::{Options, Time, percent_encode};

const OPTIONS: &[&str] = &["url", "version", "index", "query", "language", "from", "to", "columns", "space"];

/// A link to Discover.
///
/// Options: `url`, `version` (`5`, `7.10`, default 8), `index` (the pattern for 4 and 5, the id of the saved object from 6 on),
/// `query` (default everything), `language` (`lucene` or `kuery`; kuery from 8 on), `from` and `to` (RFC 3339 or `now-1h`; the
/// last quarter of an hour), `columns`, `space`.
///
/// # Errors
/// When an option is missing, unknown or wrong.
pub fn discover(options: &Map<String, Value>) -> Result<String, String> {
    let options = Options::new("kibana", options, OPTIONS)?;
    let (major, minor) = version(&options)?;
    let (from, to) = (options.time("from", "now-15m")?, options.time("to", "now")?);
    let index = options.required("index")?;
    let query = options.text("query")?.unwrap_or_else(|| if major >= 8 { String::new() } else { "*".into() });
    let language = options.text("language")?.unwrap_or_else(|| if major >= 8 { "kuery".into() } else { "lucene".into() });
    let columns = options.value("columns").cloned().unwrap_or_else(|| json!(["_source"]));
    let space = options.text("space")?.map(|space| format!("/s/{}", percent_encode(&space, b""))).unwrap_or_default();

    let time = if major >= 7 {
        json!({"from": from.iso(), "to": to.iso()})
    } else {
        json!({"from": from.iso(), "mode": mode(&from, &to)?, "to": to.iso()})
    };
    let global = match major {
        4 | 5 => json!({"refreshInterval": {"display": "Off", "pause": false, "value": 0}, "time": time}),
        6 => json!({"time": time}),
        _ => json!({"filters": [], "refreshInterval": {"pause": true, "value": 0}, "time": time}),
    };
    let mut app = json!({"columns": columns, "interval": "auto"});
    app["query"] = match major {
        4 | 5 => json!({"query_string": {"analyze_wildcard": true, "query": query}}),
        _ => json!({"language": language, "query": query}),
    };
    app["sort"] = if major >= 7 { json!([["@timestamp", "desc"]]) } else { json!(["@timestamp", "desc"]) };
    if major >= 7 {
        app["filters"] = json!([]);
    }
    if major >= 8 {
        app["dataSource"] = json!({"dataViewId": index, "type": "dataView"});
    } else {
        app["index"] = json!(index);
    }
    let page = if major >= 8 || (major == 7 && minor >= 8) { "/app/discover#/" } else { "/app/kibana#/discover" };
    Ok(format!("{}{space}{page}?_g={}&_a={}", options.base()?, fragment(&global), fragment(&app)))
}

fn version(options: &Options<'_>) -> Result<(u32, u32), String> {
    let text = options.text("version")?.unwrap_or_else(|| "8".into());
    let mut parts = text.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major @ 4..)), None) => Ok((major, if major == 7 { 17 } else { 0 })),
        (Some(Ok(major @ 4..)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(format!("links.kibana: `version` must be 4 or newer, such as 5 or \"7.10\", not `{text}`")),
    }
}

/// Up to version 6 the kind of range is said beside it and must fit.
fn mode(from: &Time, to: &Time) -> Result<&'static str, String> {
    match (from, to) {
        (Time::At(_), Time::At(_)) => Ok("absolute"),
        (Time::Relative(from), Time::Relative(to)) if from.contains('/') || to.contains('/') => Ok("quick"),
        (Time::Relative(_), Time::Relative(_)) => Ok("relative"),
        _ => Err("links.kibana: before version 7 `from` and `to` must both be times, or both be relative".into()),
    }
}

/// Rison, encoded so that neither a browser nor a chat client breaks it.
fn fragment(value: &Value) -> String {
    percent_encode(&encode(value), b"!:,*@$/;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(options: &Value) -> String {
        discover(options.as_object().unwrap()).unwrap()
    }

    /// What a browser hands to Kibana.
    fn decoded(url: &str) -> String {
        let (mut bytes, mut rest) = (Vec::new(), url.as_bytes());
        while let Some((first, after)) = rest.split_first() {
            if *first == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
                rest = &after[2..];
            } else {
                bytes.push(*first);
                rest = after;
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_generation_has_its_form() {
        let five = link(
            &json!({"url": "http://k:5601/", "version": 5, "index": "logstash-*", "query": "level:error AND app:\"a b\"", "from": "2015-09-19T06:31:44Z", "to": "2015-09-23T18:31:44Z"}),
        );
        assert_eq!(
            decoded(&five),
            "http://k:5601/app/kibana#/discover?_g=(refreshInterval:(display:Off,pause:!f,value:0),time:(from:'2015-09-19T06:31:44.000Z',mode:absolute,to:'2015-09-23T18:31:44.000Z'))&_a=(columns:!(_source),index:'logstash-*',interval:auto,query:(query_string:(analyze_wildcard:!t,query:'level:error AND app:\"a b\"')),sort:!('@timestamp',desc))"
        );
        let six = link(&json!({"url": "https://k", "version": "6.8", "index": "4a7ed900-4bbd", "query": "a", "from": "now-1h"}));
        assert_eq!(
            decoded(&six),
            "https://k/app/kibana#/discover?_g=(time:(from:now-1h,mode:relative,to:now))&_a=(columns:!(_source),index:'4a7ed900-4bbd',interval:auto,query:(language:lucene,query:a),sort:!('@timestamp',desc))"
        );
        let seven = link(
            &json!({"url": "https://k", "version": "7.10", "index": "t-*", "query": "can't", "from": "now-1h", "columns": ["message"]}),
        );
        assert_eq!(
            decoded(&seven),
            "https://k/app/discover#/?_g=(filters:!(),refreshInterval:(pause:!t,value:0),time:(from:now-1h,to:now))&_a=(columns:!(message),filters:!(),index:'t-*',interval:auto,query:(language:lucene,query:'can!'t'),sort:!(!('@timestamp',desc)))"
        );
        assert!(link(&json!({"url": "https://k", "version": "7.7", "index": "t"})).starts_with("https://k/app/kibana#/discover?"));
        let eight = link(&json!({"url": "https://k", "index": "logs*", "space": "ops", "query": "a : \"b\""}));
        assert_eq!(
            decoded(&eight),
            "https://k/s/ops/app/discover#/?_g=(filters:!(),refreshInterval:(pause:!t,value:0),time:(from:now-15m,to:now))&_a=(columns:!(_source),dataSource:(dataViewId:'logs*',type:dataView),filters:!(),interval:auto,query:(language:kuery,query:'a : \"b\"'),sort:!(!('@timestamp',desc)))"
        );
    }

    #[test]
    fn nothing_in_a_link_ends_it_early() {
        let url = link(&json!({"url": "https://k", "index": "i", "query": "a&b=c#d 100% 'x' (y) + \"中文\" <z>"}));
        let state = url.split_once("_a=").unwrap().1;
        assert!(!state.contains(|c: char| " '\"()#&+<>".contains(c) || !c.is_ascii()), "{state}");
        assert!(decoded(state).contains("a&b=c#d 100% !'x!' (y) + \"中文\" <z>"));
    }

    #[test]
    fn mistakes_are_told() {
        for (options, says) in [
            (json!({"index": "i"}), "needs `url`"),
            (json!({"url": "k", "index": "i"}), "must start with http"),
            (json!({"url": "http://k"}), "needs `index`"),
            (json!({"url": "http://k", "index": "i", "version": "3"}), "4 or newer"),
            (json!({"url": "http://k", "index": "i", "from": "yesterday"}), "neither RFC 3339"),
            (json!({"url": "http://k", "index": "i", "qurey": "x"}), "has no option `qurey`"),
        ] {
            assert!(discover(options.as_object().unwrap()).unwrap_err().contains(says), "{options}");
        }
    }
}
