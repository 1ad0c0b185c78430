//! `signalman secret set|list|delete|rotate`. A value comes from standard input, a prompt or a file, never from the command line, where others
//! could see it; no verb prints one.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::ApiClient;
use super::offline::{BY, Offline};
use super::table::{self, text};
use super::{Answer, Common, Failure, print_line};
use crate::config::Environment;
use crate::model::secret::{SHORTEST_MASKED, Secret};
use crate::secrets::{SecretError, Secrets, check_name};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Give a secret a value, from standard input or a prompt; what names it takes effect at once
    #[command(
        after_help = "Examples:\n  signalman secret set marathon_token --file token.txt\n  signalman secret set marathon_token --file token.txt --offline"
    )]
    Set {
        /// The secret
        name: String,
        /// Read the value from this file, as it stands
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// In the data folder, while no server has it: before the first start
        #[arg(long)]
        offline: bool,
    },
    /// The names of secrets, who set them when, and where the site names them
    #[command(after_help = "Example:\n  signalman secret list")]
    List,
    /// Delete a secret that no file of the site names
    #[command(after_help = "Example:\n  signalman secret delete marathon_token")]
    Delete {
        /// The secret
        name: String,
        /// Also if a file of the site names it; the next reload fails then
        #[arg(long)]
        force: bool,
    },
    /// Seal all secrets anew under a new key
    #[command(after_help = "Examples:\n  signalman secret rotate\n  signalman secret rotate --forget")]
    Rotate {
        /// Forget the keys from before: backups and ended executions from before keep their secrets to themselves then
        #[arg(long)]
        forget: bool,
    },
}

pub(super) fn run(common: &Common, command: &Command, environment: &Environment) -> Result<Answer, Failure> {
    let client = || ApiClient::new(common, environment);
    let answer = match command {
        Command::Set { name, file, offline } => {
            check_name(name).map_err(Failure::misuse)?;
            // Where it goes is certain before it is asked for.
            if *offline {
                let folder = Offline::open(common, environment)?;
                set_offline(&folder, name, &value(name, file.as_ref())?)?
            } else {
                let client = client()?;
                let value = value(name, file.as_ref())?;
                client.call(Method::PUT, &format!("/api/v1/secrets/{name}"), Some(&json!({"value": value.reveal()})))?
            }
        }
        Command::List => client()?.get("/api/v1/secrets")?,
        Command::Delete { name, force } => {
            check_name(name).map_err(Failure::misuse)?;
            client()?.call(Method::DELETE, &format!("/api/v1/secrets/{name}?force={force}"), None)?
        }
        Command::Rotate { forget } => client()?.post("/api/v1/secret-key/rotate", &json!({"forget": forget}))?,
    };
    common.show(&answer, || match command {
        Command::Set { name, .. } => told(name, &answer),
        Command::List => list(&answer),
        Command::Delete { name, .. } => print_line(&format!("{name} is deleted")),
        Command::Rotate { .. } => print_line(&format!("{} secrets are sealed with key {}", answer["secrets"], text(&answer["key"]))),
    });
    Ok(if answer["fault"].is_null() { Answer::Yes } else { Answer::No })
}

/// The value, without the end of its last line if it was typed or piped.
fn value(name: &str, file: Option<&PathBuf>) -> Result<Secret, Failure> {
    let value = if let Some(file) = file {
        std::fs::read_to_string(file).map_err(|error| Failure::misuse(format!("`{}` cannot be read: {error}", file.display())))?
    } else {
        let typed = if std::io::stdin().is_terminal() { prompt(name)? } else { piped()? };
        typed.trim_end_matches(['\n', '\r']).to_string()
    };
    if value.is_empty() {
        return Err(Failure::misuse("the value is empty; give it on standard input, or with --file"));
    }
    if value.len() < SHORTEST_MASKED {
        eprintln!("warning: the value is shorter than {SHORTEST_MASKED} bytes, so it is not hidden where it turns up");
    }
    Ok(Secret::new(value))
}

fn piped() -> Result<String, Failure> {
    let mut text = String::new();
    let most = crate::secrets::MAX_VALUE_BYTES as u64 + 2;
    let read = std::io::stdin().take(most).read_to_string(&mut text);
    read.map_err(|error| Failure::misuse(format!("standard input cannot be read: {error}")))?;
    Ok(text)
}

/// Asks for a line without showing it.
fn prompt(name: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("the terminal cannot be read: {error}"));
    let stdin = std::io::stdin();
    let shown = tcgetattr(&stdin).map_err(|error| failed(&error))?;
    let mut hidden = shown.clone();
    hidden.local_modes -= LocalModes::ECHO;
    eprint!("value of {name} (it is not shown): ");
    tcsetattr(&stdin, OptionalActions::Now, &hidden).map_err(|error| failed(&error))?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &shown);
    eprintln!();
    restored.map_err(|error| failed(&error))?;
    read.map(|_| line).map_err(|error| failed(&error))
}

fn set_offline(folder: &Offline, name: &str, value: &Secret) -> Result<Value, Failure> {
    let Offline { store, ids, clock, config, .. } = folder;
    let set = folder.wait(async {
        let secrets = Secrets::open(&config.secret_keys, &config.data, &**store, ids).await?;
        secrets.set(&**store, name, value, BY, clock.now()).await
    });
    match set {
        Ok(about) => Ok(json!(about)),
        Err(SecretError::Refused(what)) => Err(Failure::misuse(what)),
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}

fn told(name: &str, answer: &Value) {
    print_line(&format!("{name} is set"));
    if let Some(fault) = answer["fault"].as_str() {
        print_line(&format!("the site runs on as it was, since it could not be read again:\n\n{fault}"));
    } else if answer.get("reloaded").is_some() {
        print_line("the site was read again and uses it");
    }
}

fn list(answer: &Value) {
    let row = |secret: &Value| {
        let used: Vec<String> = secret["used_in"].as_array().into_iter().flatten().map(text).collect();
        vec![
            text(&secret["name"]),
            secret["version"].to_string(),
            table::time(&secret["changed_at"]),
            text(&secret["changed_by"]),
            text(&secret["key"]),
            used.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = answer["secrets"].as_array().into_iter().flatten().map(row).collect();
    table::print(&["secret", "version", "set", "by", "key", "used in"], &rows, "no secrets; set one with `signalman secret set NAME`");
}
