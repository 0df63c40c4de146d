//! `peristyle eval RUN_OR_CHECKPOINT`.

use super::output::{notes, print};
use crate::error::{Error, Result};
use crate::report::RunEvent;
use crate::train::{DataPolicy, Job, Run, Stop, directory};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run directory, whose newest valid checkpoint is used, or a checkpoint.
    run: PathBuf,
    /// Test data to use instead, as in --data '{ idx = { images = "a.gz", labels = "b.gz" } }'.
    #[arg(long, value_name = "SOURCE")]
    data: Option<String>,
    /// Sets a key of the run's configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// The devices to use instead of the run's.
    #[arg(long, value_name = "DEVICES")]
    devices: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut sets = arguments.sets.clone();
    sets.extend(arguments.data.iter().map(|data| format!("data.test={data}")));
    sets.extend(arguments.devices.iter().map(|devices| format!("devices.use={devices:?}")));
    let (job, plan) = Job::complete(directory::read_config(&arguments.run, &sets)?, DataPolicy::Trained)?;
    let mut run = Run::resume(job, plan, &arguments.run)?;
    notes(&run.job().notes);
    let events = run.evaluations(&Stop::default())?.expect("nothing requests a stop");
    if events.is_empty() {
        let message = "the run has no test data and no validation share; give test data with --data";
        return Err(Error::Usage(format!("{}: {message}", arguments.run.display())));
    }
    for event in events {
        if let RunEvent::Eval { step, split, loss, top1, top5, images } = event {
            print(&format!(
                "step {step}  {split}: loss {loss:.6}  top1 {top1:.4}  top5 {top5:.4}  ({images} images)\n"
            ))?;
        }
    }
    Ok(())
}
