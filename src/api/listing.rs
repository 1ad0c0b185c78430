//! What else the site has: packs, and what the bot said.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::on;
use serde_json::{Value, json};

use super::ApiState;
use super::paging::{BEFORE, Entry, LIMIT, PageQuery, SINCE};
use super::problem::Problem;
use super::routes::{Parameter, Route, get};
use crate::auth::permission::Permission::Read;
use crate::model::ids::MessageId;
use crate::model::message::Message;

pub(super) const ROUTES: &[Route] = &[
    get("/api/v1/packs", Read, "The packs", |m| on(m, packs)).answers("PackList"),
    get("/api/v1/messages", Read, "What the bot said, the newest first", |m| on(m, messages))
        .query(&[LIMIT, BEFORE, SINCE, Parameter { name: "channel", kind: "string", summary: "Only of this channel" }])
        .answers("MessagePage"),
];

impl Entry for Message {
    type Id = MessageId;

    fn id(&self) -> MessageId {
        self.id
    }

    fn made_at_ms(&self) -> u64 {
        self.id.timestamp_ms()
    }

    fn weight(&self) -> usize {
        300 + self.text.len()
    }
}

async fn packs(State(state): State<Arc<ApiState>>) -> Json<Value> {
    let catalog = state.engine.catalog.get();
    let packs = catalog
        .packs
        .values()
        .map(|pack| json!({"ref": pack.reference, "name": pack.name, "version": pack.version, "description": pack.description}));
    Json(json!({"packs": packs.collect::<Vec<_>>()}))
}

async fn messages(State(state): State<Arc<ApiState>>, uri: Uri) -> Result<Json<Value>, Problem> {
    let query = PageQuery::of(&uri)?;
    // Read first: whoever goes on with the stream from here misses nothing.
    let sequence = state.engine.store.sequence().await?;
    let wanted = |message: &Message| query.channel.as_ref().is_none_or(|channel| &message.channel == channel);
    let (messages, next) = query.collect(state.engine.clock.now(), |page| state.engine.store.messages(page), wanted).await?;
    Ok(Json(json!({"messages": messages, "next": next, "sequence": sequence})))
}
