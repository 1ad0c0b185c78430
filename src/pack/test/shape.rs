//! What a test file may hold.

use crate::document::shape::{Field, Holds, Shape};

/// Cases of a file at most.
pub const MAX_CASES: usize = 1_000;

const OBJECT: Holds = Holds::Map(&Holds::Any);
const SCOPES: Holds = Holds::Map(&OBJECT);

const CONFIG: Field =
    Field::new("config", OBJECT, "The settings of the pack; those of the site do not count").example(r#"{"url": "http://marathon.test"}"#);
const CONFIG_OF: Field = Field::new("config_of", Holds::Map(&OBJECT), "The settings of other packs, by name");
const CHANNELS: Field =
    Field::new("channels", Holds::List(&Holds::Text), "Channels besides those of the site and `ops`").example(r#"["alerts"]"#);
const NOW: Field = Field::new("now", Holds::Text, "When a case begins").default("\"2026-01-05T08:00:00Z\"");
const UNTIL: Field = Field::new("until", Holds::Duration, "How long the case goes on at least").example("\"5m\"");
const AT: Field = Field::new("at", Holds::Duration, "When, from the beginning of the case").example("\"30s\"");
const HEADERS: Field = Field::new("headers", OBJECT, "Headers, by name");

/// A test file.
pub static TEST: Shape = Shape::new(
    "a test file",
    "Tests of a pack: cases that are played on the engine, in simulated time and without a network",
    &[
        Field::new("description", Holds::Text, "For people"),
        CONFIG,
        CONFIG_OF,
        CHANNELS,
        NOW,
        Field::required(
            "cases",
            Holds::List(&Holds::Either(&[
                Holds::Shape(&ACTION_CASE),
                Holds::Shape(&RULE_CASE),
                Holds::Shape(&SENSOR_CASE),
                Holds::Shape(&CHAT_CASE),
            ])),
            "The cases",
        ),
    ],
);

/// What every case has.
static COMMON: [Field; 11] = [
    Field::required("name", Holds::Text, "What the case shows, in words").example("\"scales by a difference\""),
    CONFIG,
    CONFIG_OF,
    CHANNELS,
    NOW,
    Field::new("keys", SCOPES, "Keys of the datastore before, by scope").example(r#"{"system": {"limit": 80}}"#),
    Field::new("keys_after", SCOPES, "All keys of a scope afterwards"),
    Field::new("keys_after_with", SCOPES, "Some keys of a scope afterwards"),
    Field::new("http", Holds::List(&Holds::Shape(&REQUEST)), "Requests to other systems, with their replies"),
    Field::new("http_order", Holds::Word(&["given", "any"]), "Whether they come in this order").default("\"given\""),
    Field::new("messages", Holds::List(&Holds::Either(&[Holds::Text, Holds::Shape(&MESSAGE)])), "All that is said, in order"),
];

/// A case of an action.
pub static ACTION_CASE: Shape = Shape {
    what: "a case of an action",
    doc: "An action is run, to its end",
    fields: &[
        Field::required("action", Holds::Text, "The action").example("\"shop.scale\""),
        Field::new("parameters", OBJECT, "Its parameters"),
        Field::new("succeeds", Holds::Any, "The whole result"),
        Field::new("succeeds_with", Holds::Any, "A part of the result"),
        Field::new("fails", Holds::Shape(&FAILS), "How it fails"),
        Field::new("plan", Holds::Text, "What it says that it would do; text or /regex/"),
        Field::new("log", Holds::List(&Holds::Text), "Lines that it logs, in this order"),
        Field::new("attempts", Holds::Count(0, u64::MAX), "How many attempts it takes"),
    ],
    shared: &COMMON,
};

/// A case of rules.
pub static RULE_CASE: Shape = Shape {
    what: "a case of a rule",
    doc: "Rules see events",
    fields: &[
        Field::required("rule", Holds::Either(&[Holds::Text, Holds::List(&Holds::Text)]), "The rule, or several; there are no others"),
        Field::new(
            "events",
            Holds::List(&Holds::Either(&[Holds::Shape(&EVENT), Holds::Shape(&CALL)])),
            "What happens, in the order of time",
        ),
        Field::required(
            "expect",
            Holds::List(&Holds::Either(&[Holds::Shape(&RUNS), Holds::Shape(&SAID), Holds::Shape(&NOTHING_ELSE)])),
            "What is expected; an empty list says that nothing happens",
        ),
        Field::new("carry_out", Holds::Boolean, "Whether actions are carried out").default("false"),
        UNTIL,
    ],
    shared: &COMMON,
};

/// A case of a sensor.
pub static SENSOR_CASE: Shape = Shape {
    what: "a case of a sensor",
    doc: "A sensor looks, or a webhook is called",
    fields: &[
        Field::required("sensor", Holds::Text, "The sensor").example("\"shop.queue\""),
        Field::new("body", Holds::Any, "What is posted to the webhook"),
        HEADERS,
        Field::new("emits", Holds::List(&Holds::Shape(&EMITTED)), "Its events, in order; an empty list is none"),
        Field::new("refuses", Holds::Text, "What the webhook says when it refuses; text or /regex/"),
        UNTIL,
    ],
    shared: &COMMON,
};

/// A case of the conversation.
pub static CHAT_CASE: Shape = Shape {
    what: "a case of the conversation",
    doc: "Somebody says something, and the bot replies; what it runs is carried out",
    fields: &[
        Field::required("say", Holds::Either(&[Holds::Text, Holds::List(&Holds::Text)]), "What is said: a line, or several")
            .example("\"!help\""),
        Field::required("reply", Holds::List(&Holds::Text), "All that is replied, in order: text or /regex/; `<id>` stands for any id"),
        Field::new("channel", Holds::Text, "Where; in a conversation with the bot alone unless given"),
        Field::new("by", Holds::Text, "By whom").default("\"test\""),
    ],
    shared: &COMMON,
};

/// How an action fails.
pub static FAILS: Shape = Shape::new(
    "`fails`",
    "How an execution fails; what is not said does not matter",
    &[
        Field::new("reason", Holds::Text, "The code of the reason").example("\"timed_out\""),
        Field::new("message", Holds::Text, "The error; text or /regex/"),
    ],
);

/// A request that is expected.
pub static REQUEST: Shape = Shape::new(
    "a request",
    "A request to another system, and its reply; what is not mentioned is not compared",
    &[
        Field::required("expect", Holds::Text, "Method and path, or whole address").example("\"GET /v2/apps\""),
        Field::new("query", OBJECT, "The whole query"),
        Field::new("query_with", OBJECT, "A part of the query"),
        HEADERS,
        Field::new("json", Holds::Any, "The whole body as JSON"),
        Field::new("json_with", Holds::Any, "A part of the body as JSON"),
        Field::new("body", Holds::Text, "The body as text or /regex/"),
        Field::new("times", Holds::Count(1, 1_000_000), "How often it comes").default("1"),
        Field::new("after", Holds::Duration, "What passes before the reply"),
        Field::new("reply", Holds::Shape(&REPLY), "The reply"),
        Field::new("unreachable", Holds::Text, "There is no reply; this is why").example("\"connection refused\""),
    ],
);

/// A reply.
pub static REPLY: Shape = Shape::new(
    "a reply",
    "What the other system answers",
    &[
        Field::new("status", Holds::Count(100, 599), "The status").default("200"),
        HEADERS,
        Field::new("json", Holds::Any, "The body as JSON"),
        Field::new("body", Holds::Text, "The body as text"),
    ],
);

/// A message.
pub static MESSAGE: Shape = Shape::new(
    "a message",
    "Something that is said",
    &[Field::new("channel", Holds::Text, "The channel"), Field::required("text", Holds::Text, "Text or /regex/")],
);

/// An event.
pub static EVENT: Shape = Shape::new(
    "an event",
    "Something happens",
    &[
        AT,
        Field::required("trigger", Holds::Text, "The trigger").example("\"shop.deploy\""),
        Field::new("payload", OBJECT, "The payload"),
        Field::new("key", Holds::Text, "What it is about"),
        Field::new("late", Holds::Duration, "How long before it came it happened"),
    ],
);

/// A call of a webhook.
pub static CALL: Shape = Shape::new(
    "a call of a webhook",
    "Somebody posts to a webhook",
    &[
        AT,
        Field::required("webhook", Holds::Text, "The sensor").example("\"shop.deploys\""),
        HEADERS,
        Field::required("body", Holds::Any, "The body; what is not text is JSON"),
    ],
);

/// An execution that is expected.
pub static RUNS: Shape = Shape::new(
    "an expectation",
    "An action is run",
    &[
        AT,
        Field::required("runs", Holds::Text, "The action").example("\"shop.scale\""),
        Field::new("parameters", OBJECT, "All its parameters, as they are cast"),
        Field::new("parameters_with", OBJECT, "Some of its parameters"),
    ],
);

/// A message that is expected.
pub static SAID: Shape = Shape::new(
    "an expectation",
    "Something is said",
    &[AT, Field::required("said", Holds::Text, "Text or /regex/"), Field::new("channel", Holds::Text, "The channel")],
);

/// That there is nothing else.
pub static NOTHING_ELSE: Shape = Shape::new(
    "`nothing_else`",
    "Nothing is run or said that is not expected",
    &[Field::required("nothing_else", Holds::Boolean, "True").example("true")],
);

/// An event that a sensor emits.
pub static EMITTED: Shape = Shape::new(
    "an emitted event",
    "An event of the sensor; what is not said does not matter",
    &[
        AT,
        Field::new("trigger", Holds::Text, "Its trigger"),
        Field::new("key", Holds::Text, "What it is about"),
        Field::new("payload", OBJECT, "The whole payload"),
        Field::new("payload_with", OBJECT, "A part of the payload"),
    ],
);
