//! Reads a configuration and builds its network.

use super::build::build;
use super::graph::Network;
use super::groups::assign;
use super::splits;
use crate::config::{self, Config, Parsed};
use crate::error::{Error, Fault, Problem, Result, suggest};
use std::path::Path;

/// Reads a configuration with every `--set KEY=VALUE` applied, and builds its network.
///
/// # Errors
/// All problems of the file and of the network, in the order of the file.
pub fn open(path: &Path, sets: &[String]) -> Result<(Config, Network)> {
    complete(config::read(path, sets)?)
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
        CheckedConfig { problems, .. } => Err(Error::Config(problems.into())),
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
        let (mut config, mut problems) = (parsed.config, parsed.problems);
        let network = parsed.model.as_ref().map(build).transpose();
        let network = network.unwrap_or_else(|more| {
            problems.extend(more);
            None
        });
        let mut network = network;
        if let (Some(config), Some(network)) = (&mut config, &mut network) {
            config.notes.extend(splits::assign(&config.devices.split, config.devices.mesh, network));
            problems.extend(unknown_metric(config, network));
            problems.extend(assign(&config.optimizer, &config.optimizer_locations, network).err().unwrap_or_default());
        }
        config::sort(&mut problems);
        CheckedConfig { file: parsed.file, config, network, problems }
    }
}

/// Returns what is wrong with a metric that the network does not have.
fn unknown_metric(config: &Config, network: &Network) -> Option<Problem> {
    let best_by = &config.train.checkpoint.best_by;
    let metric = best_by.metric.as_ref()?;
    let known: Vec<&str> = network.results().map(|(name, _)| name).collect();
    if known.contains(&metric.as_str()) {
        return None;
    }
    let near = suggest(metric, known.iter().copied());
    let (set, known) = (best_by.split, known.join(", "));
    let message =
        format!("best_by = \"{set}.{metric}\", but the network has no metric \"{metric}\"{near}; it has {known}");
    Some(config.checkpoint_locations.problem("[train] checkpoint", &Fault::at("best_by", message)))
}
