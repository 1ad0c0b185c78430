//! `http.get(url)`, `http.post(url, #{json: …})` and so on, to the origins that the pack's capabilities name.
//!
//! Options: `headers`, `query`, `json` or `body`, `expect` (a list of statuses; otherwise 200 to 299). A reply has `status`,
//! `headers`, `body` and `json()`. Redirects are not followed. Every request but GET and HEAD carries an `Idempotency-Key` that is
//! equal on every attempt.

use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, FuncRegistration, ImmutableString, Module};
use serde_json::{Map, Value};

use super::module::function;
use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::model::failure::Failure;
use crate::model::json::RawJson;
use crate::outbound::{Outbound, Reply, send};
use crate::script::expr::to_dynamic;

pub(super) const MODULE: HostModule = HostModule {
    name: "http",
    summary: "Requests to the origins that the pack's capability `http` names. Options: `headers`, `query` (maps), `json` (any value) or \
              `body` (text), `expect` (a list of statuses that are no error; 200 to 299 unless given), `follow` (of GET and HEAD: true \
              follows up to 5 redirects, each to a granted origin). The reply has `status`, `headers` (names in lower case), `body` and \
              `json()`. Requests other than GET and HEAD carry an `Idempotency-Key`, equal on every attempt.",
    values: &[],
    functions: &[
        function("http.get(url, options?)", "A GET.", "http.get(config.url + \"/ping\").status", "200"),
        function("http.head(url, options?)", "A HEAD: status and headers without a body.", "http.head(config.url).body", "\"\""),
        function("http.post(url, options?)", "A POST.", "http.post(config.url + \"/items\", #{json: #{name: \"a\"}}).json().ok", "true"),
        function("http.put(url, options?)", "A PUT.", "http.put(config.url + \"/items/1\", #{body: \"text\"}).status", "200"),
        function("http.patch(url, options?)", "A PATCH.", "http.patch(config.url, #{json: #{a: 1}, expect: [200, 202]}).status", "200"),
        function("http.delete(url, options?)", "A DELETE.", "http.delete(config.url + \"/items/1\").status", "200"),
    ],
    object,
    register,
};

#[derive(Clone)]
struct Http(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Http(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Http>("http");
    module.set_custom_type::<Reply>("reply");
    for (name, method) in [("get", "GET"), ("head", "HEAD"), ("post", "POST"), ("put", "PUT"), ("patch", "PATCH"), ("delete", "DELETE")] {
        module.set_native_fn(name, move |http: &mut Http, url: ImmutableString| request(http, method, &url, &rhai::Map::new()));
        module.set_native_fn(name, move |http: &mut Http, url: ImmutableString, options: rhai::Map| request(http, method, &url, &options));
    }
    FuncRegistration::new_getter("status").set_into_module(module, |reply: &mut Reply| i64::from(reply.status));
    FuncRegistration::new_getter("body").set_into_module(module, |reply: &mut Reply| ImmutableString::from(reply.text()));
    FuncRegistration::new_getter("headers").set_into_module(module, |reply: &mut Reply| to_dynamic(&Value::Object(reply.headers.clone())));
    module.set_native_fn("json", |reply: &mut Reply| {
        let parsed = RawJson::parse(&reply.text()).and_then(|raw| raw.value());
        let value = parsed.map_err(|error| thrown(Failure::misuse(format!("the reply is not JSON: {error}"))))?;
        Ok(to_dynamic(&value))
    });
}

fn request(http: &Http, method: &'static str, url: &str, options: &rhai::Map) -> Result<Reply, Box<EvalAltResult>> {
    let call = &http.0;
    if method != "GET" && method != "HEAD" {
        call.changes(&format!("http.{}", method.to_lowercase()))?;
    }
    let options = from_dynamic(&Dynamic::from(options.clone())).map_err(thrown)?;
    let outbound = outbound(call, method, url, options.as_object().unwrap_or(&Map::new())).map_err(thrown)?;
    call.wait(send(&*call.http, &call.pack, outbound))
}

fn outbound(call: &ScriptCall, method: &'static str, url: &str, options: &Map<String, Value>) -> Result<Outbound, Failure> {
    let mut outbound = Outbound::new(method, url, call.execution, call.depth);
    outbound.masks.clone_from(&call.masks);
    for (name, value) in options {
        match (name.as_str(), value) {
            ("headers", Value::Object(headers)) => outbound.headers.clone_from(headers),
            ("query", Value::Object(query)) => outbound.query.clone_from(query),
            ("json", value) => outbound.set_json(value),
            ("body", Value::String(body)) => outbound.body = Some(body.clone().into_bytes()),
            ("expect", Value::Array(statuses)) => {
                outbound.expect = statuses.iter().filter_map(Value::as_u64).filter_map(|status| u16::try_from(status).ok()).collect();
            }
            ("follow", Value::Bool(follow)) if method == "GET" || method == "HEAD" => outbound.follow = *follow,
            ("follow", _) => return Err(Failure::misuse("http: `follow` must be true or false, and is for GET and HEAD")),
            ("headers" | "query", _) => return Err(Failure::misuse(format!("http: `{name}` must be a map"))),
            ("body", _) => return Err(Failure::misuse("http: `body` must be text; use `json` for values")),
            ("expect", _) => return Err(Failure::misuse("http: `expect` must be a list of statuses")),
            _ => return Err(Failure::misuse(format!("http has no option `{name}`; it takes headers, query, json, body, expect, follow"))),
        }
    }
    if method != "GET" && method != "HEAD" {
        outbound.number = Some(call.next_request());
    }
    Ok(outbound)
}
