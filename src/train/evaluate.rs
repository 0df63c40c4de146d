//! Evaluates a sample set: every sample counts once.

use super::signals::Stop;
use crate::data::{Batch, BatchPart, Batches, Destination, Loader, Place, Preparer, SampleSet};
use crate::device::Clock;
use crate::error::Result;
use crate::layers::MetricKind;
use crate::network::{Network, NetworkMetric};
use crate::placement::Variant;
use crate::program::Session;
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

/// Evaluates a sample set in batches read by some workers, after `step` updates; `None` if `stop` was requested first.
///
/// # Errors
/// When the data cannot be read or a step fails.
pub(super) fn evaluate(
    session: &mut Session,
    split: &Arc<SampleSet>,
    (batch, workers): (usize, usize),
    step: u64,
    stop: &Stop,
) -> Result<Option<SetResult>> {
    let mut loader = Loader::eval(split, Destination { workers, ..session.destination() }, batch)?;
    let plan = Batches::eval(split, batch).plan();
    let (mut loss, mut images) = (0.0, 0.0);
    let mut metrics = vec![0.0; session.metrics().len()];
    let (mut stopped, mut number, mut bad) = (false, 0, None);
    let clock = Clock { step, ..Clock::default() };
    loop {
        // Submitted batches finish: the session must be idle when it is read or written.
        stopped |= stop.requested();
        let next = if stopped { None } else { loader.next_batch()? };
        if let Some(batch) = next {
            let variant = Variant::eval(batch.rows);
            session.submit(variant, batch, clock)?;
            if session.under_way() < session.depth() {
                continue;
            }
        } else if session.under_way() == 0 {
            break;
        }
        let (result, rows) = (session.finish()?, plan.rows(number) as f64);
        if bad.is_none() && !result.loss.is_finite() {
            bad = Some(number);
        }
        number += 1;
        loss += result.loss * rows;
        images += rows;
        let network = &session.plan().network;
        for ((sum, value), metric) in metrics.iter_mut().zip(session.metrics()).zip(&network.metrics) {
            *sum += if metric.kind == MetricKind::Mean { value * rows } else { *value };
        }
    }
    metrics.iter_mut().for_each(|sum| *sum /= images);
    let bad = bad.map(|number| {
        let batches = Batches::eval(split, batch);
        let variant = Variant::eval(plan.rows(number));
        BatchOf { set: split.name, place: plan.place(0, number), part: None, batches, variant, clock }
    });
    let event = RunEvent::Eval {
        step,
        split: split.name.to_string(),
        loss: if bad.is_some() { f64::NAN } else { loss / images },
        metrics: measured(&session.plan().network, |index, _| metrics[index]),
        images: images as u64,
    };
    Ok((!stopped).then_some(SetResult { event, bad }))
}
