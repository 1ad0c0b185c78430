//! Site settings: `signalman.yaml`, read raw, checked, with every default. The only reader of the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use serde_json::{Map, Value};

use crate::chat::adapters;
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, Fields, did_you_mean};
use crate::document::node::{self, Content, Node};
use crate::document::shape::{Field, Holds, Shape};
use crate::model::message::Destination;
use crate::model::secret::{Masks, SHORTEST_MASKED, Secret};
use crate::store::{Keep, Limit};

/// The file's name in the site folder.
pub const FILE: &str = "signalman.yaml";

/// The environment, captured once by `main`.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's environment. Call it once, at the start.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect())
    }

    /// An environment made of pairs.
    #[must_use]
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect())
    }

    /// A variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// Where state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// On disk, in the data folder.
    Embedded,
    /// In memory: gone when the process ends.
    Memory,
}

/// What may be at once, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest body of a request, in bytes.
    pub body_bytes: usize,
    /// Requests to one webhook that are handled at once; more are answered 503.
    pub webhook_concurrency: usize,
    /// Executions that have not ended; beyond that webhooks are answered 503.
    pub open_executions: usize,
    /// Threads for scripts.
    pub script_threads: usize,
}

/// The settings of a site, checked.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The address used in links.
    pub public_url: String,
    /// The data folder.
    pub data: PathBuf,
    /// For times shown in chat.
    pub time_zone: Tz,
    /// Where state is kept.
    pub store: StoreKind,
    /// For each pack, its settings as written, secrets resolved.
    pub packs: BTreeMap<String, PackConfig>,
    /// The chat systems: name and kind.
    pub chat: BTreeMap<String, String>,
    /// Names for destinations.
    pub channels: BTreeMap<String, Destination>,
    /// Webhooks without auth that other hosts may call.
    pub open_webhooks: BTreeSet<String>,
    /// The same, with line and column.
    pub open_webhooks_at: Vec<(String, usize, usize)>,
    /// How much is kept.
    pub retention: Keep,
    /// What may be at once.
    pub limits: Limits,
    /// Names of other systems that may stand for addresses of this machine and its link.
    pub local_names: BTreeSet<String>,
}

/// The settings of one pack, as the site gives them.
#[derive(Clone, Debug, Default)]
pub struct PackConfig {
    /// The values.
    pub values: Map<String, Value>,
    /// The names of those that came from a secret.
    pub secrets: Vec<String>,
    /// Where they stand: line and column.
    pub place: (usize, usize),
}

impl SiteConfig {
    /// Hides the secrets among the settings of packs.
    #[must_use]
    pub fn masks(&self) -> Masks {
        let of_pack = |pack: &'_ PackConfig| pack.secrets.iter().filter_map(|name| pack.values.get(name).cloned()).collect::<Vec<_>>();
        Masks::of(&self.packs.values().flat_map(of_pack).collect::<Vec<_>>())
    }
}

/// Reads the settings of a site; a site without the file has the defaults.
pub fn load(site: &Path, environment: &Environment, faults: &mut Faults) -> SiteConfig {
    let mut config = defaults(site);
    let path = site.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return config,
        Err(error) => {
            faults.push(SourceFile::new(FILE, "").whole(format!("cannot be read: {error}")));
            return config;
        }
    };
    let source = SourceFile::new(FILE, text);
    match node::parse(&source) {
        Ok(node) => {
            if let Some(fields) = Fields::of(&source, &node, &SITE, faults) {
                read(fields, &mut config, &Reader { site, environment });
            }
        }
        Err(fault) => faults.push(fault),
    }
    config
}

/// The settings of a site.
pub static SITE: Shape = Shape::new(
    "the site",
    "The settings of a site: signalman.yaml",
    &[
        Field::new("listen", Holds::Text, "The address and port of the API and of webhooks").default("\"127.0.0.1:8420\""),
        Field::new("public_url", Holds::Text, "The address used in links; that of `listen` unless given")
            .example("\"http://127.0.0.1:8420\""),
        Field::new("data", Holds::Text, "The folder where everything durable is kept").default("\"data\""),
        Field::new("time_zone", Holds::Text, "For schedules, and for times shown in chat").default("\"UTC\"").example("\"Asia/Shanghai\""),
        Field::new("store", Holds::Shape(&STORE), "Where state is kept").default("{\"kind\": \"embedded\"}"),
        Field::new("journal", Holds::Shape(&JOURNAL), "Where events become durable").default("{\"kind\": \"embedded\"}"),
        Field::new("config", Holds::Map(&Holds::Map(&Holds::Any)), "For each pack, its settings; {env: NAME} and {file: PATH} are secrets")
            .example("{\"shop\": {\"url\": \"http://127.0.0.1:8434\", \"token\": {\"env\": \"SHOP_TOKEN\"}}}"),
        Field::new("chat", Holds::Map(&Holds::Shape(&CHAT)), "The chat systems, by name").default("{\"console\": {\"kind\": \"console\"}}"),
        Field::new("channels", Holds::Map(&Holds::Shape(&CHANNEL)), "Names for destinations")
            .example("{\"ops\": {\"adapter\": \"console\", \"to\": \"ops\"}}"),
        Field::new("open_webhooks", Holds::List(&Holds::Text), "Webhooks without auth that other hosts may call").example("[\"generic\"]"),
        Field::new("retention", Holds::Shape(&RETENTION), "How long things are kept"),
        Field::new("outbound", Holds::Shape(&OUTBOUND), "What holds for requests to other systems"),
        Field::new("limits", Holds::Shape(&LIMITS), "What may be at once, and how large"),
    ],
);

/// Where a secret comes from.
pub static SECRET: Shape = Shape::new(
    "a secret",
    "Where a secret comes from: exactly one of these",
    &[
        Field::new("env", Holds::Text, "A variable of the environment").example("\"SHOP_TOKEN\""),
        Field::new("file", Holds::Text, "A file, from the site folder on").example("\"secrets/shop\""),
        Field::new("secret", Holds::Text, "A secret of the store"),
    ],
);

static STORE: Shape =
    Shape::new("`store`", "Where state is kept", &[Field::required("kind", Holds::Word(&["embedded", "memory"]), "On disk, or in memory")]);

static JOURNAL: Shape =
    Shape::new("`journal`", "Where events become durable", &[Field::required("kind", Holds::Word(&["embedded"]), "With the store")]);

static CHAT: Shape = Shape::new("a chat system", "A chat system", &[Field::required("kind", Holds::WordOf(chat_kinds), "Its kind")]);

static CHANNEL: Shape = Shape::new(
    "a channel",
    "A name for a destination",
    &[
        Field::required("adapter", Holds::Text, "The chat system").example("\"console\""),
        Field::required("to", Holds::Text, "The destination there").example("\"ops\""),
    ],
);

static RETENTION: Shape = Shape::new(
    "`retention`",
    "How long things are kept",
    &[
        Field::new("events", KEPT, "Events and verdicts").default("\"7d\""),
        Field::new("executions", KEPT, "Executions").default("\"30d\""),
        Field::new("output", KEPT, "What executions returned and logged").default("\"7d\""),
    ],
);

const KEPT: Holds = Holds::Either(&[Holds::Duration, Holds::Shape(&KEEP)]);

static KEEP: Shape = Shape::new(
    "a limit",
    "How much is kept",
    &[
        Field::new("age", Holds::Duration, "How long").example("\"7d\""),
        Field::new("count", Holds::Count(1, u64::MAX), "How many at most").example("1000000"),
    ],
);

static OUTBOUND: Shape = Shape::new(
    "`outbound`",
    "What holds for requests to other systems",
    &[Field::new("local_names", Holds::List(&Holds::Text), "Names that may lead to this machine").example("[\"scheduler.local\"]")],
);

static LIMITS: Shape = Shape::new(
    "`limits`",
    "What may be at once, and how large",
    &[
        Field::new("body", Holds::Size, "The largest body of a request").default("\"1MiB\""),
        Field::new("webhook_concurrency", Holds::Count(1, u64::MAX), "Requests to one webhook at once; more are answered 503")
            .default("512"),
        Field::new("open_executions", Holds::Count(1, u64::MAX), "Executions that have not ended; beyond that webhooks are answered 503")
            .default("100000"),
        Field::new("script_threads", Holds::Count(1, u64::MAX), "Threads for scripts").default("32"),
    ],
);

fn chat_kinds() -> Vec<&'static str> {
    adapters::KINDS.iter().map(|kind| kind.name).collect()
}

fn defaults(site: &Path) -> SiteConfig {
    SiteConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 8420)),
        public_url: "http://127.0.0.1:8420".into(),
        data: site.join("data"),
        time_zone: Tz::UTC,
        store: StoreKind::Embedded,
        packs: BTreeMap::new(),
        chat: BTreeMap::from([("console".to_string(), "console".to_string())]),
        channels: BTreeMap::from([("ops".to_string(), Destination { adapter: "console".into(), to: "ops".into() })]),
        open_webhooks: BTreeSet::new(),
        open_webhooks_at: Vec::new(),
        retention: Keep::default(),
        limits: Limits { body_bytes: 1 << 20, webhook_concurrency: 512, open_executions: 100_000, script_threads: 32 },
        local_names: BTreeSet::new(),
    }
}

/// Where secrets come from.
pub struct Reader<'r> {
    /// The site folder, for files.
    pub site: &'r Path,
    /// The environment.
    pub environment: &'r Environment,
}

fn read(mut fields: Fields<'_, '_>, config: &mut SiteConfig, reader: &Reader<'_>) {
    if let Some(node) = fields.node("listen")
        && let Some(text) = fields.text("listen")
    {
        match text.parse() {
            Ok(listen) => config.listen = listen,
            Err(_) => fields.fault(node, format!("`listen` must be an address and a port such as 127.0.0.1:8420, not `{text}`")),
        }
    }
    config.public_url = format!("http://{}", config.listen);
    if let Some(url) = fields.text("public_url") {
        config.public_url = url.trim_end_matches('/').to_string();
    }
    if let Some(data) = fields.text("data") {
        config.data = reader.site.join(data);
    }
    if let Some(node) = fields.node("time_zone")
        && let Some(name) = fields.text("time_zone")
    {
        match name.parse() {
            Ok(zone) => config.time_zone = zone,
            Err(_) => fields.fault(node, format!("`{name}` is not a time zone such as Asia/Shanghai")),
        }
    }
    kind_of(&mut fields, "store", &STORE, |kind| {
        config.store = if kind == "memory" { StoreKind::Memory } else { StoreKind::Embedded };
    });
    kind_of(&mut fields, "journal", &JOURNAL, |_| {});
    for (key, node) in fields.map("config") {
        let pack = pack_config(&mut fields, node, reader);
        config.packs.insert(key.text.clone(), pack);
    }
    read_chat(&mut fields, config);
    for (name, place) in fields.texts("open_webhooks") {
        config.open_webhooks_at.push((name.clone(), place.line, place.column));
        config.open_webhooks.insert(name);
    }
    if let Some(node) = fields.node("retention")
        && let Some(mut inner) = Fields::of(fields.source, node, &RETENTION, fields.faults)
    {
        let keep = &mut config.retention;
        for (name, limit) in [("events", &mut keep.events), ("executions", &mut keep.executions), ("output", &mut keep.outputs)] {
            read_limit(&mut inner, name, limit);
        }
        inner.finish();
    }
    if let Some(node) = fields.node("outbound")
        && let Some(mut inner) = Fields::of(fields.source, node, &OUTBOUND, fields.faults)
    {
        config.local_names = inner.texts("local_names").into_iter().map(|(name, _)| name.trim_end_matches('.').to_lowercase()).collect();
        inner.finish();
    }
    if let Some(node) = fields.node("limits")
        && let Some(inner) = Fields::of(fields.source, node, &LIMITS, fields.faults)
    {
        read_limits(inner, &mut config.limits);
    }
    fields.finish();
}

/// How much is kept of one kind: a span, or `{age: 7d, count: 1000000}`.
fn read_limit(fields: &mut Fields<'_, '_>, name: &'static str, limit: &mut Limit) {
    let Some(node) = fields.node(name) else { return };
    if !matches!(node.content, Content::Map(_)) {
        limit.age = fields.duration(name).unwrap_or(limit.age);
    } else if let Some(mut inner) = Fields::of(fields.source, node, &KEEP, fields.faults) {
        limit.age = inner.duration("age").unwrap_or(limit.age);
        limit.count = inner.count("count").or(limit.count);
        inner.finish();
    }
}

fn read_limits(mut fields: Fields<'_, '_>, limits: &mut Limits) {
    if let Some(node) = fields.node("body") {
        match size(node) {
            Some(bytes) => limits.body_bytes = bytes,
            None => fields.fault(node, "`body` must be a size such as 1MiB"),
        }
    }
    let mut at_least_one = |name, value: &mut usize| {
        if let Some(Ok(count)) = fields.count(name).map(usize::try_from) {
            *value = count;
        }
    };
    at_least_one("webhook_concurrency", &mut limits.webhook_concurrency);
    at_least_one("open_executions", &mut limits.open_executions);
    at_least_one("script_threads", &mut limits.script_threads);
    fields.finish();
}

fn size(node: &Node) -> Option<usize> {
    let Content::Scalar { text, .. } = &node.content else { return None };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..split].parse().ok()?;
    let factor = match &text[split..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0)
}

fn kind_of(fields: &mut Fields<'_, '_>, name: &'static str, shape: &'static Shape, mut set: impl FnMut(&'static str)) {
    let Some(node) = fields.node(name) else { return };
    if let Some(mut inner) = Fields::of(fields.source, node, shape, fields.faults) {
        if let Some(kind) = inner.word("kind") {
            set(kind);
        }
        inner.finish();
    }
}

fn read_chat(fields: &mut Fields<'_, '_>, config: &mut SiteConfig) {
    let mut chat = BTreeMap::new();
    for (key, node) in fields.map("chat") {
        if let Some(mut inner) = Fields::of(fields.source, node, &CHAT, fields.faults) {
            if let Some(kind) = inner.word("kind") {
                chat.insert(key.text.clone(), kind.to_string());
            }
            inner.finish();
        }
    }
    if !chat.is_empty() {
        config.chat = chat;
        config.channels.retain(|_, destination| config.chat.contains_key(&destination.adapter));
    }
    for (key, node) in fields.map("channels") {
        let known: Vec<&str> = config.chat.keys().map(String::as_str).collect();
        if let Some(mut inner) = Fields::of(fields.source, node, &CHANNEL, fields.faults) {
            let (adapter, to) = (inner.text("adapter"), inner.text("to"));
            if let (Some(adapter), Some(to)) = (adapter, to) {
                if !known.contains(&adapter.as_str()) {
                    let fault = inner.source.fault(node.line, node.column, format!("there is no chat system `{adapter}`"));
                    let hint = did_you_mean(&adapter, &known);
                    inner.faults.push(fault.hint(hint));
                }
                config.channels.insert(key.text.clone(), Destination { adapter, to });
            }
            inner.finish();
        }
    }
}

fn pack_config(fields: &mut Fields<'_, '_>, node: &Node, reader: &Reader<'_>) -> PackConfig {
    let mut config = PackConfig { place: (node.line, node.column), ..PackConfig::default() };
    let Content::Map(pairs) = &node.content else {
        fields.fault(node, format!("the settings of a pack must be a map, not {}", node.kind()));
        return config;
    };
    for (key, value) in pairs {
        match reader.secret(value) {
            None => {
                config.values.insert(key.text.clone(), value.value());
            }
            Some(Ok(secret)) => {
                warn_if_short(fields, value, &secret);
                config.values.insert(key.text.clone(), Value::from(secret.reveal()));
                config.secrets.push(key.text.clone());
            }
            Some(Err(message)) => fields.fault(value, message),
        }
    }
    config
}

/// A secret that cannot be told from ordinary text is not hidden; whoever chose it should know.
pub fn warn_if_short(fields: &mut Fields<'_, '_>, node: &Node, secret: &Secret) {
    if secret.reveal().len() < SHORTEST_MASKED {
        let message =
            format!("the secret is shorter than {SHORTEST_MASKED} bytes, so it is not hidden where it turns up; take a longer one");
        let fault = fields.source.fault(node.line, node.column, message).as_warning();
        fields.faults.push(fault);
    }
}

impl Reader<'_> {
    /// The secret that a node names: `{env: NAME}` or `{file: PATH}`; `None` if it is an ordinary value.
    #[must_use]
    pub fn secret(&self, node: &Node) -> Option<Result<Secret, String>> {
        let Content::Map(pairs) = &node.content else { return None };
        let [(key, value)] = pairs.as_slice() else { return None };
        let Value::String(name) = value.value() else { return None };
        Some(match key.text.as_str() {
            "env" => match self.environment.get(&name) {
                Some(value) => Ok(Secret::new(value.to_string())),
                None => Err(format!("the environment variable `{name}` is not set")),
            },
            "file" => match std::fs::read_to_string(self.site.join(&name)) {
                Ok(text) => Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_string())),
                Err(error) => Err(format!("the secret file `{name}` cannot be read: {error}")),
            },
            "secret" => Err(format!("there is no secret `{name}`: this version takes secrets from {{env: NAME}} or {{file: PATH}}")),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> (SiteConfig, Vec<String>) {
        let source = SourceFile::new(FILE, text);
        let (mut faults, site) = (Faults::default(), Path::new("/site"));
        let node = node::parse(&source).unwrap();
        let mut config = defaults(site);
        let environment = Environment::of(&[("TOKEN", "hunter2")]);
        read(Fields::of(&source, &node, &SITE, &mut faults).unwrap(), &mut config, &Reader { site, environment: &environment });
        (config, faults.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_setting_is_read() {
        let (config, faults) = load_text(
            "listen: 127.0.0.1:8421\ndata: state\ntime_zone: Asia/Shanghai\nstore: {kind: embedded}\njournal: {kind: embedded}\n\
             config:\n  marathon: {url: \"http://127.0.0.1:8080\", token: {env: TOKEN}}\nchat:\n  console: {kind: console}\n\
             channels:\n  ops: {adapter: console, to: ops}\nopen_webhooks: [generic]\nretention: {events: 7d, executions: 30d, output: 7d}\n\
             limits: {body: 2MiB, webhook_concurrency: 100}\n",
        );
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(config.public_url, "http://127.0.0.1:8421");
        assert_eq!(config.data, Path::new("/site/state"));
        assert_eq!(config.packs["marathon"].values["token"], "hunter2");
        assert_eq!(config.packs["marathon"].secrets, ["token"]);
        assert_eq!((config.limits.body_bytes, config.limits.webhook_concurrency), (2 << 20, 100));
    }

    #[test]
    fn all_faults_at_once_with_places() {
        let (_, faults) = load_text(
            "listne: x\nlisten: here\ntime_zone: Mars/Olympus\nstore: {kind: postgress}\nchannels:\n  ops: {adapter: consle, to: ops}\n\
             config:\n  a: {token: {env: NOPE}, other: {secret: x}}\nlimits: {body: 1GB, webhook_concurrency: 0}\nretention: {events: soon}\n",
        );
        let all = faults.join("\n");
        for part in [
            "signalman.yaml:1:1: error: the site has no field `listne`",
            "did you mean `listen`?",
            "signalman.yaml:2:9: error: `listen` must be an address",
            "`Mars/Olympus` is not a time zone",
            "`kind` cannot be `postgress`",
            "there is no chat system `consle`",
            "did you mean `console`?",
            "`NOPE` is not set",
            "there is no secret `x`",
            "`body` must be a size",
            "`webhook_concurrency` must be at least 1",
            "`soon` is not a duration",
        ] {
            assert!(all.contains(part), "{part} is missing in:\n{all}");
        }
    }
}
