//! Tokens: who may use the API, and for what. Only hashes are kept.
//!
//! The first token is in a file of the data folder; the others are made by who has one that may. [`may`] is the one place that decides.

pub mod permission;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::permission::Permission;
use crate::clock::{self, Clock};
use crate::model::datastore::KeyEntry;
use crate::model::hash::sha256_hex;
use crate::model::ids::IdSource;
use crate::model::principal::Principal;
use crate::model::secret::{Secret, constant_time_eq};
use crate::store::{Batch, CommitError, KeyChange, Store, StoreError};
use crate::tasks::Stop;

/// The file in the data folder that holds the first token.
pub const TOKEN_FILE: &str = "admin.token";

/// The name of the first token.
const ADMIN: &str = "admin";

/// The setting under which the first token's hash is stored.
const SETTING: &str = "token.admin";

/// The setting that tells when tokens were used last.
const USES: &str = "token-uses";

/// The scope of the datastore that holds the other tokens; no pack or person has such a name.
const SCOPE: &str = ":tokens";

/// Tokens at most: each is compared with what a caller gives.
pub const MAX_TOKENS: usize = 1_000;

/// The longest name of a token, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// How often it is stored which tokens were used.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// What the holder of a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May do everything.
    Admin,
    /// May run actions, cancel, switch rules, change keys, emit events; and look.
    Operator,
    /// May look.
    Viewer,
    /// May hand in events.
    Ingest,
}

impl Role {
    /// Every role.
    pub const ALL: &'static [Self] = &[Self::Admin, Self::Operator, Self::Viewer, Self::Ingest];

    /// The name used everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Ingest => "ingest",
        }
    }

    /// The roles that may do something, the least first.
    #[must_use]
    pub fn that_may(permission: Permission) -> Vec<&'static str> {
        Self::ALL.iter().rev().filter(|role| may(**role, permission)).map(|role| role.name()).collect()
    }
}

/// Whether a role may do something: the one place that decides.
#[must_use]
pub fn may(role: Role, permission: Permission) -> bool {
    match permission {
        Permission::Open => true,
        Permission::Read => matches!(role, Role::Admin | Role::Operator | Role::Viewer),
        Permission::Operate => matches!(role, Role::Admin | Role::Operator),
        Permission::Ingest => matches!(role, Role::Admin | Role::Operator | Role::Ingest),
        Permission::Admin => role == Role::Admin,
    }
}

/// A token as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    hash: String,
    role: Role,
    created_at: DateTime<Utc>,
    created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
}

struct Known {
    stored: Stored,
    /// In seconds; zero for never.
    used_at: AtomicI64,
}

/// What is told of a token.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// Its name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made; nothing for the first one.
    pub created_at: Option<DateTime<Utc>>,
    /// Who made it.
    pub created_by: String,
    /// From when on it is of no use.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was used last, to about a minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Who may use the API.
pub struct Tokens {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<IdSource>,
    admin: String,
    admin_used_at: AtomicI64,
    known: RwLock<BTreeMap<String, Known>>,
    /// Held while tokens are made and revoked.
    changing: tokio::sync::Mutex<()>,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be written or read.
    #[error("the token file `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// What was asked for is not possible.
    #[error("{0}")]
    Refused(String),
    /// There is no such token.
    #[error("there is no token `{0}`")]
    Missing(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for TokenError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => Self::Store(error),
            CommitError::Conflict { what } => Self::Refused(format!("{what} was changed meanwhile; try again")),
        }
    }
}

impl Tokens {
    /// Reads what is known; at the first start, and whenever the file has gone, makes a new first token and writes the file.
    ///
    /// # Errors
    /// When the file or the store cannot be used.
    pub async fn open(store: &Arc<dyn Store>, folder: &Path, ids: &Arc<IdSource>, clock: &Arc<dyn Clock>) -> Result<Self, TokenError> {
        let admin = first_token(&**store, folder, ids).await?;
        let uses = store.setting(USES).await?.unwrap_or_default();
        let last = |name: &str| AtomicI64::new(uses[name].as_i64().unwrap_or(0));
        let mut known = BTreeMap::new();
        for (name, entry) in store.keys(SCOPE, "", None, MAX_TOKENS).await? {
            let unreadable = |error| StoreError::Corrupt(format!("token `{name}` cannot be read: {error}"));
            let stored: Stored = serde_json::from_value(entry.value).map_err(unreadable)?;
            known.insert(name.clone(), Known { stored, used_at: last(&name) });
        }
        let (store, clock, ids) = (Arc::clone(store), Arc::clone(clock), Arc::clone(ids));
        let (known, changing) = (RwLock::new(known), tokio::sync::Mutex::default());
        Ok(Self { store, clock, ids, admin, admin_used_at: last(ADMIN), known, changing })
    }

    /// Who holds the token, unless its time is over.
    #[must_use]
    pub fn principal(&self, token: &str) -> Option<Principal> {
        let (given, now) = (sha256_hex(token.as_bytes()), self.clock.now());
        let equal = |hash: &str| constant_time_eq(given.as_bytes(), hash.as_bytes());
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        // All are compared, so that the time tells nothing of which one it is.
        let mut found = equal(&self.admin).then_some((ADMIN, &self.admin_used_at));
        for (name, token) in known.iter() {
            let alive = token.stored.expires_at.is_none_or(|at| at > now);
            if equal(&token.stored.hash) && alive {
                found = Some((name, &token.used_at));
            }
        }
        let (name, used_at) = found?;
        used_at.store(now.timestamp(), Ordering::Relaxed);
        Some(Principal::Token(name.to_string()))
    }

    /// The role of somebody.
    #[must_use]
    pub fn role(&self, who: &Principal) -> Option<Role> {
        match who {
            Principal::Token(name) if name == ADMIN => Some(Role::Admin),
            Principal::Token(name) => self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).map(|token| token.stored.role),
            Principal::Rule(_) | Principal::Execution(_) => None,
        }
    }

    /// Whether somebody may do something.
    #[must_use]
    pub fn may(&self, who: &Principal, permission: Permission) -> bool {
        self.role(who).is_some_and(|role| may(role, permission))
    }

    /// What there is, by name.
    #[must_use]
    pub fn list(&self) -> Vec<About> {
        let moment = |seconds: &AtomicI64| DateTime::from_timestamp(seconds.load(Ordering::Relaxed), 0).filter(|at| at.timestamp() > 0);
        let first = About {
            name: ADMIN.into(),
            role: Role::Admin,
            created_at: None,
            created_by: "the first start".into(),
            expires_at: None,
            last_used_at: moment(&self.admin_used_at),
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let about = known.iter().map(|(name, Known { stored, used_at })| About {
            name: name.clone(),
            role: stored.role,
            created_at: Some(stored.created_at),
            created_by: stored.created_by.clone(),
            expires_at: stored.expires_at,
            last_used_at: moment(used_at),
        });
        std::iter::once(first).chain(about).collect()
    }

    /// Makes a token; it is told this once.
    ///
    /// # Errors
    /// When there is one of the name, there are too many, or it cannot be stored.
    pub async fn create(&self, name: &str, role: Role, expires: Option<Duration>, by: &str) -> Result<Secret, TokenError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) || name == ADMIN {
            let message = format!("a token's name has 1 to {MAX_NAME_BYTES} letters, digits, `_`, `.` and `-`, and is not `{ADMIN}`");
            return Err(TokenError::Refused(message));
        }
        let _alone = self.changing.lock().await;
        let count = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if known.contains_key(name) {
                return Err(TokenError::Refused(format!("there is a token `{name}` already; revoke it first, or take another name")));
            }
            known.len()
        };
        if count >= MAX_TOKENS {
            return Err(TokenError::Refused(format!("there are {MAX_TOKENS} tokens already; revoke some first")));
        }
        let (token, now) = (self.ids.token(), self.clock.now());
        let expires_at = expires.and_then(|span| now.checked_add_signed(chrono::Duration::from_std(span).ok()?));
        let stored = Stored { hash: sha256_hex(token.as_bytes()), role, created_at: now, created_by: by.into(), expires_at };
        let version = self.store.sequence().await? + 1;
        let entry = KeyEntry { version, changed_at: Some(now), changed_by: by.into(), ..KeyEntry::plain(json!(stored)) };
        self.store.commit(&Batch { keys: vec![KeyChange::of(SCOPE, name, None, Some(entry))], ..Batch::default() }).await?;
        let token_known = Known { stored, used_at: AtomicI64::new(0) };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), token_known);
        tracing::info!(token = name, role = role.name(), by, "a token was made");
        Ok(Secret::new(token))
    }

    /// Takes a token out of use, at once.
    ///
    /// # Errors
    /// When there is none, or it cannot be stored.
    pub async fn revoke(&self, name: &str, by: &str) -> Result<(), TokenError> {
        if name == ADMIN {
            let message =
                format!("the first token is replaced otherwise: stop the server, remove {TOKEN_FILE} from the data folder, start it");
            return Err(TokenError::Refused(message));
        }
        let _alone = self.changing.lock().await;
        let before = self.store.key(SCOPE, name).await?.ok_or_else(|| TokenError::Missing(name.into()))?;
        // First here: what cannot be stored is out of use all the same until the next start.
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.store.commit(&Batch { keys: vec![KeyChange::of(SCOPE, name, Some(&before), None)], ..Batch::default() }).await?;
        tracing::info!(token = name, by, "a token was revoked");
        Ok(())
    }

    /// Stores from time to time which tokens were used, until the stop signal.
    pub async fn note_uses(&self, stop: Stop) {
        let mut noted = Value::Null;
        loop {
            tokio::select! { () = stop.stopped() => return, () = clock::sleep(&*self.clock, NOTED_EVERY) => {} }
            let uses: BTreeMap<String, i64> = {
                let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
                let of = |(name, token): (&String, &Known)| (name.clone(), token.used_at.load(Ordering::Relaxed));
                known.iter().map(of).chain([(ADMIN.to_string(), self.admin_used_at.load(Ordering::Relaxed))]).collect()
            };
            let uses = json!(uses);
            if uses != noted {
                let batch = Batch { settings: vec![(USES.into(), uses.clone())], ..Batch::default() };
                if self.store.commit(&batch).await.is_ok() {
                    noted = uses;
                }
            }
        }
    }
}

/// The hash of the first token.
async fn first_token(store: &dyn Store, folder: &Path, ids: &IdSource) -> Result<String, TokenError> {
    let path = folder.join(TOKEN_FILE);
    let stored = store.setting(SETTING).await?;
    if let (Some(Value::String(admin)), Ok(token)) = (stored, fs::read_to_string(&path))
        && constant_time_eq(admin.as_bytes(), sha256_hex(token.trim().as_bytes()).as_bytes())
    {
        return Ok(admin);
    }
    let token = ids.token();
    write_private(&path, &token).map_err(|source| TokenError::File { path: path.clone(), source })?;
    let admin = sha256_hex(token.as_bytes());
    store.commit(&Batch { settings: vec![(SETTING.into(), Value::from(admin.clone()))], ..Batch::default() }).await?;
    tracing::info!("a new admin token is in {}", path.display());
    Ok(admin)
}

/// Reads the admin token of a data folder, for a command line on the same machine.
///
/// # Errors
/// When the file cannot be read.
pub fn read_token(folder: &Path) -> Result<Secret, TokenError> {
    let path = folder.join(TOKEN_FILE);
    let text = fs::read_to_string(&path).map_err(|source| TokenError::File { path, source })?;
    Ok(Secret::new(text.trim().to_string()))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    // A file of wider permissions may be there; it is replaced, not filled.
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_role_may() {
        let all = [Permission::Open, Permission::Read, Permission::Ingest, Permission::Operate, Permission::Admin];
        let may = |role| all.iter().filter(|permission| may(role, **permission)).map(|permission| permission.name()).collect::<Vec<_>>();
        assert_eq!(may(Role::Admin), ["open", "read", "ingest", "operate", "admin"]);
        assert_eq!(may(Role::Operator), ["open", "read", "ingest", "operate"]);
        assert_eq!(may(Role::Viewer), ["open", "read"]);
        assert_eq!(may(Role::Ingest), ["open", "ingest"]);
        assert_eq!(Role::that_may(Permission::Operate), ["operator", "admin"]);
    }
}
