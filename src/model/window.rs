//! What is remembered of a rule's windows and throttles, key by key.

use serde::{Deserialize, Serialize};

use crate::model::ids::EventId;

/// The longest key of a window or throttle, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Keys of one rule that are remembered at once, at most; an event of a further one does not count.
pub const MAX_KEYS: usize = 1_000_000;

/// What is remembered of one key. Times are milliseconds since 1970, of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowState {
    /// Of a window that counts.
    Count {
        /// When the events happened that count, the oldest first.
        times: Vec<i64>,
        /// When the newest event of the key happened, whether it counts or not.
        newest: i64,
    },
    /// Of a window that waits for silence.
    Absent {
        /// When the last event happened, or when the wait for it began.
        last: i64,
        /// The last event, if there has been one.
        event: Option<EventId>,
        /// Whether it still waits.
        armed: bool,
        /// Where the last event came from, such as `sensor/core.nightly`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    /// Of a throttle.
    Throttle {
        /// When the event happened that ran something.
        fired_at: i64,
    },
}

impl WindowState {
    /// Which of a rule's two memories it belongs to.
    #[must_use]
    pub fn part(&self) -> WindowPart {
        match self {
            Self::Count { .. } | Self::Absent { .. } => WindowPart::Window,
            Self::Throttle { .. } => WindowPart::Throttle,
        }
    }
}

/// Which of a rule's two memories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowPart {
    /// Its window.
    Window,
    /// Its throttle.
    Throttle,
}

/// Where a state belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowKey {
    /// The rule, `pack.name`.
    pub rule: String,
    /// Its window or its throttle.
    pub part: WindowPart,
    /// A hash of how the window or throttle was defined; one that is defined otherwise begins anew.
    pub definition: u64,
    /// The key.
    pub key: String,
}

/// A change of what is remembered; nothing is remembered any more where there is no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowChange {
    /// Of what.
    pub of: WindowKey,
    /// What is remembered from now on.
    pub state: Option<WindowState>,
}
