//! `peristyle plan CONFIG`, which needs neither a GPU nor data.

use super::configured::Configured;
use super::output::{notes, print, print_json};
use crate::config::DeviceKind;
use crate::error::{Error, Result, suggest};
use crate::program::estimate::HARDWARE;
use crate::program::print::Printer;
use crate::train::{DataPolicy, Job};

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The machine to estimate the time for: cpu or h200; by default, depends on the devices.
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// The output format.
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
    let name = arguments.hardware.as_deref().unwrap_or(suits);
    let hardware = HARDWARE.iter().find(|h| h.name == name).ok_or_else(|| {
        let names: Vec<&str> = known.clone().collect();
        let near = suggest(name, known);
        Error::Usage(format!("--hardware {name}: unknown machine{near}; expected one of: {}", names.join(", ")))
    })?;
    let kind = job.config.devices.kind.to_string();
    let cx = Printer { device: &kind, steps: job.steps(), hardware };
    match arguments.format {
        Format::Text => print(&format!("{}\n{}", job.network, plan.text(cx))),
        Format::Json => print_json(&format!("{:#}\n", plan.json(cx))),
        Format::Mermaid => print(&plan.mermaid()),
    }
}
