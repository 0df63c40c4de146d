//! `peristyle train CONFIG`.

use super::configured::Configured;
use super::launched::{self, Launched, Place};
use super::output::{failure, message, print};
use crate::cluster::{Mover, Process, Stated, Timeouts, requeue, time_left};
use crate::config::OnError;
use crate::error::{Error, Result, printable};
use crate::program::Plan;
use crate::report::{Patience, Reporter, ReporterOptions};
use crate::storage::Fs;
use crate::train::directory::{self, RunDir};
use crate::train::team::agree;
use crate::train::{DataPolicy, Ended, Job, Records, ResumeOptions, Run, Stop, checkpoint, signals};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long before the end of its job a run ends to be queued again, at most; of a short job, a tenth of the time that it has left at the start.
const END_OF_JOB: Duration = Duration::from_secs(120);

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
    let stop = Stop::listen()?;
    let needs = if arguments.resume.is_some() { DataPolicy::Trained } else { DataPolicy::Required };
    let opened = open_job(arguments, needs);
    let process = match &opened {
        Ok((job, _)) => job.config.process.clone(),
        // Without a configuration, a launcher may still say so, and its processes fail together.
        Err(_) => Process::find(&Stated::default(), &variable).ok().flatten(),
    };
    match process {
        None => train(arguments, opened, None, &stop, begin),
        Some(process) => {
            let each = opened.as_ref().map_or(1, |(job, _)| job.config.devices.each());
            let mover = opened.as_ref().map_or(Mover::Nothing, |(job, _)| job.config.devices.mover());
            let timeouts = opened.as_ref().map_or(Timeouts::default(), |(job, _)| job.config.cluster.timeouts);
            launched::run(&process, mover, timeouts, each, |all| train(arguments, opened, Some(all), &stop, begin))
        }
    }
}

/// Returns a variable of the environment, in which a launcher says which process this is.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn open_job(arguments: &Arguments, needs: DataPolicy) -> Result<(Job, Plan)> {
    let Configured { config, .. } = &arguments.configured;
    Job::open_in(Some(&variable), config, &arguments.configured.sets(), needs)
}

/// Trains alone or as one process of a team, all of which call it.
fn train(
    arguments: &Arguments,
    opened: Result<(Job, Plan)>,
    launched: Option<&Launched>,
    stop: &Stop,
    begin: Instant,
) -> Result<()> {
    let team = launched.map(|launched| launched.team);
    let joined = |opened: Result<(Job, Plan)>| {
        let (mut job, plan) = agree(team, opened)?;
        let joined = team.map_or(Ok(()), |team| job.join(team, &plan));
        agree(team, joined).map(|()| (job, plan))
    };
    let (mut job, mut plan) = joined(opened)?;
    let leads = job.leads();
    let taken = leads.then(|| take_directory(arguments, &job.config.name)).transpose();
    let (dir, place) = agree(team, taken)?.unzip();
    let place = launched::place(team, place)?;
    let Place { path, run: id, resumes, continues, .. } = &place;
    let records = Records { dir: path.clone(), run: id.clone(), fs: Fs::of_process() };
    if arguments.resume.is_some() && !continues {
        // It needs all that a new run needs, such as the weights to start from.
        (job, plan) = joined(open_job(arguments, DataPolicy::Required))?;
    }
    if *resumes && !continues {
        job.notes.push("the run ended before its first checkpoint; it starts again at step 0".to_string());
    }
    let (mut run, mut reporter) = match open(arguments, job, plan, &records, &place) {
        Ok(opened) => opened,
        Err(error) => {
            if let Some(dir) = dir.filter(|_| !resumes) {
                dir.abandon();
            }
            return Err(error);
        }
    };
    if let Some(launched) = launched {
        stop.join(launched.team);
        launched.records_in(path);
    }
    if leads
        && run.job().config.cluster.requeue
        && let Some(left) = time_left(&variable)
    {
        stop.at(Instant::now() + left.saturating_sub(END_OF_JOB.min(left / 10)));
    }
    stop.training();
    let result = run.train(&mut reporter, stop, begin);
    drop(reporter);
    // From here on, a failure is a failed run, not a mistake on the command line: a full disk, for example.
    let ended = match result {
        Err(error @ Error::NotFinite(_)) => Err(in_directory(&error, path)),
        // Other processes do not know of it.
        Err(error) => {
            let error = in_directory(&error, path);
            if let Some(launched) = launched {
                launched.fail(&error);
            }
            Err(error)
        }
        Ok(ended) => Ok(ended),
    }?;
    let printed = if leads { print(&(printable(&path.display().to_string()) + "\n")) } else { Ok(()) };
    let (signal, cause) = match (ended, stop.signal()) {
        (Ended::Finished, _) | (Ended::Interrupted, None) => return printed,
        (Ended::Interrupted, Some(signal)) => (signal, signals::name(signal)),
        (Ended::OutOfTime, _) => (signals::AGAIN_SIGNAL, "out of time"),
    };
    if leads && run.job().config.cluster.requeue {
        match requeue(&variable) {
            Ok(Some(job)) => message(&format!("{cause} after step {}: job {job} is queued again", run.step())),
            Ok(None) => message("note: [cluster] requeue has no effect outside a job of Slurm"),
            Err(error) => failure(&error),
        }
    }
    if leads {
        message(&format!("{cause} after step {}; to continue: {}", run.step(), continuation(arguments, path)));
    }
    if let Some(launched) = launched {
        launched.finish();
    }
    signals::end(signal);
}

fn in_directory(error: &Error, path: &Path) -> Error {
    Error::Run(format!("{} (run directory {})", error.with_causes(), path.display()))
}

/// Takes the run directory; returns what other processes need to know of it.
fn take_directory(arguments: &Arguments, name: &str) -> Result<(RunDir, Place)> {
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
    let (path, run, owner) = (dir.path.clone(), dir.run.clone(), dir.owner.clone());
    let continues = resumes && checkpoint::any(&Fs::of_process(), &path)?;
    Ok((dir, Place { path, run, resumes, continues, owner }))
}

/// Opens a run, which resumes or not and continues from a checkpoint or not, and its sinks. The configuration of a run
/// that starts is written first: whatever ends the process from then on, `--resume` continues the run.
fn open(
    arguments: &Arguments,
    job: Job,
    plan: Plan,
    records: &Records,
    &Place { resumes, continues, .. }: &Place,
) -> Result<(Run, Reporter)> {
    let Records { dir, run: id, fs } = records;
    let (resolved, base) = (job.config.resolved.clone(), job.config.base.clone());
    let patience = match job.config.train.checkpoint.on_error {
        OnError::Retry => Patience::Retry,
        OnError::Stop => Patience::None,
    };
    let (leads, team) = (job.leads(), job.team.clone());
    let write_config = |step| match leads {
        true => directory::write_config(fs, dir, id, &resolved, &base, step),
        false => Ok(()),
    };
    let show = || {
        if leads {
            message(&format!("run directory: {}", dir.display()));
        }
    };
    let run = if continues {
        show();
        let options =
            ResumeOptions { allow_change: arguments.allow_change.clone(), verify_data: arguments.verify_data };
        let run = Run::resume(job, plan, records.clone(), &options)?;
        agree(team.as_ref(), write_config(run.step()))?;
        run
    } else {
        agree(team.as_ref(), write_config(0))?;
        show();
        Run::start(job, plan, records.clone())?
    };
    let resume = resumes.then(|| run.step());
    let options = ReporterOptions { steps: run.job().steps(), resume, patience, verbosity: arguments.verbose };
    let reporter = match &team {
        Some(team) if !leads => Reporter::of_process(fs, dir, team.rank(), arguments.verbose),
        _ => Reporter::open(fs, dir, options),
    };
    Ok((run, agree(team.as_ref(), reporter)?))
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
