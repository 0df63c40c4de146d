//! Checks that depend on the length of the run: counts that overflow, rates that leave the range of single precision; and
//! batches that are too small for a layer.

use crate::config::Config;
use crate::data::EpochPlan;
use crate::error::{Fault, Problem, number, quantity};
use crate::network::{Network, Node};
use crate::optim::{Interval, RunProgress, ScheduleState, is_single};

/// The number of steps at which the learning rate is examined, about.
const SAMPLES: u64 = 1000;

/// A run whose ranges are checked.
pub(super) struct RunLimits<'a> {
    pub config: &'a Config,
    pub network: &'a Network,
    pub epoch: EpochPlan,
    /// The number of its updates, unless it is too large to count.
    pub steps: Option<u64>,
    /// The samples of its smallest training batch.
    pub least_rows: Option<usize>,
}

/// Returns the problems of a run.
pub(super) fn problems(run: &RunLimits) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(steps) = run.steps else {
        let (length, batches) = (run.config.train.length, quantity(run.epoch.batches() as u64, "batch"));
        let message = format!("{length} of {batches} are more than 2^64 updates; make the run shorter");
        problems.push(run.config.train_locations.problem("[train]", &Fault::at("epochs", message)));
        return problems;
    };
    let (step, lr) = largest(run, steps);
    let most = run.network.parameters.iter().map(|parameter| parameter.lr_mult).fold(1.0, f64::max);
    if !((lr * most) as f32).is_finite() {
        let what = if most > 1.0 { format!(" for a layer with lr_mult = {}", number(most)) } else { String::new() };
        let message = format!(
            "the schedule makes the learning rate {:.1e} at step {step}{what}, which is infinite in single precision; use \
             a factor nearer to 1, or a longer interval",
            lr * most
        );
        problems.push(run.config.optimizer_locations.problem("[optimizer]", &Fault::at("schedule", message)));
    }
    problems
}

/// Returns notes on what is probably not intended.
pub(super) fn notes(run: &RunLimits) -> Vec<String> {
    let vanishes = run.steps.map(|steps| last(run, steps)).filter(|&(_, lr)| lr as f32 == 0.0);
    let vanishes = vanishes.filter(|_| is_single(run.config.optimizer.lr)).map(|(step, _)| {
        format!("the schedule makes the learning rate 0 in single precision before step {step}, the last one")
    });
    vanishes.into_iter().chain(single_values(run)).collect()
}

/// Returns the last step of the run, from 1, and its learning rate.
fn last(run: &RunLimits, steps: u64) -> (u64, f64) {
    let step = steps.max(1);
    let epoch = match run.config.train.length {
        Interval::Epochs(epochs) => epochs - 1,
        Interval::Steps(_) => (step - 1) / run.epoch.batches() as u64,
    };
    (step, lr(run, steps, step, epoch))
}

/// Returns the step with the largest learning rate, among the last one and some that are spread over the run.
fn largest(run: &RunLimits, steps: u64) -> (u64, f64) {
    let batches = run.epoch.batches() as u64;
    let spread = (1..=steps).step_by(usize::try_from(steps / SAMPLES).unwrap_or(usize::MAX).max(1));
    let rates = spread.take(2 * SAMPLES as usize).map(|step| (step, lr(run, steps, step, (step - 1) / batches)));
    // Later steps do not displace equal ones.
    rates.fold(last(run, steps), |most, other| if other.1 > most.1 { other } else { most })
}

fn lr(run: &RunLimits, steps: u64, step: u64, epoch: u64) -> f64 {
    let progress = RunProgress { step: step - 1, epoch, per_epoch: run.epoch.batches() as u64, steps };
    run.config.optimizer.schedule.lr(run.config.optimizer.lr, progress, &ScheduleState::default())
}

/// Notes the layers of batch normalisation that see one value per channel in some training batch.
fn single_values(run: &RunLimits) -> Option<String> {
    let rows = run.least_rows?;
    let single = |node: &&Node| {
        let input = node.input_shapes[0];
        let positions = if input.flat { 1 } else { input.h * input.w };
        node.layer.key() == "batch_norm" && rows * positions == 1
    };
    let layers: Vec<&str> = run.network.nodes.iter().filter(single).map(|node| node.name.as_str()).collect();
    if layers.is_empty() {
        return None;
    }
    let which = match rows == run.epoch.batch {
        true => "a batch of 1 sample".to_string(),
        false if run.config.train.accumulate > 1 => "a part of a batch, which has 1 sample,".to_string(),
        false => format!("the last batch of each epoch, which has 1 sample of {},", run.epoch.samples),
    };
    let layers = layers.join(", ");
    Some(format!(
        "{which} gives {layers} one value per channel, which has no variance: its output is the bias, and the running \
         statistics stay; choose another batch"
    ))
}
