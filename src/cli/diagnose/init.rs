//! `peristyle diagnose init CONFIG`.

use crate::cli::bar::Progress;
use crate::cli::configured::Configured;
use crate::cli::output::{notes, print, print_json};
use crate::diagnose::init::{
    FACTOR, InitReport, InitialNetwork, LayerReport, MOST_DEAD, MOST_SATURATED, ValueSummary, svg,
};
use crate::error::{Error, Result, quantity};
use crate::storage::Fs;
use std::path::PathBuf;

/// Arguments of `diagnose init`.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Number of samples, the first of the training order; at most those of the training set.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// Prints a histogram of the outputs and of the gradients of each layer under the tables.
    #[arg(long, conflicts_with = "json")]
    histograms: bool,
    /// Prints one JSON object, with histograms.
    #[arg(long)]
    json: bool,
    /// Draws the histograms in an SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Explains what is examined, and from where on it is unusual.
fn help() -> String {
    let [saturated, dead] = [MOST_SATURATED, MOST_DEAD].map(|share| 100.0 * share);
    format!(
        "The network runs once forwards and once backwards on its first training batch, in training mode and in double \
precision on the CPU, whatever devices the file names. Its values are those with which train would begin, also where \
model.from names weights.

For each layer: mean, standard deviation and extremes of its outputs; the share of them that is saturated (tanh: above \
0.99 in size; sigmoid: within 0.01 of 0 or 1; hard_sigmoid, hard_swish and relu6: where flat, but for the zeros of relu6), \
that is 0, and the share of units (channels, or after flatten features) that are 0 for all samples; mean and standard \
deviation of the gradient of the loss, the mean over the batch, with respect to its outputs. For each parameter: the \
standard deviations of its values and of its gradient.

Reported as unusual:
  vanish       the activations of the deepest hidden layer have less than 1/{FACTOR} of the standard deviation of those of \
the first; or the gradients of the first, of those of the deepest. A hidden layer is one whose output a layer with \
weights reads
  explode      likewise, more than {FACTOR} times
  saturated    more than {saturated} % of the values of a layer are saturated
  dead units   more than {dead} % of the units of a relu, relu6, hard_sigmoid or hard_swish are 0 for all samples"
    )
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let configured = &arguments.configured;
    let network = InitialNetwork::open(&configured.config, &configured.sets(), arguments.samples as usize)?;
    notes(&network.job.notes);
    let progress = Progress::new(network.num_steps(), "passes");
    let report = network.examine(|| progress.step())?;
    drop(progress);
    if let Some(file) = &arguments.svg {
        Fs::default().replace(file, svg(&report)?.as_bytes())?;
    }
    if arguments.json {
        let json = serde_json::to_string(&report);
        let json = json.map_err(|error| Error::Run(format!("the report cannot be written as JSON: {error}")))?;
        return print_json(&(json + "\n"));
    }
    print(&text(&report, arguments.histograms))
}

fn text(report: &InitReport, histograms: bool) -> String {
    let InitReport { network, seed, samples, loss, layers, verdict } = report;
    let samples = quantity(*samples as u64, "sample");
    let mut text = format!("{network}: {samples}, seed {seed}, loss {}\n\n{}", number(*loss), table(layers));
    text += &format!("\n{}", parameters(layers));
    if histograms {
        let outputs: fn(&LayerReport) -> &ValueSummary = |layer| &layer.activations.values;
        text += &format!("\noutputs\n{}", rows_of_bins(layers, outputs));
        text +=
            &format!("\ngradients of the loss with respect to the outputs\n{}", rows_of_bins(layers, |l| &l.gradients));
    }
    text += "\n";
    match &verdict[..] {
        [] => text += "nothing unusual\n",
        found => found.iter().for_each(|sentence| text += &format!("{sentence}\n")),
    }
    text
}

/// Returns a table with a row for each layer.
fn table(layers: &[LayerReport]) -> String {
    let name = width(layers.iter().map(|layer| layer.name.as_str()), "layer");
    let columns = ["mean", "std", "smallest", "largest"].map(|title| format!("{title:>10}")).concat();
    let mut table = format!("{:name$} {:<11} {:<66} gradients\n", "", "", "  outputs");
    table += &format!("{:name$} {:<11} {columns} {:>9} {:>7} {:>7}", "layer", "shape", "saturated", "zeros", "dead");
    table += &format!("  {:>10}{:>10}\n", "mean", "std");
    for layer in layers {
        let (outputs, [h, w, c]) = (&layer.activations, layer.shape);
        let shape = if h * w == 1 { c.to_string() } else { format!("{h}x{w}x{c}") };
        let ValueSummary { mean, std, min, max, .. } = outputs.values;
        let columns = [mean, std, min, max].map(|value| format!("{:>10}", number(value))).concat();
        let saturated = outputs.saturated.map_or("-".to_string(), percent);
        let (zeros, dead) = (percent(outputs.zeros), percent(outputs.dead));
        table += &format!("{:name$} {shape:<11} {columns} {saturated:>9} {zeros:>7} {dead:>7}", layer.name);
        let [mean, std] = [layer.gradients.mean, layer.gradients.std].map(number);
        table += &format!("  {mean:>10}{std:>10}\n");
    }
    table
}

/// Returns a table with a row for each parameter.
fn parameters(layers: &[LayerReport]) -> String {
    let all = || layers.iter().flat_map(|layer| &layer.parameters);
    let name = width(all().map(|parameter| parameter.name.as_str()), "parameter");
    let mut table = format!("{:name$} {:>10}{:>10}{:>14}\n", "parameter", "values", "std", "gradient std");
    for parameter in all() {
        let [std, gradient] = [parameter.std, parameter.gradient_std].map(number);
        table += &format!("{:name$} {:>10}{std:>10}{gradient:>14}\n", parameter.name, parameter.values);
    }
    table
}

/// Returns a histogram of each layer in a row of characters, from its smallest value to its largest.
fn rows_of_bins(layers: &[LayerReport], values: impl Fn(&LayerReport) -> &ValueSummary) -> String {
    let name = width(layers.iter().map(|layer| layer.name.as_str()), "");
    let row = |layer: &LayerReport| {
        let ValueSummary { min, max, histogram, .. } = values(layer);
        let bins: String = histogram.heights().into_iter().map(block).collect();
        format!("{:name$} {:>10} |{bins}| {}\n", layer.name, number(*min), number(*max))
    };
    layers.iter().map(row).collect()
}

/// Returns the block character of a height between 0 and 1; any height above 0 shows.
fn block(height: f64) -> char {
    const BLOCKS: [char; 9] =
        [' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    BLOCKS[(8.0 * height).ceil() as usize]
}

fn width<'a>(names: impl Iterator<Item = &'a str>, title: &str) -> usize {
    names.map(|name| name.chars().count()).fold(title.len(), usize::max)
}

/// Formats a number with three digits.
fn number(value: f64) -> String {
    let rounded = format!("{value:.2e}");
    let exponent = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse().ok());
    match exponent {
        Some(_) if value == 0.0 => "0".to_string(),
        Some(exponent @ -3..=4) => format!("{value:.*}", 2i32.saturating_sub(exponent).max(0) as usize),
        _ => rounded,
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.0, 0.28318, -0.99996, 12345.0, 0.001234, 7.3721e-7, -2.0e21];
        assert_eq!(numbers.map(number), ["0", "0.283", "-1.00", "12345", "0.00123", "7.37e-7", "-2.00e21"]);
    }

    #[test]
    fn every_height_above_0_shows() {
        assert_eq!([0.0, 1e-9, 0.5, 1.0].map(block), [' ', '\u{2581}', '\u{2584}', '\u{2588}']);
    }
}
