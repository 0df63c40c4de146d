//! `peristyle diagnose jacobian CONFIG`.

use crate::cli::bar::Progress;
use crate::cli::configured::Configured;
use crate::cli::output::{notes, print, print_json};
use crate::diagnose::LayerJacobian;
use crate::diagnose::init::InitialNetwork;
use crate::error::{Error, Result, quantity};
use clap::builder::RangedU64ValueParser;

const ABOUT: &str = "Computes singular values of the Jacobian of the output of each layer with respect to its (first) input, and of the whole network from the images \
    to its first loss, in double precision on the CPU, in training mode, at the values with which training begins, or those of a run directory or a checkpoint in place of a configuration. On their way \
    back, gradients grow by at most the largest, and on average by the root mean square, which one random vector estimates. Where they all are near 1, deep networks train \
    fast (Saxe et al. 2014).

The samples of the batch count as one input; without layers that normalise over the batch, the singular values are those of all samples together.";

/// Arguments of `diagnose jacobian`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Number of samples, the first of the training order.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    samples: usize,
    /// Products for each Jacobian; more find more of the extreme singular values.
    #[arg(long, default_value_t = 20, value_parser = RangedU64ValueParser::<usize>::new().range(2..=1000))]
    steps: usize,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { configured, samples, steps, json } = arguments;
    let network = InitialNetwork::open(&configured.config, &configured.sets(), *samples)?;
    notes(&network.job.notes);
    let progress = Progress::new(network.num_jacobians(), "Jacobians");
    let all = network.jacobians(*steps, || progress.step())?;
    drop(progress);
    if *json {
        let report = serde_json::json!({ "samples": network.samples(), "jacobians": all });
        let text = serde_json::to_string(&report);
        return print_json(
            &(text.map_err(|e| Error::Run(format!("the report cannot be written as JSON: {e}")))? + "\n"),
        );
    }
    print(&text(&all, network.samples()))
}

fn text(all: &[LayerJacobian], samples: usize) -> String {
    let name = |one: &LayerJacobian| one.name.clone().unwrap_or_else(|| "the whole network".to_string());
    let width = all.iter().map(|one| name(one).chars().count()).max().unwrap_or(0);
    let mut out = format!("singular values of the Jacobians on {}\n\n", quantity(samples as u64, "sample"));
    out += &format!(
        "{:width$}  {:>8} {:>8}  {:>11} {:>11} {:>11}\n",
        "layer", "inputs", "outputs", "largest", "rms", "smallest"
    );
    for one in all {
        let LayerJacobian { inputs, outputs, largest, mean, smallest, .. } = one;
        let name = name(one);
        out += &format!("{name:width$}  {inputs:>8} {outputs:>8}  {largest:>11.4e} {mean:>11.4e} {smallest:>11.4e}\n");
    }
    out
}
