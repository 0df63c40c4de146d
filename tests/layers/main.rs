//! Layers, alone and in networks: values, gradients, splits, initial values, and the published networks.

mod blocks;
#[path = "../common/mod.rs"]
mod common;
mod default_splits;
mod examples;
mod gradients;
mod in_networks;
mod initial_values;
mod losses;
mod of_pytorch;
mod reparam;
mod windows;
mod zoo;
