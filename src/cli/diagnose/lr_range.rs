//! `peristyle diagnose lr-range CONFIG`.

use crate::cli::bar::Progress;
use crate::cli::configured::Configured;
use crate::cli::output::{notes, print, print_json};
use crate::diagnose::{RateSweep, SweepResult};
use crate::error::{Error, Result, number};
use crate::storage::Fs;
use crate::train::{DataPolicy, Job};
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;

const ABOUT: &str = "Makes one update with each of the rates, each larger than the one before by the same factor, from the values with which \
    training begins, and prints the loss of each batch before its update (Smith 2017). The schedule is not applied. It ends when the smooth loss is four times its \
    lowest value, or not finite.

The suggested range goes from the rate at which the smooth loss falls fastest to a third of the rate at which it is lowest.";

/// Arguments of `diagnose lr-range`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// The first rate.
    #[arg(long, default_value_t = 1e-6)]
    from: f64,
    /// The last rate.
    #[arg(long, default_value_t = 10.0)]
    to: f64,
    /// The number of rates.
    #[arg(long, default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(2..=100_000))]
    steps: usize,
    /// Draws the losses in an SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { from, to, steps, .. } = *arguments;
    if !(from > 0.0 && from < to && to.is_finite()) {
        let message = format!("--from {} --to {}, expected 0 < from < to", number(from), number(to));
        return Err(Error::Usage(message));
    }
    let mut sets = arguments.configured.sets();
    sets.push("train.accumulate=1".to_string());
    let (mut job, plan) = Job::open(&arguments.configured.config, &sets, DataPolicy::Required)?;
    if job.config.optimizer.method.is_some() {
        let message = "a second-order method chooses its steps itself; diagnose lr-range needs a chain of transforms";
        return Err(Error::Usage(message.to_string()));
    }
    notes(&job.notes);
    let data = crate::data::open(&job.config.data, job.config.seed, &job.config.base)?;
    let progress = Progress::new(steps, "updates");
    let found = RateSweep { from, to, steps }.run(&mut job, plan, &data, |done| progress.at(done))?;
    drop(progress);
    if let Some(file) = &arguments.svg {
        Fs::default().replace(file, found.svg(&job.config.name, job.config.optimizer.lr)?.as_bytes())?;
    }
    match arguments.json {
        true => print_json(&(json(&found, job.config.optimizer.lr).to_string() + "\n")),
        false => print(&text(&found, job.config.optimizer.lr)),
    }
}

/// The rows of the table, at most.
const ROWS: usize = 25;

fn text(found: &SweepResult, lr: f64) -> String {
    let mut out = format!("{:>11}  {:>12}  {:>12}\n", "rate", "loss", "smooth");
    let every = found.steps.len().div_ceil(ROWS).max(1);
    let (least, most) = found.steps.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), step| {
        (least.min(step.smooth), most.max(step.smooth))
    });
    for step in found.steps.iter().step_by(every) {
        let width = if most > least { ((step.smooth - least) / (most - least) * 40.0).round() as usize } else { 0 };
        out += &format!("{:>11.3e}  {:>12.6}  {:>12.6}  {}\n", step.lr, step.loss, step.smooth, "#".repeat(width));
    }
    if found.diverged {
        out += "then the loss left all bounds\n";
    }
    match found.suggested() {
        Some([from, to]) => {
            out += &format!("\nsuggested rates: {from:.1e} to {to:.1e}; optimizer.lr is {}\n", number(lr));
        }
        None => out += "\nno suggestion: the loss did not fall; begin with a lower rate (--from)\n",
    }
    out
}

fn json(found: &SweepResult, lr: f64) -> serde_json::Value {
    let steps: Vec<_> = found
        .steps
        .iter()
        .map(|step| serde_json::json!({ "lr": step.lr, "loss": step.loss, "smooth": step.smooth }))
        .collect();
    serde_json::json!({
        "steps": steps,
        "diverged": found.diverged,
        "steepest": found.steepest(),
        "lowest": found.lowest(),
        "suggested": found.suggested(),
        "rate": lr,
    })
}
