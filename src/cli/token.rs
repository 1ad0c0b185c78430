//! `signalman token create|list|revoke`.

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{ApiClient, id_part};
use super::offline::{BY, Offline};
use super::table::{self, text};
use super::{Answer, Common, Failure, print_line};
use crate::auth::{Role, TokenError, Tokens};
use crate::config::Environment;
use crate::model::duration;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a token and print it, this once
    #[command(
        after_help = "Examples:\n  signalman token create ci --role ingest --expires 30d\n  signalman token create li --role operator --offline"
    )]
    Create {
        /// Whose token: letters, digits, `_`, `.` and `-`
        name: String,
        /// What its holder may do: admin, operator, viewer or ingest
        #[arg(long, value_parser = role)]
        role: Role,
        /// For how long it is good: 12h, 30d; for ever unless said
        #[arg(long, value_name = "SPAN")]
        expires: Option<String>,
        /// In the data folder, while no server has it: before the first start
        #[arg(long)]
        offline: bool,
    },
    /// The tokens: names, roles, when they were used; never a token itself
    #[command(after_help = "Example:\n  signalman token list")]
    List,
    /// Take a token out of use, at once
    #[command(after_help = "Example:\n  signalman token revoke ci")]
    Revoke {
        /// Whose token
        name: String,
    },
}

fn role(text: &str) -> Result<Role, String> {
    Role::ALL.iter().copied().find(|role| role.name() == text).ok_or_else(|| "it is admin, operator, viewer or ingest".into())
}

pub(super) fn run(common: &Common, command: &Command, environment: &Environment) -> Result<Answer, Failure> {
    let client = || ApiClient::new(common, environment);
    let answer = match command {
        Command::Create { name, role, expires, offline } => {
            let span = expires.as_deref().map(duration::parse).transpose().map_err(Failure::misuse)?;
            if *offline {
                let folder = Offline::open(common, environment)?;
                let made = folder.wait(async {
                    let tokens = Tokens::open(&folder.store, &folder.config.data, &folder.ids, &folder.clock).await?;
                    tokens.create(name, *role, span, BY).await
                });
                let token = made.map_err(|error| match error {
                    TokenError::Refused(what) => Failure::misuse(what),
                    error => Failure::failed(error.to_string()),
                })?;
                json!({"name": name, "role": role, "token": token.reveal()})
            } else {
                client()?.post("/api/v1/tokens", &json!({"name": name, "role": role, "expires": expires}))?
            }
        }
        Command::List => client()?.get("/api/v1/tokens")?,
        Command::Revoke { name } => client()?.call(Method::DELETE, &format!("/api/v1/tokens/{}", id_part(name)?), None)?,
    };
    common.show(&answer, || match command {
        Command::Create { .. } => print_line(&text(&answer["token"])),
        Command::List => list(&answer),
        Command::Revoke { name } => print_line(&format!("{name} is revoked")),
    });
    Ok(Answer::Yes)
}

fn list(answer: &Value) {
    let row = |token: &Value| {
        let time = |field: &str| table::time(&token[field]);
        vec![
            text(&token["name"]),
            text(&token["role"]),
            time("created_at"),
            text(&token["created_by"]),
            time("expires_at"),
            time("last_used_at"),
        ]
    };
    let rows: Vec<Vec<String>> = answer["tokens"].as_array().into_iter().flatten().map(row).collect();
    table::print(&["token", "role", "made", "by", "expires", "last used"], &rows, "no tokens");
}
