//! `peristyle diagnose landscape CONFIG`.

use super::subject::{SubjectArguments, WeightedSubject};
use crate::cli::bar::Progress;
use crate::cli::output::{print, print_json};
use crate::diagnose::{Landscape, Plane};
use crate::error::{Error, Result, number, quantity};
use crate::storage::Fs;
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;

const ABOUT: &str = "Computes the loss, the mean over the first training samples of the first epoch, on a plane through the weights: those with which training begins, \
    or, with a run directory or a checkpoint in place of a configuration, those of the newest checkpoint.

Directions: random ones, normalised by filter (Li et al. 2018), so that 1 is as far as the weights are large; or principal ones, along which \
    the weights of a run's checkpoints differ most from the last ones, with the path of the run; or the first two weights themselves, for functions of two \
    variables (configs/ravine.toml).";

/// Which plane is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlaneKind {
    /// Two random directions, normalised by filter.
    Random,
    /// The principal directions of the checkpoints of a run.
    Principal,
    /// The first two weights.
    Weights,
}

/// Arguments of `diagnose landscape`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(super) struct Arguments {
    #[command(flatten)]
    subject: SubjectArguments,
    /// The directions; by default principal for a run with at least 3 checkpoints, otherwise random.
    #[arg(long, value_enum)]
    plane: Option<PlaneKind>,
    /// Points along each direction.
    #[arg(long, default_value_t = 25, value_parser = RangedU64ValueParser::<usize>::new().range(3..=1000))]
    points: usize,
    /// How far random directions, or weights, reach to both sides.
    #[arg(long, default_value_t = 1.0)]
    reach: f64,
    /// Draws the plane in an SVG file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if !(arguments.reach > 0.0 && arguments.reach.is_finite()) {
        return Err(Error::Usage(format!("--reach {}, expected a number above 0", number(arguments.reach))));
    }
    let of = WeightedSubject::open(&arguments.subject)?;
    let network = &of.network;
    let checkpoints = match arguments.plane {
        Some(PlaneKind::Random | PlaneKind::Weights) => Vec::new(),
        _ => of.checkpoints()?,
    };
    let kind = arguments.plane.unwrap_or(if checkpoints.len() >= 3 { PlaneKind::Principal } else { PlaneKind::Random });
    let (plane, labels) = match kind {
        PlaneKind::Random => (Plane::random(&network.job.network, network.weights(), network.job.config.seed), RANDOM),
        PlaneKind::Principal => (Plane::principal(&checkpoints)?, PRINCIPAL),
        PlaneKind::Weights => (Plane::first_weights(network.weights(), &of.recorded_path()?)?, WEIGHTS),
    };
    let axes = plane.axes(arguments.points, arguments.reach);
    let progress = Progress::new(arguments.points * arguments.points, "losses");
    let subject = network.subject();
    let found = Landscape::of(&subject, network.weights(), &plane, axes, |done| progress.at(done))?;
    drop(progress);
    if let Some(file) = &arguments.svg {
        Fs::default().replace(file, found.svg(&network.job.config.name, &plane, labels)?.as_bytes())?;
    }
    if arguments.json {
        let json = serde_json::json!({
            "axes": found.axes,
            "losses": found.losses.iter().map(|loss| loss.is_finite().then_some(*loss)).collect::<Vec<_>>(),
            "path": plane.path,
            "share": plane.share,
            "samples": network.samples(),
        });
        return print_json(&(json.to_string() + "\n"));
    }
    print(&text(&found, &plane, network.samples()))
}

const RANDOM: [&str; 2] = ["first random direction", "second random direction"];
const PRINCIPAL: [&str; 2] = ["first principal direction of the checkpoints", "second principal direction"];
const WEIGHTS: [&str; 2] = ["first weight", "second weight"];

/// Returns a map in characters, the first coordinate to the right, the second one upwards; darker characters are lower losses.
fn text(found: &Landscape, plane: &Plane, samples: usize) -> String {
    const SHADES: [char; 8] = ['@', '#', '%', '*', '+', '-', '.', ' '];
    let finite = || found.losses.iter().copied().filter(|loss| loss.is_finite());
    let (low, high) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), loss| (a.min(loss), b.max(loss)));
    let [xs, ys] = &found.axes;
    let base = (high - low).max(1e-12) * 1e-3;
    let mut out = format!("losses on {}: {} to {}\n", quantity(samples as u64, "sample"), number(low), number(high));
    if let Some(share) = plane.share {
        out += &format!("the plane has {:.1} % of the checkpoints' squared distances from the last\n", 100.0 * share);
    }
    for j in (0..ys.len()).rev() {
        let shade = |i: usize| {
            let loss = found.losses[j * xs.len() + i];
            let share = ((loss - low + base) / base).ln() / ((high - low + base) / base).ln();
            if loss.is_finite() { SHADES[((share * 7.999) as usize).min(7)] } else { '?' }
        };
        let line: String = (0..xs.len()).flat_map(|i| [shade(i); 2]).collect();
        out += &format!("{:>11.3e}  {line}\n", ys[j]);
    }
    out + &format!("{:>11}  {:.3e} to {:.3e}\n", "", xs[0], xs[xs.len() - 1])
}
