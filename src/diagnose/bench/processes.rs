//! Measures all-reduces between processes, with programs that consist of a single one.

use super::allreduce::{one_sum, settings};
use super::workload::load_average;
use super::{Effort, Spread};
use crate::cluster::Team;
use crate::collectives::NcclUse;
use crate::config::{DeviceKind, Environment};
use crate::data::Batch;
use crate::device::Clock;
use crate::diagnose::one_move::variant;
use crate::error::Result;
use crate::gpu::nccl::nccl;
use crate::tensor::Precision;
use crate::train::Job;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// The measurement of one size, by the definitions of nccl-tests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessReduce {
    /// Bytes on each device.
    pub bytes: usize,
    /// Milliseconds from the host's call until every device of process 0 has the sum.
    pub ms: f64,
    /// The fastest repeat.
    pub ms_min: f64,
    /// The slowest repeat.
    pub ms_max: f64,
    /// bytes / time, in GB/s.
    pub algbw_gb_per_second: f64,
    /// 2 (n - 1) / n bytes / time, in GB/s: the rate on each link of a ring of n devices, which does not depend on n if links are the limit.
    pub busbw_gb_per_second: f64,
}

/// The measurements of all sizes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessReduces {
    /// `cpu`, `cuda` or `emu`.
    pub device: String,
    /// Number of devices of all processes.
    pub devices: usize,
    /// Number of processes.
    pub processes: usize,
    /// What moves the data: `NCCL 2.27.7`, `Open MPI 4.1.4`.
    pub library: String,
    /// Number of measured all-reduces of each repeat of the last size.
    pub runs: usize,
    /// The load average of the machine of process 0.
    pub load_average: Option<f64>,
    /// The measurements.
    pub all_reduces: Vec<ProcessReduce>,
}

/// Opens the devices of a process for [`all_reduce_between`].
///
/// # Errors
/// If they do not exist.
pub fn between_processes(environment: Environment, sets: &[String]) -> Result<Job> {
    settings(Some(environment), sets)
}

/// Measures all-reduces of 64 KiB to 64 MiB (256 MiB on GPUs) among the devices of all processes, which call this at the same time.
/// Process 0 says how often each is repeated.
///
/// # Errors
/// If a step fails, or the processes cannot exchange data.
pub fn all_reduce_between(mut job: Job, team: &Arc<Team>, effort: Effort) -> Result<ProcessReduces> {
    let on_gpus = job.config.devices.kind == DeviceKind::Cuda;
    let library = match job.config.devices.collectives.nccl {
        NcclUse::Never => team.engine().name().to_string(),
        _ => format!("NCCL {}", nccl()?.version),
    };
    let devices = &job.config.devices;
    let mut report = ProcessReduces {
        device: devices.kind.to_string(),
        devices: devices.len(),
        processes: team.processes(),
        library,
        runs: 0,
        load_average: load_average(),
        all_reduces: Vec::new(),
    };
    let n = devices.len() as f64;
    for shift in (16..=if on_gpus { 28 } else { 26 }).step_by(2) {
        let bytes: usize = 1 << shift;
        let plan = one_sum(&job, bytes / Precision::F32.bytes(), None);
        job.join(team, &plan)?;
        let mut session = job.session(plan)?;
        let mut run = || {
            let start = Instant::now();
            session.run(variant(), &mut Batch::default(), Clock::default())?;
            Ok(start.elapsed().as_secs_f64())
        };
        // The first runs connect processes and capture graphs.
        run()?;
        run()?;
        let once: f64 = run()?;
        let runs = (effort.seconds / effort.repeats as f64 / once).clamp(2.0, 1e5) as usize;
        let runs = team.gather(&runs.to_string())?[0].parse().unwrap_or(2);
        let mut medians = Vec::with_capacity(effort.repeats);
        for _ in 0..effort.repeats {
            let times = (0..runs).map(|_| run()).collect::<Result<Vec<f64>>>()?;
            medians.push(Spread::of(times).median);
        }
        let seconds = Spread::of(medians);
        let algbw = bytes as f64 / seconds.median / 1e9;
        report.runs = runs;
        report.all_reduces.push(ProcessReduce {
            bytes,
            ms: seconds.median * 1e3,
            ms_min: seconds.least * 1e3,
            ms_max: seconds.most * 1e3,
            algbw_gb_per_second: algbw,
            busbw_gb_per_second: 2.0 * (n - 1.0) / n * algbw,
        });
    }
    Ok(report)
}
