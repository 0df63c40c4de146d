//! `peristyle train CONFIG`.

use super::configured::Configured;
use super::output::{message, print};
use crate::error::{Error, Result, printable};
use crate::program::Plan;
use crate::report::{Reporter, ReporterOptions};
use crate::train::directory::{self, RunDir};
use crate::train::{DataPolicy, Ended, Job, Run, Stop, checkpoint, launcher, signals};
use std::path::{Path, PathBuf};

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
    let (config, sets) = (&arguments.configured.config, arguments.configured.sets());
    let stop = Stop::listen()?;
    let needs = if arguments.resume { DataPolicy::Trained } else { DataPolicy::Required };
    let (mut job, mut plan) = Job::open(config, &sets, needs)?;
    launcher::check(job.config.independent, |name| std::env::var(name).ok())?;
    let name = job.config.name.clone();
    let dir = match (&arguments.run_dir, arguments.resume) {
        (Some(dir), true) => RunDir::existing(dir)?,
        (Some(dir), false) => RunDir::fresh(dir)?,
        (None, true) => RunDir::newest(&name)?,
        (None, false) => RunDir::next(&name)?,
    };
    let path = dir.path.clone();
    let continues = arguments.resume && checkpoint::any(&path)?;
    if arguments.resume && !continues {
        // It needs all that a new run needs, such as the weights to start from.
        (job, plan) = Job::open(config, &sets, DataPolicy::Required)?;
        job.notes.push("the run ended before its first checkpoint; it starts again at step 0".to_string());
    }
    let (mut run, mut reporter) = match open(arguments, job, plan, &path, continues) {
        Ok(opened) => opened,
        Err(error) => {
            if !arguments.resume {
                dir.abandon();
            }
            return Err(error);
        }
    };
    stop.training();
    let result = run.train(&mut reporter, &stop);
    drop(reporter);
    // From here on, a failure is a failed run, not a mistake on the command line: a full disk, for example.
    let ended =
        result.map_err(|error| Error::Run(format!("{} (run directory {})", error.with_causes(), path.display())))?;
    let printed = print(&(printable(&path.display().to_string()) + "\n"));
    if let (Ended::Interrupted, Some(signal)) = (ended, stop.signal()) {
        let (name, step, config, path) = (signals::name(signal), run.step(), config.display(), path.display());
        message(&format!("{name} after step {step}; to continue: peristyle train {config} --resume --run-dir {path}"));
        signals::end(signal);
    }
    printed
}

/// Opens a run, which `continues` from a checkpoint or starts, and its sinks. The configuration of a run that starts is
/// written first: whatever ends the process from then on, `--resume` continues the run.
fn open(arguments: &Arguments, job: Job, plan: Plan, dir: &Path, continues: bool) -> Result<(Run, Reporter)> {
    let (resolved, steps) = (job.config.resolved.clone(), job.steps());
    let base = job.config.base.clone();
    let write_config = || directory::write_config(dir, &resolved, &base);
    let show = || message(&format!("run directory: {}", dir.display()));
    let run = if continues {
        show();
        let run = Run::resume(job, plan, dir)?;
        write_config()?;
        checkpoint::cut_back(dir, run.step())?;
        run
    } else {
        write_config()?;
        show();
        Run::start(job, plan, dir)?
    };
    let resume = arguments.resume.then(|| run.step());
    let reporter = Reporter::open(dir, ReporterOptions { steps, resume, verbosity: arguments.verbose })?;
    Ok((run, reporter))
}
