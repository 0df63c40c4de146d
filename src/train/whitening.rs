//! The whitening of a run in its checkpoints: two tensors beside the state of the optimiser.

use super::checkpoint::Checkpoint;
use super::manifest::ADVICE;
use super::weights::{ByteSink, TensorData, TensorFile, TensorSource, TensorSpec};
use crate::data::Whitening;
use crate::error::{Error, Result};
use crate::tensor::Shape;
use safetensors::tensor::Dtype;
use std::sync::Arc;

/// The state of the optimiser, with the whitening of the data.
pub(super) struct WithWhitening<'a> {
    /// The state of the optimiser.
    pub state: &'a dyn TensorSource,
    /// The whitening, if there is one.
    pub whitening: Option<&'a Whitening>,
}

impl TensorSource for WithWhitening<'_> {
    fn specs(&self) -> Vec<TensorSpec> {
        let mut all = self.state.specs();
        if let Some(whitening) = self.whitening {
            let n = whitening.features();
            let spec = |name: &str, shape| TensorSpec { name: name.to_string(), shape, dtype: Dtype::F32 };
            all.push(spec(Whitening::MEAN, Shape::from([n])));
            all.push(spec(Whitening::MATRIX, Shape::from([n, n])));
        }
        all
    }

    fn stream(&self, index: usize, sink: ByteSink) -> Result<()> {
        let own = self.state.specs().len();
        match self.whitening {
            Some(whitening) if index == own => sink(&TensorData::F32(whitening.mean().to_vec()).bytes()),
            Some(whitening) if index > own => sink(&TensorData::F32(whitening.matrix()).bytes()),
            _ => self.state.stream(index, sink),
        }
    }
}

/// Returns the tensors of a checkpoint's state that are its whitening.
pub(super) fn indices(state: &TensorFile) -> impl Iterator<Item = usize> {
    [Whitening::MEAN, Whitening::MATRIX].into_iter().filter_map(|name| state.find(name))
}

/// Reads the whitening of a checkpoint.
///
/// # Errors
/// If it has none, or tensors of other shapes; if it cannot be read.
pub(super) fn read(checkpoint: &Checkpoint) -> Result<Arc<Whitening>> {
    let state = &checkpoint.state;
    let values = |name| -> Result<Vec<f32>> {
        let missing =
            || Error::file(&checkpoint.path, format!("it has no tensor \"{name}\", which data.whiten needs; {ADVICE}"));
        match state.tensor(state.find(name).ok_or_else(missing)?)?.data {
            TensorData::F32(values) => Ok(values),
            TensorData::F64(_) => {
                Err(Error::file(&state.path, format!("\"{name}\" has doubles, expected floats; {ADVICE}")))
            }
        }
    };
    let (mean, matrix) = (values(Whitening::MEAN)?, values(Whitening::MATRIX)?);
    if mean.len().checked_mul(mean.len()) != Some(matrix.len()) {
        let (n, found) = (mean.len(), matrix.len());
        let message = format!("\"{}\" has {found} values, expected the square of {n}; {ADVICE}", Whitening::MATRIX);
        return Err(Error::file(&state.path, message));
    }
    Ok(Arc::new(Whitening::new(mean, &matrix)))
}
