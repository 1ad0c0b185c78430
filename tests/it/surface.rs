//! What every verb has in common: examples that work, three forms of output that say the same, exit codes, colours.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use signalman::document::fault::SourceFile;
use signalman::document::node;

use crate::harness::{Said, Shell, TestSite, binary, copy_folder, repository};

/// An id in an example stands for any.
const ID: &str = "7QZK3M";

/// The sample site of this repository, on a free port and without its sensors that call others.
fn sample() -> TestSite {
    let site = TestSite::new();
    copy_folder(&repository().join("rules"), &site.path().join("rules"));
    let settings = std::fs::read_to_string(repository().join("signalman.yaml")).unwrap();
    site.file("signalman.yaml", &settings.replace("listen: 127.0.0.1:8420", "listen: 127.0.0.1:0"))
        .file("token.txt", "a token for the scheduler")
        .file("event.json", "{\"trigger\": \"alertmanager.alert\", \"payload\": {\"status\": \"firing\", \"labels\": {\"restart\": \"auto\", \"app\": \"shop\"}}}")
        .pack(&[("actions/endless.yaml", "runner_type: rhai\n"), ("actions/endless.rhai", "fn run(params) { loop {} }\n")])
}

/// Every verb that does something by itself, with its path.
fn verbs() -> Vec<(Vec<String>, clap::Command)> {
    fn walk(command: &clap::Command, path: &[String], found: &mut Vec<(Vec<String>, clap::Command)>) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set()) {
            let path = [path, &[inner.get_name().to_string()]].concat();
            if inner.has_subcommands() {
                walk(inner, &path, found);
            } else {
                found.push((path, inner.clone()));
            }
        }
    }
    let mut definition = signalman::cli::definition();
    definition.build();
    let mut found = Vec::new();
    walk(&definition, &[], &mut found);
    found
}

/// The words of a line as a shell would split them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// The examples of a verb, without what stands around the command in a pipe.
fn examples(command: &clap::Command) -> Vec<Vec<String>> {
    let text = command.get_after_help().or_else(|| command.get_after_long_help()).map(ToString::to_string).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.contains("signalman "));
    let own = |line: &str| {
        let part = line.split(" | ").find(|part| part.trim_start().starts_with("signalman ")).unwrap_or(line);
        words(part.split(" > ").next().unwrap_or(part))
    };
    lines.map(own).collect()
}

#[test]
fn every_verb_has_examples_that_parse() {
    for (path, command) in verbs() {
        let examples = examples(&command);
        assert!(!examples.is_empty(), "{path:?} has no example in its help");
        for example in examples {
            let parsed = signalman::cli::definition().try_get_matches_from(&example);
            let matches = parsed.unwrap_or_else(|error| panic!("{example:?}: {error}"));
            let (mut taken, mut matches) = (Vec::new(), &matches);
            while let Some((name, inner)) = matches.subcommand() {
                taken.push(name.to_string());
                matches = inner;
            }
            assert_eq!(taken, path, "{example:?} stands with another verb");
        }
    }
}

/// Verbs whose examples would not end, take long, need what no test has, or work on the store as a whole.
const ONLY_PARSED: &[&str] = &["serve", "bench", "backup", "restore"];

#[tokio::test]
async fn every_example_works_on_the_sample_site() {
    let shell = Shell::start(sample()).await;
    let alert = json!({"version": "4", "alerts": [{"status": "firing", "labels": {"alertname": "Down", "app": "shop"}, "startsAt": "2026-11-20T07:00:00Z"}]});
    let event = shell.server.webhook("alertmanager", alert.to_string()).await.1["events"][0]["id"].as_str().unwrap().to_string();
    let mut wrong = Vec::new();
    for (path, command) in verbs() {
        for example in examples(&command) {
            if ONLY_PARSED.contains(&path[0].as_str())
                || example.iter().any(|word| ["--follow", "/srv/site", "--offline"].contains(&word.as_str()))
            {
                continue;
            }
            prepare(&shell, &path).await;
            let id = if path[0] == "execution" { execution(&shell, &path[1]).await } else { event.clone() };
            let arguments: Vec<String> = example[1..].iter().map(|word| word.replace(ID, &id)).collect();
            let said = in_site(&shell, &arguments);
            // A rule that did not match is an answer; misuse is none.
            let may_be_no = ["why", "test"].contains(&path.last().unwrap().as_str()) || path[0] == "doctor";
            if said.code != 0 && !(may_be_no && said.code == 1) {
                wrong.push(format!("{example:?} answers {}:\n{}{}", said.code, said.out, said.err));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Makes what the example takes for granted.
async fn prepare(shell: &Shell, path: &[String]) {
    match path[0].as_str() {
        "key" => shell.say(&["key", "set", "maintenance", "yes"]).out(0, &[]),
        "secret" => shell.say(&["secret", "set", "marathon_token", "--file", shell.site.path().join("token.txt").to_str().unwrap()]),
        "token" => {
            let gone = shell.say(&["token", "revoke", "ci"]);
            if path[1] == "revoke" { shell.say(&["token", "create", "ci", "--role", "ingest"]) } else { gone }
        }
        _ => return,
    };
}

/// An execution that the verb can work on.
async fn execution(shell: &Shell, verb: &str) -> String {
    if verb == "cancel" {
        let (_, execution) = shell.server.post("/api/v1/executions", &json!({"action": "t.endless", "parameters": {}})).await;
        return execution["id"].as_str().unwrap_or_default().to_string();
    }
    shell.server.run("core.echo", json!({"text": "hi"})).await["id"].as_str().unwrap().to_string()
}

fn in_site(shell: &Shell, arguments: &[String]) -> Said {
    let output = Command::new(binary())
        .args(arguments)
        .args(["--server", &shell.server.url])
        .current_dir(shell.site.path())
        .env_remove("SIGNALMAN_TOKEN")
        .stdin(Stdio::null())
        .output();
    Said::of(output.expect("the binary runs"))
}

#[tokio::test]
async fn every_answer_is_the_same_as_json_and_as_yaml() {
    let shell = Shell::start(sample()).await;
    for text in ["1.10", "yes", "2026-11-20", "a: b", "two\nlines", "\u{9b}31m", "服务"] {
        shell.server.post("/api/v1/events", &json!({"trigger": "core.webhook", "payload": {"text": text, text: 1}, "key": text})).await;
        shell.server.run("core.notify", json!({"channel": "ops", "text": text})).await;
    }
    shell.say(&["key", "set", "maintenance", "007"]).out(0, &[]);
    let mut compared = BTreeSet::new();
    for (path, command) in verbs() {
        // What changes something answers differently the second time, and what prints one thing after the other has its own test.
        let changes = [
            "secret",
            "token",
            "hold",
            "release",
            "serve",
            "bench",
            "backup",
            "restore",
            "run",
            "emit",
            "chat",
            "completions",
            "man",
            "doctor",
        ];
        let changes_too =
            ["cancel", "rerun", "set", "delete", "enable", "disable", "increment", "compact", "stat", "check", "test", "new", "tail"];
        if changes.contains(&path[0].as_str()) || changes_too.contains(&path.last().unwrap().as_str()) {
            continue;
        }
        let example = examples(&command).into_iter().find(|example| !example.iter().any(|word| word == "/srv/site")).unwrap();
        let id = if path[0] == "execution" {
            &shell.json(&["execution", "list"])["executions"][0]["id"]
        } else {
            &shell.json(&["event", "list"])["events"][0]["event"]["id"]
        };
        let id = id.as_str().unwrap();
        let arguments: Vec<String> = example[1..]
            .iter()
            .filter(|word| !["--output", "json", "yaml"].contains(&word.as_str()))
            .map(|word| word.replace(ID, id))
            .collect();
        let said = |form: &str| in_site(&shell, &[&arguments[..], &["--output".into(), form.into()]].concat());
        let (as_json, as_yaml) = (said("json"), said("yaml"));
        assert_eq!(as_json.code, as_yaml.code, "{path:?}: {}{}", as_yaml.out, as_yaml.err);
        let parsed = node::parse(&SourceFile::new("yaml", as_yaml.out.clone())).unwrap_or_else(|fault| panic!("{path:?}: {fault}"));
        assert_eq!(parsed.value(), as_json.json(), "{path:?}");
        compared.insert(path.join(" "));
    }
    assert!(compared.len() >= 9 && compared.contains("event list") && compared.contains("rule list"), "{compared:?}");
}

#[tokio::test]
async fn exit_codes_are_the_same_everywhere() {
    let shell = Shell::start(sample()).await;
    for (path, command) in verbs() {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        // Misuse: an option that does not exist.
        let said = shell.say(&[&path[..], &["--no-such-option"]].concat());
        assert_eq!(said.code, 2, "{path:?}: {}{}", said.out, said.err);
        assert_eq!(said.out, "", "{path:?} prints misuse on its output");
        // Help is an answer.
        let said = Said::of(Command::new(binary()).args(&path).arg("--help").output().unwrap());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{path:?}");
        // No server: failed, told on the error output, as the words of a failure.
        let Some(example) = examples(&command).into_iter().next() else { continue };
        if needs_server(&path) {
            let output = Command::new(binary())
                .args(&example[1..])
                .args(["--server", "http://127.0.0.1:1"])
                .env("SIGNALMAN_TOKEN", "t")
                .current_dir(shell.site.path())
                .stdin(Stdio::null())
                .output();
            let said = Said::of(output.unwrap());
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{path:?}: {}", said.err);
            assert!(said.err.starts_with("error: no answer from http://127.0.0.1:1"), "{path:?}: {}", said.err);
        }
    }
    let said = shell.say(&["event", "list", "--limit", "5000"]);
    assert_eq!(said.code, 2, "what the server calls invalid is misuse: {}", said.err);
    shell.say(&["rul", "list"]).err(2, &["unrecognized subcommand 'rul'", "'rule'"]);
    shell.say(&["rule", "lst"]).err(2, &["'lst'", "'list'"]);
}

fn needs_server(path: &[&str]) -> bool {
    let alone = ["serve", "bench", "lint", "restore", "backup", "completions", "man", "doctor", "schema", "pack", "alias"];
    !alone.contains(&path[0]) && path != ["rule", "test"]
}

#[test]
fn alone_it_shows_the_common_verbs_in_groups() {
    let said = Said::of(Command::new(binary()).output().unwrap());
    assert_eq!(said.code, 2, "no command is misuse");
    let definition = signalman::cli::definition();
    for (group, names) in signalman::cli::overview::GROUPS {
        assert!(said.err.contains(group), "{}", said.err);
        for name in *names {
            assert!(definition.find_subcommand(name).is_some(), "there is no verb {name}");
            assert!(said.err.contains(&format!("\n  {name} ")), "{}", said.err);
        }
    }
    assert!(said.err.contains("Usage: signalman"), "{}", said.err);
}

#[tokio::test]
async fn colours_are_for_terminals_unless_asked_for() {
    let shell = Shell::start(sample()).await;
    shell.server.run("core.echo", json!({"text": "hi"})).await;
    let with = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("--site").arg(shell.site.path()).args(arguments).args(["--server", &shell.server.url]).envs(variables.iter().copied());
        Said::of(command.output().unwrap())
    };
    let list = &["execution", "list"][..];
    let always = &["execution", "list", "--color", "always"][..];
    assert!(!with(&[], list).out.contains('\u{1b}'), "no terminal, no colours");
    assert!(with(&[], always).out.contains("\u{1b}[32msucceeded\u{1b}[0m"));
    assert!(with(&[("NO_COLOR", "1")], always).out.contains('\u{1b}'), "what is asked for counts more than the environment");
    assert!(!with(&[], &["execution", "list", "--color", "always", "--output", "json"]).out.contains('\u{1b}'), "data has no colours");
    let wrong = with(&[], &["execution", "get", "ZZZZZZ", "--color=always"]);
    assert!(wrong.err.starts_with("\u{1b}[31merror:\u{1b}[0m"), "{:?}", wrong.err);
    assert!(!with(&[], &["execution", "get", "ZZZZZZ"]).err.contains('\u{1b}'));
    assert!(with(&[], &["rule", "--help", "--color", "always"]).out.contains('\u{1b}'));
    let _: Value = with(&[], &["execution", "list", "--output", "json"]).json();
}

#[tokio::test]
async fn the_doctor_says_what_is_wrong_and_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let site = TestSite::new();
    let of = |answer: &Value, check: &str| {
        let checks = answer["checks"].as_array().unwrap();
        checks.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("{check}: {answer:#}")).clone()
    };
    let look = |site: &TestSite| Said::of(site.cli(&["doctor", "--output", "json"]));
    let alone = look(&site);
    assert_eq!(alone.code, 0, "{}{}", alone.out, alone.err);
    assert_eq!(of(&alone.json(), "server")["result"], "ok", "no server is no fault");
    assert!(of(&alone.json(), "server")["says"].as_str().unwrap().contains("is free"));

    let shell = Shell::start(site).await;
    let answer = shell.json(&["doctor"]);
    assert_eq!(
        (&of(&answer, "server")["result"], &of(&answer, "clock of the server")["result"]),
        (&json!("ok"), &json!("ok")),
        "{answer:#}"
    );
    for check in ["files", "data folder", "secret files", "disk space", "disk speed", "clock", "open files", "time zone"] {
        assert_ne!(of(&answer, check)["result"], "fail", "{answer:#}");
    }
    shell.say(&["doctor"]).out(0, &["CHECK", "RESULT", "time zone", "UTC"]);

    let token = shell.site.path().join("data/admin.token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    shell.site.write("rules/bad.yaml", "triger: {}\n");
    let said = shell.say(&["doctor", "--output", "json"]);
    assert_eq!(said.code, 1);
    assert_eq!((&of(&said.json(), "secret files")["result"], &of(&said.json(), "files")["result"]), (&json!("fail"), &json!("fail")));
    assert!(of(&said.json(), "secret files")["do"].as_str().unwrap().starts_with("chmod 600 "), "{}", said.out);
    shell.say(&["doctor"]).out(1, &["→ chmod 600", "→ `signalman lint` shows them"]);
}

#[test]
fn completions_and_manual_pages_name_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = Said::of(Command::new(binary()).args(["completions", shell]).output().unwrap()).out(0, &["signalman", "rerun"]);
        for (path, _) in verbs() {
            assert!(said.out.contains(path.last().unwrap()), "{shell} does not complete {path:?}");
        }
    }
    Said::of(Command::new(binary()).args(["completions", "tcsh"]).output().unwrap()).err(2, &["tcsh", "bash"]);
    Said::of(Command::new(binary()).arg("man").output().unwrap()).out(0, &[".TH", "signalman"]);
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    Said::of(Command::new(binary()).args(["man", "--folder", pages.to_str().unwrap()]).output().unwrap()).out(0, &["the pages are in"]);
    for (path, _) in verbs() {
        let page = pages.join(format!("signalman-{}.1", path.join("-")));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains("Example"), "{} has no example", page.display());
    }
}

#[tokio::test]
async fn actions_are_shown_with_a_call_that_works_and_run_again() {
    let shell = Shell::start(sample()).await;
    shell.say(&["action", "list"]).out(0, &["core.echo", "RUNNER", "text"]);
    shell.say(&["action", "show", "core.notify"]).out(0, &["channel", "required", "send to chat", "try it: signalman run core.notify"]);
    shell.say(&["action", "show", "core.ecoh"]).err(1, &["there is no action `core.ecoh`", "did you mean `core.echo`?"]);
    let example = shell.json(&["action", "show", "core.echo"])["example"].as_str().unwrap().to_string();
    let done = in_site(&shell, &[&words(&example)[1..], &["--output".into(), "json".into()]].concat()).out(0, &[]).json();
    let id = done["id"].as_str().unwrap();
    shell.say(&["execution", "get", id]).out(
        0,
        &[
            "asked for by     token admin",
            "reason           succeeded · The action did what it should.",
            " UTC",
            "took ",
            "link             http",
        ],
    );
    let again = shell.json(&["execution", "rerun", &id[20..], "text=another", "--wait"]);
    assert_ne!(again["id"], done["id"]);
    assert_eq!((&again["rerun_of"], &again["status"], &again["parameters"]["text"]), (&done["id"], &json!("succeeded"), &json!("another")));
    shell.say(&["execution", "rerun", id, "txt=1"]).err(2, &["the action has no parameter `txt`"]);
    shell
        .say(&["execution", "list", "--since", "1h", "--action", "core.echo", "--limit", "1"])
        .out(0, &["core.echo", "there is more; go on with --before"]);
}
