//! The arguments of every command that reads a configuration.

use clap::Args;
use std::path::PathBuf;

/// A configuration with overrides.
#[derive(Debug, Args)]
pub(super) struct Configured {
    /// The configuration.
    pub config: PathBuf,
    /// Overrides a key of the configuration, as in --set optimizer.lr=0.1 or --set model.layers.conv1.filters=8.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The devices to use instead of the configuration's: cpu, cpu*4, cuda:0-3, emu*2.
    #[arg(long, alias = "device", value_name = "DEVICES")]
    pub devices: Option<String>,
}

impl Configured {
    /// Returns all overrides, including the devices.
    pub fn sets(&self) -> Vec<String> {
        let devices = self.devices.iter().map(|devices| format!("devices.use={devices:?}"));
        self.sets.iter().cloned().chain(devices).collect()
    }
}
