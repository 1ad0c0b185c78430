//! `signalman pack test`.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use super::watch::{Changed, Watch};
use crate::cli::{Answer, Common, Failure, print_line};
use crate::document::fields::Faults;
use crate::packtest::plan::{Choice, Plan, locate};
use crate::packtest::{self, Options, Played, junit, report};

/// Exit codes: 0 all cases passed, 1 some did not, 2 a file cannot be read.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Folders of packs, or names of packs of the site; all packs of the site if none is given
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Only cases whose name holds this
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Begin no further case after one has failed
    #[arg(long)]
    fail_fast: bool,
    /// Play again whatever a change concerns, until the process is ended
    #[arg(long)]
    watch: bool,
    /// Write a report for CI systems into this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// What ids are made from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<Answer, Failure> {
    let (site, packs) = locate(&common.site, &arguments.folders).map_err(Failure::misuse)?;
    if !site.is_dir() {
        return Err(Failure::misuse(format!("`{}` is not a folder", site.display())));
    }
    if !arguments.watch {
        return once(common, arguments, &site, &packs);
    }
    let failed = |error: notify::Error| Failure::failed(format!("`{}` cannot be watched: {error}", site.display()));
    let watch = Watch::begin(&site).map_err(failed)?;
    let mut concerned = packs.clone();
    loop {
        if let Err(failure) = once(common, arguments, &site, &concerned) {
            print_line(&failure.message);
        }
        print_line("… waiting for changes");
        concerned = match watch.next() {
            None => return Ok(Answer::Yes),
            Some(Changed::Everything) => packs.clone(),
            // Packs that are not wanted are not played for being changed; a pack that has gone takes its cases with it.
            Some(Changed::Packs(changed)) => {
                let wanted = |pack: &String| (packs.is_empty() || packs.contains(pack)) && site.join("packs").join(pack).is_dir();
                changed.into_iter().filter(wanted).collect()
            }
        };
        if concerned.is_empty() {
            concerned.clone_from(&packs);
        }
    }
}

/// Plays the tests of some packs and tells.
fn once(common: &Common, arguments: &Arguments, site: &Path, packs: &[String]) -> Result<Answer, Failure> {
    let choice = Choice { site, packs, case: arguments.case.as_deref() };
    let plan = Plan::read(&choice).map_err(|faults| refused(&faults))?;
    if plan.is_empty() {
        let what = arguments
            .case
            .as_ref()
            .map_or("there are no tests; write `packs/NAME/tests/*.yaml`".to_string(), |case| format!("no case is named `{case}`"));
        return Err(Failure::misuse(what));
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let options = Options { seed: arguments.seed, fail_fast: arguments.fail_fast, threads };
    let played = packtest::run(&plan, options).map_err(|error| Failure::failed(format!("no thread: {error}")))?;
    if let Some(file) = &arguments.junit {
        let again = |one: &Played| command(common, arguments, one);
        let text = junit::of(&played, again).map_err(Failure::failed)?;
        std::fs::write(file, text).map_err(|error| Failure::failed(format!("`{}` cannot be written: {error}", file.display())))?;
    }
    common.show(&report::data(&played, plan.len(), arguments.seed), || tell(common, arguments, &played, plan.len()));
    Ok(if played.iter().all(Played::passed) { Answer::Yes } else { Answer::No })
}

fn tell(common: &Common, arguments: &Arguments, played: &[Played], all: usize) {
    for one in played.iter().filter(|one| !one.passed()) {
        for line in report::failed(one, &command(common, arguments, one)) {
            print_line(&line);
        }
        print_line("");
    }
    print_line(&report::summary(played, all, arguments.seed));
}

/// The command that plays the pack of a case again.
fn command(common: &Common, arguments: &Arguments, one: &Played) -> String {
    let site = if common.site == Path::new(".") { String::new() } else { format!(" --site {}", common.site.display()) };
    let given = arguments.folders.iter().find(|folder| folder.file_name().is_some_and(|name| name == one.pack.as_str()));
    format!("signalman{site} pack test {}", given.map_or_else(|| one.pack.clone(), |folder| folder.display().to_string()))
}

fn refused(faults: &Faults) -> Failure {
    let texts: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
    Failure::misuse(format!("the tests cannot be played:\n\n{}", texts.join("\n\n")))
}
