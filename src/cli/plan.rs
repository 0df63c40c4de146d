//! `peristyle plan CONFIG`: no GPU, no data.

use super::{Configured, notes, print};
use crate::config::DeviceKind;
use crate::error::{Error, Result, suggest};
use crate::program::estimate::HARDWARE;
use crate::program::print::Context;
use crate::train::{DataPolicy, Job};

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The machine whose rates the estimate takes: cpu or h200; by default what suits the devices.
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Mermaid,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (job, plan) = Job::open(&arguments.configured.config, &arguments.configured.sets(), DataPolicy::Optional)?;
    notes(&job.notes);
    let known = HARDWARE.iter().map(|h| h.name);
    let suits = if job.config.devices.kind == DeviceKind::Cuda { "h200" } else { "cpu" };
    let wanted = arguments.hardware.as_deref().unwrap_or(suits);
    let hardware = HARDWARE.iter().find(|h| h.name == wanted).ok_or_else(|| {
        let names: Vec<&str> = known.clone().collect();
        let near = suggest(wanted, known);
        Error::Usage(format!("--hardware {wanted}: unknown machine{near}; known: {}", names.join(", ")))
    })?;
    let kind = job.config.devices.kind.to_string();
    let cx = Context { device: &kind, steps: job.steps(), hardware };
    match arguments.format {
        Format::Text => print(&format!("{}\n{}", job.network, plan.text(cx))),
        Format::Json => print(&format!("{:#}\n", plan.json(cx))),
        Format::Mermaid => print(&plan.mermaid()),
    }
    Ok(())
}
