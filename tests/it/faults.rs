//! The store fails at the first, second, … n-th commit. After each, a restart leads to the same end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use signalman::model::datastore::KeyEntry;
use signalman::model::event::{Dedup, NewEvent, PendingEvent, StoredEvent};
use signalman::model::execution::{Execution, Status};
use signalman::model::hash::Revision;
use signalman::model::ids::{EventId, ExecutionId, MessageId};
use signalman::model::json::RawJson;
use signalman::model::message::Message;
use signalman::model::window::{WindowKey, WindowState};
use signalman::store::memory::MemorySpace;
use signalman::store::{Batch, CommitError, Committed, Keep, Maintenance, Page, Ruleset, Sighting, Store, StoreError, Tended};

use crate::harness::{Target, TestSite, World, eventually, memory};

/// What becomes of the commit that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// Nothing of it is there.
    Before,
    /// It is there, and nobody was told.
    After,
}

/// Lets `budget` commits through, then fails every one: as a disk that has gone.
pub struct Failing {
    inner: Arc<dyn Store>,
    budget: AtomicUsize,
    fails: Fails,
    writing: AtomicUsize,
}

impl Failing {
    pub fn new(inner: Arc<dyn Store>, budget: usize, fails: Fails) -> Self {
        Self { inner, budget: AtomicUsize::new(budget), fails, writing: AtomicUsize::new(0) }
    }

    /// From now on nothing can be written, and nothing is being written any more.
    pub async fn fail(&self) {
        self.budget.store(0, Ordering::SeqCst);
        eventually("commits to end", || async { (self.writing.load(Ordering::SeqCst) == 0).then_some(()) }).await;
    }

    async fn write(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let done = self.inner.commit(batch).await;
        self.writing.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

#[async_trait]
impl Store for Failing {
    async fn commit(&self, batch: &Batch) -> Result<Committed, CommitError> {
        self.writing.fetch_add(1, Ordering::SeqCst);
        let left = self.budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left == Ok(1) && self.fails == Fails::After {
            self.write(batch).await?;
            return Err(StoreError::Unavailable("the disk has gone, but not before it wrote".into()).into());
        }
        if left.is_err() {
            self.writing.fetch_sub(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("the disk has gone".into()).into());
        }
        self.write(batch).await
    }
    async fn health(&self) -> Result<(), StoreError> {
        self.inner.health().await
    }
    async fn sequence(&self) -> Result<u64, StoreError> {
        self.inner.sequence().await
    }
    async fn sightings(&self, keys: &[(String, Duration)], now: DateTime<Utc>) -> Result<Vec<Option<Sighting>>, StoreError> {
        self.inner.sightings(keys, now).await
    }
    async fn event(&self, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        self.inner.event(id).await
    }
    async fn events(&self, page: Page<EventId>) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner.events(page).await
    }
    async fn execution(&self, id: ExecutionId) -> Result<Option<Execution>, StoreError> {
        self.inner.execution(id).await
    }
    async fn executions(&self, page: Page<ExecutionId>) -> Result<Vec<Execution>, StoreError> {
        self.inner.executions(page).await
    }
    async fn open_executions(&self) -> Result<Vec<Execution>, StoreError> {
        self.inner.open_executions().await
    }
    async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        self.inner.message(id).await
    }
    async fn messages(&self, page: Page<MessageId>) -> Result<Vec<Message>, StoreError> {
        self.inner.messages(page).await
    }
    async fn waiting_messages(&self, adapter: Option<&str>, limit: usize) -> Result<Vec<Message>, StoreError> {
        self.inner.waiting_messages(adapter, limit).await
    }
    async fn key(&self, scope: &str, name: &str) -> Result<Option<KeyEntry>, StoreError> {
        self.inner.key(scope, name).await
    }
    async fn keys(&self, scope: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, KeyEntry)>, StoreError> {
        self.inner.keys(scope, prefix, after, limit).await
    }
    async fn expired_keys(&self, now: DateTime<Utc>, limit: usize) -> Result<Vec<(DateTime<Utc>, String, String)>, StoreError> {
        self.inner.expired_keys(now, limit).await
    }
    async fn windows(&self, after: Option<&WindowKey>, limit: usize) -> Result<Vec<(WindowKey, WindowState)>, StoreError> {
        self.inner.windows(after, limit).await
    }
    async fn pending_events(&self, limit: usize) -> Result<Vec<PendingEvent>, StoreError> {
        self.inner.pending_events(limit).await
    }
    async fn settings(&self, prefix: &str) -> Result<Vec<(String, Value)>, StoreError> {
        self.inner.settings(prefix).await
    }
    async fn definition(&self, revision: &Revision) -> Result<Option<Value>, StoreError> {
        self.inner.definition(revision).await
    }
    async fn ruleset(&self, number: Option<u64>) -> Result<Option<Ruleset>, StoreError> {
        self.inner.ruleset(number).await
    }
    async fn setting(&self, name: &str) -> Result<Option<Value>, StoreError> {
        self.inner.setting(name).await
    }
    async fn tend(&self, _: DateTime<Utc>, _: &Keep) -> Result<Tended, StoreError> {
        Ok(Tended::default()) // a world that is dropped goes on, and the databases belong to the next one then
    }
    async fn wants_tending(&self) {
        self.inner.wants_tending().await;
    }
    async fn revive(&self) -> Result<bool, StoreError> {
        self.inner.revive().await
    }
    fn maintenance(&self) -> Arc<dyn Maintenance> {
        self.inner.maintenance()
    }
}

fn site(target: &str) -> TestSite {
    let pack = format!("ref: t\ncapabilities: {{chat: true, http: [\"{target}\"]}}\n");
    let script =
        format!("fn run(params) {{ http.post(\"{target}/work\", #{{json: params}}); chat.send(\"ops\", `did ${{params.n}}`); params.n }}");
    let rule = "trigger: {type: t.e}\naction: {ref: t.work, parameters: {n: <% trigger.n %>}}\n";
    TestSite::empty()
        .file("packs/t/pack.yaml", &pack)
        .file("packs/t/triggers/e.yaml", "name: e\n")
        .file("packs/t/actions/work.yaml", "runner_type: rhai\nidempotent: true\nparameters: {n: {type: integer}}\n")
        .file("packs/t/actions/work.rhai", &script)
        .file("rules/work.yaml", rule)
}

fn event(n: u64) -> NewEvent {
    NewEvent {
        trigger: "t.e".into(),
        payload: RawJson::of(&json!({"n": n})),
        key: None,
        dedup: Some(Dedup { key: format!("k{n}"), memory: Duration::from_secs(3_600), repeats: false, body: None }),
        occurred_at: None,
        source: "test".into(),
        cause: None,
        rejected: None,
        pending: None,
    }
}

/// Sends three events, each again and again until it is taken, over restarts; answers what is there in the end.
async fn end_state(budget: usize) -> (bool, Vec<(u64, Status)>, Vec<String>, Vec<String>) {
    let target = Target::answering(200, "{}").await;
    let (site, space) = (site(&target.url), MemorySpace::default());
    let failing = Arc::new(Failing::new(memory(&space), budget, Fails::Before));
    let mut failed = false;
    match World::start(&site, failing.clone()).await {
        Ok(world) => {
            for n in 0..3 {
                // Refused is an answer; what was acknowledged must be there in the end.
                failed |= world.app.journal.accept(vec![event(n)]).await.is_err();
            }
            eventually("everything to end or to fail", || async {
                let open = failing.open_executions().await.unwrap();
                let waiting = failing.waiting_messages(None, 100).await.unwrap();
                let gone = failing.budget.load(Ordering::SeqCst) == 0;
                (gone || (open.is_empty() && waiting.is_empty())).then_some(())
            })
            .await;
            failed |= failing.budget.load(Ordering::SeqCst) == 0;
            failing.fail().await; // as a crash: nothing is taken down, and what still runs there writes nothing any more
            drop(world);
        }
        Err(_) => failed = true,
    }
    // The disk is back; the senders repeat what was not acknowledged, and to be sure what was.
    let store = memory(&space);
    let world = World::start(&site, Arc::clone(&store)).await.expect("it starts again");
    for n in 0..3 {
        world.app.journal.accept(vec![event(n)]).await.expect("everything is taken now");
    }
    let executions = eventually("every execution and message to end", || async {
        let executions = store.executions(Page { before: None, limit: 100 }).await.unwrap();
        let waiting = store.waiting_messages(None, 100).await.unwrap();
        let ended = executions.len() == 3 && executions.iter().all(|execution| execution.state.status.is_final());
        (ended && waiting.is_empty()).then_some(executions)
    })
    .await;
    let mut ends: Vec<(u64, Status)> =
        executions.iter().map(|execution| (execution.request.parameters["n"].as_u64().unwrap(), execution.state.status)).collect();
    ends.sort_by_key(|(n, _)| *n);
    let mut said: Vec<String> =
        store.messages(Page { before: None, limit: 100 }).await.unwrap().into_iter().map(|message| message.text).collect();
    said.sort();
    let mut keys: Vec<String> =
        target.received().iter().map(|request| format!("{} {}", request.body, request.header("idempotency-key").unwrap())).collect();
    keys.sort();
    keys.dedup();
    world.app.stop().await;
    (failed, ends, said, keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_commit_leads_to_the_same_end() {
    let mut budget = 0;
    loop {
        let (failed, ends, said, keys) = end_state(budget).await;
        let context = format!("the store failed after {budget} commits");
        assert_eq!(ends, [(0, Status::Succeeded), (1, Status::Succeeded), (2, Status::Succeeded)], "{context}");
        assert_eq!(said, ["did 0", "did 1", "did 2"], "{context}: each message once");
        assert_eq!(keys.len(), 3, "{context}: repeats of one request carry one key: {keys:?}");
        if !failed {
            break;
        }
        budget += 1;
    }
    println!("the store was made to fail after each of {budget} commits");
    assert!(budget >= 5, "the story has fewer commits than it should: {budget}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_outbox_is_delivered_once_each() {
    const WAITING: usize = 12_000;
    let (ids, store) = (signalman::model::ids::IdSource::seeded(1), memory(&MemorySpace::default()));
    let at = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let message = |_| Message {
        id: ids.message(at),
        channel: "ops".into(),
        destination: signalman::model::message::Destination { adapter: "console".into(), to: "ops".into() },
        text: "waiting".into(),
        created_at: at,
        execution: None,
        replaces: None,
        passing: false,
        delivery: signalman::model::message::Delivery::Waiting,
    };
    store.commit(&Batch { messages: (0..WAITING).map(message).collect(), ..Batch::default() }).await.unwrap();
    let site = TestSite::empty().file("signalman.yaml", "listen: 127.0.0.1:0\nretention: {executions: 36500d}\n");
    let world = World::start(&site, Arc::clone(&store)).await.unwrap();
    eventually("the outbox to be empty", || async { store.waiting_messages(None, 1).await.unwrap().is_empty().then_some(()) }).await;
    let engine = Arc::clone(&world.app.engine);
    world.app.stop().await;
    let sent = engine.metrics.messages.with_label_values(&["sent"]).get();
    assert_eq!(sent, WAITING as u64, "each is delivered once, however often the outbox is read");
}
