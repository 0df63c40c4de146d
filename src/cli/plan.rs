//! `peristyle plan CONFIG`, which needs neither a GPU nor data.

use super::configured::Configured;
use super::output::{notes, print, print_json};
use crate::config::DeviceKind;
use crate::error::{Error, Result, suggest};
use crate::program::hardware::HARDWARE;
use crate::program::print::Printer;
use crate::train::{DataPolicy, Job, ProcessMemory};

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The machine to estimate the time for: cpu or h200; by default, depends on the devices.
    #[arg(long, value_name = "NAME")]
    hardware: Option<String>,
    /// The number of processes, each with the devices of the configuration.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    processes: Option<u16>,
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
    let mut sets = arguments.configured.sets();
    sets.extend(arguments.processes.map(|processes| format!("cluster.processes={processes}")));
    let (job, plan) = Job::open(&arguments.configured.config, &sets, DataPolicy::Optional)?;
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
        Format::Text => print(&format!("{}\n{}\n{}", job.network, plan.text(cx), memory_text(job.memory(&plan)))),
        Format::Json => {
            let mut json = plan.json(cx);
            json["process_bytes"] = job.memory(&plan).total().into();
            print_json(&format!("{json:#}\n"))
        }
        Format::Mermaid => print(&plan.mermaid()),
    }
}

/// Returns the memory of the process that trains.
pub(super) fn memory_text(memory: ProcessMemory) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let some =
        |name: &str, bytes: u64| if bytes > 0 { format!("{name} {:.1}, ", megabytes(bytes)) } else { String::new() };
    let (method, messages) = (some("method", memory.method), some("messages", memory.messages));
    format!(
        "memory of the process: {:.1} MB (arenas {:.1}, data {:.1}, batches {:.1}, {method}{messages}program {:.1})\n",
        megabytes(memory.total()),
        megabytes(memory.arenas),
        megabytes(memory.data),
        megabytes(memory.batches),
        megabytes(memory.program)
    )
}
