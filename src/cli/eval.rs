//! `peristyle eval RUN_OR_CHECKPOINT`.

use super::eval_report::{SampleName, SetOutcome, as_json, as_text};
use super::output::{notes, print, print_json};
use crate::data::TEN;
use crate::error::{Error, Result};
use crate::report::RunEvent;
use crate::storage::Fs;
use crate::train::predictions::{OutputKind, PredictionFile, Predictions};
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
    /// Lists so many wrong predictions of each set, the surest first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    mistakes: Option<u32>,
    /// Writes the prediction for every sample to a file: CSV, or JSON Lines if it ends with .jsonl.
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Takes the mean over the four corners and the middle of each picture of the test set, and their mirror images. The loss and the metrics
    /// in the first line are those of single crops.
    #[arg(long)]
    ten_crop: bool,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut sets = arguments.sets.clone();
    sets.extend(arguments.data.iter().map(|data| format!("data.test={data}")));
    sets.extend(arguments.devices.iter().map(|devices| format!("devices.use={devices:?}")));
    let mut checked = directory::read_config(&arguments.run, &sets).map_err(|error| as_given(arguments, error))?;
    if arguments.ten_crop
        && let Some(config) = &mut checked.config
    {
        config
            .data
            .take_ten_crops()
            .map_err(|fault| Error::Usage(format!("{}: --ten-crop: {}", arguments.run.display(), fault.message)))?;
    }
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
    let kind = OutputKind::of(&job.network);
    if arguments.mistakes.is_some() && matches!(kind, OutputKind::Values(_)) {
        let message = "the targets are values, of which a prediction is neither right nor wrong; omit --mistakes";
        return Err(Error::Usage(format!("--mistakes: {message}")));
    }
    let weights = if arguments.trained { EvaluatedWeights::Trained } else { EvaluatedWeights::Averaged };
    let mut run = Run::to_evaluate(job, plan, &found.checkpoint, weights)?;
    let skipped = found.skipped.iter().map(|skipped| format!("skipped a checkpoint: {}", skipped.with_causes()));
    notes(&run.job().notes.iter().cloned().chain(skipped).collect::<Vec<_>>());
    let file = arguments.predictions.as_deref().map(PredictionFile::create).transpose()?;
    let names = run.class_names();
    let mut predictions = Predictions::new(kind, arguments.mistakes.unwrap_or(0) as usize, names.clone(), file)
        .over_views(if arguments.ten_crop { TEN } else { 1 });
    let stop = Stop::default();
    let evaluated = match (kind, &arguments.predictions) {
        (OutputKind::Values(_), None) => run.evaluations(&stop),
        _ => run.evaluations_with(&stop, &mut |set, batch| predictions.add(set, &batch)),
    };
    let (events, result) = evaluated?.expect("nothing requests a stop");
    let mut reports = predictions.finish()?;
    let outcome = |event: RunEvent| {
        let RunEvent::Eval { step, split, loss, metrics, images } = event else { return None };
        let report = reports.iter().position(|(name, _)| *name == split).map(|index| reports.swap_remove(index).1);
        Some(SetOutcome { step, set: split, loss, metrics, images, report })
    };
    let sample_name: SampleName = &|set, sample| run.sample_name(set, sample);
    let outcomes: Vec<SetOutcome> = events.into_iter().filter_map(outcome).collect();
    if arguments.json {
        print_json(&(as_json(&outcomes, names.as_deref(), sample_name).to_string() + "\n"))?;
    } else {
        print(&outcomes.iter().map(|outcome| as_text(outcome, names.as_deref(), sample_name)).collect::<String>())?;
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
