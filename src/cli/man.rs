//! `signalman man`: manual pages, from the same definition as the help.

use std::path::PathBuf;

use super::{Answer, Failure, definition, print_line, print_raw_text};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write the page of every command into this folder, instead of printing the first
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let Some(folder) = &arguments.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(definition()).render(&mut page).map_err(|error| Failure::failed(format!("no page: {error}")))?;
        print_raw_text(&String::from_utf8_lossy(&page));
        return Ok(Answer::Yes);
    };
    let unwritten = |error: std::io::Error| Failure::failed(format!("cannot write to `{}`: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(unwritten)?;
    clap_mangen::generate_to(definition(), folder).map_err(unwritten)?;
    print_line(&format!("the pages are in {}; read one with `man -l {}/signalman.1`", folder.display(), folder.display()));
    Ok(Answer::Yes)
}
