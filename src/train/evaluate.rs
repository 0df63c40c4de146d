//! Evaluates a sample set: every sample counts once.

use super::signals::Stop;
use crate::data::{Batch, BatchPart, Batches, Destination, EpochPlan, Loader, Place, Preparer, SampleSet};
use crate::device::Clock;
use crate::error::Result;
use crate::layers::MetricKind;
use crate::network::{Network, NetworkMetric};
use crate::placement::Variant;
use crate::program::{Session, StepResult};
use crate::report::{MetricValue, RunEvent};
use std::ops::Range;
use std::sync::Arc;

/// A batch that can be computed again.
#[derive(Debug)]
pub(super) struct BatchOf {
    /// The set: `train`, `validation` or `test`.
    pub set: &'static str,
    /// The batches of the set.
    pub batches: Batches,
    /// The place of the batch.
    pub place: Place,
    /// The part of the batch, unless it is whole.
    pub part: Option<(BatchPart, Range<usize>)>,
    /// The kind of step that it is for.
    pub variant: Variant,
    /// The clock of that step.
    pub clock: Clock,
}

impl BatchOf {
    /// Computes the batch.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn fill(&mut self, preparer: Preparer) -> Result<Batch> {
        self.batches = self.batches.clone().prepared_by(preparer);
        let mut batch = self.batches.empty();
        match self.part.clone() {
            None => self.batches.fill_at(self.place, &mut batch)?,
            Some(part) => self.batches.fill_part(self.place, part, &mut batch)?,
        }
        Ok(batch)
    }
}

/// The result of an evaluation.
#[derive(Debug)]
pub(super) struct SetResult {
    /// The result as an event; a loss that is not finite is NaN.
    pub event: RunEvent,
    /// The first batch whose loss is not finite.
    pub bad: Option<BatchOf>,
}

/// Returns what is reported besides the loss of the network, with values by index.
pub(super) fn measured(network: &Network, value: impl Fn(usize, MetricKind) -> f64) -> Vec<MetricValue> {
    let metric = |(index, metric): (usize, &NetworkMetric)| MetricValue {
        name: Arc::clone(&metric.name),
        value: value(index, metric.kind),
        kind: metric.kind,
    };
    network.reported().map(metric).collect()
}

/// The results of the batches of an evaluation, summed in their order.
#[derive(Debug)]
pub(super) struct EvaluationSums<'s> {
    set: &'s Arc<SampleSet>,
    batch: usize,
    plan: EpochPlan,
    loss: f64,
    images: f64,
    metrics: Vec<f64>,
    /// The number of batches.
    number: usize,
    /// The first batch whose loss is not finite.
    bad: Option<usize>,
}

impl<'s> EvaluationSums<'s> {
    /// Creates the sums of no batches of a set.
    pub fn new(session: &Session, set: &'s Arc<SampleSet>, batch: usize) -> Self {
        let (plan, metrics) = (Batches::eval(set, batch).plan(), vec![0.0; session.metrics().len()]);
        EvaluationSums { set, batch, plan, loss: 0.0, images: 0.0, metrics, number: 0, bad: None }
    }

    /// Adds the next batch, which the session has just finished.
    pub fn add(&mut self, session: &Session, result: &StepResult) {
        let rows = self.plan.rows(self.number) as f64;
        if self.bad.is_none() && !result.loss.is_finite() {
            self.bad = Some(self.number);
        }
        self.number += 1;
        self.loss += result.loss * rows;
        self.images += rows;
        let network = &session.plan().network;
        for ((sum, value), metric) in self.metrics.iter_mut().zip(session.metrics()).zip(&network.metrics) {
            *sum += if metric.kind == MetricKind::Mean { value * rows } else { *value };
        }
    }

    /// Returns the result of the set after `step` updates.
    pub fn result(self, session: &Session, step: u64) -> SetResult {
        let EvaluationSums { set, batch, plan, loss, images, metrics, bad, .. } = self;
        let bad = bad.map(|number| {
            let batches = Batches::eval(set, batch);
            let variant = Variant::eval(plan.rows(number));
            let clock = Clock { step, ..Clock::default() };
            BatchOf { set: set.name, place: plan.place(0, number), part: None, batches, variant, clock }
        });
        let event = RunEvent::Eval {
            step,
            split: set.name.to_string(),
            loss: if bad.is_some() { f64::NAN } else { loss / images },
            metrics: measured(&session.plan().network, |index, _| metrics[index] / images),
            images: images as u64,
        };
        SetResult { event, bad }
    }
}

/// Evaluates a sample set in batches read by some workers, after `step` updates; `None` if `stop` was requested first.
///
/// # Errors
/// When the data cannot be read or a step fails.
pub(super) fn evaluate(
    session: &mut Session,
    set: &Arc<SampleSet>,
    (batch, workers): (usize, usize),
    step: u64,
    stop: &Stop,
) -> Result<Option<SetResult>> {
    let mut loader = Loader::eval(set, Destination { workers, ..session.destination() }, batch)?;
    let mut sums = EvaluationSums::new(session, set, batch);
    let mut stopped = false;
    let clock = Clock { step, ..Clock::default() };
    loop {
        // Submitted batches finish: the session must be idle when it is read or written.
        stop.look(false, 0.0)?;
        stopped |= stop.requested();
        let next = if stopped { None } else { loader.next_batch()? };
        if let Some(batch) = next {
            session.submit(Variant::eval(batch.rows), batch, clock)?;
            if session.under_way() < session.depth() {
                continue;
            }
        } else if session.under_way() == 0 {
            break;
        }
        let result = session.finish()?;
        sums.add(session, &result);
    }
    Ok((!stopped).then(|| sums.result(session, step)))
}
