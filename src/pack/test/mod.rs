//! The tests of a pack: what `tests/*.yaml` asks for. [`read`] reads them; `packtest` plays them.

pub mod read;
pub mod shape;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::kinds::Kind;
use crate::document::fault::Fault;
use crate::document::fields::Faults;
use crate::expect::{Expected, Wording};
use crate::model::datastore::Scope;
use crate::model::place::Place;
use crate::outbound::scripted::Exchange;

/// Checks the form of a pack's tests with the rest of its files. A faulty one stops nobody who does not play it.
pub(super) const KIND: Kind = Kind::yaml("tests", "a test file", |file, reading| {
    let mut faults = Faults::default();
    if let Some(node) = file.yaml(&mut faults) {
        read::read(&file.source, &node, &reading.pack.reference, &mut faults);
    }
    reading.faults.0.extend(faults.0.into_iter().map(Fault::as_warning));
});

/// The settings that the packs of a test have: nothing of `signalman.yaml` is used, so that a test says the same everywhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Of each pack.
    pub packs: Vec<(String, Map<String, Value>)>,
    /// Channels of the site; `ops` is always there.
    pub channels: Vec<String>,
}

/// A test file.
#[derive(Debug)]
pub struct TestFile {
    /// The file, relative to the site folder.
    pub path: String,
    /// The pack that it belongs to.
    pub pack: String,
    /// Its cases, in the order of the file.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows, in words.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// The settings.
    pub settings: Settings,
    /// When it begins.
    pub now: DateTime<Utc>,
    /// Keys of the datastore before it: scope, name, value.
    pub keys: Vec<(Scope, String, Value)>,
    /// The keys of a scope after it.
    pub keys_after: Vec<(Place, Scope, Expected)>,
    /// The requests that it makes, with their replies.
    pub http: Vec<Exchange>,
    /// Whether they must come in this order.
    pub http_in_order: bool,
    /// All that is said, in order; nothing if that does not matter.
    pub messages: Option<(Place, Vec<Said>)>,
    /// What is tested.
    pub subject: Subject,
}

/// What a case tests.
#[derive(Clone, Debug)]
pub enum Subject {
    /// An action is run.
    Action(ActionCase),
    /// Rules see events.
    Rules(RuleCase),
    /// A sensor looks, or is called.
    Sensor(SensorCase),
    /// Somebody says something.
    Chat(ChatCase),
}

/// An action is run.
#[derive(Clone, Debug)]
pub struct ActionCase {
    /// The action.
    pub action: (Place, String),
    /// Its parameters.
    pub parameters: Map<String, Value>,
    /// What it says that it would do.
    pub plan: Option<(Place, Wording)>,
    /// How it ends; nothing if it is not run.
    pub outcome: Option<Outcome>,
    /// Lines that it logs, in this order; others may stand between them.
    pub log: Vec<(Place, Wording)>,
    /// How many attempts it takes.
    pub attempts: Option<(Place, u64)>,
}

/// How an execution ends.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Well, with a result.
    Succeeds(Place, Expected),
    /// Badly.
    Fails(Place, Failing),
}

/// How an execution fails; what is not said does not matter.
#[derive(Clone, Debug, Default)]
pub struct Failing {
    /// The code of the reason.
    pub reason: Option<String>,
    /// The message.
    pub message: Option<Wording>,
}

/// Rules see events.
#[derive(Clone, Debug)]
pub struct RuleCase {
    /// The rules; there are no others.
    pub rules: Vec<(Place, String)>,
    /// What happens, in the order of time.
    pub events: Vec<Occurrence>,
    /// What is expected.
    pub expect: Vec<Expectation>,
    /// Whether nothing else may run or be said; where it stands.
    pub nothing_else: Option<Place>,
    /// Whether actions are carried out.
    pub carry_out: bool,
    /// How long the case goes on at least.
    pub until: Duration,
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub struct Occurrence {
    /// Where it is written.
    pub place: Place,
    /// When, from the beginning of the case.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum What {
    /// An event.
    Event {
        /// The trigger.
        trigger: String,
        /// The payload.
        payload: Value,
        /// What it is about.
        key: Option<String>,
        /// How long before it came it happened.
        late: Duration,
    },
    /// A call of a webhook.
    Call(Call),
}

/// A call of a webhook.
#[derive(Clone, Debug)]
pub struct Call {
    /// The sensor.
    pub sensor: (Place, String),
    /// The headers.
    pub headers: Map<String, Value>,
    /// The body.
    pub body: String,
}

/// Something that is expected of rules.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Where it is written.
    pub place: Place,
    /// When, from the beginning; nothing for any time.
    pub at: Option<Duration>,
    /// What.
    pub what: Expectable,
}

/// What can be expected of rules.
#[derive(Clone, Debug)]
pub enum Expectable {
    /// An execution is asked for.
    Runs {
        /// The action.
        action: String,
        /// Its parameters, cast; nothing if they do not matter.
        parameters: Option<Expected>,
    },
    /// Something is said.
    Said(Said),
}

/// A message.
#[derive(Clone, Debug)]
pub struct Said {
    /// Where it is written.
    pub place: Place,
    /// In which channel; nothing for any.
    pub channel: Option<String>,
    /// What.
    pub text: Wording,
}

/// A sensor looks, or is called.
#[derive(Clone, Debug)]
pub struct SensorCase {
    /// The sensor.
    pub sensor: (Place, String),
    /// The call, if it is a webhook.
    pub call: Option<Call>,
    /// How long it runs.
    pub until: Duration,
    /// The events that it emits, in order.
    pub emits: Vec<Emitted>,
    /// Where that is written.
    pub emits_at: Place,
    /// The webhook refuses the call, and says so.
    pub refuses: Option<(Place, Wording)>,
}

/// Somebody says something to the bot.
#[derive(Clone, Debug)]
pub struct ChatCase {
    /// The lines, a second apart.
    pub say: Vec<(Place, String)>,
    /// Where; with the bot alone if that is not said.
    pub channel: Option<String>,
    /// Who.
    pub by: String,
    /// All that is replied, in order, and where that is written.
    pub reply: (Place, Vec<Said>),
}

/// An event that a sensor emits.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// Where it is written.
    pub place: Place,
    /// When; nothing for any time.
    pub at: Option<Duration>,
    /// The trigger; nothing for any.
    pub trigger: Option<String>,
    /// What it is about; nothing for anything.
    pub key: Option<String>,
    /// The payload.
    pub payload: Option<Expected>,
}
