//! `kv`: the pack's own keys, and where its capabilities say so those of other packs, of the system (`kv.system`) and of who asks
//! (`kv.user`).
//!
//! `get(name)`, `entry(name)`, `list(prefix)`, `set(name, value, #{ttl: "5m"})`, `delete(name)`, `increment(name, by)`,
//! `compare_and_set(name, expected, value)`; `get(pack, name)` reads another pack's.

use std::sync::Arc;
use std::time::Duration;

use rhai::{Array, Dynamic, EvalAltResult, FuncRegistration, ImmutableString, Map, Module};
use serde_json::{Value, json};

use super::module::function;
use super::{HostModule, ScriptCall, from_dynamic, thrown};
use crate::model::datastore::{Change, Changed, If, KeyEntry, KeyRequest, SYSTEM, Scope};
use crate::model::duration;
use crate::model::event::Cause;
use crate::model::failure::Failure;
use crate::model::pack::KvAccess;
use crate::script::expr::to_dynamic;

pub(super) const MODULE: HostModule = HostModule {
    name: "kv",
    summary: "Keys with values that last, as the capability `kv` allows: the pack's own; with `kv.system` those that rules see, with `kv.user` \
              those of who asks. All functions but `kv.get(pack, name)` are there for each of the three. What is set is durable on return, no \
              count is lost, and of several that want the same one wins.",
    values: &["system", "user"],
    functions: &[
        function("kv.get(name)", "The value of a key, or `()`.", "kv.get(\"nobody/set/this\")", "null"),
        function("kv.get(pack, name)", "The value of another pack's key, or `()`.", "kv.get(context.action.split(\".\")[0], \"a\")", ""),
        function(
            "kv.entry(name)",
            "`value`, `version`, `changed_at`, `changed_by`, `expires_at` of a key, or `()`.",
            "{ kv.set(\"e\", 1); kv.entry(\"e\").value }",
            "1",
        ),
        function(
            "kv.list(prefix?, options?)",
            "The names that begin so, 1,000 at most. Options: `after` (a name), `limit`.",
            "{ kv.set(\"list/a\", 1); kv.list(\"list/\") }",
            "[\"list/a\"]",
        ),
        function(
            "kv.set(name, value, options?)",
            "Sets a key. Options: `ttl` (a span such as `\"5m\"`), `if_version` (only if the key is in that version; then it answers whether it was \
             set).",
            "{ kv.set(\"scaled/shop\", #{to: 3}); kv.get(\"scaled/shop\").to }",
            "3",
        ),
        function(
            "kv.compare_and_set(name, expected, value, options?)",
            "Sets a key only if its value is the expected one, or with `()` if there is none; answers whether it was set. Option: `ttl`.",
            "kv.compare_and_set(\"lock\", (), 1)",
            "true",
        ),
        function(
            "kv.increment(name, by?, options?)",
            "Adds a whole number, 1 unless given, and answers the sum; counts from zero. Option: `ttl`, of a key that is new.",
            "kv.increment(\"tries\", 2)",
            "2",
        ),
        function("kv.delete(name)", "Deletes a key; answers whether there was one.", "kv.delete(\"old\")", "false"),
    ],
    object,
    register,
};

/// Names that a list has unless the script asks for fewer, and at most.
const MAX_LISTED: usize = 1_000;

#[derive(Clone, Copy)]
enum Whose {
    Own,
    System,
    User,
}

/// The keys of one scope.
#[derive(Clone)]
struct Kv {
    call: Arc<ScriptCall>,
    whose: Whose,
}

type Answer<T> = Result<T, Box<EvalAltResult>>;

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Kv { call: Arc::clone(call), whose: Whose::Own })
}

fn register(module: &mut Module) {
    module.set_custom_type::<Kv>("kv");
    for (name, whose) in [("system", Whose::System), ("user", Whose::User)] {
        FuncRegistration::new_getter(name).set_into_module(module, move |kv: &mut Kv| Kv { whose, ..kv.clone() });
    }
    module.set_native_fn("get", |kv: &mut Kv, name: ImmutableString| kv.get(&kv.scope(false)?, &name));
    module.set_native_fn("get", |kv: &mut Kv, pack: ImmutableString, name: ImmutableString| kv.get(&kv.other(&pack)?, &name));
    module.set_native_fn("entry", |kv: &mut Kv, name: ImmutableString| {
        let entry = kv.read(&kv.scope(false)?, &name)?;
        Ok(entry.map_or(Dynamic::UNIT, |entry| to_dynamic(&json!(entry))))
    });
    module.set_native_fn("list", |kv: &mut Kv| kv.list("", &Map::new()));
    module.set_native_fn("list", |kv: &mut Kv, prefix: ImmutableString| kv.list(&prefix, &Map::new()));
    module.set_native_fn("list", |kv: &mut Kv, prefix: ImmutableString, options: Map| kv.list(&prefix, &options));
    module.set_native_fn("set", |kv: &mut Kv, name: ImmutableString, value: Dynamic| {
        let change = Change::Set { value: from_dynamic(&value).map_err(thrown)?, ttl: None };
        kv.change(&name, change, If::Always).map(|_| ())
    });
    module.set_native_fn("set", |kv: &mut Kv, name: ImmutableString, value: Dynamic, options: Map| {
        let options = Options::read("set", &options, &["ttl", "if_version"])?;
        let change = Change::Set { value: from_dynamic(&value).map_err(thrown)?, ttl: options.ttl };
        kv.change(&name, change, options.if_version.map_or(If::Always, If::Version)).map(|changed| won(&changed))
    });
    module.set_native_fn("delete", |kv: &mut Kv, name: ImmutableString| {
        let changed = kv.change(&name, Change::Delete, If::Always)?;
        Ok(matches!(changed, Changed::Done { before: Some(_), .. }))
    });
    module.set_native_fn("increment", |kv: &mut Kv, name: ImmutableString| kv.increment(&name, 1, &Map::new()));
    module.set_native_fn("increment", |kv: &mut Kv, name: ImmutableString, by: i64| kv.increment(&name, by, &Map::new()));
    module.set_native_fn("increment", |kv: &mut Kv, name: ImmutableString, by: i64, options: Map| kv.increment(&name, by, &options));
    module.set_native_fn("compare_and_set", |kv: &mut Kv, name: ImmutableString, expected: Dynamic, value: Dynamic| {
        kv.compare_and_set(&name, &expected, &value, &Map::new())
    });
    module.set_native_fn("compare_and_set", |kv: &mut Kv, name: ImmutableString, expected: Dynamic, value: Dynamic, options: Map| {
        kv.compare_and_set(&name, &expected, &value, &options)
    });
}

fn won(changed: &Changed) -> bool {
    matches!(changed, Changed::Done { .. })
}

impl Kv {
    /// The scope, if the pack may read or write it.
    fn scope(&self, write: bool) -> Answer<Scope> {
        let (own, granted) = (&self.call.pack.reference, &self.call.pack.capabilities);
        let (access, whose, field) = match self.whose {
            Whose::Own => (granted.kv, "its keys", None),
            Whose::System => (granted.kv_system, "the keys of the system", Some("system")),
            Whose::User => (granted.kv_user, "the keys of who asks", Some("user")),
        };
        let allowed = if write { access == KvAccess::ReadWrite } else { access != KvAccess::None };
        if !allowed {
            let (verb, word) = if write { ("write", "read_write") } else { ("read", "read") };
            let line = field.map_or_else(|| format!("kv: {word}"), |field| format!("kv: {{own: read_write, {field}: {word}}}"));
            return Err(thrown(Failure::capability(own, &format!("{verb} {whose}"), &line)));
        }
        match self.whose {
            Whose::Own => Ok(Scope::Pack(own.clone())),
            Whose::System => Ok(Scope::System),
            Whose::User => self.call.user.clone().map(Scope::User).ok_or_else(|| {
                thrown(Failure::misuse("kv.user: nobody asks: a rule or sensor runs this, and keys of a person have no owner here"))
            }),
        }
    }

    /// Another pack's scope, if the pack may read it.
    fn other(&self, pack: &str) -> Answer<Scope> {
        let (own, granted) = (&self.call.pack.reference, &self.call.pack.capabilities);
        match pack {
            SYSTEM => return Self { whose: Whose::System, ..self.clone() }.scope(false),
            pack if pack == own => return self.scope(false),
            _ => {}
        }
        if !granted.kv_read.iter().any(|other| other == pack) {
            let line = format!("kv: {{own: read_write, {pack}: read}}");
            return Err(thrown(Failure::capability(own, &format!("read the keys of `{pack}`"), &line)));
        }
        Ok(Scope::Pack(pack.into()))
    }

    fn read(&self, scope: &Scope, name: &str) -> Answer<Option<KeyEntry>> {
        self.call.wait(async { self.call.host.key(scope, name).await.map_err(Failure::engine) })
    }

    fn get(&self, scope: &Scope, name: &str) -> Answer<Dynamic> {
        Ok(self.read(scope, name)?.map_or(Dynamic::UNIT, |entry| to_dynamic(&entry.value)))
    }

    fn list(&self, prefix: &str, options: &Map) -> Answer<Array> {
        let options = Options::read("list", options, &["after", "limit"])?;
        let (scope, limit) = (self.scope(false)?, options.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED));
        let names = self
            .call
            .wait(async { self.call.host.key_names(&scope, prefix, options.after.as_deref(), limit).await.map_err(Failure::engine) })?;
        Ok(names.into_iter().map(Dynamic::from).collect())
    }

    fn increment(&self, name: &str, by: i64, options: &Map) -> Answer<i64> {
        let ttl = Options::read("increment", options, &["ttl"])?.ttl;
        let changed = self.change(name, Change::Increment { by, ttl }, If::Always)?;
        let Changed::Done { after: Some(entry), .. } = changed else { return Ok(by) };
        Ok(entry.value.as_i64().unwrap_or(by))
    }

    fn compare_and_set(&self, name: &str, expected: &Dynamic, value: &Dynamic, options: &Map) -> Answer<bool> {
        let ttl = Options::read("compare_and_set", options, &["ttl"])?.ttl;
        let only = if expected.is_unit() { If::Absent } else { If::Value(from_dynamic(expected).map_err(thrown)?) };
        let change = Change::Set { value: from_dynamic(value).map_err(thrown)?, ttl };
        self.change(name, change, only).map(|changed| won(&changed))
    }

    fn change(&self, name: &str, change: Change, only: If) -> Answer<Changed> {
        let (call, scope) = (&self.call, self.scope(true)?);
        call.changes(match change {
            Change::Delete => "kv.delete",
            _ => "kv.set",
        })?;
        if let Change::Set { value, .. } = &change
            && call.masks.found_in(&value.to_string())
        {
            let message = format!("kv: the value of `{name}` holds a secret, and whoever may read keys would see it; leave it where it is");
            return Err(thrown(Failure::misuse(message)));
        }
        let about = (call.context)();
        let by = match about["action"].as_str() {
            Some(action) => format!("{action} ({})", call.execution.short()),
            None => about["sensor"].as_str().unwrap_or_default().to_string(),
        };
        // What a sensor's script does has no execution behind it.
        let cause = call.emitted.is_none().then_some(Cause { execution: call.execution, depth: call.depth });
        let request = KeyRequest { scope, name: name.to_string(), change, only, by, cause };
        call.wait(async { call.host.change_key(request).await })
    }
}

/// What may stand in the last argument.
#[derive(Default)]
struct Options {
    ttl: Option<Duration>,
    if_version: Option<u64>,
    after: Option<String>,
    limit: Option<usize>,
}

impl Options {
    fn read(function: &str, given: &Map, known: &[&str]) -> Answer<Self> {
        let wrong = |what: String| thrown(Failure::misuse(format!("kv.{function}: {what}")));
        let mut options = Self::default();
        for (name, value) in given {
            if !known.contains(&name.as_str()) {
                return Err(wrong(format!("there is no option `{name}`; it takes {}", known.join(", "))));
            }
            let value = from_dynamic(value).map_err(thrown)?;
            match (name.as_str(), &value) {
                ("ttl", Value::String(text)) => options.ttl = Some(duration::parse(text).map_err(wrong)?),
                ("ttl", Value::Number(seconds)) => options.ttl = Some(duration::parse(&seconds.to_string()).map_err(wrong)?),
                ("if_version", Value::Number(version)) => options.if_version = version.as_u64(),
                ("limit", Value::Number(limit)) => options.limit = limit.as_u64().and_then(|limit| usize::try_from(limit).ok()),
                ("after", Value::String(after)) => options.after = Some(after.clone()),
                (name, value) => return Err(wrong(format!("`{name}` cannot be {value}"))),
            }
        }
        Ok(options)
    }
}
