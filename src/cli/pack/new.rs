//! `signalman pack new`: a small pack that is complete, checked and tested, to be changed into what is wanted.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::{Answer, Common, Failure, print_line};
use crate::pack::{DEFAULT_PACK, is_name};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The name of the pack: lower-case letters, digits, `_` and `-`
    #[arg(value_name = "NAME")]
    name: String,
}

/// The pack that is written, under the name that stands for its own.
const PLACEHOLDER: &str = "newpack";

macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("template/", $path)))),*] };
}

/// Its files. Those in `template/` and no others: a test compares.
const FILES: &[(&str, &str)] = files![
    "pack.yaml",
    "README.md",
    "actions/greet.yaml",
    "actions/greet.rhai",
    "triggers/visit.yaml",
    "sensors/newpack.yaml",
    "rules/greet_newcomers.yaml",
    "aliases/newpack_greet.yaml",
    "tests/greet.yaml",
    "tests/greet_newcomers.yaml",
];

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<Answer, Failure> {
    let name = arguments.name.as_str();
    if !is_name(name) {
        return Err(Failure::misuse(format!("`{name}` is not a name for a pack: use lower-case letters, digits, `_` and `-`")));
    }
    if name == DEFAULT_PACK {
        return Err(Failure::misuse(format!("`{name}` is the pack of the site's own rules; take another name")));
    }
    if !common.site.is_dir() {
        return Err(Failure::misuse(format!("`{}` is not a folder", common.site.display())));
    }
    let folder = common.site.join("packs").join(name);
    if folder.exists() {
        return Err(Failure::misuse(format!("`{}` exists already; take another name, or remove it first", folder.display())));
    }
    let written = write(&folder, name).map_err(|error| Failure::failed(format!("cannot write `{}`: {error}", folder.display())))?;
    let site = if common.site == Path::new(".") { String::new() } else { format!(" --site {}", common.site.display()) };
    let next = [format!("signalman{site} lint"), format!("signalman{site} pack test {name} --watch"), format!("signalman{site} serve")];
    let shown: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    common.show(&json!({"pack": name, "files": shown, "next": next}), || {
        for path in &shown {
            print_line(&format!("✔ {path}"));
        }
        print_line("\nNext:");
        for line in &next {
            print_line(&format!("  {line}"));
        }
    });
    Ok(Answer::Yes)
}

fn write(folder: &Path, name: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (path, text) in FILES {
        let path = folder.join(path.replace(PLACEHOLDER, name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let text = text.replace(&PLACEHOLDER.to_uppercase(), &name.to_uppercase().replace('-', "_")).replace(PLACEHOLDER, name);
        std::fs::write(&path, text)?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_template_is_written() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/pack/template");
        let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found.push(path.strip_prefix(&root).unwrap().display().to_string()) }
            }
        }
        let mut listed: Vec<String> = FILES.iter().map(|(path, _)| (*path).to_string()).collect();
        found.sort();
        listed.sort();
        assert_eq!(listed, found);
    }
}
