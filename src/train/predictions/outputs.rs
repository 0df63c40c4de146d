//! What the main loss of a network reads in an evaluation, batch by batch.

use super::super::evaluate::{EvaluationSums, SetResult};
use super::super::run::Run;
use super::super::sample_losses::LossInputs;
use super::super::signals::Stop;
use crate::data::{Destination, Loader, SampleSet, TEN};
use crate::device::Clock;
use crate::error::Result;
use crate::network::Network;
use crate::placement::Variant;
use crate::program::{Observer, Session};
use crate::report::RunEvent;
use std::sync::Arc;

/// What the outputs of a network mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// The logits of so many classes.
    Classes(usize),
    /// So many values.
    Values(usize),
}

impl OutputKind {
    /// Returns what the main loss of a network reads: classes if the loss learns nothing else.
    pub fn of(network: &Network) -> Self {
        let node = &network.nodes[main_loss(network)];
        let (input, targets) = (node.input_shapes[0], node.layer.targets(node.input_shapes[0]));
        let has_classes = targets.is_some_and(|targets| targets.classes.is_some() && targets.values.is_none());
        if has_classes { OutputKind::Classes(input.features()) } else { OutputKind::Values(input.features()) }
    }
}

/// Returns the node of the main loss: the one with the largest weight, of several the last.
fn main_loss(network: &Network) -> usize {
    let losses = network.nodes.iter().enumerate().filter(|(_, node)| node.is_loss());
    let main = losses.max_by(|(_, a), (_, b)| a.loss_weight.total_cmp(&b.loss_weight));
    main.expect("a network has a loss").0
}

/// The outputs of a network for the samples of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchOutputs<'a> {
    /// The position of the first sample in its set.
    pub first: usize,
    /// The number of samples.
    pub rows: usize,
    /// What the main loss reads: (rows, width).
    pub outputs: &'a [f64],
    /// The targets: class numbers (rows, 1), distributions (rows, classes), or values (rows, D).
    pub targets: &'a [f32],
}

impl<'a> BatchOutputs<'a> {
    /// Returns, for each sample, its position in the set, its outputs and its target.
    pub fn samples(&self) -> impl Iterator<Item = (usize, &'a [f64], &'a [f32])> {
        let (outputs, targets) = (self.outputs.len() / self.rows, self.targets.len() / self.rows);
        let rows = self.outputs.chunks_exact(outputs).zip(self.targets.chunks_exact(targets));
        let first = self.first;
        rows.enumerate().map(move |(row, (outputs, target))| (first + row, outputs, target))
    }
}

/// Evaluates a set as [`evaluate`](super::super::evaluate::evaluate) does, with the same bits, and visits the outputs of every batch.
///
/// # Errors
/// When the data cannot be read, a step fails, or a visit fails.
pub(in crate::train) fn each_batch(
    session: &mut Session,
    set: &Arc<SampleSet>,
    (batch, workers): (usize, usize),
    step: u64,
    stop: &Stop,
    mut visit: impl FnMut(BatchOutputs) -> Result<()>,
) -> Result<Option<SetResult>> {
    let node = main_loss(&session.plan().network);
    let inputs = Arc::new(LossInputs::new(vec![node]));
    let observer: Arc<dyn Observer> = Arc::clone(&inputs) as Arc<dyn Observer>;
    let mut loader = Loader::eval(set, Destination { workers, ..session.destination() }, batch)?;
    let mut sums = EvaluationSums::new(session, set, batch);
    let clock = Clock { step, ..Clock::default() };
    while let Some(batch) = loader.next_batch()? {
        if stop.requested() {
            return Ok(None);
        }
        session.submit_observed(Variant::eval(batch.rows), batch, clock, &observer)?;
        let result = session.finish()?;
        sums.add(session, &result);
        let outputs = inputs.take().remove(&node).expect("the main loss has been shown");
        visit(BatchOutputs {
            first: batch.first,
            rows: batch.rows,
            outputs: &outputs.values,
            targets: &batch.targets,
        })?;
    }
    Ok(Some(sums.result(session, step)))
}

impl Run {
    /// Returns the names of the classes, if they have names.
    pub fn class_names(&self) -> Option<Vec<String>> {
        self.splits.train.data.names.as_deref().map(<[String]>::to_vec)
    }

    /// Returns the name of a sample of a set by its index: that of its file, or its number.
    pub fn sample_name(&self, set: &str, sample: u32) -> String {
        let sets = [&self.splits.validation, &self.splits.test];
        let found = sets.into_iter().flatten().find(|one| one.name == set);
        found.map_or_else(
            || format!("image {sample}"),
            |set| {
                let views = if set.data.ten_crops { TEN } else { 1 };
                set.data.name(sample as usize * views)
            },
        )
    }

    /// Evaluates as [`Run::evaluations`] does, with the same results, and visits the outputs of every batch of each set.
    ///
    /// # Errors
    /// When a step or a visit fails.
    pub fn evaluations_with(
        &mut self,
        stop: &Stop,
        visit: &mut dyn FnMut(&SampleSet, BatchOutputs) -> Result<()>,
    ) -> Result<Option<(Vec<RunEvent>, Result<()>)>> {
        self.evaluations_by(&mut |session, set, at, step| {
            each_batch(session, set, at, step, stop, |outputs| visit(set, outputs))
        })
    }
}
