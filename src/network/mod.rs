//! The network: a graph of layers with shapes, names and parameters. Does not depend on any device.
//!
//! [`open`] reads a file and returns the configuration with its network, or reports all mistakes. Checks of how layers
//! fit together belong in `network/build.rs`.

mod build;
mod table;

pub use build::build;

use crate::config::{self, Config, Parsed};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Locations, Problem, Result};
use crate::layers::{Activation, Init, Layer, Param, Split};
use std::path::Path;
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
    /// The locations of the layer and its keys in the file.
    pub locations: Locations,
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
    /// Multiplies the weight decay.
    pub decay_mult: f64,
}

/// The network: nodes in topological order; the last node is the loss.
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
}

/// Reads a configuration with every `--set KEY=VALUE` applied, and builds its network.
///
/// # Errors
/// All problems of the file and of the network, in the order of the file.
pub fn open(path: &Path, sets: &[String]) -> Result<(Config, Network)> {
    complete(config::read(path, sets))
}

/// Builds the network of a parsed file.
///
/// # Errors
/// All problems of the file and of the network, in the order of the file.
pub fn complete(parsed: Parsed) -> Result<(Config, Network)> {
    match CheckedConfig::new(parsed) {
        CheckedConfig { config: Some(config), network: Some(network), problems, .. } if problems.is_empty() => {
            Ok((config, network))
        }
        CheckedConfig { problems, .. } => Err(Error::Config(problems)),
    }
}

/// A parsed file with its network, as far as they are valid, and all problems so far.
#[derive(Debug)]
pub struct CheckedConfig {
    /// The name of the file; `None` if it is not readable TOML.
    pub file: Option<String>,
    /// The configuration, if every section can be used.
    pub config: Option<Config>,
    /// The network, if its layers fit together.
    pub network: Option<Network>,
    /// The problems of the file and of the network, in the order of the file. If empty, both are present.
    pub problems: Vec<Problem>,
}

impl CheckedConfig {
    /// Builds the network of a parsed file, if possible.
    pub fn new(parsed: Parsed) -> Self {
        let mut problems = parsed.problems;
        let network = parsed.model.as_ref().map(build).transpose();
        let network = network.unwrap_or_else(|more| {
            problems.extend(more);
            None
        });
        config::sort(&mut problems);
        CheckedConfig { file: parsed.file, config: parsed.config, network, problems }
    }
}

/// Returns the initial values of a parameter, in the order of its logical memory.
///
/// They depend on the seed, the index of the parameter and the index of the value, never on devices or layouts.
pub fn initial(network: &Network, seed: u64, parameter: usize) -> Vec<f64> {
    let Parameter { param, init, .. } = &network.parameters[parameter];
    let random = Random::new(seed, RandomStream::Init, 0, parameter as u64);
    (0..param.shape.elements() as u64).map(|i| init.value(&random, i, param.fan_in, param.fan_out)).collect()
}
