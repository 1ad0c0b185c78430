//! Secrets: values that the site names as `{secret: NAME}`, sealed in the store; and the secret parameters of executions, sealed the same way.
//!
//! They are keys of the datastore in a scope of their own, so they have versions, and who changed them when. The keys that open them are not
//! in the store: [`keyfile`], or what `secret_key` in `signalman.yaml` names.

pub mod keyfile;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::SecretKeys;
use crate::model::action::Parameter;
use crate::model::datastore::KeyEntry;
use crate::model::execution::Request;
use crate::model::ids::{ExecutionId, IdSource};
use crate::model::seal::{KEY_BYTES, Keyring, SALT_BYTES, SealKey, Sealed};
use crate::model::secret::{MASK, Masks, Secret};
use crate::store::{Batch, CommitError, KeyChange, Store, StoreError};

/// The scope of the datastore that holds secrets; no pack or person has such a name.
const SCOPE: &str = ":secrets";

/// The longest name of a secret, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The largest secret, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// Secrets at most.
pub const MAX_SECRETS: usize = 1_000;

/// How often a change is tried that others change meanwhile.
const TRIES: usize = 16;

/// The secrets of a site.
pub struct Secrets {
    keyring: RwLock<Keyring>,
    /// The file that a rotation writes; nothing where `signalman.yaml` says where the keys are.
    file: Option<PathBuf>,
    ids: Arc<IdSource>,
    /// Held while keys or secrets change.
    changing: tokio::sync::Mutex<()>,
}

/// Why a secret cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file with the keys.
    #[error("the file of the keys `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The keys are not there.
    #[error("`{}` is not there, and {count} secrets are sealed with its keys: put it back, or delete them with `signalman secret delete NAME --force` and set them anew", path.display())]
    KeysGone {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A secret cannot be opened.
    #[error("secret `{name}` cannot be opened: {why}")]
    Closed {
        /// The secret.
        name: String,
        /// Why.
        why: String,
    },
    /// What was asked for is not possible.
    #[error("{0}")]
    Refused(String),
    /// There is no such secret.
    #[error("there is no secret `{0}`")]
    Missing(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is told of a secret.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Grows with every change.
    pub version: u64,
    /// When it was set last.
    pub changed_at: Option<DateTime<Utc>>,
    /// Who set it.
    pub changed_by: String,
    /// The name of the key that it is sealed with.
    pub key: String,
}

impl Secrets {
    /// Reads the keys; makes the file at the first start.
    ///
    /// # Errors
    /// When the file cannot be used, or has gone while there are secrets.
    pub async fn open(keys: &SecretKeys, data: &Path, store: &dyn Store, ids: &Arc<IdSource>) -> Result<Self, SecretError> {
        if let SecretKeys::Given(keyring) = keys {
            return Ok(Self::of(keyring.clone(), None, ids));
        }
        let path = data.join(keyfile::KEY_FILE);
        let failed = |source| SecretError::File { path: path.clone(), source };
        if let Some(keyring) = keyfile::read(&path).map_err(failed)? {
            return Ok(Self::of(keyring, Some(path), ids));
        }
        let count = store.keys(SCOPE, "", None, MAX_SECRETS).await?.len();
        if count > 0 {
            return Err(SecretError::KeysGone { path, count });
        }
        let keyring = Keyring::new(SealKey::new(ids.random::<KEY_BYTES>()), Vec::new());
        keyfile::write(&path, &keyring).map_err(failed)?;
        tracing::info!("a new key for secrets is in {}; keep a copy of it elsewhere", path.display());
        Ok(Self::of(keyring, Some(path), ids))
    }

    /// Secrets under a key that is nowhere kept; for an engine that ends with its store.
    #[must_use]
    pub fn passing(ids: &Arc<IdSource>) -> Self {
        Self::of(Keyring::new(SealKey::new(ids.random::<KEY_BYTES>()), Vec::new()), None, ids)
    }

    fn of(keyring: Keyring, file: Option<PathBuf>, ids: &Arc<IdSource>) -> Self {
        Self { keyring: RwLock::new(keyring), file, ids: Arc::clone(ids), changing: tokio::sync::Mutex::default() }
    }

    fn keyring(&self) -> Keyring {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seal(&self, keyring: &Keyring, purpose: &str, plain: &[u8]) -> Sealed {
        keyring.seal(purpose, self.ids.random::<SALT_BYTES>(), plain)
    }

    /// Every secret with its value, for reading a site.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub async fn values(&self, store: &dyn Store) -> Result<BTreeMap<String, Secret>, SecretError> {
        let (keyring, mut values) = (self.keyring(), BTreeMap::new());
        for (name, entry) in store.keys(SCOPE, "", None, MAX_SECRETS).await? {
            let text = opened(&keyring, &name, &entry)?;
            values.insert(name, Secret::new(text));
        }
        Ok(values)
    }

    /// What there is, by name; never a value.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, store: &dyn Store) -> Result<Vec<About>, SecretError> {
        let about = |(name, entry): (String, KeyEntry)| {
            let key = entry.value["key"].as_str().unwrap_or_default().to_string();
            About { name, version: entry.version, changed_at: entry.changed_at, changed_by: entry.changed_by, key }
        };
        Ok(store.keys(SCOPE, "", None, MAX_SECRETS).await?.into_iter().map(about).collect())
    }

    /// Gives a secret a value; durable on return.
    ///
    /// # Errors
    /// When name or value are not allowed, or it cannot be stored.
    pub async fn set(&self, store: &dyn Store, name: &str, value: &Secret, by: &str, now: DateTime<Utc>) -> Result<About, SecretError> {
        check_name(name).map_err(SecretError::Refused)?;
        let value = value.reveal();
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return Err(SecretError::Refused(format!("a secret has 1 to {MAX_VALUE_BYTES} bytes")));
        }
        let _alone = self.changing.lock().await;
        for _ in 0..TRIES {
            let before = store.key(SCOPE, name).await?;
            if before.is_none() && store.keys(SCOPE, "", None, MAX_SECRETS).await?.len() >= MAX_SECRETS {
                return Err(SecretError::Refused(format!("there are {MAX_SECRETS} secrets already; delete some first")));
            }
            let sealed = self.seal(&self.keyring(), &purpose(name), value.as_bytes());
            let version = store.sequence().await? + 1;
            let entry = KeyEntry { version, changed_at: Some(now), changed_by: by.into(), ..KeyEntry::plain(json!(sealed)) };
            if commit(store, vec![KeyChange::of(SCOPE, name, before.as_ref(), Some(entry))]).await? {
                tracing::info!(secret = name, by, "a secret was set");
                return Ok(About { name: name.into(), version, changed_at: Some(now), changed_by: by.into(), key: sealed.key });
            }
        }
        Err(SecretError::Refused(format!("secret `{name}` changes all the time; try again")))
    }

    /// Deletes a secret; durable on return.
    ///
    /// # Errors
    /// When there is none, or it cannot be stored.
    pub async fn delete(&self, store: &dyn Store, name: &str, by: &str) -> Result<(), SecretError> {
        let _alone = self.changing.lock().await;
        for _ in 0..TRIES {
            let before = store.key(SCOPE, name).await?.ok_or_else(|| SecretError::Missing(name.into()))?;
            if commit(store, vec![KeyChange::of(SCOPE, name, Some(&before), None)]).await? {
                tracing::info!(secret = name, by, "a secret was deleted");
                return Ok(());
            }
        }
        Err(SecretError::Refused(format!("secret `{name}` changes all the time; try again")))
    }

    /// Seals every secret anew under a new key, in one commit; answers how many, and the key's name. The keys from before stay, so that
    /// executions and backups from before can be read; with `forget` they go, unless an open execution needs one.
    ///
    /// A crash leaves all secrets under the old key or all under the new one, and both keys in the file.
    ///
    /// # Errors
    /// When a secret cannot be opened, or file or store cannot be written.
    pub async fn rotate(&self, store: &dyn Store, forget: bool, by: &str, now: DateTime<Utc>) -> Result<(usize, String), SecretError> {
        let _alone = self.changing.lock().await;
        let before = self.keyring();
        let keyring = match &self.file {
            Some(path) => {
                let keyring = Keyring::new(SealKey::new(self.ids.random::<KEY_BYTES>()), before.keys().to_vec());
                keyfile::write(path, &keyring).map_err(|source| SecretError::File { path: path.clone(), source })?;
                *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = keyring.clone();
                keyring
            }
            // Who keeps the keys elsewhere has put the new one first.
            None => before,
        };
        let count = self.reseal(store, &keyring, now).await?;
        tracing::info!(key = keyring.current(), by, "{count} secrets are sealed anew");
        if forget && let Some(path) = &self.file {
            let needed: BTreeSet<String> =
                store.open_executions().await?.into_iter().filter_map(|open| Some(open.request.sealed?.key)).collect();
            if needed.iter().any(|key| key != keyring.current()) {
                let message = "secrets are sealed anew, but open executions need the keys from before; forget them when those have ended";
                return Err(SecretError::Refused(message.into()));
            }
            let only = Keyring::new(keyring.keys()[0].clone(), Vec::new());
            keyfile::write(path, &only).map_err(|source| SecretError::File { path: path.clone(), source })?;
            *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = only;
        }
        Ok((count, keyring.current().to_string()))
    }

    async fn reseal(&self, store: &dyn Store, keyring: &Keyring, now: DateTime<Utc>) -> Result<usize, SecretError> {
        for _ in 0..TRIES {
            let (entries, version) = (store.keys(SCOPE, "", None, MAX_SECRETS).await?, store.sequence().await? + 1);
            let mut changes = Vec::with_capacity(entries.len());
            for (name, entry) in &entries {
                let sealed = self.seal(keyring, &purpose(name), opened(keyring, name, entry)?.as_bytes());
                let anew = KeyEntry { version, changed_at: Some(now), value: json!(sealed), ..entry.clone() };
                changes.push(KeyChange::of(SCOPE, name, Some(entry), Some(anew)));
            }
            if changes.is_empty() || commit(store, changes).await? {
                return Ok(entries.len());
            }
        }
        Err(SecretError::Refused("the secrets change all the time; try again".into()))
    }

    /// Takes the secret ones out of an execution's parameters: what is kept shows stars, and what is sealed opens with the key only.
    #[must_use]
    pub fn hide(&self, id: ExecutionId, declared: &[Parameter], parameters: &mut Map<String, Value>) -> Option<Sealed> {
        let mut hidden = Map::new();
        for parameter in declared.iter().filter(|parameter| parameter.secret) {
            if let Some(value) = parameters.get_mut(&parameter.name).filter(|value| !value.is_null()) {
                hidden.insert(parameter.name.clone(), std::mem::replace(value, Value::from(MASK)));
            }
        }
        // What a caller has put into other parameters as well is hidden there, too.
        let masks = Masks::of(hidden.values());
        for (name, value) in parameters.iter_mut() {
            let given = value.clone();
            masks.value(value);
            if *value != given && !hidden.contains_key(name) {
                hidden.insert(name.clone(), given);
            }
        }
        let plain = || Value::Object(hidden.clone()).to_string();
        (!hidden.is_empty()).then(|| self.seal(&self.keyring(), &format!("execution/{id}"), plain().as_bytes()))
    }

    /// The parameters of an execution with the secret ones as they were given.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub fn parameters(&self, id: ExecutionId, request: &Request) -> Result<Map<String, Value>, String> {
        let mut parameters = request.parameters.clone();
        let Some(sealed) = &request.sealed else { return Ok(parameters) };
        let why = |why: String| format!("the secret parameters cannot be opened: {why}");
        let plain = self.keyring().open(&format!("execution/{id}"), sealed).map_err(why)?;
        let hidden: Map<String, Value> = serde_json::from_slice(&plain).map_err(|error| why(error.to_string()))?;
        parameters.extend(hidden);
        Ok(parameters)
    }
}

/// Whether a secret may be named so.
///
/// # Errors
/// Why not, in words.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(plain) && !name.bytes().all(|byte| byte == b'.');
    if fits { Ok(()) } else { Err(format!("a secret's name has 1 to {MAX_NAME_BYTES} letters, digits, `_`, `.` and `-`")) }
}

fn purpose(name: &str) -> String {
    format!("secret/{name}")
}

fn opened(keyring: &Keyring, name: &str, entry: &KeyEntry) -> Result<String, SecretError> {
    let closed = |why: String| SecretError::Closed { name: name.into(), why };
    let sealed: Sealed = serde_json::from_value(entry.value.clone()).map_err(|error| closed(error.to_string()))?;
    let plain = keyring.open(&purpose(name), &sealed).map_err(closed)?;
    String::from_utf8(plain).map_err(|error| closed(error.to_string()))
}

/// Answers whether it was made: not if somebody else changed one of them meanwhile.
async fn commit(store: &dyn Store, keys: Vec<KeyChange>) -> Result<bool, SecretError> {
    match store.commit(&Batch { keys, ..Batch::default() }).await {
        Ok(_) => Ok(true),
        Err(CommitError::Conflict { .. }) => Ok(false),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}
