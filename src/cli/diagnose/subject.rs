//! What `diagnose hessian` and `diagnose landscape` look at: a configuration or a run with its weights, and training samples.

use crate::cli::output::notes;
use crate::diagnose::Weights;
use crate::diagnose::init::InitialNetwork;
use crate::error::{Error, Result};
use crate::storage::Fs;
use crate::train::weights::{TensorData, TensorFile};
use crate::train::{checkpoint, exchange};
use clap::builder::RangedU64ValueParser;
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
    pub(super) network: InitialNetwork,
    /// The run directory or checkpoint, if it is one.
    run: Option<PathBuf>,
}

impl WeightedSubject {
    /// Reads everything. The devices of the file need not be present.
    ///
    /// # Errors
    /// Mistakes in the configuration, and data or weights that cannot be read.
    pub(super) fn open(arguments: &SubjectArguments) -> Result<Self> {
        let SubjectArguments { config, sets, samples } = arguments;
        let network = InitialNetwork::open(config, sets, *samples)?;
        notes(&network.job.notes);
        Ok(WeightedSubject { network, run: config.is_dir().then(|| config.clone()) })
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
        self.network.job.network.parameters.iter().map(values).collect()
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
