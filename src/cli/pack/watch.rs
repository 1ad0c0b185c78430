//! `signalman pack test --watch`: plays again what a change concerns.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use notify::{Event, EventKind, RecursiveMode, Watcher};

/// Changes that come together, as when an editor saves several files, are one.
const QUIET: Duration = Duration::from_millis(50);

/// Folders and files of a site that make up what is tested.
const WATCHED: &[&str] = &["packs", "rules", "workflows", "signalman.yaml"];

/// Watches a site.
pub(super) struct Watch {
    site: PathBuf,
    events: Receiver<notify::Result<Event>>,
    _watcher: notify::RecommendedWatcher,
}

/// What a change concerns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// These packs only.
    Packs(Vec<String>),
    /// What every pack may use.
    Everything,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the operating system does not tell of changes.
    pub(super) fn begin(site: &Path) -> notify::Result<Self> {
        let site = site.canonicalize()?;
        let (tell, events) = channel();
        let mut watcher = notify::recommended_watcher(tell)?;
        for name in WATCHED {
            let path = site.join(name);
            if path.exists() {
                watcher.watch(&path, RecursiveMode::Recursive)?;
            }
        }
        Ok(Self { site, events, _watcher: watcher })
    }

    /// Waits for a change, and until nothing changes any more. Nothing once there will be none.
    pub(super) fn next(&self) -> Option<Changed> {
        loop {
            let mut paths = changed(&self.events.recv().ok()?);
            while let Ok(event) = self.events.recv_timeout(QUIET) {
                paths.extend(changed(&event));
            }
            if !paths.is_empty() {
                return Some(concerned(&self.site, &paths));
            }
        }
    }
}

/// The paths that an event tells of, unless something was only read.
fn changed(event: &notify::Result<Event>) -> Vec<PathBuf> {
    match event {
        Ok(event) if !matches!(event.kind, EventKind::Access(_)) => event.paths.clone(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

fn concerned(site: &Path, paths: &[PathBuf]) -> Changed {
    let mut packs = BTreeSet::new();
    for path in paths {
        let parts = path.strip_prefix(site).unwrap_or(path).components();
        let parts: Vec<String> = parts
            .filter_map(|part| if let Component::Normal(name) = part { Some(name.to_string_lossy().into_owned()) } else { None })
            .collect();
        match parts.as_slice() {
            [packs_folder, pack, ..] if packs_folder == "packs" => packs.insert(pack.clone()),
            _ => return Changed::Everything,
        };
    }
    Changed::Packs(packs.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_its_pack_or_everything() {
        let concerned = |paths: &[&str]| concerned(Path::new("/site"), &paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        let shop = concerned(&["/site/packs/shop/actions/a.rhai", "/site/packs/shop/tests/b.yaml", "/site/packs/cart"]);
        assert_eq!(shop, Changed::Packs(vec!["cart".into(), "shop".into()]));
        assert_eq!(concerned(&["/site/packs/shop/a", "/site/rules/b.yaml"]), Changed::Everything);
        assert_eq!(concerned(&["/site/signalman.yaml"]), Changed::Everything);
    }
}
