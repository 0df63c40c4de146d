//! The losses of single samples.
//!
//! The outputs that a loss reads are shown while the evaluation programs run, and the loss of each row is computed on the host, in f64. So it
//! depends on devices by the rounding of the outputs alone. In checkpoints, the losses of the epoch under way are one tensor beside the state of
//! the optimiser.

use super::checkpoint::Checkpoint;
use super::manifest::ADVICE;
use super::weights::{ByteSink, TensorData, TensorFile, TensorSource, TensorSpec};
use crate::error::{Error, Result};
use crate::layers::{Mode, Role, Setup, SingleLayer};
use crate::network::Network;
use crate::program::{LocalOperand, Observer};
use crate::tensor::Shape;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The name of the losses in checkpoints.
const NAME: &str = "data.losses";

/// The losses by which the samples of an epoch are chosen.
#[derive(Debug, Clone)]
pub(super) struct SampleLosses {
    /// The epoch.
    pub epoch: u64,
    /// The loss of each training sample.
    pub values: Arc<[f32]>,
}

/// Returns a finite loss with three digits, so that devices whose sums differ by rounding mostly agree.
pub(super) fn rounded(loss: f64) -> f32 {
    let digits = format!("{loss:.2e}");
    digits.parse::<f32>().expect("a number in print is a number").clamp(f32::MIN, f32::MAX)
}

/// What a loss reads of a batch.
#[derive(Debug, Default)]
pub(super) struct LossInput {
    /// The values of all samples: (rows, values of a sample).
    pub values: Vec<f64>,
    /// Which rows have been seen: a device of another process may have the others.
    seen: Vec<bool>,
}

/// What the losses of a network read in a step.
#[derive(Debug)]
pub(super) struct LossInputs {
    /// The nodes that are losses.
    losses: Vec<usize>,
    /// What has been seen of each of them.
    seen: Mutex<BTreeMap<usize, LossInput>>,
}

impl LossInputs {
    /// Creates what the losses of some nodes read, before anything is seen.
    pub fn new(losses: Vec<usize>) -> Self {
        LossInputs { losses, seen: Mutex::default() }
    }

    /// Returns what has been seen, and forgets it.
    pub fn take(&self) -> BTreeMap<usize, LossInput> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for LossInputs {
    fn most_values(&self, node: usize) -> usize {
        if self.losses.contains(&node) { usize::MAX } else { 0 }
    }

    fn output(&self, node: usize, operand: &LocalOperand, values: &[f64]) {
        let rows = operand.window.len[0];
        let width = values.len() / rows;
        assert_eq!(width * operand.shape.0[0], operand.shape.elements(), "a loss reads whole samples");
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = seen.entry(node).or_default();
        all.values.resize(operand.shape.elements(), 0.0);
        all.seen.resize(operand.shape.0[0], false);
        all.values[operand.window.start[0] * width..][..values.len()].copy_from_slice(values);
        all.seen[operand.window.start[0]..][..rows].fill(true);
    }

    fn gradients(&self, _: usize, _: &dyn Fn(Range<usize>) -> Result<Vec<f64>>) -> Result<()> {
        Ok(())
    }
}

/// The losses of a network, each for one sample.
pub(super) struct RowLosses<'n> {
    /// For each loss its node, its weight and its layer.
    layers: Vec<(usize, f64, SingleLayer<'n, f64>)>,
    target_width: usize,
}

impl<'n> RowLosses<'n> {
    /// Prepares the losses of a network, with targets of so many values for a sample.
    ///
    /// # Errors
    /// If a loss does not suit what it reads.
    pub fn new(network: &'n Network, target_width: usize) -> Result<Self> {
        let mut layers = Vec::new();
        for (index, node) in network.nodes.iter().enumerate().filter(|(_, node)| node.is_loss()) {
            let setup = Setup { mode: Mode::Eval, requires_dx: false, target_width, ..Setup::of_rows(1) };
            let layer = SingleLayer::new(&*node.layer, &node.input_shapes, &setup)
                .map_err(|fault| Error::Run(format!("layer \"{}\": {}", node.name, fault.message)))?;
            layers.push((index, node.loss_weight, layer));
        }
        Ok(RowLosses { layers, target_width })
    }

    /// Returns the nodes that are losses.
    pub fn nodes(&self) -> Vec<usize> {
        self.layers.iter().map(|(node, ..)| *node).collect()
    }

    /// Returns the loss of the network for each row of a batch, given what its losses read; none for a row that has not been seen.
    ///
    /// # Errors
    /// If a loss fails.
    pub fn of(&mut self, inputs: &BTreeMap<usize, LossInput>, targets: &[f32]) -> Result<Vec<Option<f64>>> {
        let rows = targets.len() / self.target_width;
        let mut sums = vec![Some(0.0); rows];
        for (node, weight, layer) in &mut self.layers {
            let Some(LossInput { values, seen }) = inputs.get(node) else { return Ok(vec![None; rows]) };
            let width = values.len() / rows;
            for (row, of_row) in sums.iter_mut().enumerate() {
                let Some(sum) = of_row.as_mut().filter(|_| seen[row]) else {
                    *of_row = None;
                    continue;
                };
                layer.values_mut(Role::X(0)).copy_from_slice(&values[row * width..][..width]);
                let target = &targets[row * self.target_width..][..self.target_width];
                layer.values_mut(Role::Target).iter_mut().zip(target).for_each(|(to, &from)| *to = f64::from(from));
                layer.forward()?;
                *sum += *weight * layer.values(Role::Metrics)[0];
            }
        }
        Ok(sums)
    }
}

/// The state of a checkpoint, with the losses of the epoch under way.
pub(super) struct WithLosses<'a> {
    /// The state without them.
    pub state: &'a dyn TensorSource,
    /// The losses, if there are any.
    pub losses: Option<&'a [f32]>,
}

impl TensorSource for WithLosses<'_> {
    fn specs(&self) -> Vec<TensorSpec> {
        let own = |losses: &[f32]| TensorSpec {
            name: NAME.to_string(),
            shape: Shape::from([losses.len()]),
            dtype: Dtype::F32,
        };
        self.state.specs().into_iter().chain(self.losses.map(own)).collect()
    }

    fn stream(&self, index: usize, sink: ByteSink) -> Result<()> {
        match self.losses {
            Some(losses) if index == self.state.specs().len() => sink(&TensorData::F32(losses.to_vec()).bytes()),
            _ => self.state.stream(index, sink),
        }
    }
}

/// Returns the tensor of a checkpoint's state that has its losses.
pub(super) fn index(state: &TensorFile) -> Option<usize> {
    state.find(NAME)
}

/// Reads the losses of a checkpoint, if it has those of so many samples.
///
/// # Errors
/// If they cannot be read, or are not finite floats.
pub(super) fn read(checkpoint: &Checkpoint, samples: usize) -> Result<Option<SampleLosses>> {
    let state = &checkpoint.state;
    let Some(index) = index(state) else { return Ok(None) };
    let epoch = checkpoint.info.place.epoch;
    match state.tensor(index)?.data {
        TensorData::F32(values) if values.iter().any(|loss| !loss.is_finite()) => {
            Err(Error::file(&state.path, format!("\"{NAME}\" has values that are not finite; {ADVICE}")))
        }
        TensorData::F32(values) if values.len() == samples => Ok(Some(SampleLosses { epoch, values: values.into() })),
        // Of other data: those of this run are measured again.
        TensorData::F32(_) => Ok(None),
        TensorData::F64(_) => {
            Err(Error::file(&state.path, format!("\"{NAME}\" has doubles, expected floats; {ADVICE}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_keep_three_digits() {
        for (loss, expected) in [
            (0.0, 0.0),
            (1.2344999, 1.23),
            (1.235001, 1.24),
            (9.996e-9, 1e-8),
            (123_456.0, 123_000.0),
            (-2.5049, -2.5),
            (1e60, f32::MAX),
        ] {
            assert_eq!(rounded(loss), expected, "{loss}");
        }
    }
}
