//! `peristyle eval RUN_OR_CHECKPOINT`.

use super::notes;
use crate::error::Result;
use crate::report::Event;
use crate::train::{Data, Job, Run, directory};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run directory (its newest checkpoint that verifies) or a checkpoint.
    run: PathBuf,
    /// Other test data, as in --data '{ idx = { images = "a.gz", labels = "b.gz" } }'.
    #[arg(long, value_name = "SOURCE")]
    data: Option<String>,
    /// Sets a key of the run's configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The devices, in place of the run's.
    #[arg(long, value_name = "DEVICES")]
    devices: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut sets = arguments.sets.clone();
    sets.extend(arguments.data.iter().map(|data| format!("data.test={data}")));
    sets.extend(arguments.devices.iter().map(|devices| format!("devices.use={devices:?}")));
    let (config, network) = directory::read_config(&arguments.run, &sets)?;
    let (job, plan) = Job::complete((config, network), Data::Required)?;
    notes(&job.notes);
    let mut run = Run::resume(job, plan, &arguments.run)?;
    for event in run.evaluations()? {
        if let Event::Eval { step, split, loss, top1, top5, images } = &event {
            println!("step {step}  {split}: loss {loss:.6}  top1 {top1:.4}  top5 {top5:.4}  ({images} images)");
        }
    }
    Ok(())
}
