//! What people write: every form is read by the loader and allowed by the schema of its kind, and what one refuses the other refuses.

use std::path::{Path, PathBuf};

use serde_json::Value;
use signalman::config::Environment;
use signalman::document::fault::SourceFile;
use signalman::document::node;
use signalman::document::shape::{Holds, Shape};
use signalman::pack::schema::{self, KINDS, SchemaKind};

use crate::harness::{TestSite, repository, shared};

fn environment() -> Environment {
    Environment::of(&[("SHOP_TOKEN", "s3cret-of-the-shop"), ("HOME", "/")])
}

fn parse(path: &str, text: &str) -> Value {
    node::parse(&SourceFile::new(path, text)).unwrap_or_else(|fault| panic!("{fault}")).value()
}

/// The kind of a file, by its path in a site.
fn kind_of(path: &str) -> Option<&'static SchemaKind> {
    let name = if path.ends_with("signalman.yaml") {
        "site"
    } else if path.ends_with("pack.yaml") {
        "pack"
    } else {
        let folders = ["actions", "triggers", "sensors", "rules", "workflows", "aliases", "policies", "tests"];
        let folder = path.split('/').rev().find(|part| folders.contains(part))?;
        if folder == "policies" {
            "policy"
        } else if folder == "aliases" {
            "alias"
        } else {
            folder.strip_suffix('s')?
        }
    };
    schema::kind(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found
}

/// What the schema of its kind says against a file.
fn against(kind: &SchemaKind, value: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(&kind.schema()).unwrap();
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn every_form_is_read_and_every_schema_allows_it() {
    for (site, at_least) in [(repository().join("tests/fixtures/formats"), 17), (repository(), 20)] {
        let (_, faults) = signalman::pack::load(&site, &environment());
        assert!(faults.allow(), "{:#?}", faults.0);
        let folders = ["packs", "rules", "workflows"].map(|folder| files(&site.join(folder)));
        let mut seen = 0;
        for path in folders.into_iter().flatten().chain([site.join("signalman.yaml")]) {
            let shown = path.strip_prefix(&site).unwrap().display().to_string();
            let Some(kind) = kind_of(&shown) else { continue };
            let told = against(kind, &parse(&shown, &std::fs::read_to_string(&path).unwrap()));
            assert!(told.is_empty(), "{shown} by the schema of {}: {told:#?}", kind.name);
            seen += 1;
        }
        assert!(seen >= at_least, "{seen} files in {}", site.display());
    }
}

#[test]
fn the_schemas_are_schemas_and_their_examples_fit() {
    for kind in KINDS {
        let schema = kind.schema();
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{}", kind.name);
        let mut shapes = kind.shapes.to_vec();
        while let Some(shape) = shapes.pop() {
            assert!(!shape.doc.is_empty() || shape.what == "`auth`", "{}", shape.what);
            let mut names = shape.names();
            names.sort_unstable();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{}: a field twice: {names:?}", shape.what);
            for field in shape.all() {
                assert!(!field.doc.is_empty(), "{}: {}", shape.what, field.name);
                let own = shape.schema()["properties"][field.name].clone();
                for value in field.default.iter().chain(&field.example) {
                    let value: Value = serde_json::from_str(value).unwrap();
                    assert!(jsonschema::is_valid(&own, &value), "{}: {}: {value}", shape.what, field.name);
                }
                inner(&field.holds, &mut shapes);
            }
        }
    }
}

fn inner(holds: &'static Holds, shapes: &mut Vec<&'static Shape>) {
    match holds {
        Holds::Shape(shape) => shapes.push(shape),
        Holds::List(inside) | Holds::Map(inside) => inner(inside, shapes),
        Holds::Either(forms) => forms.iter().for_each(|form| inner(form, shapes)),
        _ => {}
    }
}

#[test]
fn what_the_loader_refuses_of_the_form_the_schema_refuses_too() {
    for (path, text) in [
        ("rules/r.yaml", "trigger: {type: core.webhook}\naction: {ref: core.noop}\ncolour: red\n"),
        ("rules/r.yaml", "action: {ref: core.noop}\n"),
        ("rules/r.yaml", "trigger: {type: core.webhook, kind: x}\naction: {ref: core.noop}\n"),
        ("rules/r.yaml", "trigger: {type: core.webhook}\naction: {ref: core.noop}\nmode: shadowy\n"),
        ("rules/r.yaml", "trigger: {type: core.webhook}\naction: {ref: core.noop}\nceiling: 0\n"),
        ("rules/r.yaml", "trigger: {type: core.webhook}\naction: {ref: core.noop}\nwindow: {count: 2}\n"),
        ("rules/r.yaml", "trigger: {type: core.webhook}\naction: {ref: core.noop}\nthrottle: {once_per: soon}\n"),
        ("packs/t/actions/a.yaml", "runner_type: nope\n"),
        ("packs/t/actions/a.yaml", "runner_type: noop\ntimeout: [1]\n"),
        ("packs/t/actions/a.yaml", "runner_type: noop\nparameters: {a: {type: strin}}\n"),
        ("packs/t/actions/a.yaml", "runner_type: noop\nparameters: {a: {positon: 1}}\n"),
        ("packs/t/actions/a.yaml", "runner_type: noop\ntags: 5\n"),
        ("packs/t/triggers/x.yaml", "payload_schema: 5\n"),
        ("packs/t/sensors/s.yaml", "kind: timer\n"),
        ("packs/t/sensors/s.yaml", "kind: webhook\ntrigger: core.webhook\ndecoder: generic\n"),
        ("packs/t/sensors/s.yaml", "kind: webhook\ntrigger: core.webhook\ndecoder: generic\nauth: none\nsettings: {}\n"),
        ("packs/u/pack.yaml", "name: U\n"),
        ("workflows/w.yaml", "name: w\n"),
        ("workflows/w.yaml", "tasks: {a: {action: core.noop, next: [{whn: x}]}}\n"),
        ("signalman.yaml", "listen: 127.0.0.1:0\nlimits: {body: 1GB}\n"),
        ("signalman.yaml", "listen: 127.0.0.1:0\nchannels: {ops: {adapter: console}}\n"),
    ] {
        let site = TestSite::new().pack(&[]).file(path, text);
        let (_, faults) = signalman::pack::load(site.path(), &environment());
        assert!(!faults.allow(), "the loader takes {path}: {text}");
        let told = against(kind_of(path).unwrap(), &parse(path, text));
        assert!(!told.is_empty(), "the schema takes {path}: {text}");
    }
}

#[test]
fn the_examples_beside_the_repository_are_read() {
    let Some(page) = shared().map(|folder| folder.join("formats.md")).filter(|page| page.is_file()) else {
        println!("no page of formats beside the repository: nothing to compare with, passed");
        return;
    };
    let page = std::fs::read_to_string(page).unwrap();
    let mut seen = Vec::new();
    for block in page.split("```yaml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let first = text.lines().next().unwrap_or_default();
        let path = first.trim_start_matches("# ").split_whitespace().next().unwrap_or_default();
        // What stands there without a path is the rule over several events.
        let kind = if first.starts_with('#') { kind_of(path) } else { schema::kind("rule") };
        let Some(kind) = kind else { continue };
        if kind.name == "site" {
            continue; // has stores and chat systems of later versions
        }
        let value = parse(path, text);
        let told = against(kind, &value);
        let later = |what: &str| told.iter().all(|fault| fault.contains(what));
        assert!(told.is_empty() || later("/capabilities"), "{path}: {told:#?}");
        seen.push(kind.name);
    }
    for kind in ["pack", "action", "trigger", "sensor", "rule", "workflow"] {
        assert!(seen.contains(&kind), "{kind} is not among {seen:?}");
    }
}

#[test]
fn the_command_prints_them() {
    let site = TestSite::empty();
    let listed = String::from_utf8(site.cli(&["schema"]).stdout).unwrap();
    for kind in KINDS {
        assert!(listed.contains(kind.name), "{listed}");
        let printed: Value = serde_json::from_slice(&site.cli(&["schema", kind.name]).stdout).unwrap();
        assert_eq!(printed, kind.schema());
    }
    let said = site.cli(&["schema", "rul"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("did you mean `rule`?"), "{said:?}");
}
