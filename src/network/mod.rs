//! What the file means: a graph of layers with shapes, names and parameters. Knows no device.

use crate::error::Spot;
use crate::layers::{Activation, Init, Layer, Param, Split};
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
    pub spot: Spot,
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
