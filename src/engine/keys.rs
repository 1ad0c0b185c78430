//! The keys of the datastore that people set, and that rules see as `kv.system.NAME`. The last write wins.

use serde_json::Value;

use super::ruling::SYSTEM;
use super::{Engine, RequestError};
use crate::document::fault::nearest;

/// The longest name of a key, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// The largest value, in bytes of JSON.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// Keys at most.
pub const MAX_KEYS: usize = 100_000;

/// Names that are compared with one that does not exist, to say which was probably meant.
const COMPARED: usize = 1_000;

/// Whether a key may be named so.
///
/// # Errors
/// Why not, in words.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.bytes().all(plain) || name.bytes().all(|byte| byte == b'.') || name.len() > MAX_NAME_BYTES {
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(format!("`{shown}` is not a name for a key: it has 1 to {MAX_NAME_BYTES} letters, digits, `_`, `.` and `-`"));
    }
    Ok(())
}

/// Whether a key may have the value.
///
/// # Errors
/// Why not, in words.
pub fn check_value(name: &str, value: &Value) -> Result<(), String> {
    let bytes = value.to_string().len();
    if bytes > MAX_VALUE_BYTES {
        return Err(format!("the value of `{name}` has {bytes} bytes as JSON, and {MAX_VALUE_BYTES} are allowed"));
    }
    Ok(())
}

/// Gives a key a value; name and value have been checked. Answers whether it is a new key.
///
/// # Errors
/// When there are too many keys, or it cannot be stored.
pub async fn set(engine: &Engine, name: &str, value: Value) -> Result<bool, RequestError> {
    let _alone = engine.ruling.changing_keys.lock().await;
    let keys = engine.ruling.keys();
    let is_new = !keys.contains_key(name);
    if is_new && keys.len() >= MAX_KEYS {
        return Err(RequestError::Conflict(format!("there are {MAX_KEYS} keys already, and no more are kept; delete some first")));
    }
    engine.change_key(SYSTEM, name, Some(value), None, true).await?;
    Ok(is_new)
}

/// Deletes a key.
///
/// # Errors
/// When there is none, or it cannot be stored.
pub async fn delete(engine: &Engine, name: &str) -> Result<(), RequestError> {
    let _alone = engine.ruling.changing_keys.lock().await;
    if !engine.ruling.keys().contains_key(name) {
        return Err(missing(engine, name));
    }
    Ok(engine.change_key(SYSTEM, name, None, None, true).await?)
}

/// The value of a key.
///
/// # Errors
/// When there is none.
pub fn get(engine: &Engine, name: &str) -> Result<Value, RequestError> {
    engine.ruling.keys().get(name).cloned().ok_or_else(|| missing(engine, name))
}

fn missing(engine: &Engine, name: &str) -> RequestError {
    let keys = engine.ruling.keys();
    let hint = nearest(name, keys.keys().take(COMPARED).map(String::as_str));
    let hint = hint.map(|hint| format!("; did you mean `{hint}`?")).unwrap_or_default();
    RequestError::NotFound(format!("there is no key `{name}`{hint}"))
}
