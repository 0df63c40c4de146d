//! `peristyle train CONFIG`.

use super::configured::Configured;
use super::output::{message, print};
use crate::cluster::Process;
use crate::config::OnError;
use crate::error::{Error, Result, printable};
use crate::program::Plan;
use crate::report::{Patience, Reporter, ReporterOptions};
use crate::storage::Fs;
use crate::train::directory::{self, RunDir};
use crate::train::{DataPolicy, Ended, Job, Records, ResumeOptions, Run, Stop, checkpoint, signals};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The run directory; by default runs/NAME, or runs/NAME-2 and so on if that exists already.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Resumes from the newest checkpoint of the run directory; with "auto", starts a run if there is none.
    #[arg(long, value_name = "auto", num_args = 0..=1, default_missing_value = "always")]
    resume: Option<Resume>,
    /// Resumes although this setting has changed, or one below it: optimizer.lr, optimizer, data.train.
    #[arg(long, value_name = "KEY", requires = "resume")]
    allow_change: Vec<String>,
    /// Compares the contents of all data with those that the checkpoint was trained on, also of files with the same sizes
    /// and times.
    #[arg(long, requires = "resume")]
    verify_data: bool,
    /// Prints messages (-v) or details (-vv).
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Resume {
    Auto,
    #[value(hide = true)]
    Always,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    let (config, sets) = (&arguments.configured.config, arguments.configured.sets());
    let stop = Stop::listen()?;
    let needs = if arguments.resume.is_some() { DataPolicy::Trained } else { DataPolicy::Required };
    let (mut job, mut plan) = Job::open(config, &sets, needs)?;
    if let Some(process) = Process::find(&job.config.cluster, &|name| std::env::var(name).ok())? {
        return Err(Error::Usage(format!(
            "this is {process}, but several processes cannot train together yet; start one process for all GPUs of a machine, or set \
             [cluster] processes = 1 to train independent copies"
        )));
    }
    let (dir, resumes) = take_directory(arguments, &job.config.name)?;
    let records = Records { dir: dir.path.clone(), run: dir.run.clone(), fs: Fs::of_process() };
    let path = dir.path.clone();
    let continues = resumes && checkpoint::any(&records.fs, &path)?;
    if arguments.resume.is_some() && !continues {
        // It needs all that a new run needs, such as the weights to start from.
        (job, plan) = Job::open(config, &sets, DataPolicy::Required)?;
    }
    if resumes && !continues {
        job.notes.push("the run ended before its first checkpoint; it starts again at step 0".to_string());
    }
    let (mut run, mut reporter) = match open(arguments, job, plan, &records, (resumes, continues)) {
        Ok(opened) => opened,
        Err(error) => {
            if !resumes {
                dir.abandon();
            }
            return Err(error);
        }
    };
    stop.training();
    let result = run.train(&mut reporter, &stop, begin);
    drop(reporter);
    // From here on, a failure is a failed run, not a mistake on the command line: a full disk, for example.
    let ended =
        result.map_err(|error| Error::Run(format!("{} (run directory {})", error.with_causes(), path.display())))?;
    let printed = print(&(printable(&path.display().to_string()) + "\n"));
    let (signal, cause) = match (ended, stop.signal()) {
        (Ended::Finished, _) | (Ended::Interrupted, None) => return printed,
        (Ended::Interrupted, Some(signal)) => (signal, signals::name(signal)),
        (Ended::OutOfTime, _) => (signals::AGAIN_SIGNAL, "out of time"),
    };
    message(&format!("{cause} after step {}; to continue: {}", run.step(), continuation(arguments, &path)));
    signals::end(signal);
}

/// Takes the run directory; returns whether it holds a run that is to be resumed.
fn take_directory(arguments: &Arguments, name: &str) -> Result<(RunDir, bool)> {
    let auto = arguments.resume == Some(Resume::Auto);
    let found = match &arguments.run_dir {
        Some(dir) => auto && directory::holds_run(dir),
        None => auto && RunDir::any(name),
    };
    let resumes = found || arguments.resume == Some(Resume::Always);
    let dir = match (&arguments.run_dir, resumes) {
        (Some(dir), true) => RunDir::existing(dir)?,
        (Some(dir), false) => RunDir::fresh(dir)?,
        (None, true) => RunDir::newest(name)?,
        (None, false) => RunDir::next(name)?,
    };
    Ok((dir, resumes))
}

/// Opens a run, which resumes or not and continues from a checkpoint or not, and its sinks. The configuration of a run
/// that starts is written first: whatever ends the process from then on, `--resume` continues the run.
fn open(
    arguments: &Arguments,
    job: Job,
    plan: Plan,
    records: &Records,
    (resumes, continues): (bool, bool),
) -> Result<(Run, Reporter)> {
    let Records { dir, run: id, fs } = records;
    let (resolved, base) = (job.config.resolved.clone(), job.config.base.clone());
    let patience = match job.config.train.checkpoint.on_error {
        OnError::Retry => Patience::Retry,
        OnError::Stop => Patience::None,
    };
    let write_config = |step| directory::write_config(fs, dir, id, &resolved, &base, step);
    let show = || message(&format!("run directory: {}", dir.display()));
    let run = if continues {
        show();
        let options =
            ResumeOptions { allow_change: arguments.allow_change.clone(), verify_data: arguments.verify_data };
        let run = Run::resume(job, plan, records.clone(), &options)?;
        write_config(run.step())?;
        run
    } else {
        write_config(0)?;
        show();
        Run::start(job, plan, records.clone())?
    };
    let resume = resumes.then(|| run.step());
    let options = ReporterOptions { steps: run.job().steps(), resume, patience, verbosity: arguments.verbose };
    Ok((run, Reporter::open(fs, dir, options)?))
}

/// Returns the command that continues the run.
fn continuation(arguments: &Arguments, dir: &Path) -> String {
    let Configured { config, sets, devices } = &arguments.configured;
    let mut words = vec!["peristyle".to_string(), "train".to_string(), quoted(&config.display().to_string())];
    words.extend(sets.iter().map(|set| format!("--set {}", quoted(set))));
    words.extend(devices.iter().map(|devices| format!("--devices {}", quoted(devices))));
    words.extend(arguments.allow_change.iter().map(|key| format!("--allow-change {}", quoted(key))));
    words.push(format!("--resume --run-dir {}", quoted(&dir.display().to_string())));
    words.join(" ")
}

/// Quotes a word for a shell if it needs that.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
