//! The peak rates of the devices.

use super::limits;
use super::workload::Bench;
use crate::config::{self, DeviceKind, Devices};
use crate::error::{Error, Result};
use crate::gpu;
use crate::network::CheckedConfig;
use crate::program::Work;
use crate::train::{DataPolicy, Job};
use serde::Serialize;
use std::path::Path;

/// The peak rates of all devices together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// TFLOP/s of large products: on a CPU, f32 products of 512 x 512 matrices on every thread; on a GPU, a dense layer
    /// with 4096 inputs, units and samples in the precision of the configuration.
    pub limit_tflops: f64,
    /// GB/s that a large copy reads and writes.
    pub limit_gb_per_second: f64,
}

impl Limits {
    /// Measures the devices of a configuration.
    ///
    /// # Errors
    /// If a device cannot be used.
    pub fn measure(devices: &Devices) -> Result<Limits> {
        let (copy, flops) = match devices.kind.driver() {
            None => {
                let limits = limits::cpu(devices.len(), devices.threads)?;
                (limits.copy_bytes_per_second, limits.flops_per_second)
            }
            Some(kind) => {
                let first = devices.ordinals[0];
                let mut gpus = devices.ordinals.clone();
                gpus.dedup();
                let count = if kind == gpu::DriverKind::Emu { 1.0 } else { gpus.len() as f64 };
                (limits::gpu_copy(kind, first, devices.threads)? * count, product_rate(devices)? * count)
            }
        };
        Ok(Limits { limit_tflops: flops / 1e12, limit_gb_per_second: copy / 1e9 })
    }
}

/// Returns the operations per second in the forward pass of a dense layer on one GPU.
fn product_rate(devices: &Devices) -> Result<f64> {
    let n = if devices.kind == DeviceKind::Emu { 64 } else { 4096 };
    let name = if devices.kind == DeviceKind::Emu { "emu".to_string() } else { devices.name(0) };
    let precision = devices.products.name(devices.precision);
    let text = format!(
        "[devices]\nuse = {name:?}\nprecision = {precision:?}\n[data]\ntrain = {{ synthetic = {{ images = {n}, classes \
         = {n}, shape = [1, 1, {n}] }} }}\nbatch = {n}\n[model]\ninput = [1, 1, {n}]\nlayers = [{{ dense = {{ units = \
         {n}, bias = false }} }}]\n[optimizer]\nlr = 1e-9\n[train]\nsteps = 1\n"
    );
    let parsed = config::from_text("product peak", &text, Path::new(""), &[]);
    let mut bench = Bench::of(Job::complete(CheckedConfig::new(parsed), DataPolicy::Optional)?)?;
    let steps = &bench.session.plan().programs[bench.program()].instructions;
    let forward = steps.iter().position(|step| matches!(step.work, Work::Phase { node: 0, phase: "forward", .. }));
    let forward = forward.ok_or_else(|| Error::Run("the dense layer has no forward phase".into()))?;
    let mut best = f64::INFINITY;
    for _ in 0..if devices.kind == DeviceKind::Emu { 2 } else { 20 } {
        best = best.min(bench.step_timed()?[forward]);
    }
    Ok(2.0 * (n as f64).powi(3) / best)
}
