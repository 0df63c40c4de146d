//! What a watched update shows while it runs: the gradients, and the outputs of activation functions.

use super::outputs::Outputs;
use super::parts::Part;
use crate::error::Result;
use crate::network::Network;
use crate::program::{LocalOperand, Observer};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The most values of a layer's outputs that are read on each device.
const MOST_OUTPUTS: usize = 1 << 20;

/// The observer of watched updates.
#[derive(Debug)]
pub(super) struct View {
    parts: Arc<[Part]>,
    seen: Mutex<Seen>,
}

/// What a watched update has shown.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// For each part, the sum of the squares of its gradients.
    pub gradients: Vec<f64>,
    /// For each node, its outputs, if units may be dead or values saturated.
    pub outputs: Vec<Option<Outputs>>,
}

impl View {
    pub fn new(network: &Network, parts: &Arc<[Part]>) -> Self {
        let outputs = network.nodes.iter().map(|node| Outputs::of(node.layer.key(), node.output)).collect();
        View { parts: Arc::clone(parts), seen: Mutex::new(Seen { gradients: vec![0.0; parts.len()], outputs }) }
    }

    /// Returns what has been seen, and forgets the outputs.
    pub fn take(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seen.clone();
        seen.outputs.iter_mut().flatten().for_each(Outputs::clear);
        taken
    }
}

impl Observer for View {
    fn most_values(&self, node: usize) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.outputs[node].as_ref().map_or(0, |_| MOST_OUTPUTS)
    }

    fn output(&self, node: usize, operand: &LocalOperand, values: &[f64]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outputs) = &mut seen.outputs[node] {
            outputs.add(&operand.window, values);
        }
    }

    fn gradients(&self, device: usize, read: &dyn Fn(Range<usize>) -> Result<Vec<f64>>) -> Result<()> {
        for (index, part) in self.parts.iter().enumerate().filter(|(_, part)| part.device == device) {
            let squares = part.read(read)?.iter().map(|g| g * g).sum::<f64>() * part.scale;
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).gradients[index] = squares;
        }
        Ok(())
    }
}
