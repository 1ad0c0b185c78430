//! The documentation says what the code does.

use std::process::Command;

use crate::harness::{binary, repository};

#[test]
fn generated_pages_are_up_to_date() {
    for page in ["reasons", "cli", "api", "scripts"] {
        let output = Command::new(binary()).args(["reference", page]).output().unwrap();
        let generated = String::from_utf8(output.stdout).unwrap();
        let file = repository().join(format!("docs/reference/{page}.md"));
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(written, generated, "run `make docs` to write {}", file.display());
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    let mut folders = vec![repository().join("docs")];
    let mut pages = vec![repository().join("README.md"), repository().join("CHANGELOG.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                pages.push(path);
            }
        }
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.contains(['.', '/']) && !file.contains("://") && !file.contains('%') && !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_that_the_architecture_names_exist() {
    let text = std::fs::read_to_string(repository().join("docs/architecture.md")).unwrap();
    let mut missing = Vec::new();
    for name in text.split('`').filter(|name| {
        (name.starts_with("src/") || name.starts_with("tests/")) && !name.contains([' ', '*', '{', '<']) && !name.contains("NAME")
    }) {
        let file = name.split("::").next().unwrap().split(':').next().unwrap();
        if !repository().join(file).exists() {
            missing.push(name.to_string());
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
