//! The journal of the embedded profile: hands events to the evaluator, which commits them together with what it decided.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::{AcceptError, Journal};
use crate::model::event::{Accepted, NewEvent};

/// Deliveries that may wait for the evaluator; beyond that senders are told to come back.
pub const WAITING_DELIVERIES: usize = 4_096;

/// Events of one sender, and the way back.
pub struct Delivery {
    /// The events, taken together or not at all.
    pub events: Vec<NewEvent>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Vec<Accepted>, AcceptError>>,
}

/// Makes the two ends: senders hold the journal, the evaluator takes the deliveries in order.
#[must_use]
pub fn channel() -> (InlineJournal, mpsc::Receiver<Delivery>) {
    let (sender, receiver) = mpsc::channel(WAITING_DELIVERIES);
    (InlineJournal { sender }, receiver)
}

/// The senders' end.
#[derive(Clone)]
pub struct InlineJournal {
    sender: mpsc::Sender<Delivery>,
}

#[async_trait]
impl Journal for InlineJournal {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<Vec<Accepted>, AcceptError> {
        let (reply, answer) = oneshot::channel();
        self.sender.try_send(Delivery { events, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AcceptError::Overloaded(format!("{WAITING_DELIVERIES} deliveries wait already")),
            mpsc::error::TrySendError::Closed(_) => AcceptError::Unavailable("the engine is stopping".into()),
        })?;
        answer.await.map_err(|_| AcceptError::Unavailable("the engine is stopping".into()))?
    }
}
