//! `peristyle gradcheck CONFIG`.

use super::configured::Configured;
use super::output::{notes, print};
use crate::data::Batches;
use crate::diagnose::{Check, Subject};
use crate::error::{Error, Result};
use crate::train::{DataPolicy, Job};

/// Arguments of `gradcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Compares gradients with finite differences of losses, and Hessian-vector products (H v) with \
    finite differences of gradients, at the network's initial values, in double precision on the CPU.

In each parameter, coordinates with the largest gradients and random ones are compared. Where a relu or max_pool changes \
    its choice within the step of the difference (a kink), the difference is not the derivative: smaller steps are tried, \
    and if none avoids the kink, the coordinate is skipped, counted as a kink, and replaced by another one. A parameter \
    with as many kinks as compared coordinates is not judged; it is checked again on the first sample alone. Errors are \
    relative to the largest value compared in the parameter, or to what the rounding of the loss can resolve if that is \
    larger, as where a gradient is 0 in truth.

Exits with 1 if an error exceeds the tolerance.")]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Number of coordinates compared in each parameter; by default 2 to 10, fewer if the network is large.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: Option<u32>,
    /// Number of training samples in the batch.
    #[arg(long, default_value_t = 4)]
    rows: usize,
    /// The largest relative difference allowed.
    #[arg(long, default_value_t = 1e-5)]
    tolerance: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let mut sets = arguments.configured.sets();
    sets.push(format!("data.batch={}", arguments.rows.max(1)));
    // The check tests formulas, in f64 on one CPU device, so the devices of the file need not be present.
    sets.extend(["devices.use=\"cpu\"", "devices.mesh={ data = 1, columns = 1 }"].map(String::from));
    let (job, plan) = Job::open(&arguments.configured.config, &sets, DataPolicy::Required)?;
    notes(&job.notes);
    let splits = crate::data::open(&job.config.data, job.config.seed, &job.config.base)?;
    let mut batches = Batches::train(&splits);
    let mut batch = batches.empty();
    batches.fill(0, 0, &mut batch)?;
    let subject = Subject {
        network: &job.network,
        seed: job.config.seed,
        images: &batch.images,
        targets: &batch.targets,
        target_width: batch.targets.len() / batch.rows,
        threads: plan.spec.target.threads(),
    };
    drop(plan);
    print(&row("", ["gradient:", "", "", "H v:", "", ""]))?;
    print(&row("parameter", ["compared", "kinks", "rel. error", "compared", "kinks", "rel. error"]))?;
    let all: Vec<usize> = (0..job.network.parameters.len()).collect();
    let mut checks = compare(&subject, &all, arguments.samples)?;
    let again: Vec<usize> = all.into_iter().filter(|&p| !checks.iter().all(|checks| checks[p].is_judged())).collect();
    if !again.is_empty() && subject.rows() > 1 {
        print("on the first sample alone, where fewer kinks are near:\n")?;
        let of_one = compare(&subject.first_sample(), &again, arguments.samples)?;
        for (checks, of_one) in checks.iter_mut().zip(of_one) {
            for (&p, check) in again.iter().zip(of_one) {
                // A difference that was found counts in any case.
                let error = check.error.max(checks[p].error);
                if !checks[p].is_judged() {
                    checks[p] = check;
                }
                checks[p].error = error;
            }
        }
    }
    finish(checks, arguments.tolerance)
}

/// Compares gradients and products of some parameters, and prints a row for each.
fn compare(subject: &Subject, parameters: &[usize], samples: Option<u32>) -> Result<[Vec<Check>; 2]> {
    let samples = samples.map_or_else(|| subject.affordable_samples(), |samples| samples as usize);
    let products = subject.check_products(&subject.products()?)?;
    let products: Vec<Check> = parameters.iter().map(|&p| products[p].clone()).collect();
    let mut of_row = products.iter();
    let gradients = subject.check_gradients(parameters, &subject.gradients()?, samples, |check| {
        let [a, b, c] = cells(check);
        let [d, e, f] = of_row.next().map(cells).expect("both checks have the same parameters");
        print(&row(&check.name, [&a, &b, &c, &d, &e, &f]))
    })?;
    Ok([gradients, products])
}

/// Prints what all checks found.
fn finish([gradients, products]: [Vec<Check>; 2], tolerance: f64) -> Result<()> {
    let all = || gradients.iter().chain(&products);
    let unjudged = all().filter(|check| !check.is_judged()).count();
    if unjudged > 0 {
        print(&format!(
            "{unjudged} not judged, because kinks are near most of their coordinates; another --set seed=N may avoid them\n"
        ))?;
    }
    let unresolved = all().filter(|check| check.is_judged() && !check.is_resolved).count();
    if unresolved > 0 {
        print(&format!(
            "{unresolved} compared on the scale of rounding only, because their values are near 0 or are 0\n"
        ))?;
    }
    for (checks, what) in [(&gradients, "gradient"), (&products, "H v")] {
        let wrong: Vec<&Check> = checks.iter().filter(|check| check.error > tolerance).collect();
        if !wrong.is_empty() {
            return Err(Error::Goal(failure(&wrong, what, tolerance)));
        }
    }
    if unjudged == gradients.len() + products.len() {
        return Err(Error::Goal("no parameter could be judged".to_string()));
    }
    print(&format!("largest relative error {:.2e}\n", worst(all())))
}

fn worst<'a>(checks: impl Iterator<Item = &'a Check>) -> f64 {
    checks.map(|check| check.error).fold(0.0, f64::max)
}

/// Describes a failure. An error of a backward pass continues through the layers before it, so the last wrong parameter
/// is nearest to it.
fn failure(wrong: &[&Check], what: &str, tolerance: f64) -> String {
    let (worst, last) = (worst(wrong.iter().copied()), &wrong[wrong.len() - 1].name);
    let layer = last.rsplit_once('.').map_or(last.as_str(), |(layer, _)| layer);
    let names = match wrong.len() {
        1 => last.clone(),
        count => format!("{count} parameters, from {} to {last}", wrong[0].name),
    };
    format!(
        "{what} of {names}: largest relative error {worst:.2e}, allowed {tolerance:.0e}; check the backward pass of layer \
         \"{layer}\", and of those between it and the next layer with parameters"
    )
}

/// Formats a row of the table.
fn row(name: &str, [a, b, c, d, e, f]: [&str; 6]) -> String {
    format!("{name:<28} {a:>9} {b:>6} {c:>11} {d:>9} {e:>6} {f:>11}\n")
}

/// Formats what a check compared, skipped and found.
fn cells(check: &Check) -> [String; 3] {
    let error = if check.is_judged() { format!("{:.2e}", check.error) } else { "not judged".to_string() };
    [check.samples.to_string(), check.kinks.to_string(), error]
}
