//! `peristyle check CONFIG`.

use super::configured::Configured;
use super::output::{notes, print};
use super::plan::memory_text;
use crate::config::with_defaults;
use crate::error::{Error, Problem, Result, quantity};
use crate::train::{DataPolicy, Job};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Also reads the contents of all data, as train would: reports what is wrong with them, or prints a summary.
    #[arg(long)]
    data: bool,
    /// Prints the configuration with every default written out, and nothing else.
    #[arg(long)]
    defaults: bool,
}

/// The last line without `--data`.
const NOT_READ: &str = "contents of the data were not read; add --data";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let needs = if arguments.data { DataPolicy::Inspected } else { DataPolicy::Checked };
    let (job, plan) = match Job::open(&arguments.configured.config, &arguments.configured.sets(), needs) {
        Err(Error::Config(mut problems)) if !arguments.data => {
            let location = arguments.configured.config.display().to_string();
            problems.unchecked.push(Problem { location, message: NOT_READ.to_string() });
            return Err(Error::Config(problems));
        }
        opened => opened?,
    };
    notes(&job.notes);
    if arguments.defaults {
        return print(&with_defaults(&job.config));
    }
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
    print(&memory_text(job.memory(&plan)))?;
    match &job.contents {
        None => print(&format!("{NOT_READ}\n")),
        Some(contents) => contents.sets.iter().try_for_each(|set| print(&format!("{set}\n"))),
    }
}
