//! The graph of layers: nodes, parameters and their initial values.

use crate::device::{Random, RandomStream};
use crate::error::Locations;
use crate::layers::init::InitialElement;
use crate::layers::reparam;
use crate::layers::{Activation, Init, Layer, MetricKind, Param, Split};
use std::ops::Range;
use std::sync::Arc;

/// The source of a node's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The images of the batch.
    Images,
    /// The output of an earlier node.
    Node(usize),
}

/// A layer of the graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name: from the file, or `<kind><index among its kind, from 1>`.
    pub name: String,
    /// The layer.
    pub layer: Arc<dyn Layer>,
    /// The sources of its inputs.
    pub inputs: Vec<Source>,
    /// The shapes of the inputs, for one sample.
    pub input_shapes: Vec<Activation>,
    /// The shape of the output, for one sample.
    pub output: Activation,
    /// The split given in the file.
    pub split: Option<Split>,
    /// Its parameters, as indices into [`Network::parameters`].
    pub params: Vec<usize>,
    /// Its running statistics, as indices into [`Network::statistics`].
    pub statistics: Vec<usize>,
    /// The factor of its loss in that of the network; 1 unless it is a loss.
    pub loss_weight: f64,
    /// The locations of the layer and its keys in the file.
    pub locations: Locations,
}

impl Node {
    /// Returns true if it is a loss.
    pub fn is_loss(&self) -> bool {
        self.layer.targets(self.input_shapes[0]).is_some()
    }

    /// Returns the stream of its random numbers: the CRC-32 of its name, so that a layer draws the same numbers whatever
    /// other layers the network has.
    pub fn stream(&self) -> u64 {
        crc32fast::hash(self.name.as_bytes()).into()
    }
}

/// A parameter or running statistic of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in weight files: `conv1.weight`.
    pub name: String,
    /// Its shape, its order in files and its fans.
    pub param: Param,
    /// Its initialisation.
    pub init: Init,
    /// Multiplies the learning rate.
    pub lr_mult: f64,
    /// The group of the optimiser's chain that updates it; 0 unless the file names others.
    pub group: usize,
    /// Multiplies the weight decay.
    pub decay_mult: f64,
}

impl Parameter {
    /// Returns the number of its units: the weights of one output each, or a whole vector.
    pub fn units(&self) -> usize {
        if self.param.shape.rank() > 1 { self.param.shape.0[0] } else { 1 }
    }
}

/// The name of the loss of the network among the results.
const LOSS: &str = "loss";

/// A metric of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMetric {
    /// The node that computes it.
    pub node: usize,
    /// Its name: `top1`; with that of the node in front, `aux.top1`, unless the node is the only loss.
    pub name: Arc<str>,
    /// How it is combined.
    pub kind: MetricKind,
}

/// The network: nodes in topological order; the last nodes are the losses, whose weighted sum is the loss of the network.
#[derive(Debug, Clone)]
pub struct Network {
    /// The shape of an image.
    pub input: Activation,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The parameters, in the order of the nodes.
    pub parameters: Vec<Parameter>,
    /// The running statistics, in the order of the nodes.
    pub statistics: Vec<Parameter>,
    /// The metrics, in the order of the nodes.
    pub metrics: Vec<NetworkMetric>,
}

impl Network {
    /// Returns the losses.
    pub fn losses(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_loss())
    }

    /// Returns which of the metrics are those of a node.
    pub fn metrics_of(&self, node: usize) -> Range<usize> {
        let first = self.metrics.partition_point(|metric| metric.node < node);
        first..first + self.nodes[node].layer.metrics().len()
    }

    /// Returns the loss of the network, given the values of its metrics.
    pub fn loss(&self, values: &[f64]) -> f64 {
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.is_loss());
        nodes.map(|(index, node)| node.loss_weight * values[self.metrics_of(index).start]).sum()
    }

    /// Returns the names of what an evaluation reports, and how each is combined: the loss of the network, then the
    /// metrics.
    pub fn results(&self) -> impl Iterator<Item = (&str, MetricKind)> {
        [(LOSS, MetricKind::Mean)].into_iter().chain(self.reported().map(|(_, metric)| (&*metric.name, metric.kind)))
    }

    /// Returns the metrics, with their indices, that are reported besides the loss of the network: all, unless that is one
    /// of them.
    pub fn reported(&self) -> impl Iterator<Item = (usize, &NetworkMetric)> {
        self.metrics.iter().enumerate().filter(|(_, metric)| &*metric.name != LOSS)
    }

    /// Lists the metrics of all nodes, once they are all there.
    pub fn name_metrics(&mut self) {
        let single = self.losses().count() == 1;
        for (index, node) in self.nodes.iter().enumerate() {
            for metric in node.layer.metrics() {
                let plain = single && node.is_loss();
                let name = if plain { metric.name.to_string() } else { format!("{}.{}", node.name, metric.name) };
                self.metrics.push(NetworkMetric { node: index, name: name.into(), kind: metric.kind });
            }
        }
    }

    /// Returns the node that has a parameter.
    ///
    /// # Panics
    /// If there is no such parameter.
    pub fn layer_of(&self, parameter: usize) -> &Node {
        self.nodes.iter().find(|node| node.params.contains(&parameter)).expect("a parameter belongs to a node")
    }

    /// Returns the parameter by which the outputs of a layer are scaled that has this weight: the weight, or what takes its place if it
    /// is normalised.
    pub fn scale_of(&self, weight: usize) -> usize {
        let named = |&&parameter: &&usize| self.parameters[parameter].param.name == reparam::GAIN;
        self.layer_of(weight).params.iter().find(named).copied().unwrap_or(weight)
    }

    /// Returns the number of units of all parameters: the weights of one output each, or whole vectors.
    pub fn num_units(&self) -> usize {
        self.parameters.iter().map(Parameter::units).sum()
    }

    /// Returns true if a node has parameters and all of them are frozen.
    pub fn is_frozen(&self, node: usize) -> bool {
        let params = &self.nodes[node].params;
        !params.is_empty() && params.iter().all(|&param| self.parameters[param].lr_mult == 0.0)
    }
}

/// The initial values of a parameter.
#[derive(Debug)]
pub struct InitialValues<'n> {
    parameter: &'n Parameter,
    random: Random,
    /// All values, if they depend on one another.
    whole: Option<Vec<f64>>,
}

impl InitialValues<'_> {
    /// Returns some elements, in the order of the logical memory.
    pub fn elements(&self, range: Range<usize>) -> Vec<f64> {
        let Param { fan_in, fan_out, .. } = self.parameter.param;
        let element = |index: usize| {
            let at = InitialElement { random: &self.random, index: index as u64, fan_in, fan_out };
            self.parameter.init.0.value(at)
        };
        match &self.whole {
            Some(whole) => whole[range].to_vec(),
            None => range.map(element).collect(),
        }
    }
}

/// Returns the initial values of a parameter.
///
/// They depend on the seed, the index of the parameter and the index of the value, never on devices or layouts.
pub fn initial(network: &Network, seed: u64, parameter: usize) -> InitialValues<'_> {
    let random = Random::new(seed, RandomStream::Init, 0, parameter as u64);
    let index = parameter;
    let parameter = &network.parameters[index];
    let (init, shape) = (&parameter.init.0, &parameter.param.shape);
    let weight = || {
        let first = network.layer_of(index).params[0];
        initial(network, seed, first).elements(0..network.parameters[first].param.shape.elements())
    };
    let whole = init.of_weight(&weight, shape.0[0]).or_else(|| init.whole(shape, &random));
    InitialValues { parameter, random, whole }
}
