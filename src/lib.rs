//! Peristyle trains neural networks from one TOML file, with the same loss curve on a CPU, one GPU or several GPUs of one
//! machine. See ARCHITECTURE.md for the map.

#![deny(clippy::unwrap_used)]

pub mod cli;
pub mod cluster;
pub mod collectives;
pub mod config;
pub mod cpu;
pub mod data;
pub mod device;
pub mod diagnose;
pub mod error;
pub mod gpu;
pub mod layers;
pub mod network;
pub mod optim;
pub mod placement;
pub mod program;
pub mod report;
pub mod settings;
pub mod storage;
pub mod tensor;
pub mod train;

pub use error::{Error, Result};
