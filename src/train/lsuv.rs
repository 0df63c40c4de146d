//! Scales weights so that the outputs of layers have unit variance (`init = "lsuv"`).

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::layers::{Activation, Mode, Role, Setup, SingleLayer};
use crate::network::{Network, Source};

/// The most samples of the batch that are used.
const MOST_SAMPLES: usize = 64;
/// The distance of a variance from 1 that is left; 0.1 in the paper.
const NEAR: f64 = 0.01;
/// The most times that a layer is scaled, as in the paper.
const MOST_SCALED: usize = 10;

/// Returns the scaled values of some parameters. Layers run one after another on the CPU, in f64, on the first samples of a
/// batch, with the weights that `read` returns.
///
/// # Errors
/// If a layer fails, or if the outputs of a layer to be scaled are all the same.
pub fn scaled(
    network: &Network,
    parameters: &[usize],
    threads: usize,
    batch: &Batch,
    read: impl Fn(usize) -> Result<Vec<f64>>,
) -> Result<Vec<(usize, Vec<f64>)>> {
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
    let mut all = Vec::new();
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
            layer.values_mut(Role::Param(own)).copy_from_slice(&read(parameter)?);
        }
        layer.forward()?;
        let own = node.params.iter().copied().enumerate();
        let scaled: Vec<(usize, usize)> = own.filter(|(_, parameter)| parameters.contains(parameter)).collect();
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
            for &(own, _) in &scaled {
                layer.values_mut(Role::Param(own)).iter_mut().for_each(|value| *value /= variance.sqrt());
            }
            layer.forward()?;
        }
        all.extend(scaled.into_iter().map(|(own, parameter)| (parameter, layer.values(Role::Param(own)).to_vec())));
        outputs.push(layer.values(Role::Y).to_vec());
        for source in &node.inputs {
            if let Source::Node(before) = source
                && last_use[*before] == index
            {
                outputs[*before] = Vec::new();
            }
        }
    }
    Ok(all)
}

fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count
}
