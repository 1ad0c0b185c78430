//! Port: where an accepted event becomes durable.
//!
//! [`inline`] is the one of the embedded profile: the event is part of the commit of its decisions. `tests/it/contracts.rs` holds
//! what each implementation must keep: an answer means durable; a repeat gets the first id; the order of one sender is kept.

pub mod inline;

use async_trait::async_trait;

use crate::model::event::{Accepted, NewEvent};

/// Takes events.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Returns once all events are durable, in their order; or none of them is.
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, AcceptError>;
}

/// Why events were not taken. None of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// More is on its way than can be carried; try again later.
    #[error("{0}")]
    Overloaded(String),
    /// The store cannot write; try again later.
    #[error("{0}")]
    Unavailable(String),
    /// The sender used its key for something else before.
    #[error("the key `{key}` was used before for another body")]
    BodyDiffers {
        /// The sender's key.
        key: String,
    },
}
