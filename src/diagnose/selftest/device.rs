//! The device to check, and how thoroughly.

use crate::error::Result;
use crate::gpu::{Driver, DriverKind, GpuOptions, Gpus, INPUTS};

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Everything.
    Whole,
    /// One or two cases of each check, for sanitizers, which slow the device down.
    Quick,
}

/// The device to check.
#[derive(Debug)]
pub(super) struct Device {
    /// `cpu`, `cuda:0`, `emu`.
    pub name: String,
    pub ordinal: usize,
    pub threads: usize,
    /// `None` for the CPU.
    pub driver: Option<Driver>,
}

impl Device {
    pub fn kind(&self) -> Option<DriverKind> {
        self.driver.as_ref().map(Driver::kind)
    }

    /// Returns the name of `devices` logical devices of this device, as in a configuration.
    pub fn times(&self, devices: usize) -> String {
        format!("{}*{devices}", self.name)
    }

    /// Opens the GPU with an arena of `elements` floats.
    pub fn gpus(&self, kind: DriverKind, elements: usize) -> Result<Gpus> {
        let (ordinals, arenas, threads) = ([self.ordinal], [elements * size_of::<f32>()], self.threads);
        let (ordinals, arenas, staging) = (&ordinals, &arenas, [0; INPUTS]);
        Gpus::open(&GpuOptions { kind, ordinals, arenas, staging, values: 1, slots: 1, reach: true, host: 0, threads })
    }
}
