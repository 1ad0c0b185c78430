//! `links.kibana(options)`, `links.grafana(options)`, `links.zipkin(options)`, `links.markdown(text, url)`.

use std::sync::Arc;

use rhai::{Dynamic, ImmutableString, Module};
use serde_json::{Map, Value};

use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::links;
use crate::model::failure::Failure;

pub(super) const MODULE: HostModule = HostModule { name: "links", object, register };

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
