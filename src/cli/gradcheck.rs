//! `peristyle gradcheck CONFIG`.

use super::configured::Configured;
use super::output::{notes, print};
use crate::data::Batches;
use crate::diagnose::{Check, gradient_check, hessian_vector_check};
use crate::error::{Error, Result};
use crate::train::{DataPolicy, Job};

/// Arguments of `gradcheck`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Number of coordinates compared in each parameter.
    #[arg(long, default_value_t = 10)]
    samples: usize,
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
    let (job, _) = Job::open(&arguments.configured.config, &sets, DataPolicy::Required)?;
    notes(&job.notes);
    let splits = crate::data::open(&job.config.data, job.config.seed, &job.config.base)?;
    let mut batches = Batches::train(&splits);
    let mut batch = batches.empty();
    batches.fill(0, 0, &mut batch);
    let width = batch.targets.len() / batch.rows;
    let probe = (&batch.images[..], &batch.targets[..], width);
    let gradients = gradient_check(&job.network, job.config.seed, probe, arguments.samples)?;
    let products = hessian_vector_check(&job.network, job.config.seed, probe)?;
    let mut text =
        format!("{:<28} {:>8} {:>22} {:>22}\n", "parameter", "samples", "gradient (rel. error)", "H v (rel. error)");
    for (g, h) in gradients.iter().zip(&products) {
        text += &format!("{:<28} {:>8} {:>22.2e} {:>22.2e}\n", g.name, g.samples, g.error, h.error);
    }
    print(&text)?;
    let worst = |checks: &[Check]| checks.iter().map(|c| c.error).fold(0.0, f64::max);
    let worst = worst(&gradients).max(worst(&products));
    if worst > arguments.tolerance || worst.is_nan() {
        return Err(Error::Goal(format!("largest relative error {worst:.2e}, allowed {:.0e}", arguments.tolerance)));
    }
    print(&format!("largest relative error {worst:.2e}\n"))
}
