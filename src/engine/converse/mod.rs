//! Conversations: a line that somebody typed becomes an answer, a question, or executions. [`crate::chat::conversation`] decides; here it
//! is committed and carried out.
//!
//! What a line comes to is one commit: that it was heard, what is answered, what is asked for. A line that comes again with its key is
//! answered as it was. [`answers`] says how an execution ended, [`progress`] how far it is, [`commands`] are the bot's own.

pub mod answers;
pub mod commands;
pub mod progress;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::catalog::Catalog;
use super::{Engine, RequestError, owned, stream};
use crate::chat::conversation::{Decision, Question, Topics, decide};
use crate::journal::AcceptError;
use crate::model::event::{Cause, MAX_DEPTH};
use crate::model::execution::{Asked, Execution, Request};
use crate::model::hash::fingerprint;
use crate::model::ids::{EventId, ExecutionId, MessageId};
use crate::model::message::{Destination, Message};
use crate::model::principal::Principal;
use crate::model::reason::Reason;
use crate::store::{Batch, CommitError, Sighting, StoreError};

/// For how long the bot waits for the answer to its question.
const PATIENCE: chrono::Duration = chrono::Duration::minutes(5);

/// Questions that are open at once; beyond that the oldest is forgotten.
const MOST_QUESTIONS: usize = 10_000;

/// For how long a line is known by its key.
const MEMORY: Duration = Duration::from_secs(24 * 3_600);

/// Lines of different conversations that are handled at once; those of one come one after another.
const TURNS: usize = 32; // what an array has by default

/// The longest key of a line, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// The longest line, in bytes.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// A line that somebody typed.
#[derive(Clone, Debug)]
pub struct Said {
    /// The chat system, by its name in `chat`.
    pub adapter: String,
    /// The site's name for the channel; none in a conversation with the bot alone.
    pub channel: Option<String>,
    /// What tells repeats of the line.
    pub key: Option<String>,
    /// The line.
    pub text: String,
    /// Who typed it.
    pub by: Principal,
    /// What made it, if an execution did.
    pub cause: Option<Cause>,
}

/// What became of a line.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its id.
    pub id: EventId,
    /// Where the answers come.
    pub channel: String,
    /// Whether it was for the bot at all.
    pub heard: bool,
    /// False where a command could not be carried out. Of what runs, the executions tell.
    pub fine: bool,
    /// Whether it was heard before; nothing is done twice.
    pub duplicate: bool,
    /// What the bot says at once.
    pub messages: Vec<Message>,
    /// What it runs.
    pub executions: Vec<Arc<Execution>>,
}

/// What the engine remembers of conversations, while the process runs.
#[derive(Default)]
pub struct Conversations {
    questions: Mutex<HashMap<Place, Question>>,
    last: Mutex<HashMap<Place, ExecutionId>>,
    turns: [tokio::sync::Mutex<()>; TURNS],
}

/// Somebody, somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    adapter: String,
    channel: String,
    user: String,
}

impl Conversations {
    fn turn(&self, place: &Place) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % (TURNS as u64)).unwrap_or(0);
        &self.turns[index]
    }

    fn question(&self, place: &Place, now: DateTime<Utc>) -> Option<Question> {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.retain(|_, question| now - question.asked_at < PATIENCE);
        questions.get(place).cloned()
    }

    fn set_question(&self, place: &Place, question: Option<Question>) {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        match question {
            None => {
                questions.remove(place);
            }
            Some(question) => {
                if questions.len() >= MOST_QUESTIONS
                    && let Some(oldest) = questions.iter().min_by_key(|(_, question)| question.asked_at).map(|(place, _)| place.clone())
                {
                    questions.remove(&oldest);
                }
                questions.insert(place.clone(), question);
            }
        }
    }

    fn last(&self, place: &Place) -> Option<ExecutionId> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).get(place).copied()
    }

    fn set_last(&self, place: &Place, id: ExecutionId) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= MOST_QUESTIONS
            && let Some(oldest) = last.iter().min_by_key(|(_, id)| **id).map(|(place, _)| place.clone())
        {
            last.remove(&oldest);
        }
        last.insert(place.clone(), id);
    }
}

/// Hears a line; what it comes to is durable on return.
///
/// # Errors
/// When there is no such channel, the key was another line's, or nothing can be taken now.
pub async fn say(engine: &Arc<Engine>, said: Said) -> Result<Heard, RequestError> {
    let engine = Arc::clone(engine);
    owned(async move { Listening::new(&engine, said)?.hear().await }).await?
}

/// A line while it is dealt with.
struct Listening<'e> {
    engine: &'e Arc<Engine>,
    catalog: Arc<Catalog>,
    said: Said,
    place: Place,
    destination: Destination,
    direct: bool,
    now: DateTime<Utc>,
}

impl<'e> Listening<'e> {
    fn new(engine: &'e Arc<Engine>, said: Said) -> Result<Self, RequestError> {
        let catalog = engine.catalog.get();
        let Principal::Token(user) = &said.by else { return Err(RequestError::Conflict("only people talk".into())) };
        if !engine.outbox.has(&said.adapter) {
            return Err(RequestError::NotFound(format!("the site has no chat system `{}`", said.adapter)));
        }
        if said.text.len() > MAX_LINE_BYTES || said.key.as_ref().is_some_and(|key| key.len() > MAX_KEY_BYTES) {
            return Err(RequestError::Invalid(vec![format!("a line has at most {MAX_LINE_BYTES} bytes, its key {MAX_KEY_BYTES}")]));
        }
        let own = format!("@{user}");
        let (channel, destination) = match &said.channel {
            Some(channel) if *channel != own => {
                let found = catalog.channels.get(channel).filter(|destination| destination.adapter == said.adapter);
                let missing = || RequestError::NotFound(catalog.no_channel(channel));
                (channel.clone(), found.cloned().ok_or_else(missing)?)
            }
            _ => (own.clone(), Destination { adapter: said.adapter.clone(), to: own.clone() }),
        };
        let place = Place { adapter: said.adapter.clone(), channel: channel.clone(), user: user.clone() };
        Ok(Self { engine, direct: channel == own, catalog, place, destination, now: engine.clock.now(), said })
    }

    async fn hear(self) -> Result<Heard, RequestError> {
        let conversations = &self.engine.conversations;
        let _turn = conversations.turn(&self.place).lock().await;
        if let Some(before) = self.before().await? {
            return Ok(before);
        }
        let question = conversations.question(&self.place, self.now);
        let topics = Topics { aliases: &self.catalog.aliases, actions: &self.catalog.actions, packs: &self.catalog.packs };
        let decision = decide(&self.said.text, self.direct, question.as_ref(), &topics, self.now);
        let id = self.engine.ids.event(self.now);
        let mut heard = Heard {
            id,
            channel: self.place.channel.clone(),
            heard: true,
            fine: true,
            duplicate: false,
            messages: Vec::new(),
            executions: Vec::new(),
        };
        let mut asks = None;
        match decision {
            Decision::Ignore => return Ok(Heard { heard: false, ..heard }),
            Decision::Answer { text, fine } => {
                heard.fine = fine;
                heard.messages.push(self.message(id, 0, text));
            }
            Decision::Ask { question, text } => {
                heard.messages.push(self.message(id, 0, text));
                asks = Some(question);
            }
            Decision::Own(own) => {
                let last = conversations.last(&self.place);
                let (text, fine) = commands::carry_out(self.engine, &self.said, &self.place.user, &self.place.channel, own, last).await;
                heard.fine = fine;
                heard.messages.push(self.message(id, 0, text));
            }
            Decision::Run { alias, runs } => self.run(id, &alias, runs, &mut heard)?,
        }
        match self.commit(&heard).await {
            Err(CommitError::Conflict { .. }) => {
                // The same line came at the same time, by another way.
                return self.before().await?.ok_or_else(|| RequestError::Conflict("the same line is being heard; say it again".into()));
            }
            committed => committed?,
        }
        conversations.set_question(&self.place, asks);
        if let Some(last) = heard.executions.last() {
            conversations.set_last(&self.place, last.id);
        }
        Ok(heard)
    }

    /// What became of the line when it came before.
    async fn before(&self) -> Result<Option<Heard>, RequestError> {
        let Some(key) = self.sighting_key() else { return Ok(None) };
        let sighting = self.engine.store.sightings(&[(key, MEMORY)], self.now).await?.into_iter().next().flatten();
        let Some(sighting) = sighting else { return Ok(None) };
        if sighting.body != Some(fingerprint(self.said.text.as_bytes())) {
            return Err(RequestError::Invalid(vec!["the key was given with another line already".into()]));
        }
        let (mut messages, mut executions) = (Vec::new(), Vec::new());
        for index in 0.. {
            match self.engine.store.message(MessageId::of_said(sighting.event, index)).await? {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        for index in 0.. {
            match self.engine.store.execution(ExecutionId::of_said(sighting.event, index)).await? {
                Some(execution) => executions.push(Arc::new(execution)),
                None => break,
            }
        }
        let channel = self.place.channel.clone();
        Ok(Some(Heard { id: sighting.event, channel, heard: true, fine: true, duplicate: true, messages, executions }))
    }

    fn sighting_key(&self) -> Option<String> {
        let Place { adapter, channel, user } = &self.place;
        self.said.key.as_ref().map(|key| format!("chat/{adapter}/{channel}/{user}/{key}"))
    }

    fn message(&self, id: EventId, index: u32, text: String) -> Message {
        Message::new(MessageId::of_said(id, index), &self.place.channel, self.destination.clone(), text, self.now)
    }

    fn run(&self, id: EventId, alias: &str, runs: Vec<Map<String, Value>>, heard: &mut Heard) -> Result<(), RequestError> {
        let depth = self.said.cause.as_ref().map_or(0, |cause| cause.depth.saturating_add(1));
        if depth > MAX_DEPTH {
            return Err(RequestError::Conflict(format!("refused as a loop: executions cause each other more than {MAX_DEPTH} steps deep")));
        }
        if !self.engine.load.has_room() {
            return Err(match self.engine.load.full() {
                AcceptError::Unavailable(why) => RequestError::Store(StoreError::Unavailable(why)),
                busy => RequestError::Overloaded(busy.to_string()),
            });
        }
        let Some(compiled) = self.catalog.aliases.get(alias) else { return Ok(()) };
        let Some(action) = self.catalog.actions.get(&compiled.alias.action) else { return Ok(()) };
        for (index, parameters) in (0u32..).zip(runs) {
            let acknowledged = compiled.alias.ack.enabled.then(|| MessageId::of_said(id, index_of(&heard.messages)));
            let request = Request {
                action: action.reference.clone(),
                parameters,
                requested_by: self.said.by.clone(),
                requested_at: self.now,
                event: None,
                key: None,
                depth,
                parent: None,
                rerun_of: None,
                notify: None,
                idempotent: action.idempotent,
                asked: Some(Box::new(Asked {
                    alias: alias.into(),
                    channel: self.place.channel.clone(),
                    destination: self.destination.clone(),
                    user: self.place.user.clone(),
                    acknowledged,
                })),
            };
            let execution = Arc::new(Execution::requested(ExecutionId::of_said(id, index), request, Reason::Requested));
            if acknowledged.is_some() {
                let text = answers::acknowledgement(compiled, action, &execution);
                let message = self.message(id, index_of(&heard.messages), text);
                heard.messages.push(Message { execution: Some(execution.id), ..message });
            }
            heard.executions.push(execution);
        }
        Ok(())
    }

    /// Makes it durable, and hands out what it comes to.
    async fn commit(&self, heard: &Heard) -> Result<(), CommitError> {
        let sighting = self.sighting_key().map(|key| Sighting {
            key,
            event: heard.id,
            seen_at: self.now,
            repeats: 0,
            body: Some(fingerprint(self.said.text.as_bytes())),
            memory: MEMORY,
            first: true,
        });
        let batch = Batch {
            sightings: sighting.into_iter().collect(),
            requested: heard.executions.clone(),
            messages: heard.messages.clone(),
            ..Batch::default()
        };
        let committed = self.engine.store.commit(&batch).await?;
        // Delivery first: people wait for a sign that they were heard.
        self.engine.outbox.wake(heard.messages.clone());
        if !heard.executions.is_empty() {
            let items = heard.executions.iter().map(|execution| stream::Item::Execution(Arc::clone(execution)));
            self.engine.stream.publish(committed.sequence, items.collect());
            self.engine.hand_over(heard.executions.clone()).await;
        }
        Ok(())
    }
}

fn index_of(messages: &[Message]) -> u32 {
    u32::try_from(messages.len()).unwrap_or(u32::MAX)
}
