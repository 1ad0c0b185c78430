//! Which files are tested, and the site that each of their cases sees.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Environment, FILE, PackConfig, SiteConfig};
use crate::document::fault::{Fault, SourceFile};
use crate::document::fields::{Faults, did_you_mean};
use crate::model::message::Destination;
use crate::model::place::Place;
use crate::model::rule::Mode;
use crate::model::sensor::{SensorKind, WebhookAuth};
use crate::pack::files::{file_name, files, folders, open};
use crate::pack::test::{Call, Case, Expectable, Settings, Subject, TestFile, What, read};
use crate::pack::{self, Site};
use crate::rule::book::CompiledRule;

/// The folder of a pack that holds its tests.
pub const FOLDER: &str = "tests";

/// The name of the only chat system in a test.
pub const CONSOLE: &str = "console";

/// All that is to be played.
pub struct Plan {
    /// Cases that see the same site, in the order of packs, files and lines.
    pub groups: Vec<Group>,
}

/// Cases of one file that see the same site.
pub struct Group {
    /// The pack that is tested.
    pub pack: String,
    /// The site, with every pack.
    pub site: Site,
    /// The cases.
    pub cases: Vec<Case>,
}

/// What is chosen of a site.
pub struct Choice<'c> {
    /// The site's folder.
    pub site: &'c Path,
    /// Packs, by name; all if there is none.
    pub packs: &'c [String],
    /// Cases whose name holds this.
    pub case: Option<&'c str>,
}

impl Plan {
    /// Reads the tests of packs, and the site once for each different settings.
    ///
    /// # Errors
    /// Every fault of the tests and of the packs that they need.
    pub fn read(choice: &Choice<'_>) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let packs = chosen(choice, &mut faults);
        let mut read_files = Vec::new();
        for pack in packs {
            for path in files(&choice.site.join("packs").join(&pack).join(FOLDER), &["yaml", "yml"]) {
                if let Some((source, node)) = open(choice.site, &path, &mut faults) {
                    read_files.extend(read::read(&source, &node, &pack, &mut faults).map(|file| (source, file)));
                }
            }
        }
        let mut groups = Vec::new();
        for (source, file) in read_files {
            group(choice, &source, file, &mut groups, &mut faults);
        }
        faults.0.sort_by(|a, b| a.place.cmp(&b.place));
        faults.0.dedup();
        if faults.allow() { Ok(Self { groups }) } else { Err(faults) }
    }

    /// How many cases there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.cases.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The packs that are to be tested.
fn chosen(choice: &Choice<'_>, faults: &mut Faults) -> Vec<String> {
    let all: Vec<String> = folders(&choice.site.join("packs")).iter().map(|folder| file_name(folder)).collect();
    if choice.packs.is_empty() {
        return all;
    }
    let known: Vec<&str> = all.iter().map(String::as_str).collect();
    for name in choice.packs.iter().filter(|name| !all.contains(name)) {
        let fault = SourceFile::new(format!("packs/{name}"), "").whole("there is no such pack");
        faults.push(fault.hint(did_you_mean(name, &known)));
    }
    all.iter().filter(|name| choice.packs.contains(name)).cloned().collect()
}

/// Puts the cases of a file into groups of equal settings, each with its site.
fn group(choice: &Choice<'_>, source: &SourceFile, file: TestFile, groups: &mut Vec<Group>, faults: &mut Faults) {
    let wanted = |case: &Case| choice.case.is_none_or(|part| case.name.to_lowercase().contains(&part.to_lowercase()));
    let mut of_file: Vec<(Settings, Group)> = Vec::new();
    for case in file.cases.into_iter().filter(wanted) {
        if let Some((_, group)) = of_file.iter_mut().find(|(settings, _)| *settings == case.settings) {
            group.cases.push(case);
            continue;
        }
        // What the environment holds must not make a difference.
        let (site, found) = pack::load_with(choice.site, &Environment::default(), |config| set(config, &case.settings));
        let (settings, needed) = (case.settings.clone(), needed(&site, &file.pack));
        faults.0.extend(found.0.into_iter().filter(|fault| !fault.warning && concerns(fault, &needed)));
        of_file.push((settings, Group { pack: file.pack.clone(), site, cases: vec![case] }));
    }
    for (_, group) in of_file {
        for case in &group.cases {
            check(source, case, &group.site, faults);
        }
        groups.push(group);
    }
}

/// Puts the settings of a case in the place of those of the site.
fn set(config: &mut SiteConfig, settings: &Settings) {
    let given = settings.packs.iter().map(|(pack, values)| (pack.clone(), PackConfig { values: values.clone(), ..PackConfig::default() }));
    config.packs = given.collect();
    config.chat = [(CONSOLE.to_string(), CONSOLE.to_string())].into();
    let mut channels: BTreeSet<String> = std::mem::take(&mut config.channels).into_keys().collect();
    channels.extend(settings.channels.iter().cloned());
    channels.insert(crate::engine::notices::OPS.to_string());
    config.channels = channels.into_iter().map(|to| (to.clone(), Destination { adapter: CONSOLE.into(), to })).collect();
}

/// A pack with all that it depends on.
fn needed(site: &Site, pack: &str) -> BTreeSet<String> {
    let mut needed = BTreeSet::from([pack.to_string()]);
    let mut left = vec![pack.to_string()];
    while let Some(next) = left.pop() {
        for dependency in site.packs.get(&next).map(|pack| pack.dependencies.as_slice()).unwrap_or_default() {
            if needed.insert(dependency.name.clone()) {
                left.push(dependency.name.clone());
            }
        }
    }
    needed
}

/// Whether a fault of the site stands in the way of a test of these packs.
fn concerns(fault: &Fault, packs: &BTreeSet<String>) -> bool {
    let in_pack = |pack: &String| fault.place.file.starts_with(&format!("packs/{pack}/"));
    let of_pack = |pack: &String| &*fault.place.file == FILE && fault.message.contains(&format!("pack `{pack}`"));
    packs.iter().any(|pack| in_pack(pack) || of_pack(pack))
}

/// Whether all that a case names is there.
fn check(source: &SourceFile, case: &Case, site: &Site, faults: &mut Faults) {
    let mut missing = |place: &Place, what: &str, name: &str, known: Vec<&str>| {
        if !known.contains(&name) {
            let fault = source.fault(place.line, place.column, format!("there is no {what} `{name}`"));
            faults.push(fault.hint(did_you_mean(name, &known)));
        }
    };
    let actions = || site.actions.keys().map(String::as_str).collect::<Vec<_>>();
    let triggers = || site.triggers.keys().map(String::as_str).collect::<Vec<_>>();
    let sensors = || site.sensors.iter().map(|sensor| sensor.reference.as_str()).collect::<Vec<_>>();
    match &case.subject {
        Subject::Chat(_) => {}
        Subject::Action(of) => missing(&of.action.0, "action", &of.action.1, actions()),
        Subject::Sensor(of) => missing(&of.sensor.0, "sensor", &of.sensor.1, sensors()),
        Subject::Rules(of) => {
            for (place, rule) in &of.rules {
                missing(place, "rule", rule, site.rules.iter().map(|rule| &*rule.rule.reference).collect());
            }
            for event in &of.events {
                match &event.what {
                    What::Event { trigger, .. } => missing(&event.place, "trigger", trigger, triggers()),
                    What::Call(Call { sensor: (place, sensor), .. }) => missing(place, "sensor", sensor, sensors()),
                }
            }
            for one in &of.expect {
                if let Expectable::Runs { action, .. } = &one.what {
                    missing(&one.place, "action", action, actions());
                }
            }
        }
    }
}

/// The site and the packs that folders mean: `packs/NAME` of a site, or the name of a pack of `site`.
///
/// # Errors
/// When folders lie in different sites.
pub fn locate(site: &Path, folders: &[PathBuf]) -> Result<(PathBuf, Vec<String>), String> {
    let (mut root, mut packs) = (None::<PathBuf>, Vec::new());
    for folder in folders {
        let (of, pack) = pack_folder(site, folder);
        if let Some(first) = root.as_ref().filter(|first| **first != of) {
            return Err(format!("`{}` lies in another site than `{}`; test one site at a time", folder.display(), first.display()));
        }
        root = Some(of);
        packs.push(pack);
    }
    Ok((root.unwrap_or_else(|| site.to_path_buf()), packs))
}

fn pack_folder(site: &Path, given: &Path) -> (PathBuf, String) {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let found = given.canonicalize().ok().filter(|path| path.join("pack.yaml").is_file());
    let above = found.as_deref().and_then(|path| Some((path.parent()?.parent()?.to_path_buf(), name(path))));
    above.unwrap_or_else(|| (site.to_path_buf(), given.display().to_string()))
}

/// A site of its own for a case: only what the case is about runs by itself.
#[must_use]
pub fn site_for(site: &Site, case: &Case) -> Site {
    let mut site = site.clone();
    let rules: Vec<&str> = match &case.subject {
        Subject::Rules(of) => of.rules.iter().map(|(_, rule)| rule.as_str()).collect(),
        Subject::Action(_) | Subject::Sensor(_) | Subject::Chat(_) => Vec::new(),
    };
    site.rules.retain(|rule| rules.contains(&&*rule.rule.reference));
    for rule in &mut site.rules {
        in_earnest(rule);
    }
    let sensors: Vec<&str> = match &case.subject {
        Subject::Sensor(of) => vec![of.sensor.1.as_str()],
        Subject::Rules(of) => of
            .events
            .iter()
            .filter_map(|event| if let What::Call(call) = &event.what { Some(call.sensor.1.as_str()) } else { None })
            .collect(),
        Subject::Action(_) | Subject::Chat(_) => Vec::new(),
    };
    site.sensors.retain(|sensor| sensors.contains(&sensor.reference.as_str()));
    for sensor in &mut site.sensors {
        sensor.enabled = true;
        if let SensorKind::Webhook { auth, .. } = &mut sensor.kind {
            *auth = WebhookAuth::None;
        }
    }
    if let Subject::Rules(of) = &case.subject
        && !of.carry_out
    {
        for action in site.actions.values_mut() {
            Arc::make_mut(action).runner = crate::runners::noop::KIND.name.to_string();
        }
    }
    site
}

/// A rule is tried as if it were enabled and not in shadow: what it would do is what its author wants to know before it is.
fn in_earnest(rule: &mut Arc<CompiledRule>) {
    if rule.rule.enabled && rule.rule.mode == Mode::Active {
        return;
    }
    let active = crate::model::rule::Rule { enabled: true, mode: Mode::Active, ..rule.rule.clone() };
    if let Ok(compiled) = CompiledRule::compile(active) {
        *rule = Arc::new(compiled);
    }
}
