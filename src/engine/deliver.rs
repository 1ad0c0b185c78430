//! Carries messages from the outbox to chat, in order per adapter. An adapter that is down delays nobody else.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use super::Engine;
use super::stream::Item;
use crate::chat::{ChatAdapter, Receipt, SendError};
use crate::clock;
use crate::model::ids::MessageId;
use crate::model::message::{Delivery, Message};
use crate::model::reason::Reason;
use crate::store::{Batch, StoreError};
use crate::tasks::Stop;

/// Messages of one adapter that are held in memory; more stay in the store until there is room.
const HELD_MESSAGES: usize = 1_000;

/// Messages read from the store at a time.
const READ_TOGETHER: usize = 10_000;

/// Deliveries recorded in one commit at most.
const TOGETHER: usize = 128;

/// The longest pause between two attempts at one message.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A message that could not be delivered for this long is given up, and that is recorded.
const EXPIRY: chrono::Duration = chrono::Duration::hours(24);

/// What the message is for that answers a person with how an execution ended; the first has the number 0.
pub const RESULT: &str = "result";

/// The way of committed messages to their adapters.
pub struct Outbox {
    adapters: BTreeMap<String, Lane>,
}

struct Lane {
    sender: mpsc::Sender<Message>,
    overflow: Arc<AtomicBool>,
    more: Arc<Notify>,
}

/// The end of one adapter.
pub struct Postman {
    name: String,
    adapter: Arc<dyn ChatAdapter>,
    inbox: mpsc::Receiver<Message>,
    overflow: Arc<AtomicBool>,
    more: Arc<Notify>,
}

impl Outbox {
    /// Makes the outbox for the site's adapters, and a postman for each.
    #[must_use]
    pub fn new(adapters: BTreeMap<String, Arc<dyn ChatAdapter>>) -> (Self, Vec<Postman>) {
        let (mut lanes, mut postmen) = (BTreeMap::new(), Vec::new());
        for (name, adapter) in adapters {
            let (sender, inbox) = mpsc::channel(HELD_MESSAGES);
            // Set at first, so that what waits in the store is read at the start.
            let overflow = Arc::new(AtomicBool::new(true));
            let more = Arc::new(Notify::new());
            lanes.insert(name.clone(), Lane { sender, overflow: Arc::clone(&overflow), more: Arc::clone(&more) });
            postmen.push(Postman { name, adapter, inbox, overflow, more });
        }
        (Self { adapters: lanes }, postmen)
    }

    /// Whether the site has an adapter of that name.
    #[must_use]
    pub fn has(&self, adapter: &str) -> bool {
        self.adapters.contains_key(adapter)
    }

    /// Lets the postmen read from the store what waits there: some of it may be known to nobody.
    pub fn reread(&self) {
        for lane in self.adapters.values() {
            lane.overflow.store(true, Ordering::Release);
            lane.more.notify_one();
        }
    }

    /// Tells the postmen of messages that are durable. Never waits: what does not fit is read from the store later.
    pub fn wake(&self, messages: Vec<Message>) {
        for message in messages {
            let Some(lane) = self.adapters.get(&message.destination.adapter) else {
                tracing::error!(message = %message.id, adapter = message.destination.adapter, "a message waits for an adapter that the site does not have");
                continue;
            };
            // Once something had to stay in the store, what follows must not overtake it.
            if lane.overflow.load(Ordering::Acquire) || lane.sender.try_send(message).is_err() {
                lane.overflow.store(true, Ordering::Release);
                lane.more.notify_one();
            }
        }
    }
}

/// Delivers until the stop signal.
pub async fn run(engine: Arc<Engine>, mut postman: Postman, stop: Stop) {
    let mut ready: Vec<Message> = Vec::new();
    // What was read from the store may also stand in the channel, or come there a moment later.
    let mut recent = Recent::default();
    loop {
        // Only when all that is at hand has been delivered and recorded: what is read now is not at hand a second time.
        if ready.is_empty() && postman.inbox.is_empty() && postman.overflow.swap(false, Ordering::AcqRel) {
            match engine.store.waiting_messages(Some(&postman.name), READ_TOGETHER).await {
                Ok(waiting) => {
                    if waiting.len() == READ_TOGETHER {
                        postman.overflow.store(true, Ordering::Release); // there may be more
                    }
                    ready.extend(waiting);
                    // Ids of one execution are of one millisecond and end in a hash: an edit must not come before what it changes.
                    ready.sort_by_key(|message| (message.created_at, message.replaces.is_some(), !message.passing, message.id));
                }
                Err(error) => {
                    tracing::error!("the outbox cannot be read, trying again: {error}");
                    postman.overflow.store(true, Ordering::Release);
                    tokio::select! { () = stop.stopped() => return, () = clock::sleep(&*engine.clock, Duration::from_secs(1)) => {} }
                    continue;
                }
            }
        }
        if ready.is_empty() {
            tokio::select! {
                () = stop.stopped() => return,
                () = postman.more.notified() => continue,
                count = postman.inbox.recv_many(&mut ready, TOGETHER) => if count == 0 { return },
            }
        }
        let batch: Vec<Message> = ready.drain(..ready.len().min(TOGETHER)).filter(|message| recent.insert(message.id)).collect();
        let mut done = Vec::with_capacity(batch.len());
        for message in batch {
            let Some(message) = deliver(&engine, &postman, message, &done, &stop).await else { break };
            done.push(message);
        }
        if !record(&engine, done, &stop).await || stop.is_stopped() {
            return;
        }
    }
}

/// The messages handled last.
#[derive(Default)]
struct Recent {
    order: VecDeque<MessageId>,
    known: HashSet<MessageId>,
}

impl Recent {
    /// Whether it was not handled lately; it is from now on.
    fn insert(&mut self, id: MessageId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > READ_TOGETHER + HELD_MESSAGES {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        true
    }
}

/// One attempt at a message: it is sent, or put in the place of another, or left out (`None`). `done` was delivered just before.
async fn attempt(engine: &Engine, postman: &Postman, message: &Message, done: &[Message]) -> Result<Option<Receipt>, SendError> {
    let send = || postman.adapter.send(&message.destination, message, message.id);
    let Some(original) = message.replaces else { return send().await.map(Some) };
    let unread = |error: StoreError| SendError { reason: Reason::StoreUnavailable, detail: error.to_string(), retry: true };
    if message.passing
        && let Some(execution) = message.execution
        && engine.store.message(MessageId::of_execution(execution, RESULT, 0)).await.map_err(unread)?.is_some()
    {
        return Ok(None); // the end is known
    }
    let original = match done.iter().find(|earlier| earlier.id == original) {
        Some(earlier) => Some(earlier.clone()),
        None => engine.store.message(original).await.map_err(unread)?,
    };
    let taken = original.and_then(|original| match original.delivery {
        Delivery::Sent { receipt, .. } => Some(Receipt(receipt)),
        _ => None,
    });
    match taken.filter(|_| postman.adapter.abilities().edits) {
        Some(taken) => match postman.adapter.edit(&message.destination, &taken, message, message.id).await {
            Err(error) if !error.retry && message.passing => {
                tracing::debug!(message = %message.id, "left out: {}", error.detail);
                Ok(None)
            }
            Err(error) if !error.retry => {
                tracing::warn!(message = %message.id, "sent anew, since the edit was refused: {}", error.detail);
                send().await.map(Some)
            }
            edited => edited.map(Some),
        },
        None if message.passing => Ok(None),
        None => send().await.map(Some),
    }
}

/// Delivers one message, trying again as long as that makes sense; `None` when the engine stops before.
async fn deliver(engine: &Engine, postman: &Postman, mut message: Message, done: &[Message], stop: &Stop) -> Option<Message> {
    let mut pause = Duration::from_millis(500);
    loop {
        let outcome = tokio::select! {
            outcome = attempt(engine, postman, &message, done) => outcome,
            () = stop.stopped() => return None,
        };
        let now = engine.clock.now();
        message.delivery = match outcome {
            Ok(None) => Delivery::LeftOut { at: now },
            Ok(Some(receipt)) => Delivery::Sent { at: now, receipt: receipt.0 },
            Err(SendError { detail, retry: true, .. }) if now - message.created_at < EXPIRY => {
                tracing::warn!(message = %message.id, adapter = postman.name, "not delivered yet: {detail}");
                tokio::select! { () = clock::sleep(&*engine.clock, pause) => {}, () = stop.stopped() => return None }
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            Err(SendError { reason, detail, retry }) => {
                let reason = if retry { Reason::ChatUnavailable } else { reason };
                tracing::error!(message = %message.id, adapter = postman.name, "given up: {detail}");
                Delivery::Failed { at: now, reason, detail }
            }
        };
        return Some(message);
    }
}

/// Records deliveries, trying again until they are durable. Answers whether to go on.
async fn record(engine: &Engine, messages: Vec<Message>, stop: &Stop) -> bool {
    if messages.is_empty() {
        return true;
    }
    let batch = Batch { deliveries: messages, ..Batch::default() };
    let mut failed = false;
    loop {
        match engine.store.commit(&batch).await {
            Ok(committed) => {
                for message in &batch.deliveries {
                    let outcome = match message.delivery {
                        Delivery::Sent { .. } => "sent",
                        Delivery::LeftOut { .. } => "left_out",
                        Delivery::Waiting | Delivery::Failed { .. } => "failed",
                    };
                    engine.metrics.messages.with_label_values(&[outcome]).inc();
                }
                engine
                    .stream
                    .publish(committed.sequence, batch.deliveries.into_iter().map(|message| Item::Message(Arc::new(message))).collect());
                return true;
            }
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::error!("deliveries cannot be recorded, trying again: {error}");
                }
                tokio::select! { () = stop.stopped() => return false, () = clock::sleep(&*engine.clock, Duration::from_secs(1)) => {} }
            }
        }
    }
}
