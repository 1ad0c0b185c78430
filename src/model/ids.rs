//! Identifiers: ULIDs, and the ones that are derived so that asking twice gives the same.
//!
//! This is the only module that draws randomness.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// How many trailing characters of an id people see and may type.
pub const SHORT_ID_CHARACTERS: usize = 6;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Ulid);

        impl $name {
            /// The sixteen bytes that order as the id does; used as a storage key.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// The id that the sixteen bytes stand for.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }

            /// The last six characters: what people see and may type.
            #[must_use]
            pub fn short(self) -> String {
                let whole = self.0.to_string();
                whole[whole.len() - SHORT_ID_CHARACTERS..].to_string()
            }

            /// When the id was made, in milliseconds since 1970.
            #[must_use]
            pub fn timestamp_ms(self) -> u64 {
                self.0.timestamp_ms()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ulid::DecodeError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ulid::from_string(text).map(Self)
            }
        }
    };
}

id!(
    /// One event.
    EventId
);
id!(
    /// One run of an action.
    ExecutionId
);
id!(
    /// One message to a chat channel.
    MessageId
);
id!(
    /// One request to the API, so that an answer and a line of the log can be put together.
    RequestId
);

impl ExecutionId {
    /// The id of the execution that `rule` asks for because of `event`: the time part of the event, the rest a hash.
    /// `index` tells several executions of one rule and event apart.
    #[must_use]
    pub fn of_rule(event: EventId, rule: &str, index: u32) -> Self {
        Self(derived(event.0, &[b"execution", rule.as_bytes(), &event.to_bytes(), &index.to_be_bytes()]))
    }
}

impl ExecutionId {
    /// The id of the execution that `rule` asks for because nothing came for `key` after an event until the deadline.
    #[must_use]
    pub fn of_silence(rule: &str, key: &str, after: Option<EventId>, deadline: DateTime<Utc>) -> Self {
        let ms = u64::try_from(deadline.timestamp_millis()).unwrap_or(0);
        let after = after.map_or([0; 16], EventId::to_bytes);
        let parts: &[&[u8]] = &[b"silence", rule.as_bytes(), key.as_bytes(), &after, &ms.to_be_bytes()];
        Self(derived(Ulid::from_parts(ms, 0), parts))
    }

    /// The id of the `index`-th execution that a script asks for; equal on every attempt, so that a repeat finds the same.
    #[must_use]
    pub fn of_parent(parent: Self, index: u32) -> Self {
        Self(derived(parent.0, &[b"child", &parent.to_bytes(), &index.to_be_bytes()]))
    }

    /// An id for what a sensor does in one poll, where others want the id of an execution.
    #[must_use]
    pub fn of_poll(sensor: &str, at: DateTime<Utc>) -> Self {
        let ms = u64::try_from(at.timestamp_millis()).unwrap_or(0);
        Self(derived(Ulid::from_parts(ms, 0), &[b"poll", sensor.as_bytes(), &at.timestamp_micros().to_be_bytes()]))
    }
}

impl ExecutionId {
    /// The id of the `index`-th execution that a line said in chat asks for.
    #[must_use]
    pub fn of_said(said: EventId, index: u32) -> Self {
        Self(derived(said.0, &[b"said", &said.to_bytes(), &index.to_be_bytes()]))
    }
}

impl MessageId {
    /// The id of the `index`-th answer to a line said in chat.
    #[must_use]
    pub fn of_said(said: EventId, index: u32) -> Self {
        Self(derived(said.0, &[b"answer", &said.to_bytes(), &index.to_be_bytes()]))
    }

    /// The id of the `index`-th message that an execution sends; equal on every attempt, so a repeat is no second message.
    #[must_use]
    pub fn of_execution(execution: ExecutionId, purpose: &str, index: u32) -> Self {
        let parts: &[&[u8]] = &[b"message", purpose.as_bytes(), &execution.to_bytes(), &index.to_be_bytes()];
        Self(derived(execution.0, parts))
    }
}

fn derived(time_of: Ulid, parts: &[&[u8]]) -> Ulid {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    let mut low = [0u8; 16];
    low[6..].copy_from_slice(&digest.as_ref()[..10]);
    Ulid::from_parts(time_of.timestamp_ms(), u128::from_be_bytes(low))
}

/// Makes ids that never go backwards, even when the clock does.
pub struct IdSource {
    state: Mutex<IdState>,
}

struct IdState {
    last: Ulid,
    entropy: Entropy,
}

enum Entropy {
    System(SystemRandom),
    Seeded(u64),
}

impl IdSource {
    /// Ids with randomness from the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self::with(Entropy::System(SystemRandom::new()))
    }

    /// Ids that are the same for the same seed and the same times; for simulations and tests.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::with(Entropy::Seeded(seed))
    }

    fn with(entropy: Entropy) -> Self {
        Self { state: Mutex::new(IdState { last: Ulid::nil(), entropy }) }
    }

    /// Makes every further id greater than this one, which an earlier run has made.
    pub fn continue_after(&self, id: EventId) {
        let mut state = self.state.lock().expect("no panic happens while the lock is held");
        state.last = state.last.max(id.0);
    }

    /// A fresh event id, greater than every id this source has made.
    pub fn event(&self, at: DateTime<Utc>) -> EventId {
        EventId(self.next(at))
    }

    /// A fresh execution id, greater than every id this source has made.
    pub fn execution(&self, at: DateTime<Utc>) -> ExecutionId {
        ExecutionId(self.next(at))
    }

    /// A fresh message id, greater than every id this source has made.
    pub fn message(&self, at: DateTime<Utc>) -> MessageId {
        MessageId(self.next(at))
    }

    /// A fresh id of a request.
    pub fn request(&self, at: DateTime<Utc>) -> RequestId {
        RequestId(self.next(at))
    }

    /// A random token of 256 bits in hexadecimal.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    pub fn token(&self) -> String {
        let mut bytes = [0u8; 32];
        let mut state = self.state.lock().expect("no panic happens while the lock is held");
        for part in bytes.chunks_mut(10) {
            part.copy_from_slice(&state.entropy.draw()[..part.len()]);
        }
        crate::model::hash::hex(&bytes)
    }

    fn next(&self, at: DateTime<Utc>) -> Ulid {
        let now_ms = u64::try_from(at.timestamp_millis()).unwrap_or(0);
        let mut state = self.state.lock().expect("no panic happens while the lock is held");
        let next = if now_ms > state.last.timestamp_ms() {
            let mut low = [0u8; 16];
            low[6..].copy_from_slice(&state.entropy.draw());
            low[6] &= 0x7f; // room to count up within the millisecond
            Ulid::from_parts(now_ms, u128::from_be_bytes(low))
        } else {
            state.last.increment().unwrap_or_else(|| Ulid::from_parts(state.last.timestamp_ms() + 1, 0))
        };
        state.last = next;
        next
    }
}

impl Entropy {
    fn draw(&mut self) -> [u8; 10] {
        let mut bytes = [0u8; 10];
        match self {
            Self::System(random) => {
                random.fill(&mut bytes).expect("the operating system gives randomness");
            }
            Self::Seeded(seed) => {
                *seed = seed.wrapping_add(1);
                let digest = ring::digest::digest(&ring::digest::SHA256, &seed.to_be_bytes());
                bytes.copy_from_slice(&digest.as_ref()[..10]);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_source_only_grow_even_when_the_clock_goes_back() {
        let ids = IdSource::seeded(1);
        let late = DateTime::from_timestamp_millis(2_000).unwrap();
        let early = DateTime::from_timestamp_millis(1_000).unwrap();
        let (a, b, c) = (ids.event(late), ids.event(early), ids.event(late));
        assert!(a < b && b < c, "{a} {b} {c}");
    }

    #[test]
    fn an_execution_that_a_rule_asks_for_always_has_the_same_id() {
        let event = IdSource::seeded(1).event(DateTime::from_timestamp_millis(1_700_000_000_000).unwrap());
        let first = ExecutionId::of_rule(event, "default.restart", 0);
        assert_eq!(first, ExecutionId::of_rule(event, "default.restart", 0));
        assert_ne!(first, ExecutionId::of_rule(event, "default.restart", 1));
        assert_ne!(first, ExecutionId::of_rule(event, "default.restar", 0));
        assert_eq!(first.timestamp_ms(), event.timestamp_ms());
        assert_eq!(first.short().len(), SHORT_ID_CHARACTERS);
    }
}
