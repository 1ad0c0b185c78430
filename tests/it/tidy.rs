//! The house rules that a machine can hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::repository;

/// Modules from the lowest to the highest; one may import those before it, and itself. The longest prefix counts.
const ORDER: &[&[&str]] = &[
    &["model"],
    &["clock", "tasks", "telemetry"],
    &["document", "expect", "script::expr"],
    &["template", "links", "outbound", "livelog", "process"],
    &["rule", "gates", "script::host", "script"],
    &["journal", "store", "runners", "chat", "sensors"],
    &[
        "chat::words",
        "chat::grammar",
        "runners::command_line",
        "journal::inline",
        "store::keyed",
        "store::record",
        "store::lock",
        "sensors::webhooks",
    ],
    &[
        "store::memory",
        "store::sled",
        "runners::rhai",
        "runners::http_request",
        "runners::local_shell_cmd",
        "runners::local_shell_script",
        "runners::python_script",
        "runners::noop",
        "sensors::timer",
        "sensors::prometheus",
        "sensors::rhai",
        "sensors::webhooks::generic",
        "sensors::webhooks::alertmanager",
        "chat::adapters::console",
        "chat::adapters",
    ],
    &["config"],
    &["pack", "auth", "secrets"],
    &["engine"],
    &["api", "web"],
    &["app"],
    &["packtest"],
    &["cli"],
];

/// The lists of peers name each peer; that is the one import upwards.
const LISTS: &[&str] = &["runners/mod.rs", "sensors/mod.rs", "sensors/webhooks/mod.rs", "chat/adapters/mod.rs", "script/host/mod.rs"];

fn sources(folder: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let root = repository().join(folder);
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(&root).unwrap().to_path_buf(), text);
            }
        }
    }
    found
}

/// The code of a file without its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn module_of(path: &Path) -> String {
    let text = path.with_extension("").display().to_string();
    text.trim_end_matches("/mod").replace('/', "::")
}

/// How high a module stands, by its longest prefix in the table.
fn rank(module: &str) -> Option<usize> {
    let entries = ORDER.iter().enumerate().flat_map(|(rank, names)| names.iter().map(move |name| (rank, *name)));
    let fits = entries.filter(|(_, name)| module == *name || module.starts_with(&format!("{name}::")));
    fits.max_by_key(|(_, name)| name.len()).map(|(rank, _)| rank)
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let module = module_of(&path);
        if ["lib", "main"].contains(&module.as_str()) || LISTS.contains(&path.to_str().unwrap()) {
            continue;
        }
        let own = rank(&module).unwrap_or_else(|| panic!("{module} has no place in the order of imports"));
        for line in code(&text).lines() {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
                let used = used.trim_end_matches(':');
                let Some(other) = rank(used) else { panic!("{module} uses `{used}`, which has no place in the order of imports") };
                if other > own {
                    wrong.push(format!("{} imports {used}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these imports go the wrong way:\n{}", wrong.join("\n"));
}

#[test]
fn only_their_owners_read_time_environment_and_randomness_or_spawn() {
    let owners: &[(&str, &[&str])] = &[
        ("Utc::now", &["clock.rs"]),
        ("SystemTime::now", &[]),
        (
            "Instant::now",
            &[
                "cli/bench/scenarios.rs",
                "cli/bench/disk.rs",
                "cli/bench/process.rs",
                "cli/bench/rules.rs",
                "cli/bench/scripts.rs",
                "cli/bench/programs.rs",
                "cli/bench/neighbours.rs",
                "cli/bench/commands.rs",
            ],
        ),
        ("env::var", &["config/mod.rs"]),
        ("SystemRandom::new", &["model/ids.rs"]),
        ("tokio::spawn", &["tasks.rs"]),
        ("thread::spawn", &["tasks.rs"]),
        ("thread::Builder", &["tasks.rs"]),
        ("process::Command", &["process.rs", "cli/bench/process.rs", "cli/bench/disk.rs", "cli/bench/programs.rs"]),
        ("tokio::time::sleep", &["clock.rs", "cli/bench/scenarios.rs", "cli/bench/neighbours.rs"]),
        ("std::process::exit", &[]),
        ("println!", &[]),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        for (what, allowed) in owners {
            let text = code(&text).replace("eprintln!", "");
            if text.contains(what) && !allowed.contains(&path.to_str().unwrap()) {
                wrong.push(format!("{}: {what}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_never_wait_or_touch_the_disk() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let module = module_of(&path);
        let pure = ["model", "expect", "rule", "gates", "template", "links", "script::expr", "chat::words", "chat::grammar"]
            .iter()
            .any(|pure| module.starts_with(pure));
        for what in ["async fn", ".await", "std::fs", "std::net", "tokio::"] {
            if pure && code(&text).contains(what) {
                wrong.push(format!("{}: {what}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_do_not_sleep_and_nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    for (path, text) in sources("tests/it") {
        let name = path.display().to_string();
        if name == "tidy.rs" {
            continue;
        }
        let sleeps = text.matches("time::sleep").count();
        // The harness waits between two looks; the crash test lets a random time pass before it kills.
        let allowed = usize::from(name == "harness.rs" || name == "crash.rs");
        if sleeps > allowed || text.contains("thread::sleep") || text.contains("#[ignore") {
            wrong.push(name);
        }
    }
    for (path, text) in sources("src") {
        for what in ["todo!", "unimplemented!", "FIXME", "XXX", "dbg!"] {
            if text.contains(what) {
                wrong.push(format!("{}: {what}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_short_enough_to_be_one_thing() {
    let long: Vec<String> =
        sources("src").iter().filter(|(_, text)| text.lines().count() > 700).map(|(path, _)| path.display().to_string()).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn one_tls_library_and_no_c_of_it() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    for unwanted in ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{unwanted}\"")), "{unwanted} has come in");
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<String> =
        sources("src").iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path.display().to_string()).collect();
    assert!(silent.is_empty(), "{silent:?}");
}
