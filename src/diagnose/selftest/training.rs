//! Checks the loss of each of ten updates of a small network on a mesh of logical devices of one device.
//!
//! The network is well conditioned: its batch norm has many values per channel, its learning rate is small, and the
//! norm of its gradients is clipped. In ten updates, f32 therefore drifts from f64 by much less than the bound.

use super::compare::{Compared, Difference, Tally};
use super::device::{Device, Effort};
use crate::config;
use crate::data::{self, Batches, Preparation};
use crate::device::Clock;
use crate::error::Result;
use crate::network::CheckedConfig;
use crate::placement::Variant;
use crate::program::{Graphs, Plan};
use crate::train::{DataPolicy, Job, exchange};
use std::path::Path;

const UPDATES: usize = 10;
const QUICK_UPDATES: usize = 3;

/// The minimum bound on the relative error of a loss: devices add in different orders.
pub(super) const BOUND: f64 = 1e-3;

/// The precisions that round factors, with their bounds. Ten updates amplify the rounding error of a gradient: about
/// 1e-3 of it in tf32 and a few per cent in bf16, in PyTorch as here. A wrong gradient has an error of its own size.
pub(super) const ROUNDED: [(&str, f64); 2] = [("tf32", 1e-3), ("bf16", 1.5e-2)];

const NETWORK: &str = r#"
[data]
train = { synthetic = { images = 64, classes = 4, shape = [8, 8, 2] } }
batch = 8
normalize = "standardize"
[model]
input = [8, 8, 2]
init = "kaiming"
layers = [
  { conv = { filters = 4, kernel = 3, pad = 1 } },
  { batch_norm = {} },
  "relu",
  { lrn = { size = 3, alpha = 1e-2 } },
  { max_pool = { kernel = 2, stride = 2 } },
  "flatten",
  { dropout = { rate = 0.25 } },
  { dense = { units = 12 } },
  "relu",
  { dense = { units = 4 } },
]
[optimizer]
chain = [{ clip_by_global_norm = 2.0 }, { weight_decay = 1e-3 }, { momentum = 0.9 }]
lr = 0.02
[train]
steps = 10
"#;

/// Reads the network for `devices`, as in `devices.use`, with further settings.
///
/// # Errors
/// If there are no such devices.
pub(super) fn job(devices: &str, more: &[String]) -> Result<(Job, Plan)> {
    let sets = [&[format!("devices.use={devices:?}")], more].concat();
    let parsed = config::from_text("selftest", NETWORK, Path::new(""), &sets);
    Job::complete(CheckedConfig::new(parsed), DataPolicy::Required)
}

/// Trains the network and returns the loss of every update.
fn losses(devices: &str, more: &[String], updates: usize, graphs: Graphs) -> Result<Vec<f64>> {
    let (job, plan) = job(devices, more)?;
    let splits = data::open(&job.config.data, job.config.seed, &job.config.base)?;
    let mut session = job.session(plan)?.graphs(graphs);
    session.prepare(Preparation::of(&splits))?;
    let mut batches = Batches::train(&splits).prepared_by(session.preparer());
    let mut batch = batches.empty();
    exchange::initialise(&mut session, job.config.seed)?;
    let mut losses = Vec::new();
    for step in 0..updates as u64 {
        // Batches are submitted as far ahead of the results as in a run.
        if session.under_way() == session.depth() {
            losses.push(session.finish()?.loss);
        }
        let (epoch, index) = batches.plan().at(step);
        batches.fill(epoch, index, &mut batch)?;
        let clock = Clock { step: step + 1, epoch, lr: job.lr(step + 1, epoch), row: 0 };
        let variant = Variant::train(batch.rows);
        session.submit(variant, &mut batch, clock)?;
    }
    while losses.len() < updates {
        losses.push(session.finish()?.loss);
    }
    Ok(losses)
}

/// Returns the meshes to check: data x columns.
pub(super) fn meshes(effort: Effort) -> &'static [(usize, usize)] {
    if effort == Effort::Quick { &[(2, 2)] } else { &[(1, 1), (2, 1), (1, 2), (2, 2)] }
}

/// A mesh, and a precision with the minimum bound of its losses.
pub(super) type Way<'a> = ((usize, usize), (&'a str, f64));

/// Compares the losses of a mesh with those of one CPU device in f64. The bound is ten times the drift of one CPU
/// device in f32 from these, or the precision's bound if that is larger.
pub(super) fn check(way: Way, device: &Device, effort: Effort, tally: &mut Tally) {
    let ((data, columns), (precision, least)) = way;
    let updates = if effort == Effort::Quick { QUICK_UPDATES } else { UPDATES };
    let one = |precision: &str| {
        let sets = [format!("devices.precision={precision:?}"), "devices.threads=1".to_string()];
        losses("cpu", &sets, updates, Graphs::None)
    };
    let (exact, single) = match (one("f64"), one("f32")) {
        (Ok(exact), Ok(single)) => (exact, single),
        (Err(error), _) | (_, Err(error)) => return tally.add("the CPU in f64 and f32", Err(error)),
    };
    let relative = |got: f64, exact: f64| {
        let apart = (got - exact).abs() / exact.abs();
        if apart.is_nan() { f64::INFINITY } else { apart }
    };
    let mut ways = vec![(Graphs::None, "issued step by step")];
    if device.driver.is_some() {
        ways.insert(0, (Graphs::Captured, "as a graph"));
    }
    for (graphs, way) in ways {
        let mesh = format!("devices.mesh={{ data = {data}, columns = {columns} }}");
        let sets = [mesh, format!("devices.precision={precision:?}")];
        let got = losses(&device.times(data * columns), &sets, updates, graphs);
        let compared = |index: usize, got: f64| {
            let (expected, error) = (exact[index], relative(got, exact[index]));
            let bound = least.max(10.0 * relative(single[index], expected));
            Compared { role: "loss".to_string(), difference: Difference { index, got, expected, error }, bound }
        };
        let outcome = got.map(|got| got.into_iter().enumerate().map(|(i, loss)| compared(i, loss)).collect());
        tally.add(&format!("{data} x {columns} devices, {way}"), outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound is meaningful only if f32 drifts by far less.
    #[test]
    fn the_network_learns_and_is_well_conditioned() {
        let one = |precision: &str| {
            losses("cpu", &[format!("devices.precision={precision:?}")], UPDATES, Graphs::None).unwrap()
        };
        let (exact, single) = (one("f64"), one("f32"));
        assert!(exact[UPDATES - 1] < 0.8 * exact[0], "{exact:?}");
        for (exact, single) in exact.iter().zip(&single) {
            assert!((single - exact).abs() <= 1e-2 * BOUND * exact, "{single} for {exact}");
        }
    }
}
