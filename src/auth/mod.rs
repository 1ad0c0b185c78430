//! Tokens: who may use the API.

pub mod permission;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::auth::permission::Permission;
use crate::model::hash::sha256_hex;
use crate::model::ids::IdSource;
use crate::model::principal::Principal;
use crate::model::secret::{Secret, constant_time_eq};
use crate::store::{Batch, CommitError, Store, StoreError};

/// The file in the data folder that holds the first token.
pub const TOKEN_FILE: &str = "admin.token";

/// The setting under which the token's hash is stored.
const SETTING: &str = "token.admin";

/// Who may use the API. Only hashes are kept.
#[derive(Debug)]
pub struct Tokens {
    admin: String,
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
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Tokens {
    /// Reads the admin token's hash; at the first start, and whenever the file has gone, makes a new token and writes the file.
    ///
    /// # Errors
    /// When the file or the store cannot be used.
    pub async fn open(store: &dyn Store, folder: &Path, ids: &IdSource) -> Result<Self, TokenError> {
        let path = folder.join(TOKEN_FILE);
        let stored = store.setting(SETTING).await?;
        if let (Some(Value::String(admin)), Ok(token)) = (stored, fs::read_to_string(&path))
            && constant_time_eq(admin.as_bytes(), sha256_hex(token.trim().as_bytes()).as_bytes())
        {
            return Ok(Self { admin });
        }
        let token = ids.token();
        write_private(&path, &token).map_err(|source| TokenError::File { path: path.clone(), source })?;
        let admin = sha256_hex(token.as_bytes());
        let batch = Batch { settings: vec![(SETTING.into(), Value::from(admin.clone()))], ..Batch::default() };
        store.commit(&batch).await.map_err(|error| match error {
            CommitError::Store(error) => error,
            CommitError::Conflict { what } => StoreError::Unavailable(format!("{what} was changed by another process")),
        })?;
        tracing::info!("a new admin token is in {}", path.display());
        Ok(Self { admin })
    }

    /// Who holds the token.
    #[must_use]
    pub fn principal(&self, token: &str) -> Option<Principal> {
        let given = sha256_hex(token.as_bytes());
        constant_time_eq(given.as_bytes(), self.admin.as_bytes()).then(|| Principal::Token("admin".into()))
    }

    /// Whether somebody may do something. The admin token may do everything.
    #[must_use]
    pub fn may(&self, _who: &Principal, _permission: Permission) -> bool {
        true
    }
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
