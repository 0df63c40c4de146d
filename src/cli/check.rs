//! `peristyle check CONFIG`.

use super::configured::Configured;
use super::output::{notes, print};
use super::plan::memory_text;
use crate::error::{Result, quantity};
use crate::train::{DataPolicy, Job};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (job, plan) = Job::open(&arguments.configured.config, &arguments.configured.sets(), DataPolicy::Required)?;
    notes(&job.notes);
    print(&job.network.to_string())?;
    let epoch = job.epoch();
    let arena = plan.arena.iter().max().copied().unwrap_or(0);
    let count = |n: usize, noun| quantity(n as u64, noun);
    print(&format!(
        "{} ({}), {} in {} of {}, {}, {:.1} MB per device\n",
        count(plan.arena.len(), "device"),
        job.config.devices.names().join(", "),
        count(epoch.samples, "sample"),
        count(epoch.batches(), "batch"),
        epoch.batch,
        quantity(job.steps(), "step"),
        arena as f64 / 1e6
    ))?;
    print(&memory_text(job.memory(&plan)))
}
