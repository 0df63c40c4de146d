//! `peristyle train CONFIG`.

use super::configured::Configured;
use super::output::print;
use crate::error::{Error, Result};
use crate::report::{Reporter, ReporterOptions};
use crate::train::{DataPolicy, Job, Run, Stop, checkpoint, directory};
use std::path::PathBuf;

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The run directory; by default runs/NAME, or runs/NAME-2 and so on if that exists already.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Resumes from the newest checkpoint of the run directory.
    #[arg(long)]
    resume: bool,
    /// Prints messages (-v) or details (-vv).
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let needs = if arguments.resume { DataPolicy::Trained } else { DataPolicy::Required };
    let (job, plan) = Job::open(&arguments.configured.config, &arguments.configured.sets(), needs)?;
    let name = job.config.name.clone();
    let dir = match (&arguments.run_dir, arguments.resume) {
        (Some(dir), true) => directory::existing(dir)?,
        (Some(dir), false) => directory::fresh(dir)?,
        (None, true) => directory::newest(&name)?,
        (None, false) => directory::next(&name)?,
    };
    let stop = Stop::listen()?;
    let (resolved, steps) = (job.config.resolved.clone(), job.steps());
    let base = job.config.base.clone();
    let mut run = if arguments.resume { Run::resume(job, plan, &dir)? } else { Run::start(job, plan, &dir)? };
    directory::write_config(&dir, &resolved, &base)?;
    let resume = arguments.resume.then(|| run.step());
    if let Some(step) = resume {
        checkpoint::cut_back(&dir, step)?;
    }
    let mut reporter = Reporter::open(&dir, ReporterOptions { steps, resume, verbosity: arguments.verbose })?;
    let result = run.train(&mut reporter, &stop);
    drop(reporter);
    // From here on, a failure is a failed run, not a mistake on the command line: a full disk, for example.
    result.map_err(|error| Error::Run(format!("{} (run directory {})", error.with_causes(), dir.display())))?;
    print(&format!("{}\n", dir.display()));
    Ok(())
}
