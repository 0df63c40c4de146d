//! What the file means: a graph of layers with shapes, names and parameters. Knows no device.
//!
//! [`open`] is the door: it reads a file and reports everything that is wrong with it, or returns the configuration
//! with its network. A check of how layers fit together belongs in `network/build.rs`.

mod build;
mod table;

pub use build::build;

use crate::config::{self, Config, Parsed};
use crate::device::{Purpose, Random};
use crate::error::{Error, Locations, Problem, Result};
use crate::layers::{Activation, Init, Layer, Param, Split};
use std::path::Path;
use std::sync::Arc;

/// Where a node takes an input from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The images of the batch.
    Images,
    /// The output of an earlier node.
    Node(usize),
}

/// A layer in its place in the graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name: the file's, or `<kind><index of its kind, from 1>`.
    pub name: String,
    /// The layer.
    pub layer: Arc<dyn Layer>,
    /// Where its inputs come from.
    pub inputs: Vec<Source>,
    /// The inputs, for one sample.
    pub input_shapes: Vec<Activation>,
    /// The output, for one sample.
    pub output: Activation,
    /// The split that the file gives.
    pub split: Option<Split>,
    /// Its parameters, as indices into [`Network::parameters`].
    pub params: Vec<usize>,
    /// Its running statistics, as indices into [`Network::states`].
    pub states: Vec<usize>,
    /// Where the file says all this.
    pub locations: Locations,
}

/// A parameter or running statistic of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in files: `conv1.weight`.
    pub name: String,
    /// Shape, order in files, fans.
    pub param: Param,
    /// Its initial value.
    pub init: Init,
    /// Multiplies the learning rate.
    pub lr_mult: f64,
    /// Multiplies the weight decay.
    pub decay_mult: f64,
}

/// The network: nodes in an order in which every input comes before its use; the last node is the loss.
#[derive(Debug, Clone)]
pub struct Network {
    /// Images of the batch, for one sample.
    pub input: Activation,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The parameters, in the order of the nodes.
    pub parameters: Vec<Parameter>,
    /// The running statistics, in the order of the nodes.
    pub states: Vec<Parameter>,
}

/// Reads a configuration with every `--set KEY=VALUE` applied, and builds its network.
///
/// # Errors
/// Everything that is wrong with the file and with the network, in the order of the file.
pub fn open(path: &Path, sets: &[String]) -> Result<(Config, Network)> {
    complete(config::read(path, sets))
}

/// Builds the network of what was read.
///
/// # Errors
/// Everything that is wrong with the file and with the network, in the order of the file.
pub fn complete(parsed: Parsed) -> Result<(Config, Network)> {
    match CheckedConfig::new(parsed) {
        CheckedConfig { config: Some(config), network: Some(network), problems } if problems.is_empty() => {
            Ok((config, network))
        }
        CheckedConfig { problems, .. } => Err(Error::Config(problems)),
    }
}

/// What could be made of a file, with everything that is wrong with it so far.
#[derive(Debug)]
pub struct CheckedConfig {
    /// The configuration, when every section can be used.
    pub config: Option<Config>,
    /// The network, when its layers fit together.
    pub network: Option<Network>,
    /// What is wrong with the file and with the network, in the order of the file. None: both are there.
    pub problems: Vec<Problem>,
}

impl CheckedConfig {
    /// Builds the network of what was read, as far as it goes.
    pub fn new(parsed: Parsed) -> Self {
        let mut problems = parsed.problems;
        let network = parsed.model.as_ref().map(build).transpose();
        let network = network.unwrap_or_else(|more| {
            problems.extend(more);
            None
        });
        config::sort(&mut problems);
        CheckedConfig { config: parsed.config, network, problems }
    }
}

/// Returns the initial values of a parameter, in the order of its logical memory.
///
/// They depend on the seed, the parameter's index and the position in it, never on devices or layouts.
pub fn initial(network: &Network, seed: u64, parameter: usize) -> Vec<f64> {
    let Parameter { param, init, .. } = &network.parameters[parameter];
    let random = Random::new(seed, Purpose::Init, 0, parameter as u64);
    (0..param.shape.elements() as u64).map(|i| init.value(&random, i, param.fan_in, param.fan_out)).collect()
}
