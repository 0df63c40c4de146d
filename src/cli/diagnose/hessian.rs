//! `peristyle diagnose hessian CONFIG`.

use super::subject::{SubjectArguments, WeightedSubject};
use crate::cli::bar::Progress;
use crate::cli::output::{print, print_json};
use crate::diagnose::{Hessian, LanczosSettings, MOST_DENSE, RitzValue, Spectrum, StationaryKind};
use crate::error::{Result, number, quantity};
use crate::storage::Fs;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;

const ABOUT: &str = "Computes the extreme eigenvalues of the Hessian of the loss, an estimate of the density of its spectrum and what follows from \
    them, in double precision on the CPU, over the first training samples of the first epoch, as training sees them. Products of the \
    Hessian with vectors are exact (dual numbers); from a random vector, k products give k approximate eigenvalues (Lanczos), of which the extreme ones \
    converge first; each is printed with a bound of its error.

The rate 1 / L, where L is the largest eigenvalue, removes the error along its direction in one step of gradient descent; \
    above 2 / L, it grows.

With a run directory or a checkpoint in place of a configuration, its weights are used; otherwise the initial ones, or those of \
    model.from.";

/// Arguments of `diagnose hessian`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(super) struct Arguments {
    #[command(flatten)]
    subject: SubjectArguments,
    /// Products for each random vector.
    #[arg(long, default_value_t = 30, value_parser = RangedU64ValueParser::<usize>::new().range(2..=1000))]
    steps: usize,
    /// Random vectors.
    #[arg(long, default_value_t = 2, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    vectors: usize,
    /// Computes the eigenvalues of the whole Hessian as well, of a network of few weights.
    #[arg(long)]
    dense: bool,
    /// Writes a picture of the density of the spectrum to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let WeightedSubject { network: of, .. } = WeightedSubject::open(&arguments.subject)?;
    let mut hessian = Hessian::new(&of.subject(), of.weights())?;
    let dense = match arguments.dense {
        true => {
            let progress = Progress::new(hessian.weights().min(MOST_DENSE), "products");
            Some(hessian.dense(|done| progress.at(done))?)
        }
        false => None,
    };
    let how = LanczosSettings { steps: arguments.steps, vectors: arguments.vectors };
    let progress = Progress::new(how.steps.min(hessian.weights()) * how.vectors, "products");
    let spectrum = hessian.spectrum(of.job.config.seed, how, |done| progress.at(done))?;
    drop(progress);
    if let Some(file) = &arguments.svg {
        let picture = spectrum.svg(&of.job.config.name, of.job.config.optimizer.lr)?;
        Fs::default().replace(file, picture.as_bytes())?;
    }
    let (dense, lr) = (dense.as_deref(), of.job.config.optimizer.lr);
    match arguments.json {
        true => print_json(&(json(&spectrum, dense, of.samples(), lr).to_string() + "\n")),
        false => print(&text(&spectrum, dense, of.samples(), lr)),
    }
}

/// The limits between the printed shares of eigenvalues, in units of the largest absolute value.
const LIMITS: [f64; 6] = [-0.1, -0.01, -0.001, 0.001, 0.01, 0.1];

fn text(spectrum: &Spectrum, dense: Option<&[f64]>, samples: usize, lr: f64) -> String {
    let [least, most] = spectrum.extremes();
    let eigenvalue = |name: &str, one: RitzValue| format!("{name} {:.6e}  (within {:.1e})\n", one.value, one.error);
    let mut out = format!(
        "loss {:.6} on {}, gradient norm {:.6e}, {}\n\n",
        spectrum.loss,
        quantity(samples as u64, "sample"),
        spectrum.gradient,
        quantity(spectrum.weights as u64, "weight"),
    );
    out += &eigenvalue("largest eigenvalue ", most);
    out += &eigenvalue("smallest eigenvalue", least);
    if let Some([first, .., last]) = dense {
        out += &format!("of the whole Hessian: {first:.6e} to {last:.6e}\n");
    }
    match spectrum.condition() {
        Some(condition) => out += &format!("condition number    {condition:.4}\n"),
        None => out += "condition number    none: not all eigenvalues are above 0\n",
    }
    if let Some(rate) = spectrum.best_rate() {
        let share = lr / rate;
        let meant = match share {
            share if share > 2.0 => "diverges along the steepest direction without momentum",
            share if share > 1.0 => "oscillates along it without momentum",
            _ => "descends smoothly",
        };
        out += &format!("best rate 1 / L     {rate:.4e}; optimizer.lr = {} is {share:.3} of it: {meant}\n", number(lr));
    }
    out += &format!("\n{}\n\nshare of eigenvalues, in units of the largest absolute value:\n", verdict(spectrum));
    let edges = [&["below".to_string()][..], &LIMITS.map(|limit| limit.to_string())].concat();
    for (i, share) in spectrum.shares(&LIMITS).iter().enumerate() {
        let range = match edges.get(i + 1) {
            Some(end) if i == 0 => format!("below {end}"),
            Some(end) => format!("{} to {end}", edges[i]),
            None => format!("above {}", edges[i]),
        };
        out += &format!("{range:>16}  {share:>7.4}  {}\n", "#".repeat((share * 40.0).round() as usize));
    }
    out
}

/// Returns what the numbers say of the place, with the evidence.
fn verdict(spectrum: &Spectrum) -> String {
    let [least, most] = spectrum.extremes();
    let curvature = match spectrum.kind() {
        StationaryKind::Minimum => "no direction that was found curves downwards, as at a minimum",
        StationaryKind::Maximum => "no direction that was found curves upwards, as at a maximum",
        StationaryKind::Saddle => "some directions curve upwards and some downwards, as at a saddle",
        StationaryKind::Flat => "the loss has no curvature",
    };
    let place = match spectrum.is_stationary() {
        true => "The gradient almost vanishes",
        false => "The gradient does not vanish",
    };
    let share = 100.0 * spectrum.decrease() / spectrum.loss.abs().max(f64::MIN_POSITIVE);
    format!(
        "{place} (a step of 1 / L would lower the loss by about {share:.2} %), and {curvature} (eigenvalues from {:.3e} to {:.3e}).",
        least.value, most.value
    )
}

fn json(spectrum: &Spectrum, dense: Option<&[f64]>, samples: usize, lr: f64) -> serde_json::Value {
    let [least, most] = spectrum.extremes();
    let values: Vec<_> = spectrum
        .values
        .iter()
        .map(|one| serde_json::json!({ "value": one.value, "share": one.share, "error": one.error }))
        .collect();
    serde_json::json!({
        "samples": samples,
        "weights": spectrum.weights,
        "loss": spectrum.loss,
        "gradient_norm": spectrum.gradient,
        "smallest": least.value,
        "smallest_error": least.error,
        "largest": most.value,
        "largest_error": most.error,
        "condition": spectrum.condition(),
        "best_rate": spectrum.best_rate(),
        "rate": lr,
        "kind": match spectrum.kind() {
            StationaryKind::Minimum => "minimum",
            StationaryKind::Maximum => "maximum",
            StationaryKind::Saddle => "saddle",
            StationaryKind::Flat => "flat",
        },
        "stationary": spectrum.is_stationary(),
        "verdict": verdict(spectrum),
        "ritz_values": values,
        "eigenvalues": dense,
    })
}
