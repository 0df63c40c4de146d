//! Scales of initial weights with which the outputs of layers have unit variance (`init = "lsuv"`).

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::layers::{Activation, Mode, Role, Setup, SingleLayer};
use crate::network::{self, Network, Source};

/// The most samples of the batch that are used.
const MOST_SAMPLES: usize = 64;
/// The distance of a variance from 1 that is left, and the most times that a layer is scaled, as in the paper.
const NEAR: f64 = 0.01;
const MOST_SCALED: usize = 10;

/// Returns the parameters to be scaled, with their factors. Layers run one after another on the CPU, in f64, on the first
/// samples of a batch.
///
/// # Errors
/// If a layer fails, or if the outputs of a layer to be scaled are all the same.
pub fn scales(network: &Network, seed: u64, threads: usize, batch: &Batch) -> Result<Vec<(usize, f64)>> {
    let (features, rows) = (network.input.features(), batch.rows.min(MOST_SAMPLES));
    let images: Vec<f64> = batch.images[..rows * features].iter().map(|&pixel| f64::from(pixel)).collect();
    let mut outputs: Vec<Vec<f64>> = Vec::new();
    let mut last_use = vec![0; network.nodes.len()];
    for (index, node) in network.nodes.iter().enumerate().filter(|(_, node)| !node.is_loss()) {
        for source in &node.inputs {
            if let Source::Node(before) = source {
                last_use[*before] = index;
            }
        }
    }
    let mut scales = Vec::new();
    for (index, node) in network.nodes.iter().enumerate().filter(|(_, node)| !node.is_loss()) {
        let shape = |source: &Source| match source {
            Source::Node(before) => network.nodes[*before].output,
            Source::Images => network.input,
        };
        let inputs: Vec<Activation> = node.inputs.iter().map(shape).collect();
        let setup = Setup { mode: Mode::Train, threads, ..Setup::of_rows(rows) };
        let failed = |fault: crate::error::Fault| Error::Run(format!("layer \"{}\": {}", node.name, fault.message));
        let mut layer = SingleLayer::<f64>::new(&*node.layer, &inputs, &setup).map_err(failed)?;
        for (input, source) in node.inputs.iter().enumerate() {
            let values = match source {
                Source::Node(before) => &outputs[*before],
                Source::Images => &images,
            };
            layer.values_mut(Role::X(input)).copy_from_slice(values);
        }
        for (own, &parameter) in node.params.iter().enumerate() {
            let elements = network.parameters[parameter].param.shape.elements();
            let values = network::initial(network, seed, parameter).elements(0..elements);
            layer.values_mut(Role::Param(own)).copy_from_slice(&values);
        }
        layer.forward()?;
        let is_scaled = |parameter: usize| {
            let parameter = &network.parameters[parameter];
            parameter.param.init.is_none() && parameter.init.0.scales_outputs()
        };
        let scaled: Vec<(usize, usize)> =
            node.params.iter().copied().enumerate().filter(|(_, parameter)| is_scaled(*parameter)).collect();
        let mut factor = 1.0;
        for _ in 0..if scaled.is_empty() { 0 } else { MOST_SCALED } {
            let variance = variance(layer.values(Role::Y));
            if !(variance > 0.0 && variance.is_finite()) {
                let what = "the first batch gives it outputs of variance";
                let message = format!("init = \"lsuv\" in layer \"{}\": {what} {variance}", node.name);
                return Err(Error::Run(format!("{message}; use another init there")));
            }
            if (variance - 1.0).abs() < NEAR {
                break;
            }
            factor /= variance.sqrt();
            for &(own, _) in &scaled {
                layer.values_mut(Role::Param(own)).iter_mut().for_each(|value| *value /= variance.sqrt());
            }
            layer.forward()?;
        }
        scales.extend(scaled.into_iter().map(|(_, parameter)| (parameter, factor)));
        outputs.push(layer.values(Role::Y).to_vec());
        for source in &node.inputs {
            if let Source::Node(before) = source
                && last_use[*before] == index
            {
                outputs[*before] = Vec::new();
            }
        }
    }
    Ok(scales)
}

fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count
}
