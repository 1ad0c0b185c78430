//! What packs need of each other: that it is there, in a version that will do, and that nothing needs itself in the end.

use std::path::Path;

use semver::Version;

use super::Site;
use super::files::fault_at;
use crate::document::fields::{Faults, did_you_mean};
use crate::model::pack::{Dependency, Pack};

pub(super) fn check(site: &Site, root: &Path, faults: &mut Faults) {
    for pack in site.packs.values() {
        for dependency in &pack.dependencies {
            check_one(site, root, dependency, faults);
        }
    }
    let mut done = Vec::new();
    for pack in site.packs.values() {
        walk(site, pack, &mut Vec::new(), &mut done, root, faults);
    }
}

fn check_one(site: &Site, root: &Path, dependency: &Dependency, faults: &mut Faults) {
    let name = &dependency.name;
    let at = |message: String| fault_at(root, &dependency.place, message);
    let Some(found) = site.packs.get(name) else {
        let known: Vec<&str> = site.packs.keys().map(String::as_str).collect();
        faults.push(at(format!("`dependencies`: there is no pack `{name}`")).hint(did_you_mean(name, &known)));
        return;
    };
    let Some(wanted) = &dependency.version else { return };
    match Version::parse(&found.version) {
        Ok(version) if wanted.matches(&version) => {}
        Ok(version) => {
            let fault = at(format!("`dependencies`: `{name}` is needed in version {wanted}, and the site has {version}"));
            faults.push(fault.hint(format!("put another version into packs/{name}, or widen the range")));
        }
        Err(_) => {
            let has = if found.version.is_empty() { "none".to_string() } else { format!("`{}`", found.version) };
            let fault = at(format!("`dependencies`: `{name}` is needed in version {wanted}, but its `version` is {has}"));
            faults.push(fault.hint(format!("write three numbers into packs/{name}/pack.yaml, such as `version: 1.2.0`")));
        }
    }
}

/// Follows what a pack needs. A circle is told once, where it closes.
fn walk<'s>(site: &'s Site, pack: &'s Pack, path: &mut Vec<&'s str>, done: &mut Vec<&'s str>, root: &Path, faults: &mut Faults) {
    if done.contains(&pack.reference.as_str()) {
        return;
    }
    path.push(&pack.reference);
    for dependency in &pack.dependencies {
        let Some(needed) = site.packs.get(&dependency.name) else { continue };
        if let Some(start) = path.iter().position(|name| *name == needed.reference) {
            let circle = [&path[start..], &[needed.reference.as_str()]].concat().join(" → ");
            let fault = fault_at(root, &dependency.place, format!("`dependencies`: packs need each other in a circle: {circle}"));
            faults.push(fault.hint("move what both need into a pack of its own"));
            continue;
        }
        walk(site, needed, path, done, root, faults);
    }
    path.pop();
    done.push(&pack.reference);
}
