//! `peristyle diagnose flight RUN`.

use crate::cli::output::print;
use crate::cluster::flight::report;
use crate::error::Result;
use std::path::PathBuf;

/// Arguments of `diagnose flight`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run directory.
    run: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    print(&report(&arguments.run)?)
}
