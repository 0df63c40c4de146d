//! What to do about a loss, a gradient or a weight that is not finite: finds the layer where it arises and its cause, and
//! says what helps.

use super::evaluate::BatchOf;
use super::run::Run;
use super::start::tensors;
use crate::cluster::Team;
use crate::data::{BatchPart, Batches, Place, Preparer};
use crate::device::Clock;
use crate::error::{Error, Result, number};
use crate::layers::{Pass, Role};
use crate::placement::Variant;
use crate::program::{FirstNonFinite, Persistent};
use std::ops::Range;
use std::sync::Arc;

/// Pixels and weights beyond this are suspected: products of a few of them overflow.
const LARGE: f64 = 1e4;

/// The largest absolute value of some values, and its location.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Largest<At> {
    value: f64,
    at: At,
}

/// Returns how far a value is from 0; NaN is as far as infinity.
fn size(value: f64) -> f64 {
    if value.is_nan() { f64::INFINITY } else { value.abs() }
}

/// Returns the value that is furthest from 0.
fn largest<At>(values: impl IntoIterator<Item = (At, f64)>) -> Option<Largest<At>> {
    let largest = values.into_iter().reduce(|a, b| if size(b.1) > size(a.1) { b } else { a });
    largest.map(|(at, value)| Largest { value, at })
}

/// Returns the largest pixel of a batch after normalisation, with the index of its sample in the data set.
///
/// # Errors
/// If an image cannot be read.
fn largest_pixel(of: &mut BatchOf) -> Result<Option<Largest<u32>>> {
    let batch = of.fill(Preparer::Host)?;
    let width = (batch.images.len() / batch.rows.max(1)).max(1);
    let pixels = batch.images.iter().enumerate().map(|(i, &pixel)| (i / width, f64::from(pixel)));
    let largest = largest(pixels);
    Ok(largest.map(|Largest { value, at }| Largest { value, at: of.batches.sample(batch.first + at) }))
}

/// Where a process found the first value that is not finite.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
struct Found {
    /// Its place in the order in which layers run: the pass, and the node or its distance from the last one.
    first: (usize, usize),
    /// The description.
    text: String,
}

/// Returns the place of a value in the order in which layers run.
fn key(first: &FirstNonFinite) -> (usize, usize) {
    let node = if first.pass == Pass::Forward { first.node } else { usize::MAX - first.node };
    (first.pass as usize, node)
}

/// Returns what the process found whose value is the first, given what this one found.
///
/// # Errors
/// If the processes cannot exchange data.
fn earliest(team: Option<&Arc<Team>>, own: Option<Found>) -> Result<Option<Found>> {
    let Some(team) = team else { return Ok(own) };
    let all = team.gather(&serde_json::to_string(&own).expect("numbers and text can be written"))?;
    let read = |(process, text): (usize, &String)| {
        let found: Found = serde_json::from_str::<Option<Found>>(text).ok()??;
        Some(Found { text: format!("process {process}: {}", found.text), ..found })
    };
    Ok(all.iter().enumerate().filter_map(read).min())
}

/// What made a value overflow.
#[derive(Debug, Clone, PartialEq)]
enum Cause {
    /// A sample, with its largest pixel after normalisation.
    Data { sample: String, value: f64 },
    /// The weights that the run started from.
    Weights,
    /// Weight decay that makes weights grow: lr * decay * decay_mult.
    Decay(f64),
    /// The learning rate.
    Rate,
}

impl Run {
    /// Explains why the loss or a gradient of the update of `clock` was not finite, on the batch at the run's place. The
    /// weights are still those before that update, except on GPUs, which may have made the next one.
    pub(super) fn nonfinite_step(&mut self, clock: Clock, rows: usize) -> Error {
        let mut result = Ok(None);
        let mut of = BatchOf {
            set: "train",
            batches: self.training_batches(),
            place: self.place,
            part: None,
            variant: Variant::train(rows),
            clock,
        };
        for (part, own) in BatchPart::divide(rows, self.job.part()) {
            of.variant = Variant::of_part(own.len(), rows, part, self.job.updates());
            of.clock.row = own.start as u64;
            of.part = Some((part, own));
            result = self.traced(&mut of);
            if !matches!(result, Ok(None)) {
                break;
            }
        }
        self.explained(&format!("step {}", clock.step), of, result)
    }

    /// Explains why the loss of a set was not finite, given its first batch with such a loss.
    pub(super) fn nonfinite_evaluation(&mut self, mut batch: BatchOf) -> Error {
        batch.clock.lr = self.job.lr_with(&self.schedules, self.step.max(1), self.place.epoch);
        let first = self.traced(&mut batch);
        self.explained(&format!("the {} loss after step {} is not finite", batch.set, self.step), batch, first)
    }

    /// Explains weights that an update made not finite although its gradients were.
    pub(super) fn nonfinite_weights(&mut self, clock: Clock) -> Error {
        let first = match self.first_bad_weight() {
            Ok(name) => name.map_or_else(|| "a weight".to_string(), |name| format!("\"{name}\"")),
            Err(error) => return error,
        };
        let cause = self.decay(clock).map_or(Cause::Rate, Cause::Decay);
        let advice = self.advice(&cause, clock, false);
        Error::NotFinite(format!("step {}: the update made {first} not finite; {advice}", clock.step))
    }

    /// Says that the last update was skipped.
    pub(super) fn skips_as_text(&self) -> String {
        let Run { step, skips, .. } = self;
        let row = if *skips > 1 { format!(" ({skips} in a row)") } else { String::new() };
        format!("step {step}: the loss or a gradient is not finite; the update was skipped{row}")
    }

    /// Returns the first layer of a step that writes a value that is not finite.
    fn traced(&mut self, of: &mut BatchOf) -> Result<Option<FirstNonFinite>> {
        let mut batch = of.fill(self.session.preparer())?;
        self.session.first_nonfinite(of.variant, &mut batch, of.clock)
    }

    fn explained(&mut self, what: &str, mut of: BatchOf, first: Result<Option<FirstNonFinite>>) -> Error {
        let found = first.and_then(|first| {
            let own = first.map(|first| Found { first: key(&first), text: self.described(&first, of.variant.batch) });
            Ok((earliest(self.job.team.as_ref(), own)?, self.cause(&mut of)?))
        });
        let (found, cause) = match found {
            Ok(found) => found,
            Err(error) => return error,
        };
        let place = found.as_ref().map_or("the loss or a gradient is not finite", |found| &found.text);
        // Then the newest checkpoint has the very weights whose outputs overflow.
        let forward = found.as_ref().is_some_and(|found| found.first.0 == Pass::Forward as usize);
        let spoilt = forward && self.saved == Some(self.step) && matches!(cause, Cause::Rate | Cause::Decay(_));
        Error::NotFinite(format!("{what}: {place}; {}", self.advice(&cause, of.clock, spoilt)))
    }

    /// Describes where the first value was found.
    fn described(&self, first: &FirstNonFinite, batch: usize) -> String {
        let node = &self.job.network.nodes[first.node];
        let what = match first.role {
            Role::DParam(i) => {
                let name = &self.job.network.parameters[node.params[i]].name;
                return format!("the gradient of \"{name}\" is not finite, and no gradient of a later layer");
            }
            _ if first.pass == Pass::Backward => "the gradient of layer",
            _ => "the output of layer",
        };
        let rows = match first.rows.len() {
            0 => String::new(),
            n if n == batch => format!(" for all {batch} samples"),
            n => format!(" for {n} of {batch} samples"),
        };
        format!("{what} \"{}\" is not finite{rows}, and that of no layer before it in this pass", node.name)
    }

    /// Returns the most likely cause, given the batch of a step.
    fn cause(&mut self, of: &mut BatchOf) -> Result<Cause> {
        let here = largest_pixel(of)?;
        // An earlier batch may have spoilt the weights.
        let before = match here {
            Some(Largest { value, .. }) if size(value) > LARGE => None,
            _ => self.largest_training_pixel()?,
        };
        let pixels = here.into_iter().map(|here| (here, of.set)).chain(before.map(|before| (before, "train")));
        if let Some((Largest { value, at }, set)) = pixels.into_iter().find(|(pixel, _)| size(pixel.value) > LARGE) {
            return Ok(Cause::Data { sample: self.sample(set, at), value });
        }
        if of.clock.step <= 1 && self.job.config.model.from.is_some() && self.largest_weight()? > LARGE {
            return Ok(Cause::Weights);
        }
        Ok(self.decay(of.clock).map_or(Cause::Rate, Cause::Decay))
    }

    fn largest_training_pixel(&self) -> Result<Option<Largest<u32>>> {
        let batches = Batches::eval(&self.splits.train, self.job.config.data.batch);
        let plan = batches.plan();
        let variant = Variant::default();
        let (place, clock) = (Place::default(), Clock::default());
        let mut of = BatchOf { set: "train", batches, place, part: None, variant, clock };
        let mut all = Vec::new();
        for index in 0..plan.batches() {
            of.place = plan.place(0, index);
            all.extend(largest_pixel(&mut of)?.map(|pixel| (pixel.at, pixel.value)));
        }
        Ok(largest(all))
    }

    /// Returns lr * decay * decay_mult of the layer where it is largest, if it makes weights grow or oscillate.
    fn decay(&self, clock: Clock) -> Option<f64> {
        let chain = &self.job.config.optimizer.chain;
        let largest = |transforms: &Range<usize>| {
            chain.transforms[transforms.clone()].iter().map(|transform| transform.decay()).fold(0.0, f64::max)
        };
        let of_groups: Vec<f64> = chain.groups.iter().map(|group| largest(&group.transforms)).collect();
        let factors = self.job.network.parameters.iter().map(|p| p.lr_mult * p.decay_mult * of_groups[p.group]);
        Some(clock.lr * factors.fold(0.0, f64::max)).filter(|&decay| decay > 1.0)
    }

    /// Says what helps. The weights of the newest checkpoint may be spoilt already.
    fn advice(&self, cause: &Cause, clock: Clock, spoilt: bool) -> String {
        let config = &self.job.config;
        let again = match self.saved {
            _ if self.job.evaluates.is_some() => "then evaluate again".to_string(),
            Some(step) if spoilt => {
                format!("then remove checkpoints/step-{step:08}, whose weights are too large already, and resume")
            }
            Some(step) => format!("then resume from the checkpoint of step {step}"),
            None => "then start the run again, which has no checkpoint yet".to_string(),
        };
        let base = config.optimizer.lr;
        let lr = match clock.lr == base {
            true => number(base),
            false => format!("{}, which the schedule made of {}", number(clock.lr), number(base)),
        };
        match cause {
            Cause::Data { sample, value } => {
                let scale = "correct the sample, or choose another data.normalize";
                format!("{sample} has the value {} after normalisation: {scale}; {again}", number(*value))
            }
            _ if self.job.evaluates.is_some() => "the weights are too large: use an earlier checkpoint".to_string(),
            Cause::Weights => {
                let from = config.model.from.as_ref().map(|from| from.file.display().to_string()).unwrap_or_default();
                format!("the weights of {from} are too large for this network: start from other weights")
            }
            Cause::Decay(product) => format!(
                "lr * weight_decay is {}, and above 1 the decay makes weights grow: lower weight_decay or lr \
                 (now {lr}); {again}",
                number(*product)
            ),
            Cause::Rate => {
                let clips = config.optimizer.chain.transforms.iter().any(|t| t.max_norm().is_some());
                let clip = if clips { "" } else { ", or put { clip_by_global_norm = 1.0 } first in the chain" };
                format!("lower lr (now {lr}){clip}; {again}")
            }
        }
    }

    /// Names a sample of a set, given its index in the data set.
    fn sample(&self, set: &str, index: u32) -> String {
        let data = &self.job.config.data;
        let source = if set == "test" { data.test.as_ref() } else { Some(&data.train) };
        match source.and_then(|source| source.files().into_iter().next()) {
            Some(file) => format!("sample {index} of {}", file.display()),
            None => format!("sample {index} of the {set} data"),
        }
    }

    /// Returns the name of the first parameter or running statistic that is not finite.
    fn first_bad_weight(&self) -> Result<Option<String>> {
        for (which, parameter) in tensors(&self.job.network) {
            if self.largest_of(which)?.is_some_and(|value| !value.is_finite()) {
                return Ok(Some(parameter.name.clone()));
            }
        }
        Ok(None)
    }

    /// Returns the largest absolute value of all parameters; infinite if one is not finite.
    fn largest_weight(&self) -> Result<f64> {
        (0..self.job.network.parameters.len()).try_fold(0.0, |most: f64, parameter| {
            let value = self.largest_of(Persistent::Parameter(parameter))?.unwrap_or(0.0);
            Ok(if value.is_nan() { f64::INFINITY } else { most.max(value.abs()) })
        })
    }

    fn largest_of(&self, which: Persistent) -> Result<Option<f64>> {
        let values = super::exchange::read_values(&self.session, which)?;
        Ok(largest(values.into_iter().map(|value| ((), value))).map(|largest| largest.value))
    }
}
