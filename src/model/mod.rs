//! The nouns of Signalman. Plain data and the rules that data must obey; no input or output, no clock.
//!
//! Start reading at [`event`], then [`rule`], [`execution`] and [`reason`].

pub mod action;
pub mod alias;
pub mod datastore;
pub mod duration;
pub mod event;
pub mod execution;
pub mod failure;
pub mod hash;
pub mod ids;
pub mod json;
pub mod message;
pub mod name;
pub mod pack;
pub mod path;
pub mod place;
pub mod principal;
pub mod reason;
pub mod rule;
pub mod schema;
pub mod secret;
pub mod sensor;
pub mod verdict;
pub mod window;
