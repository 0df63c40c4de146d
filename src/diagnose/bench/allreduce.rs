//! Measures all-reduces, with programs that consist of a single one.

use super::Effort;
use super::limits;
use super::workload::load_average;
use crate::collectives::{Collective, CollectiveAlgorithm};
use crate::config::{self, Environment};
use crate::data::Batch;
use crate::device::Clock;
use crate::diagnose::one_move::{OneMove, variant};
use crate::error::Result;
use crate::network::CheckedConfig;
use crate::placement::{Peers, Spec};
use crate::program::Plan;
use crate::tensor::{MatmulPrecision, Placement, Precision, Shape};
use crate::train::{DataPolicy, Job};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// The measurement of one size with one algorithm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AllReduce {
    /// `one_pass` or `ring`.
    pub form: &'static str,
    /// Bytes on each device.
    pub bytes: usize,
    /// Milliseconds from the host's call until every device has the sum.
    pub ms: f64,
    /// The fastest repeat.
    pub ms_min: f64,
    /// The slowest repeat.
    pub ms_max: f64,
    /// 2 (n - 1) / n bytes / time, in GB/s: the rate on a link between neighbours in a ring.
    pub busbw_gb_per_second: f64,
    /// `busbw_gb_per_second` / `memcpy_gb_per_second`.
    pub memcpy_ratio: f64,
}

/// The measurements of all sizes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AllReduces {
    /// `cpu`, `cuda` or `emu`.
    pub device: String,
    /// Number of devices.
    pub devices: usize,
    /// Whether transfers between GPUs go through host memory.
    pub through_host: bool,
    /// GB/s that one thread (or one whole GPU) copies; each byte counts once.
    pub memcpy_gb_per_second: f64,
    /// The machine's load average of the last minute when the benchmark began; none if the system does not report it.
    pub load_average: Option<f64>,
    /// The measurements.
    pub all_reduces: Vec<AllReduce>,
}

/// Measures all-reduces of 64 KiB to 64 MiB with the given settings of `[devices]`, as in `--set`. `effort` applies to
/// each size with each algorithm; on GPUs, the ring is the only one.
///
/// # Errors
/// If the devices do not exist or a step fails.
pub fn all_reduce(sets: &[String], effort: Effort) -> Result<AllReduces> {
    let job = settings(None, sets)?;
    let devices = &job.config.devices;
    let copied = match devices.kind.driver() {
        None => limits::cpu(1, 1)?.copy_bytes_per_second,
        Some(kind) => limits::gpu_copy(kind, devices.ordinals[0], devices.threads)?,
    };
    let mut report = AllReduces {
        device: devices.kind.to_string(),
        devices: devices.len(),
        through_host: job.spec(Vec::new()).peers != Peers::All,
        memcpy_gb_per_second: copied / 2.0 / 1e9,
        load_average: load_average(),
        all_reduces: Vec::new(),
    };
    let n = devices.len() as f64;
    let algorithms = [(CollectiveAlgorithm::OnePass, "one_pass"), (CollectiveAlgorithm::Ring, "ring")];
    for (algorithm, name) in if devices.kind == config::DeviceKind::Cpu { &algorithms[..] } else { &algorithms[1..] } {
        for shift in (16..=26).step_by(2) {
            let bytes = 1 << shift;
            let mut session = job.session(one_sum(&job, bytes / Precision::F32.bytes(), Some(*algorithm)))?;
            let mut run = || {
                let start = Instant::now();
                session.run(variant(), &mut Batch::default(), Clock::default())?;
                Ok(start.elapsed().as_secs_f64())
            };
            run()?;
            let (seconds, _) = effort.repeat(run)?;
            let busbw = 2.0 * (n - 1.0) / n * bytes as f64 / seconds.median / 1e9;
            report.all_reduces.push(AllReduce {
                form: name,
                bytes,
                ms: seconds.median * 1e3,
                ms_min: seconds.least * 1e3,
                ms_max: seconds.most * 1e3,
                busbw_gb_per_second: busbw,
                memcpy_ratio: busbw / report.memcpy_gb_per_second,
            });
        }
    }
    Ok(report)
}

/// Returns the devices of some settings.
pub(super) fn settings(environment: Option<Environment>, sets: &[String]) -> Result<Job> {
    let text = "[data]\ntrain = { synthetic = { images = 2, classes = 2, shape = [1, 1, 1] } }\nbatch = 2\n[model]\n\
                input = [1, 1, 1]\nlayers = [{ dense = { units = 2 } }]\n[optimizer]\nlr = 0.1\n[train]\nsteps = 1\n";
    let parsed = config::from_text_in(environment, "bench allreduce", text, Path::new(""), sets);
    Ok(Job::complete(CheckedConfig::new(parsed), DataPolicy::Optional)?.0)
}

/// Plans a program that consists of one all-reduce, perhaps by another algorithm than that of the settings.
pub(super) fn one_sum(job: &Job, elements: usize, algorithm: Option<CollectiveAlgorithm>) -> Plan {
    let (collective, shape) = (Collective::AllReduce, Shape::from([elements]));
    let sum = OneMove { collective, shape, have: Placement::Partial, want: Placement::Replicate };
    let spec = job.spec(vec![variant()]);
    let algorithm = algorithm.unwrap_or(spec.algorithm);
    sum.plan(Spec { algorithm, precision: Precision::F32, products: MatmulPrecision::Full, ..spec })
}
