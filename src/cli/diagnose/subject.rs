//! What `diagnose hessian` and `diagnose landscape` look at: a configuration or a run with its weights, and training samples.

use crate::cli::output::notes;
use crate::data::{Batch, Batches};
use crate::diagnose::{Subject, Weights};
use crate::error::{Error, Result};
use crate::program::Persistent;
use crate::storage::Fs;
use crate::train::weights::{TensorData, TensorFile};
use crate::train::{DataPolicy, Job, checkpoint, directory, exchange};
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;

/// The arguments that say what is looked at.
#[derive(Debug, clap::Args)]
pub(super) struct SubjectArguments {
    /// The configuration; or a run directory, whose newest checkpoint is used, or a checkpoint.
    config: PathBuf,
    /// Overrides a key of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Number of training samples, the first of the first epoch, as training sees them.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    samples: usize,
}

/// A network with weights, and a batch.
pub(super) struct WeightedSubject {
    pub(super) job: Job,
    pub(super) weights: Weights,
    batch: Batch,
    threads: usize,
    /// The run directory or checkpoint, if it is one.
    run: Option<PathBuf>,
}

impl WeightedSubject {
    /// Reads everything. The devices of the file need not be present.
    ///
    /// # Errors
    /// Mistakes in the configuration, and data or weights that cannot be read.
    pub(super) fn open(arguments: &SubjectArguments) -> Result<Self> {
        let mut sets = arguments.sets.clone();
        sets.push(format!("data.batch={}", arguments.samples));
        let one = ["devices.use=\"cpu\"", "devices.mesh={}", "devices.precision=\"f64\"", "train.accumulate=1"];
        sets.extend(one.map(String::from));
        let run = arguments.config.is_dir().then(|| arguments.config.clone());
        let (mut job, plan) = match &run {
            Some(run) => {
                let path = std::path::absolute(run).map_err(|error| Error::io(run, "read", error))?;
                sets.push(format!("model.from={:?}", path.display().to_string()));
                Job::complete(directory::read_config(run, &sets)?, DataPolicy::Required)?
            }
            None => Job::open(&arguments.config, &sets, DataPolicy::Required)?,
        };
        notes(&job.notes);
        let threads = plan.spec.target.threads();
        let data = crate::data::open(&job.config.data, job.config.seed, &job.config.base)?;
        let mut session = job.session(plan)?;
        job.initialise(&mut session, &data)?;
        let parameters = 0..job.network.parameters.len();
        let weights =
            parameters.map(|p| exchange::read_values(&session, Persistent::Parameter(p))).collect::<Result<_>>()?;
        let mut batches = Batches::train(&data);
        let mut batch = batches.empty();
        batches.fill(0, 0, &mut batch)?;
        Ok(WeightedSubject { job, weights, batch, threads, run })
    }

    /// Returns the network on the batch.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            network: &self.job.network,
            seed: self.job.config.seed,
            images: &self.batch.images,
            targets: &self.batch.targets,
            target_width: self.batch.targets.len() / self.batch.rows,
            threads: self.threads,
        }
    }

    /// Returns the number of samples.
    pub(super) fn samples(&self) -> usize {
        self.batch.rows
    }

    /// Returns the weights of all checkpoints of the run, the oldest first; none for a configuration.
    ///
    /// # Errors
    /// If a checkpoint cannot be read, or has other parameters.
    pub(super) fn checkpoints(&self) -> Result<Vec<Weights>> {
        let Some(run) = &self.run else { return Ok(Vec::new()) };
        let fs = Fs::default();
        let all = checkpoint::all(&fs, run)?;
        all.iter().rev().map(|path| self.weights_of(&checkpoint::read(&fs, path)?.model)).collect()
    }

    fn weights_of(&self, model: &TensorFile) -> Result<Weights> {
        let values = |parameter: &crate::network::Parameter| {
            let index = model.find(&parameter.name);
            let missing = || Error::file(&model.path, format!("has no tensor \"{}\"", parameter.name));
            let values = match model.tensor(index.ok_or_else(missing)?)?.data {
                TensorData::F32(values) => values.into_iter().map(f64::from).collect(),
                TensorData::F64(values) => values,
            };
            Ok(exchange::from_file(&parameter.param, &values))
        };
        self.job.network.parameters.iter().map(values).collect()
    }

    /// Returns the points of a function of two variables that the steps of the run have recorded.
    ///
    /// # Errors
    /// If metrics.jsonl cannot be read.
    pub(super) fn recorded_path(&self) -> Result<Vec<[f64; 2]>> {
        let Some(run) = &self.run else { return Ok(Vec::new()) };
        let file = run.join("metrics.jsonl");
        if !file.is_file() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&file).map_err(|error| Error::io(&file, "read", error))?;
        let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let point = |event: serde_json::Value| Some([event["x"].as_f64()?, event["y"].as_f64()?]);
        Ok(events.filter_map(point).collect())
    }
}

/// A bar that shows how much is done, on a terminal alone.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(all: usize, what: &str) -> Self {
        if !stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let template = format!("{{wide_bar}} {{pos}}/{{len}} {what}");
        let style = ProgressStyle::with_template(&template).expect("the template is well formed");
        Progress(ProgressBar::with_draw_target(Some(all as u64), ProgressDrawTarget::stderr()).with_style(style))
    }

    /// Shows that so many are done.
    pub(super) fn at(&self, done: usize) {
        self.0.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
