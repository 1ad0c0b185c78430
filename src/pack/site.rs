//! Walks the folders of a site and checks that what refers to something finds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DEFAULT_PACK, Site, action, manifest, rule, sensor, timers};
use crate::config::{Environment, Reader, SiteConfig};
use crate::document::fault::{Fault, SourceFile, nearest};
use crate::document::fields::{Faults, did_you_mean};
use crate::document::node::{self, Node};
use crate::model::name::Names;
use crate::model::pack::Pack;
use crate::model::place::Place;
use crate::model::sensor::SensorKind;
use crate::sensors;

/// Folders of a pack.
const KINDS: &[&str] = &["actions", "triggers", "sensors", "rules"];

/// Folders of a pack that this version does not carry out.
const NOT_YET: &[&str] = &["aliases", "workflows", "policies", "templates", "tests"];

/// How deep folders below `rules/` may nest.
const MAX_FOLDER_DEPTH: usize = 8;

pub(super) fn read(folder: &Path, config: SiteConfig, environment: &Environment, faults: &mut Faults) -> Site {
    let mut site = Site {
        config,
        packs: BTreeMap::new(),
        actions: BTreeMap::new(),
        triggers: BTreeMap::new(),
        sensors: Vec::new(),
        rules: Vec::new(),
    };
    let mut names = Names::default();
    let reader = Reader { site: folder, environment };
    for pack_folder in folders(&folder.join("packs")) {
        read_pack(folder, &pack_folder, &mut site, &mut names, &reader, faults);
    }
    let default_pack =
        Pack { name: "The site itself".into(), folder: std::path::absolute(folder).unwrap_or_default(), ..Pack::named(DEFAULT_PACK) };
    site.packs.entry(DEFAULT_PACK.into()).or_insert_with(|| Arc::new(default_pack));
    read_rules(folder, &folder.join("rules"), DEFAULT_PACK, &mut site, &mut names, faults);
    not_yet(folder, &folder.join("workflows"), "workflows", faults);
    check_references(&site, folder, faults);
    timers::add(&mut site, folder, faults);
    site
}

fn read_pack(root: &Path, folder: &Path, site: &mut Site, names: &mut Names, reader: &Reader<'_>, faults: &mut Faults) {
    let file = folder.join("pack.yaml");
    let Some((source, node)) = open(root, &file, faults) else { return };
    let name = file_name(folder);
    let Some(mut pack) = manifest::read(&source, &node, &name, &site.config, faults) else { return };
    pack.folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let pack = Arc::new(pack);
    for file in yaml_files(&folder.join("actions")) {
        if let Some((source, node)) = open(root, &file, faults)
            && let Some(action) = action::read(&source, &node, &name, root, &file, faults)
        {
            let (name, place) = (action.reference.clone(), action.place.clone());
            if let Some(first) = site.actions.insert(name.clone(), Arc::new(action)) {
                faults.push(twice(&source, "an action", &name, &place, &first.place));
            }
        }
    }
    for file in yaml_files(&folder.join("triggers")) {
        if let Some((source, node)) = open(root, &file, faults)
            && let Some(trigger) = sensor::read_trigger(&source, &node, &name, &stem(&file), faults)
        {
            let name = trigger.reference.clone();
            if site.triggers.insert(name.clone(), trigger).is_some() {
                faults.push(source.whole(format!("there is a trigger `{name}` already, in another folder")));
            }
        }
    }
    for file in yaml_files(&folder.join("sensors")) {
        if let Some((source, node)) = open(root, &file, faults)
            && let Some(definition) =
                sensor::read(&source, &node, &sensor::Origin { pack: &pack, file: &file, reader, time_zone: site.config.time_zone }, faults)
        {
            if let Some(first) = site.sensors.iter().find(|first| first.reference == definition.reference) {
                faults.push(twice(&source, "a sensor", &definition.reference, &definition.place, &first.place));
            }
            site.sensors.push(definition);
        }
    }
    site.packs.insert(name.clone(), pack);
    read_rules(root, &folder.join("rules"), &name, site, names, faults);
    for kind in NOT_YET {
        not_yet(root, &folder.join(kind), kind, faults);
    }
    for other in folders(folder)
        .into_iter()
        .filter(|other| !KINDS.contains(&file_name(other).as_str()) && !NOT_YET.contains(&file_name(other).as_str()))
    {
        let fault = SourceFile::new(relative(root, &other), "").whole("a pack has no such folder; what it holds is ignored");
        let known: Vec<&str> = KINDS.iter().chain(NOT_YET).copied().collect();
        faults.push(fault.hint(did_you_mean(&file_name(&other), &known)).as_warning());
    }
}

fn twice(source: &SourceFile, what: &str, name: &str, place: &Place, first: &Place) -> Fault {
    let message = format!("there is {what} `{name}` already, in {}", first.file);
    source.fault(place.line, place.column, message).hint("rename one of the files; the file's name is the thing's name")
}

fn read_rules(root: &Path, folder: &Path, pack: &str, site: &mut Site, names: &mut Names, faults: &mut Faults) {
    for file in yaml_files(folder) {
        let Some((source, node)) = open(root, &file, faults) else { continue };
        let Some(mut compiled) = rule::read(&source, &node, pack, &stem(&file), faults) else { continue };
        if let Some(other) = site.rules.iter().find(|other| other.rule.reference == compiled.rule.reference) {
            let message = format!("there is a rule `{}` already, in {}", compiled.rule.reference, other.rule.file);
            faults.push(source.whole(message).hint("rename one of the files; the file's name is the rule's name"));
            continue;
        }
        compiled.rule.share(names);
        site.rules.push(compiled);
    }
}

/// What the folder of a kind that is not carried out yet holds is told, so that nobody waits for it.
fn not_yet(root: &Path, folder: &Path, kind: &str, faults: &mut Faults) {
    for file in yaml_files(folder) {
        let source = SourceFile::new(relative(root, &file), "");
        faults.push(source.whole(format!("{kind} are not carried out by this version; the file is ignored")).as_warning());
    }
}

fn check_references(site: &Site, root: &Path, faults: &mut Faults) {
    for (name, config) in site.config.packs.iter().filter(|(name, _)| !site.packs.contains_key(*name)) {
        let place = Place { file: crate::config::FILE.into(), line: config.place.0, column: config.place.1 };
        let fault = fault_at(root, &place, format!("`config`: there is no pack `{name}`"));
        faults.push(fault.hint(did_you_mean(name, &site.packs.keys().map(String::as_str).collect::<Vec<_>>())));
    }
    for pack in site.packs.values() {
        for (name, place) in pack.dependencies.iter().filter(|(name, _)| !site.packs.contains_key(name)) {
            let fault = fault_at(root, place, format!("`dependencies`: there is no pack `{name}`"));
            faults.push(fault.hint(did_you_mean(name, &site.packs.keys().map(String::as_str).collect::<Vec<_>>())));
        }
    }
    for compiled in &site.rules {
        let rule = &compiled.rule;
        let mut missing = |what: &str, place: &Place, name: &str, known: &mut dyn Iterator<Item = &String>| {
            let mut fault = fault_at(root, place, format!("rule `{}`: there is no {what} `{name}`", rule.reference));
            if let Some(nearest) = nearest(name, known.map(String::as_str)) {
                fault = fault.hint(format!("did you mean `{nearest}`?"));
            }
            faults.push(fault);
        };
        if !site.triggers.contains_key(&*rule.trigger) {
            missing("trigger", &rule.place(rule.trigger_at), &rule.trigger, &mut site.triggers.keys());
        }
        if let Some(notify) = &rule.notify
            && !site.config.channels.contains_key(&notify.value.channel)
        {
            missing("channel", &rule.place(notify.at), &notify.value.channel, &mut site.config.channels.keys());
        }
        match site.actions.get(&*rule.action) {
            None => missing("action", &rule.place(rule.action_at), &rule.action, &mut site.actions.keys()),
            Some(action) => {
                for (message, place) in rule::check_parameters(rule, action) {
                    faults.push(fault_at(root, &place, message));
                }
            }
        }
    }
    for (name, line, column) in &site.config.open_webhooks_at {
        let names: Vec<&str> = site
            .sensors
            .iter()
            .filter_map(|sensor| if let SensorKind::Webhook { name, .. } = &sensor.kind { Some(name.as_str()) } else { None })
            .collect();
        if !names.contains(&name.as_str()) {
            let place = Place { file: crate::config::FILE.into(), line: *line, column: *column };
            let fault = fault_at(root, &place, format!("`open_webhooks`: there is no webhook `{name}`"));
            faults.push(fault.hint(did_you_mean(name, &names)));
        }
    }
    let mut webhooks: BTreeMap<&str, &Place> = BTreeMap::new();
    for sensor in &site.sensors {
        let mut triggers = vec![sensor.trigger.as_str()];
        if let SensorKind::Polling(polling) = &sensor.kind {
            triggers.extend(sensors::kind(&polling.kind).map_or(&[] as &[&str], |kind| kind.also));
        }
        for trigger in triggers.into_iter().filter(|trigger| !site.triggers.contains_key(*trigger)) {
            let mut fault = fault_at(root, &sensor.place, format!("there is no trigger `{trigger}`"));
            if let Some(nearest) = nearest(trigger, site.triggers.keys().map(String::as_str)) {
                fault = fault.hint(format!("did you mean `{nearest}`?"));
            }
            faults.push(fault);
        }
        if let SensorKind::Webhook { name, .. } = &sensor.kind
            && let Some(first) = webhooks.insert(name, &sensor.place)
        {
            faults.push(fault_at(root, &sensor.place, format!("the webhook `{name}` exists already, in {}", first.file)));
        }
    }
}

/// A fault at a place in a file that was read before.
pub(super) fn fault_at(root: &Path, place: &Place, message: String) -> Fault {
    let text = std::fs::read_to_string(root.join(&*place.file)).unwrap_or_default();
    SourceFile::new(place.file.clone(), text).fault(place.line, place.column, message)
}

/// Reads and parses a YAML file.
fn open(root: &Path, file: &Path, faults: &mut Faults) -> Option<(SourceFile, Node)> {
    let path = relative(root, file);
    let text = match read_text(root, file) {
        Ok(text) => text,
        Err(message) => {
            faults.push(SourceFile::new(path, "").whole(message));
            return None;
        }
    };
    let source = SourceFile::new(path, text);
    match node::parse(&source) {
        Ok(node) => Some((source, node)),
        Err(fault) => {
            faults.push(fault);
            None
        }
    }
}

/// The text of a file inside the site. A link that leads out of the site is refused.
pub(super) fn read_text(root: &Path, file: &Path) -> Result<String, String> {
    let inside = |path: &Path| Some(path.canonicalize().ok()?.starts_with(root.canonicalize().ok()?));
    match std::fs::metadata(file) {
        Err(error) => return Err(format!("cannot be read: {error}")),
        Ok(metadata) if metadata.len() > node::MAX_BYTES => return Err(format!("is larger than {} bytes", node::MAX_BYTES)),
        Ok(_) if inside(file) != Some(true) => return Err("leads out of the site folder".into()),
        Ok(_) => {}
    }
    let bytes = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

pub(super) fn relative(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap_or(file).display().to_string()
}

pub(super) fn stem(file: &Path) -> String {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn file_name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    entries(folder).into_iter().filter(|path| path.is_dir()).collect()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(folder, 0, &mut files);
    files
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for path in entries(folder) {
        if path.is_dir() && depth < MAX_FOLDER_DEPTH {
            collect(&path, depth + 1, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
}

/// What a folder holds, in the order of names; a folder that is not there holds nothing.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| !file_name(path).starts_with('.'));
    paths.sort();
    paths
}
