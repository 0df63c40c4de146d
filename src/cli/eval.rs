//! `peristyle eval RUN_OR_CHECKPOINT`.

use super::output::{notes, print};
use crate::error::{Error, Result};
use crate::report::RunEvent;
use crate::storage::Fs;
use crate::train::{DataPolicy, EvaluatedWeights, Job, Run, Stop, checkpoint, directory};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run directory, whose newest valid checkpoint is used, or a checkpoint.
    run: PathBuf,
    /// Test data to use instead, as in --data '{ idx = { images = "a.gz", labels = "b.gz" } }'.
    #[arg(long, value_name = "SOURCE")]
    data: Option<String>,
    /// Sets a key of the run's configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Evaluates the weights themselves where the run also keeps their averages (train.ema).
    #[arg(long)]
    trained: bool,
    /// The devices to use instead of the run's.
    #[arg(long, value_name = "DEVICES")]
    devices: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut sets = arguments.sets.clone();
    sets.extend(arguments.data.iter().map(|data| format!("data.test={data}")));
    sets.extend(arguments.devices.iter().map(|devices| format!("devices.use={devices:?}")));
    let checked = directory::read_config(&arguments.run, &sets).map_err(|error| as_given(arguments, error))?;
    let found = checkpoint::latest(&Fs::default(), &arguments.run, "")?;
    let opened = match &found.checkpoint.info.data {
        Some(record) => Job::to_evaluate(checked, record),
        // The normalisation has to be measured again.
        None => Job::complete(checked, DataPolicy::Trained),
    };
    let (job, plan) = opened.map_err(|error| as_given(arguments, error))?;
    if plan.programs.is_empty() {
        let message = "the run has no test data and no validation share; give test data with --data";
        return Err(Error::Usage(format!("{}: {message}", arguments.run.display())));
    }
    let weights = if arguments.trained { EvaluatedWeights::Trained } else { EvaluatedWeights::Averaged };
    let mut run = Run::to_evaluate(job, plan, &found.checkpoint, weights)?;
    let skipped = found.skipped.iter().map(|skipped| format!("skipped a checkpoint: {}", skipped.with_causes()));
    notes(&run.job().notes.iter().cloned().chain(skipped).collect::<Vec<_>>());
    let (events, result) = run.evaluations(&Stop::default())?.expect("nothing requests a stop");
    for event in events {
        if let RunEvent::Eval { step, split, loss, metrics, images } = event {
            let metrics: String =
                metrics.iter().map(|metric| format!("  {} {:.4}", metric.name, metric.value)).collect();
            print(&format!("step {step}  {split}: loss {loss:.6}{metrics}  ({images} images)\n"))?;
        }
    }
    result
}

/// Names the option of a problem as it was given: `--data`, not the `--set` that it stands for.
fn as_given(arguments: &Arguments, error: Error) -> Error {
    let Error::Config(mut problems) = error else { return error };
    for (option, set, given) in [
        ("--data", "--set data.test", arguments.data.is_some()),
        ("--devices", "--set devices.use", arguments.devices.is_some()),
    ] {
        let at = problems.found.iter_mut().filter(|problem| given && problem.location == set);
        at.for_each(|problem| problem.location = option.to_string());
    }
    Error::Config(problems)
}
