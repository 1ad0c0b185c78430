//! Walks the folders of a site, and checks that what refers to something finds it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{fault_at, file_name, files, folders, open, read_text, relative, stem};
use super::kinds::{Contents, KINDS, Kind, PackFile, Reading};
use super::{DEFAULT_PACK, Site, dependencies, manifest, timers};
use crate::config::{self, Environment, Reader, SiteConfig};
use crate::document::fault::SourceFile;
use crate::document::fields::{Faults, did_you_mean};
use crate::model::name::Names;
use crate::model::pack::Pack;
use crate::model::place::Place;

pub(super) fn read(folder: &Path, config: SiteConfig, environment: &Environment, faults: &mut Faults) -> Site {
    let mut site = Site {
        config,
        packs: BTreeMap::new(),
        actions: BTreeMap::new(),
        triggers: BTreeMap::new(),
        sensors: Vec::new(),
        rules: Vec::new(),
        policies: Vec::new(),
        aliases: Vec::new(),
    };
    let mut names = Names::default();
    let reader = Reader { site: folder, environment };
    for pack_folder in folders(&folder.join("packs")) {
        let Some(pack) = read_manifest(folder, &pack_folder, &site.config, faults) else { continue };
        read_pack(folder, pack, &pack_folder, &mut site, &mut names, &reader, faults);
    }
    if !site.packs.contains_key(DEFAULT_PACK) {
        let own = folder.join("packs").join(DEFAULT_PACK);
        let at = absolute(if own.is_dir() { &own } else { folder });
        let pack = Pack { name: "The site itself".into(), folder: at, ..Pack::named(DEFAULT_PACK) };
        read_pack(folder, Arc::new(pack), &own, &mut site, &mut names, &reader, faults);
    }
    check_references(&site, folder, faults);
    for kind in KINDS {
        (kind.check)(&site, folder, faults);
    }
    timers::add(&mut site, folder, faults);
    site
}

fn read_manifest(root: &Path, folder: &Path, config: &SiteConfig, faults: &mut Faults) -> Option<Arc<Pack>> {
    let (source, node) = open(root, &folder.join("pack.yaml"), faults)?;
    let pack = manifest::read(&source, &node, &file_name(folder), config, faults)?;
    Some(Arc::new(Pack { folder: absolute(folder), ..pack }))
}

fn absolute(folder: &Path) -> PathBuf {
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())
}

fn read_pack(root: &Path, pack: Arc<Pack>, folder: &Path, site: &mut Site, names: &mut Names, reader: &Reader<'_>, faults: &mut Faults) {
    let mut contents = Contents::default();
    let mut reading =
        Reading { root, pack: &pack, reader, time_zone: site.config.time_zone, names, faults: &mut *faults, contents: &mut contents };
    for kind in KINDS {
        read_kind(kind, folder, &mut reading);
    }
    contents.join(site);
    tell_other_folders(root, folder, faults);
    site.packs.insert(file_name(folder), pack);
}

fn read_kind(kind: &'static Kind, folder: &Path, reading: &mut Reading<'_>) {
    let mut paths = files(&folder.join(kind.folder), kind.extensions);
    if kind.at_site && file_name(folder) == DEFAULT_PACK {
        paths.extend(files(&reading.root.join(kind.folder), kind.extensions));
    }
    let mut met: HashMap<String, PathBuf> = HashMap::with_capacity(paths.len());
    for path in paths {
        let (stem, shown) = (stem(&path), relative(reading.root, &path));
        let text = match read_text(reading.root, &path) {
            Ok(text) => text,
            Err(message) => {
                reading.faults.push(SourceFile::new(shown, "").whole(message));
                continue;
            }
        };
        let source = SourceFile::new(shown, text);
        if let Some(first) = met.get(&stem) {
            let name = format!("{}.{stem}", reading.pack.reference);
            let fault = source.whole(format!("there is {} `{name}` already, in {}", kind.one, relative(reading.root, first)));
            reading.faults.push(fault.hint("rename one of the files; the file's name is the thing's name"));
            continue;
        }
        met.insert(stem.clone(), path.clone());
        (kind.read)(&PackFile { path, stem, source }, reading);
    }
}

fn tell_other_folders(root: &Path, folder: &Path, faults: &mut Faults) {
    let known: Vec<&str> = KINDS.iter().map(|kind| kind.folder).collect();
    for other in folders(folder).into_iter().filter(|other| !known.contains(&file_name(other).as_str())) {
        let fault = SourceFile::new(relative(root, &other), "").whole("a pack has no such folder; what it holds is ignored");
        faults.push(fault.hint(did_you_mean(&file_name(&other), &known)).as_warning());
    }
}

fn check_references(site: &Site, root: &Path, faults: &mut Faults) {
    let packs: Vec<&str> = site.packs.keys().map(String::as_str).collect();
    for (name, config) in site.config.packs.iter().filter(|(name, _)| !site.packs.contains_key(*name)) {
        let place = Place { file: config::FILE.into(), line: config.place.0, column: config.place.1 };
        let fault = fault_at(root, &place, format!("`config`: there is no pack `{name}`"));
        faults.push(fault.hint(did_you_mean(name, &packs)));
    }
    dependencies::check(site, root, faults);
}
