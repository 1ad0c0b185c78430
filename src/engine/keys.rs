//! The keys of the datastore: every change is made only if the key is still as it was read, so of several who want it one wins, and no
//! count is lost. Expired keys are as if deleted; [`sweep`] removes them a little later.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

use super::{Engine, RequestError, own, owned};
use crate::document::fault::nearest;
use crate::model::datastore::{Change, Changed, KeyEntry, KeyRequest, Scope, check_name, check_ttl, check_value, incremented};
use crate::model::hash::fingerprint;
use crate::store::{Batch, CommitError, KeyChange, StoreError};

/// Keys of the system at most: they are held in memory.
pub const MAX_KEYS: usize = 100_000;

/// Names that are compared with one that does not exist, to say which was probably meant.
const COMPARED: usize = 1_000;

/// Keys whose changes wait for each other in one line; two that have nothing to do with each other seldom meet.
const LINES: usize = 64;

/// How often a change is tried when something else, as the end of its time, changes the key meanwhile.
const TRIES: usize = 16;

/// Expired keys that are removed in one commit, and commits between two looks.
const SWEPT_TOGETHER: usize = 256;
const SWEEPS: usize = 4;

/// Entries read from the store at a time.
const READ_TOGETHER: usize = 100;

/// A list of keys holds so many bytes of values, and one more value, at most.
const PAGE_BYTES: usize = 1 << 20;

/// One line for each key's changes, so that they are told in the order of their commits.
pub(super) struct Lines([tokio::sync::Mutex<()>; LINES]);

impl Default for Lines {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Lines {
    async fn wait(&self, scope: &str, name: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let line = fingerprint(format!("{scope}\0{name}").as_bytes()) % LINES as u64;
        self.0[usize::try_from(line).unwrap_or(0)].lock().await
    }
}

/// What a key has, unless it is not there or its time is over.
///
/// # Errors
/// When the store cannot be read.
pub async fn get(engine: &Engine, scope: &Scope, name: &str) -> Result<Option<KeyEntry>, StoreError> {
    let entry = engine.store.key(&scope.to_string(), name).await?;
    Ok(entry.filter(|entry| !entry.has_expired(engine.clock.now())))
}

/// Keys whose names begin so, in their order, after one of them; and whether there are more.
///
/// # Errors
/// When the store cannot be read.
pub async fn list(
    engine: &Engine,
    scope: &Scope,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<(String, KeyEntry)>, bool), StoreError> {
    let (scope, now) = (scope.to_string(), engine.clock.now());
    let (mut found, mut bytes, mut after) = (Vec::new(), 0, after.map(ToString::to_string));
    loop {
        let page = engine.store.keys(&scope, prefix, after.as_deref(), READ_TOGETHER).await?;
        let Some((last, _)) = page.last() else { return Ok((found, false)) };
        after = Some(last.clone());
        for (name, entry) in page.into_iter().filter(|(_, entry)| !entry.has_expired(now)) {
            if found.len() == limit || bytes > PAGE_BYTES {
                return Ok((found, true));
            }
            bytes += entry.value.to_string().len();
            found.push((name, entry));
        }
    }
}

/// Changes a key if its condition holds; durable on return, and rules see it from then on.
///
/// # Errors
/// When name, value or time are not allowed, there are too many keys, or it cannot be stored.
pub async fn change(engine: &Arc<Engine>, request: KeyRequest) -> Result<Changed, RequestError> {
    let wrong = |fault: String| RequestError::Invalid(vec![fault]);
    if let Change::Set { ttl, .. } | Change::Increment { ttl, .. } = &request.change {
        check_name(&request.scope, &request.name).map_err(wrong)?;
        ttl.map_or(Ok(()), check_ttl).map_err(wrong)?;
    }
    if let Change::Set { value, .. } = &request.change {
        check_value(&request.name, value).map_err(wrong)?;
    }
    // Who asks may go away; what is half done is not.
    let engine = Arc::clone(engine);
    owned(async move { change_in_line(&engine, &request).await }).await?
}

async fn change_in_line(engine: &Engine, request: &KeyRequest) -> Result<Changed, RequestError> {
    let scope = request.scope.to_string();
    let _alone = engine.ruling.key_lines.wait(&scope, &request.name).await;
    for _ in 0..TRIES {
        let now = engine.clock.now();
        let stored = engine.store.key(&scope, &request.name).await?;
        let before = stored.as_ref().filter(|entry| !entry.has_expired(now));
        if !request.only.holds(before) {
            return Ok(Changed::Lost { entry: before.cloned() });
        }
        let after = after(engine, request, before, now).await?;
        if before.is_none() && after.is_none() {
            return Ok(Changed::Done { before: None, after: None });
        }
        if request.scope == Scope::System && before.is_none() && engine.ruling.keys(now).len() >= MAX_KEYS {
            return Err(RequestError::Conflict(format!("there are {MAX_KEYS} keys already, and no more are kept; delete some first")));
        }
        let mut pending = Vec::new();
        if let Some(expired) = stored.as_ref().filter(|_| before.is_none()) {
            pending.extend(own::key_changed(engine, &scope, &request.name, [Some(expired), None], None));
        }
        pending.extend(own::key_changed(engine, &scope, &request.name, [before, after.as_ref()], request.cause.clone()));
        let has_events = !pending.is_empty();
        let change = KeyChange::of(&scope, &request.name, stored.as_ref(), after.clone());
        match engine.store.commit(&Batch { keys: vec![change], pending, ..Batch::default() }).await {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => continue,
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        if request.scope == Scope::System {
            engine.ruling.note_key(&request.name, after.as_ref());
        }
        if has_events {
            engine.own_events.notify_one();
        }
        return Ok(Changed::Done { before: before.cloned(), after });
    }
    Err(RequestError::Conflict(format!("key `{}` changes all the time; try again", request.name)))
}

/// What a key will have.
async fn after(
    engine: &Engine,
    request: &KeyRequest,
    before: Option<&KeyEntry>,
    now: DateTime<Utc>,
) -> Result<Option<KeyEntry>, RequestError> {
    let until = |ttl: &Option<Duration>| ttl.and_then(|ttl| Some((now + chrono::Duration::from_std(ttl).ok()?).trunc_subsecs(3)));
    let (value, expires_at) = match &request.change {
        Change::Delete => return Ok(None),
        Change::Set { value, ttl } => (value.clone(), until(ttl)),
        Change::Increment { by, ttl } => {
            let value = incremented(&request.name, before.map(|entry| &entry.value), *by);
            let value = value.map_err(|fault| RequestError::Invalid(vec![fault]))?;
            (value, before.map_or_else(|| until(ttl), |entry| entry.expires_at))
        }
    };
    // The number of the next commit is larger than every version that the key has had, also before it was deleted.
    let version = engine.store.sequence().await? + 1;
    Ok(Some(KeyEntry { value, version, changed_at: Some(now), changed_by: request.by.clone(), expires_at }))
}

/// Removes keys whose time is over, a bounded number of them.
///
/// # Errors
/// When the store cannot be used.
pub async fn sweep(engine: &Engine) -> Result<(), StoreError> {
    for _ in 0..SWEEPS {
        let now = engine.clock.now();
        let due = engine.store.expired_keys(now, SWEPT_TOGETHER).await?;
        if due.is_empty() {
            return Ok(());
        }
        let (mut batch, mut changes) = (Batch::default(), Vec::new());
        for (at, scope, name) in due {
            let stored = engine.store.key(&scope, &name).await?;
            let expired = stored.as_ref().filter(|entry| entry.expires_at == Some(at));
            if let Some(expired) = expired {
                batch.pending.extend(own::key_changed(engine, &scope, &name, [Some(expired), None], None));
            }
            let entry = if expired.is_some() { None } else { stored.clone() };
            changes.push(KeyChange { was_due: Some(at), ..KeyChange::of(&scope, &name, stored.as_ref(), entry) });
        }
        batch.keys = changes;
        let has_events = !batch.pending.is_empty();
        match engine.store.commit(&batch).await {
            // Somebody has set one of them again: the next look finds the others.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(error),
        }
        if has_events {
            engine.own_events.notify_one();
        }
    }
    Ok(())
}

/// That there is no such key, and which was probably meant.
pub async fn missing(engine: &Engine, scope: &Scope, name: &str) -> RequestError {
    let known = engine.store.keys(&scope.to_string(), "", None, COMPARED).await.unwrap_or_default();
    let hint = nearest(name, known.iter().map(|(name, _)| name.as_str()));
    let hint = hint.map(|hint| format!("; did you mean `{hint}`?")).unwrap_or_default();
    let of = if *scope == Scope::System { String::new() } else { format!(" in scope `{scope}`") };
    RequestError::NotFound(format!("there is no key `{name}`{of}{hint}"))
}
