//! The network: a graph of layers with shapes, names and parameters. Does not depend on any device.
//!
//! [`open`] reads a file and returns the configuration with its network, or reports all mistakes. Checks of how layers
//! fit together belong in `network/build.rs`.

mod build;
mod graph;
mod groups;
mod open;
mod splits;
mod table;

pub use build::build;
pub use graph::{InitialValues, Network, NetworkMetric, Node, Parameter, Source, initial};
pub use open::{CheckedConfig, complete, open};
