//! The weights that a run starts from, as named by `[model] from`: read and compared with the network before the first
//! step.

use super::checkpoint;
use super::exchange;
use super::matching::{Matching, few, match_tensors};
use super::weights::{TensorData, TensorFile, open_model, pieces};
use crate::config::PretrainedWeights;
use crate::data::Base;
use crate::error::{Error, Fault, Result};
use crate::network::{Network, Parameter};
use crate::program::{Persistent, Session};
use crate::storage::Fs;
use crate::tensor::{Precision, Shape};

/// The running statistic that cannot be below 0.
const VARIANCE: &str = "running_var";

/// The weights of a file that fit the network.
#[derive(Debug)]
pub struct Start {
    weights: TensorFile,
    /// The tensors that the network uses: which one, and its index in the file.
    taken: Vec<(Persistent, usize)>,
    /// Notes on tensors that keep their initial values, and on tensors that are not used.
    pub notes: Vec<String>,
}

impl Start {
    /// Opens the file, or the newest complete checkpoint of a run directory, or a checkpoint; returns notes on newer
    /// checkpoints that were skipped.
    ///
    /// # Errors
    /// A file that cannot be read or is not a safetensors file, and a folder without a complete checkpoint.
    pub fn open(from: &PretrainedWeights, base: &Base) -> Result<(TensorFile, Vec<String>)> {
        let path = base.find(&from.file)?;
        if !path.is_dir() {
            return Ok((open_model(&path)?, Vec::new()));
        }
        let found = checkpoint::latest(&Fs::default(), &path, "").map_err(|error| match error {
            Error::File { path, message } => {
                let expected = "expected weights (a safetensors file), a run directory or a checkpoint";
                Error::file(&path, format!("{message}; {expected}"))
            }
            other => other,
        })?;
        let skipped = found.skipped.iter().map(|skipped| format!("skipped a checkpoint: {}", skipped.with_causes()));
        Ok((found.checkpoint.model, skipped.collect()))
    }

    /// Compares a file with the network.
    ///
    /// # Errors
    /// Unknown layers in `skip`, wrong entries in `map`, and every tensor that is missing, or of the wrong shape or type.
    pub fn new(weights: TensorFile, from: &PretrainedWeights, network: &Network) -> Result<Start, Vec<Fault>> {
        let (which, own): (Vec<Persistent>, Vec<&Parameter>) = tensors(network).into_iter().unzip();
        let Matching { taken, kept, unused } = match_tensors(&own, &weights, from)?;
        let file = weights.path.display();
        let mut notes = vec![format!("starting from {file}: {} of {} tensors", taken.len(), own.len())];
        for (what, names) in [("keep their initial values", kept), ("of the file are not used", unused)] {
            if !names.is_empty() {
                notes.push(format!("from {file}: {what}: {}", few(names.iter().map(String::as_str))));
            }
        }
        let taken = taken.into_iter().map(|(own, index)| (which[own], index)).collect();
        Ok(Start { weights, taken, notes })
    }

    /// Returns the fault of values that no network can start from: those that are not finite in the precision of the run,
    /// and variances below 0.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn wrong_values(&self, network: &Network, precision: Precision) -> Result<Option<Fault>> {
        let mut wrong = Vec::new();
        for (which, parameter) in tensors(network) {
            let Some(&(_, index)) = self.taken.iter().find(|(taken, _)| *taken == which) else { continue };
            let least = if parameter.param.name == VARIANCE { 0.0 } else { f64::NEG_INFINITY };
            if let Some((at, value)) = self.first_wrong(index, precision, least)? {
                let place = place(&self.weights.tensors[index].shape, at);
                let why = match value {
                    value if !value.is_finite() => "",
                    value if value < least => ", a variance below 0",
                    _ => ", beyond single precision",
                };
                wrong.push(format!("{}[{place}] is {value:?}{why}", parameter.name));
            }
        }
        Ok((!wrong.is_empty()).then(|| {
            let (file, wrong) = (self.weights.path.display(), few(wrong.iter().map(String::as_str)));
            let message = "expected finite numbers; use another file, or name these layers in skip";
            Fault::at("from", format!("{file} has values that are no weights: {wrong}; {message}"))
        }))
    }

    /// Returns the index and the value of the first wrong element of a tensor.
    fn first_wrong(&self, index: usize, precision: Precision, least: f64) -> Result<Option<(usize, f64)>> {
        let single = precision == Precision::F32;
        let fits = |value: f64| value.is_finite() && value >= least && (!single || (value as f32).is_finite());
        let mut before = 0;
        for rows in pieces(&self.weights.tensors[index].shape) {
            let values = self.weights.rows(index, rows)?;
            let wrong = match &values {
                TensorData::F32(values) => {
                    let at = values.iter().position(|&value| !(value.is_finite() && f64::from(value) >= least));
                    at.map(|at| (before + at, f64::from(values[at])))
                }
                TensorData::F64(values) => {
                    values.iter().position(|&value| !fits(value)).map(|at| (before + at, values[at]))
                }
            };
            if wrong.is_some() {
                return Ok(wrong);
            }
            before += values.len();
        }
        Ok(None)
    }

    /// Returns whether the file has a tensor.
    pub fn has(&self, which: Persistent) -> bool {
        self.taken.iter().any(|(taken, _)| *taken == which)
    }

    /// Copies the weights into the session.
    ///
    /// # Errors
    /// When the file can no longer be read.
    pub fn apply(&self, session: &mut Session, network: &Network) -> Result<()> {
        let own = tensors(network);
        for &(which, i) in &self.taken {
            let parameter = own.iter().find(|(w, _)| *w == which).map(|(_, p)| *p);
            let parameter = parameter.expect("the tensor was matched with this network");
            exchange::import(session, which, parameter, &self.weights, i)?;
        }
        Ok(())
    }
}

/// Returns parameters and running statistics: the contents of a model file.
pub(super) fn tensors(network: &Network) -> Vec<(Persistent, &Parameter)> {
    let parameters = network.parameters.iter().enumerate().map(|(i, p)| (Persistent::Parameter(i), p));
    parameters.chain(network.statistics.iter().enumerate().map(|(i, p)| (Persistent::Statistic(i), p))).collect()
}

/// Returns the indices of an element: `2, 0, 1`.
fn place(shape: &Shape, at: usize) -> String {
    let index = |dim: usize| at / shape.0[dim + 1..].iter().product::<usize>() % shape.0[dim];
    (0..shape.0.len()).map(|dim| index(dim).to_string()).collect::<Vec<_>>().join(", ")
}
