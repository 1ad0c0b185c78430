//! `links.kibana(options)`, `links.grafana(options)`, `links.zipkin(options)`, `links.markdown(text, url)`.

use std::sync::Arc;

use rhai::{Dynamic, ImmutableString, Module};
use serde_json::{Map, Value};

use super::module::function;
use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::links;
use crate::model::failure::Failure;

pub(super) const MODULE: HostModule = HostModule {
    name: "links",
    summary: "Addresses of pages of Kibana, Grafana and Zipkin. They ask nobody and need no capability.",
    values: &[],
    functions: &[
        function(
            "links.kibana(options)",
            "Kibana Discover, 4 to 8. Options: `url`, `version` (`\"8\"` unless given), `index` (before 6 the pattern, from 6 on the id of \
             the data view), `query`, `language` (`lucene`, `kuery`), `from`, `to` (RFC 3339 or `now-1h`), `columns`, `space`.",
            "links.kibana(#{url: \"http://k.example\", index: \"logs\", query: \"app:shop\"}).starts_with(\"http://k.example/app\")",
            "true",
        ),
        function(
            "links.grafana(options)",
            "A dashboard of Grafana. Options: `url`, `version` (`\"9\"` unless given), `uid` (before 5 `slug`), `slug`, `variables` (a map; \
             a list repeats the variable, `\"*\"` is all), `from`, `to`, `panel`, `org`.",
            "links.grafana(#{url: \"http://g.example\", uid: \"shop\"}).contains(\"/d/shop\")",
            "true",
        ),
        function(
            "links.zipkin(options)",
            "One trace (`url`, `trace`), or a search (`url`, `service`, `query`, `min_duration_ms`, `from`, `to`, `limit`).",
            "links.zipkin(#{url: \"http://z.example\", trace: \"463ac35c9f6413ad\"}).ends_with(\"463ac35c9f6413ad\")",
            "true",
        ),
        function(
            "links.markdown(text, url)",
            "`[text](url)`, safe against both.",
            "links.markdown(\"log\", \"http://k.example\")",
            "\"[log](http://k.example)\"",
        ),
    ],
    object,
    register,
};

#[derive(Clone)]
struct Links;

type Builder = fn(&Map<String, Value>) -> Result<String, String>;

fn object(_: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Links)
}

fn register(module: &mut Module) {
    module.set_custom_type::<Links>("links");
    let builders: [(&str, Builder); 3] =
        [("kibana", links::kibana::discover), ("grafana", links::grafana::dashboard), ("zipkin", links::zipkin::traces)];
    for (name, build) in builders {
        module.set_native_fn(name, move |_: &mut Links, options: rhai::Map| {
            let options = from_dynamic(&Dynamic::from(options)).map_err(thrown)?;
            let link = build(options.as_object().unwrap_or(&Map::new())).map_err(|error| thrown(Failure::misuse(error)))?;
            Ok(ImmutableString::from(link))
        });
    }
    module.set_native_fn("markdown", |_: &mut Links, text: ImmutableString, url: ImmutableString| {
        Ok(ImmutableString::from(links::markdown(&text, &url)))
    });
}
