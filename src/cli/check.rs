//! `peristyle check CONFIG`.

use super::{Configured, notes, print};
use crate::error::Result;
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
    print(&job.network.to_string());
    let epoch = job.epoch();
    let arena = plan.arena.iter().max().copied().unwrap_or(0);
    print(&format!(
        "{} devices ({}), {} samples in {} batches of {}, {} steps, {:.1} MB a device\n",
        plan.arena.len(),
        job.config.devices.names().join(", "),
        epoch.samples,
        epoch.batches(),
        epoch.batch,
        job.steps(),
        arena as f64 / 1e6
    ));
    Ok(())
}
