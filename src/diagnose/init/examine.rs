//! Runs a network layer by layer, forwards and backwards.

use super::report::{ActivationSummary, InitReport, LayerReport, ParameterSummary};
use super::values::ValueSummary;
use super::verdict::verdict;
use crate::cpu::Scalar;
use crate::data::{self, Batch, Batches};
use crate::diagnose::{Subject, Weights};
use crate::error::{Error, Result};
use crate::layers::{Role, Setup, SingleLayer};
use crate::network::{Node, Source};
use crate::program::Persistent;
use crate::train::{DataPolicy, Job, directory, exchange};
use std::path::Path;

/// A network with its initial values and its first training batch.
#[derive(Debug)]
pub struct InitialNetwork {
    /// The configuration, with one CPU device, and its notes.
    pub job: Job,
    batch: Batch,
    parameters: Weights,
    statistics: Vec<Vec<f64>>,
}

impl InitialNetwork {
    /// Opens a configuration; or a run directory or a checkpoint, with its weights in place of initial ones. The batch has `samples` samples, or all of the training set if that has fewer.
    ///
    /// # Errors
    /// Mistakes in the file, and data or weights that cannot be read.
    pub fn open(path: &Path, sets: &[String], samples: usize) -> Result<InitialNetwork> {
        let mut sets = sets.to_vec();
        sets.extend([format!("data.batch={samples}"), "train.accumulate=1".to_string()]);
        // The devices of the file need not be present.
        let device = ["devices.use=\"cpu\"", "devices.mesh={ data = 1, columns = 1 }", "devices.precision=\"f64\""];
        sets.extend(device.map(String::from));
        let (mut job, plan) = match path.is_dir() {
            true => {
                let whole = std::path::absolute(path).map_err(|error| Error::io(path, "read", error))?;
                sets.push(format!("model.from={:?}", whole.display().to_string()));
                Job::complete(directory::read_config(path, &sets)?, DataPolicy::Required)?
            }
            false => Job::open(path, &sets, DataPolicy::Required)?,
        };
        // Notes on a batch that the file does not have.
        job.notes.retain(|note| !note.starts_with("[data]: batch = "));
        let splits = data::open(&job.config.data, job.config.seed, &job.config.base)?;
        let mut batches = Batches::train(&splits).unmixed();
        let mut batch = batches.empty();
        batches.fill(0, 0, &mut batch)?;
        let mut session = job.session(plan)?;
        job.initialise(&mut session, &splits)?;
        let read = |which| exchange::read_values(&session, which);
        let parameters = (0..job.network.parameters.len()).map(|p| read(Persistent::Parameter(p)));
        let parameters = parameters.collect::<Result<_>>()?;
        let statistics = (0..job.network.statistics.len()).map(|s| read(Persistent::Statistic(s)));
        let statistics = statistics.collect::<Result<_>>()?;
        drop(session);
        Ok(InitialNetwork { job, batch, parameters, statistics })
    }

    /// Returns the number of samples.
    pub fn samples(&self) -> usize {
        self.batch.rows
    }

    /// Returns the values of all parameters.
    pub fn weights(&self) -> &Weights {
        &self.parameters
    }

    /// Returns the network on the batch.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            network: &self.job.network,
            seed: self.job.config.seed,
            images: &self.batch.images,
            targets: &self.batch.targets,
            target_width: self.batch.targets.len() / self.batch.rows,
            threads: self.job.config.devices.threads,
        }
    }

    /// Returns the images of the batch.
    pub(in crate::diagnose) fn images(&self) -> &[f32] {
        &self.batch.images
    }

    /// Returns the number of layers that [`InitialNetwork::examine`] runs, forwards and backwards.
    pub fn num_steps(&self) -> usize {
        2 * self.job.network.nodes.len()
    }

    /// Runs the network forwards and backwards. Calls `stepped` after each layer.
    ///
    /// # Errors
    /// A layer that fails, and values that are not finite.
    pub fn examine(&self, mut stepped: impl FnMut()) -> Result<InitReport> {
        let nodes = &self.job.network.nodes;
        let mut outputs: Vec<Vec<f64>> = Vec::with_capacity(nodes.len());
        let mut loss = 0.0;
        let mut reports: Vec<Option<ActivationSummary>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let layer = self.forward(node, &outputs)?;
            if node.is_loss() {
                loss += node.loss_weight * layer.values(Role::Metrics)[0];
                outputs.push(Vec::new());
                reports.push(None);
            } else {
                let y = layer.values(Role::Y).to_vec();
                finite(node, "outputs", &y)?;
                reports.push(Some(ActivationSummary::of(node.layer.key(), node.output, &y)));
                outputs.push(y);
            }
            stepped();
        }
        if !loss.is_finite() {
            return Err(Error::NotFinite(format!("the loss of the batch is {loss}; use smaller initial values")));
        }
        let depths = hidden_depths(&self.job);
        let mut gradients: Vec<Vec<f64>> = outputs.iter().map(|y| vec![0.0; y.len()]).collect();
        let mut layers = Vec::new();
        for (index, node) in nodes.iter().enumerate().rev() {
            // Run again: keeping what each layer saves would need several times the memory.
            let mut layer = self.forward(node, &outputs)?;
            outputs[index] = Vec::new();
            let dy = std::mem::take(&mut gradients[index]);
            if !node.is_loss() {
                finite(node, "gradients of its outputs", &dy)?;
                layer.values_mut(Role::Dy).copy_from_slice(&dy);
            }
            layer.backward()?;
            for (input, source) in node.inputs.iter().enumerate() {
                if let Source::Node(before) = source {
                    let sum = gradients[*before].iter_mut();
                    sum.zip(layer.values(Role::Dx(input))).for_each(|(sum, dx)| *sum += dx);
                }
            }
            if let Some(activations) = reports[index].take() {
                layers.push(LayerReport {
                    name: node.name.clone(),
                    kind: node.layer.key(),
                    shape: [node.output.h, node.output.w, node.output.c],
                    hidden_depth: depths[index],
                    activations,
                    gradients: ValueSummary::of(&dy),
                    parameters: self.parameters(node, &layer)?,
                });
            }
            stepped();
        }
        layers.reverse();
        let (samples, seed) = (self.batch.rows, self.job.config.seed);
        let verdict = verdict(&layers, samples);
        Ok(InitReport { network: self.job.config.name.clone(), seed, samples, loss, layers, verdict })
    }

    /// Runs a layer forwards, given the outputs of the layers before it.
    fn forward<'a>(&self, node: &'a Node, outputs: &[Vec<f64>]) -> Result<SingleLayer<'a, f64>> {
        let input = |source: &Source| match source {
            Source::Node(before) => outputs[*before].clone(),
            Source::Images => self.batch.images.iter().map(|&x| f64::from(x)).collect(),
        };
        let inputs: Vec<Vec<f64>> = node.inputs.iter().map(input).collect();
        self.run(node, &inputs, node.inputs.iter().any(|source| matches!(source, Source::Node(_))))
    }

    /// Runs a layer forwards on given inputs, and prepares its backward pass, with the gradients of its inputs or without.
    pub(in crate::diagnose) fn run<'a, T: Scalar>(
        &self,
        node: &'a Node,
        inputs: &[Vec<T>],
        requires_dx: bool,
    ) -> Result<SingleLayer<'a, T>> {
        let setup = Setup {
            threads: self.job.config.devices.threads,
            requires_dx,
            target_width: self.batch.targets.len() / self.batch.rows,
            loss_weight: node.loss_weight,
            seed: self.job.config.seed,
            stream: node.stream(),
            ..Setup::of_rows(self.batch.rows)
        };
        let failed = |fault: crate::error::Fault| Error::Run(format!("layer \"{}\": {}", node.name, fault.message));
        let mut layer = SingleLayer::new(&*node.layer, &node.input_shapes, &setup).map_err(failed)?;
        for (input, values) in inputs.iter().enumerate() {
            layer.values_mut(Role::X(input)).copy_from_slice(values);
        }
        let targets = layer.values_mut(Role::Target).iter_mut().zip(&self.batch.targets);
        targets.for_each(|(to, &target)| *to = T::from_f64(target.into()));
        let fill = |to: &mut [T], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, &x)| *to = T::from_f64(x));
        for (own, &parameter) in node.params.iter().enumerate() {
            fill(layer.values_mut(Role::Param(own)), &self.parameters[parameter]);
        }
        for (own, &statistic) in node.statistics.iter().enumerate() {
            fill(layer.values_mut(Role::Statistic(own)), &self.statistics[statistic]);
        }
        layer.forward()?;
        Ok(layer)
    }

    fn parameters(&self, node: &Node, layer: &SingleLayer<f64>) -> Result<Vec<ParameterSummary>> {
        let own = node.params.iter().enumerate();
        own.map(|(own, &parameter)| {
            let gradient = layer.values(Role::DParam(own));
            finite(node, "gradients of its parameters", gradient)?;
            let name = &self.job.network.parameters[parameter].name;
            Ok(ParameterSummary::of(name, &self.parameters[parameter], gradient))
        })
        .collect()
    }
}

/// Returns an error if some values of a layer are not finite.
fn finite(node: &Node, what: &str, values: &[f64]) -> Result<()> {
    let wrong = values.iter().filter(|value| !value.is_finite()).count();
    if wrong == 0 {
        return Ok(());
    }
    let (name, all) = (&node.name, values.len());
    let message = format!("layer \"{name}\": {wrong} of {all} {what} are not finite; use smaller initial values");
    Err(Error::NotFinite(message))
}

/// Returns the number of layers with weights up to each layer of which a layer with weights reads the output.
fn hidden_depths(job: &Job) -> Vec<Option<usize>> {
    let network = &job.network;
    let has_weights = |node: &Node| node.params.iter().any(|&p| network.parameters[p].param.shape.rank() > 1);
    let mut depths: Vec<usize> = Vec::with_capacity(network.nodes.len());
    let mut is_hidden = vec![false; network.nodes.len()];
    for node in &network.nodes {
        let before = node.inputs.iter().filter_map(|source| match source {
            Source::Node(before) => Some(*before),
            Source::Images => None,
        });
        let own = usize::from(has_weights(node));
        depths.push(own + before.clone().map(|before| depths[before]).max().unwrap_or(0));
        before.filter(|_| own > 0).for_each(|before| is_hidden[before] = true);
    }
    // What comes before all weights is not a layer of the network's own.
    let hidden = |(&depth, is_hidden)| (is_hidden && depth > 0).then_some(depth);
    depths.iter().zip(is_hidden).map(hidden).collect()
}
