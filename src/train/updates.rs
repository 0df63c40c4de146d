//! The training loop: submits batches, evaluates and saves when due, until the end, a signal or the end of the time.

use super::evaluate::{SetResult, evaluate, measured};
use super::manifest::{Evaluation, History};
use super::method_run::MethodRun;
use super::run::{EvaluatedWeights, Run};
use super::signals::Stop;
use crate::cluster::watch::host_name;
use crate::config::{Every, OnError, OnNonFinite, Train};
use crate::data::{Place, SampleSet};
use crate::device::Clock;
use crate::error::{Error, Result, number};
use crate::layers::MetricKind;
use crate::optim::{Monitor, Observation};
use crate::placement::Variant;
use crate::program::{Session, StepResult};
use crate::report::{MetricValue, Reporter, RunEvent, RunSummary, SlowestProcess};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All updates were made.
    Finished,
    /// A signal stopped the run; a checkpoint was written.
    Interrupted,
    /// `train.max_time` was over; a checkpoint was written.
    OutOfTime,
}

/// Evaluates a set in batches read by some workers, after so many updates; returns `None` if a stop was requested first.
type Evaluator<'e> = &'e mut dyn FnMut(&mut Session, &Arc<SampleSet>, (usize, usize), u64) -> Result<Option<SetResult>>;

/// When evaluations and checkpoints are due.
struct Rhythm {
    train: Train,
    steps: u64,
    /// When the last checkpoint was written, or the run began.
    saved: Instant,
}

impl Rhythm {
    /// Returns whether something is due after `step` updates, at a place.
    fn due(&self, every: Every, step: u64, place: Place) -> bool {
        use crate::optim::Interval::{Epochs, Steps};
        match every {
            Every::Never => false,
            _ if step == self.steps => true,
            Every::At(Steps(n)) => step.is_multiple_of(n),
            Every::At(Epochs(n)) => place.sample == 0 && place.epoch.is_multiple_of(n),
            Every::Time(_) => false,
        }
    }

    fn evaluates(&self, step: u64, place: Place) -> bool {
        self.due(self.train.evaluate, step, place)
    }

    /// Returns whether the weights are read after `step` updates, so that no later one may have begun.
    fn inspects(&self, step: u64, place: Place) -> bool {
        self.evaluates(step, place) || self.due(self.train.checkpoint.every, step, place)
    }

    /// Returns whether a checkpoint is due by the clock.
    fn save_time(&self) -> bool {
        matches!(self.train.checkpoint.every, Every::Time(time) if self.saved.elapsed() >= time)
    }
}

/// Images per second, averaged over about the last two seconds, because single steps vary.
#[derive(Debug, Default)]
struct Throughput {
    images: f64,
    seconds: f64,
}

impl Throughput {
    /// The time after which a step counts e times less.
    const MEMORY: f64 = 2.0;

    /// Adds a step, and returns the average.
    fn add(&mut self, images: usize, seconds: f64) -> f64 {
        let kept = (-seconds / Self::MEMORY).exp();
        self.images = self.images * kept + images as f64;
        self.seconds = self.seconds * kept + seconds;
        self.images / self.seconds
    }
}

/// A batch, or a part of one, that was submitted.
struct Submitted {
    clock: Clock,
    /// The samples of the whole batch.
    rows: usize,
    /// The place after the batch, unless more parts of it follow.
    after: Option<Place>,
}

impl Run {
    /// Trains to the end, or until `stop`. `begin` is when the process began.
    ///
    /// # Errors
    /// When a step fails, the loss is not finite, or a file cannot be written.
    pub fn train(&mut self, reporter: &mut Reporter, stop: &Stop, begin: Instant) -> Result<Ended> {
        reporter.emit(&self.start_event())?;
        let result = self.steps(reporter, stop, begin);
        let (reason, error) = match &result {
            Ok(Ended::Finished) => ("finished", None),
            Ok(Ended::Interrupted) => ("interrupted", None),
            Ok(Ended::OutOfTime) => ("out of time", None),
            Err(error) => ("failed", Some(error.with_causes())),
        };
        let seconds = begin.elapsed().as_secs_f64();
        let (steps, input_wait, reason) = (self.step, self.input_wait, reason.to_string());
        let reported =
            reporter.emit(&RunEvent::End { steps, seconds, input_wait, summary: self.summary(), reason, error });
        let flushed = reporter.sync();
        result.and_then(|ended| reported.and(flushed).map(|()| ended))
    }

    /// Returns what became of the time of the run.
    fn summary(&self) -> RunSummary {
        let History { restarts, training_seconds, .. } = self.history;
        let slowest = self.pace.slowest().map(|slowest| self.with_host(slowest));
        let exposed_communication = self.pace.exposed().filter(|_| self.job.config.devices.len() > 1);
        let total_seconds = self.history.total_seconds();
        RunSummary { restarts, training_seconds, total_seconds, exposed_communication, slowest }
    }

    fn with_host(&self, slowest: SlowestProcess) -> SlowestProcess {
        let host = self.job.team.as_ref().and_then(|team| team.host(slowest.process));
        SlowestProcess { host: host.unwrap_or_default().to_string(), ..slowest }
    }

    fn steps(&mut self, reporter: &mut Reporter, stop: &Stop, begin: Instant) -> Result<Ended> {
        for text in std::mem::take(&mut self.job.notes) {
            reporter.emit(&RunEvent::Note { text })?;
        }
        let (steps, epoch) = (self.job.steps(), self.job.epoch());
        // The rate of the next update may depend on the last loss of an epoch, its samples on the weights after that.
        let observes = self.job.config.optimizer.schedule.observes(Monitor::Train);
        let (chooses, waits_for_epochs) = (self.chooses_hard_examples(), observes || self.chooses_hard_examples());
        let mut rhythm = Rhythm { train: self.job.config.train.clone(), steps, saved: Instant::now() };
        if let Some(time) = rhythm.train.max_time {
            stop.at(begin + time);
        }
        self.measure_losses(stop)?;
        let mut loader = self.loader()?;
        // An evaluation that a signal ended is made up for.
        if self.lacks_evaluation(&rhythm) {
            self.evaluate(reporter, stop)?;
        }
        if let Some(watch) = &mut self.watch {
            watch.look(&self.session, self.step, self.place)?;
        }
        let (mut last, mut throughput, mut waited) = (Instant::now(), Throughput::default(), 0.0);
        let mut loaded = 0.0;
        let mut under_way: VecDeque<Submitted> = VecDeque::new();
        // The updates before the batch that is submitted next, and its place.
        let (mut before, mut next, mut divided) = (self.step, self.place, false);
        loop {
            // Batches are submitted ahead of their results, but none beyond an update after which the weights are inspected.
            while under_way.len() < self.session.depth() {
                // Without the time of the devices, that of the loader says little about a process.
                let loaded_since = std::mem::take(&mut loaded);
                let worked = self.session.take_worked().map_or(0.0, |devices| devices + loaded_since);
                stop.look(rhythm.save_time(), worked)?;
                if let Some(slow) = self.pace.add(&stop.worked(), begin.elapsed().as_secs_f64()) {
                    reporter.emit(&RunEvent::Note { text: self.with_host(slow).in_words() })?;
                }
                let watched = self.watch.as_ref().is_some_and(|watch| watch.inspects(before, next));
                let observer = self.watch.as_ref().and_then(|watch| watch.observer(before, next));
                let waits = rhythm.inspects(before, next)
                    || watched
                    || self.path.is_some()
                    || (next.sample == 0 && waits_for_epochs);
                let ends = before >= steps || stop.saves() || stop.requested();
                if !divided && (ends || (before > self.step && waits)) || observer.is_some() && !under_way.is_empty() {
                    break;
                }
                let asked = Instant::now();
                let Some(batch) = loader.next_batch()? else { break };
                let input = asked.elapsed().as_secs_f64();
                (waited, loaded) = (waited + input, loaded + input);
                if let Some(team) = &self.job.team {
                    team.progress().at_step(before + 1);
                }
                let lr = self.job.lr_with(&self.schedules, before + 1, batch.epoch);
                let clock = Clock { step: before + 1, epoch: batch.epoch, lr, row: batch.row as u64 };
                let rows = batch.whole;
                let variant = Variant::of_part(batch.rows, rows, batch.part, self.job.updates());
                match (&mut self.method, observer.filter(|_| variant.part.is_last())) {
                    (Some(method), _) => method.submit(variant, batch, clock),
                    (None, Some(observer)) => self.session.submit_observed(variant, batch, clock, &observer)?,
                    (None, None) => self.session.submit(variant, batch, clock)?,
                }
                divided = !variant.part.is_last();
                if !divided {
                    (before, next) = (before + 1, epoch.after(next));
                }
                under_way.push_back(Submitted { clock, rows, after: (!divided).then_some(next) });
            }
            let Some(Submitted { clock, rows, after }) = under_way.pop_front() else {
                if stop.saves() && !stop.requested() && self.step < steps {
                    self.save_if_possible(reporter)?;
                    stop.saved();
                    (rhythm.saved, last) = (Instant::now(), Instant::now());
                    continue;
                }
                break;
            };
            let result = match &mut self.method {
                Some(method) => method.finish(&mut self.session)?,
                None => self.session.finish()?,
            };
            self.pace.add_exposed(self.session.take_exposed(), after.is_some());
            let Some(place) = after else { continue };
            let seconds = last.elapsed().as_secs_f64();
            let skipped = self.check_finite(&result, clock, rows)?;
            let input_wait = std::mem::take(&mut waited);
            self.input_wait += input_wait;
            self.history.training_seconds += seconds;
            (self.step, self.place, self.samples) = (clock.step, place, self.samples + rows as u64);
            reporter.emit(&RunEvent::Step {
                step: self.step,
                epoch: clock.epoch,
                loss: result.loss,
                metrics: self.measured(rows),
                lr: clock.lr,
                images_per_second: throughput.add(rows, seconds),
                seconds: begin.elapsed().as_secs_f64(),
                input_wait,
                skipped,
            })?;
            self.extend_path()?;
            if skipped {
                reporter.emit(&RunEvent::Note { text: self.skips_as_text() })?;
            }
            if let Some(watch) = &mut self.watch {
                let events =
                    watch.after(&self.session, self.job.team.as_ref(), (self.step, place), clock.lr, result.loss)?;
                events.iter().try_for_each(|event| reporter.emit(event))?;
            }
            self.observe(Observation::Update(result.loss), reporter)?;
            if place.sample == 0 {
                self.observe(Observation::Epoch, reporter)?;
                if chooses && self.step < steps {
                    // It has batches of the next epoch in another order.
                    drop(loader);
                    self.measure_losses(stop)?;
                    loader = self.loader()?;
                }
            }
            last = Instant::now();
            let best = rhythm.evaluates(self.step, place) && self.evaluate(reporter, stop)?;
            if best || rhythm.due(rhythm.train.checkpoint.every, self.step, place) {
                self.save_if_possible(reporter)?;
                stop.saved();
                rhythm.saved = Instant::now();
            }
            if rhythm.inspects(self.step, place) {
                last = Instant::now();
                // An evaluation is no update.
                self.session.take_worked();
                self.session.take_exposed();
            }
        }
        // After the last step, a signal may still end the evaluation.
        let evaluated = !stop.requested() || !self.lacks_evaluation(&rhythm);
        let ended = match self.step >= steps && evaluated {
            true => Ended::Finished,
            false if stop.signal().is_none() && stop.out_of_time() => Ended::OutOfTime,
            false => Ended::Interrupted,
        };
        let wanted = ended != Ended::Finished || rhythm.train.checkpoint.every != Every::Never;
        if wanted && self.saved != Some(self.step) {
            self.save(reporter)?;
        }
        if ended == Ended::Finished {
            self.prove();
        }
        Ok(ended)
    }

    fn lacks_evaluation(&self, rhythm: &Rhythm) -> bool {
        self.step > 0 && rhythm.evaluates(self.step, self.place) && self.evaluations.iter().all(|e| e.step != self.step)
    }

    fn start_event(&self) -> RunEvent {
        let config = &self.job.config;
        RunEvent::Start {
            name: config.name.clone(),
            step: self.step,
            devices: config.devices.names(),
            mesh: config.devices.mesh.to_string(),
            parameters: self.job.network.num_parameters() as u64,
            steps: self.job.steps(),
            samples: self.splits.train.samples.len() as u64,
            classes: self.splits.classes() as u64,
            seed: config.seed,
            host: host_name(),
            processes: self.job.team.as_ref().map_or(1, |team| team.processes() as u64),
            precision: config.devices.products.name(config.devices.precision).to_string(),
            threads: config.devices.threads,
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// Tells the schedules what the run observed; notes a decision that changes the learning rate.
    fn observe(&mut self, seen: Observation, reporter: &mut Reporter) -> Result<()> {
        if !self.job.config.optimizer.schedule.has_state() {
            return Ok(());
        }
        let lr = |run: &Self| run.job.lr_with(&run.schedules, run.step + 1, run.place.epoch);
        let before = lr(self);
        self.job.config.optimizer.schedule.observe(&mut self.schedules, seen);
        if lr(self) == before {
            return Ok(());
        }
        let text =
            format!("step {}: the loss is on a plateau: the learning rate is now {}", self.step, number(lr(self)));
        reporter.emit(&RunEvent::Note { text })
    }

    /// Returns the metrics of the batch of `rows` samples that finished last.
    fn measured(&self, rows: usize) -> Vec<MetricValue> {
        let values = self.method.as_ref().map_or(self.session.metrics(), MethodRun::metrics);
        let mut all = measured(&self.job.network, |index, kind| match kind {
            MetricKind::Mean => values[index],
            MetricKind::Hits => values[index] / rows as f64,
        });
        all.extend(self.method.iter().flat_map(MethodRun::report));
        all
    }

    /// Checks what a step left. Returns whether its update was skipped because its loss or a gradient is not finite.
    fn check_finite(&mut self, result: &StepResult, clock: Clock, rows: usize) -> Result<bool> {
        let fine = result.loss.is_finite() && result.bad_gradients == 0.0;
        self.skips = if fine { 0 } else { self.skips + 1 };
        let most = match self.job.config.train.on_nonfinite {
            OnNonFinite::Stop => 0,
            OnNonFinite::Skip(most) => most,
        };
        if self.skips <= most && result.bad_weights == 0.0 {
            if fine {
                self.prove();
            }
            return Ok(!fine);
        }
        while self.session.under_way() > 0 {
            self.session.finish()?;
        }
        Err(if fine { self.nonfinite_weights(clock) } else { self.nonfinite_step(clock, rows) })
    }

    /// Evaluates the validation and test sets, until `stop`: an evaluation that is not complete leaves no result. Returns
    /// whether the result is one of the best, and its weights are to be kept.
    ///
    /// # Errors
    /// When a step fails, a loss is not finite, or the result cannot be written.
    pub fn evaluate(&mut self, reporter: &mut Reporter, stop: &Stop) -> Result<bool> {
        let Some((events, result)) = self.evaluations(stop)? else { return Ok(false) };
        events.iter().try_for_each(|event| reporter.emit(event))?;
        result?;
        let losses: Vec<(&'static str, f64)> = ["validation", "test"]
            .into_iter()
            .filter_map(|set| {
                Some((set, self.evaluations.iter().find(|e| e.step == self.step && e.split == set)?.loss))
            })
            .collect();
        for (set, loss) in losses {
            self.observe(Observation::Evaluation(set, loss), reporter)?;
        }
        let retention = self.retention();
        let result = self.evaluations.iter().filter(|e| e.step == self.step).find_map(|e| e.score(&retention.best_by));
        let Some(score) = result.filter(|_| retention.best > 0) else { return Ok(false) };
        let better = self.best.is_none_or(|best| score > best);
        if better {
            self.best = Some(score);
        }
        Ok(better)
    }

    /// Evaluates the validation and test sets and returns the results, and an error if a loss is not finite; `None` if
    /// `stop` was requested first.
    ///
    /// # Errors
    /// When a step fails.
    pub fn evaluations(&mut self, stop: &Stop) -> Result<Option<(Vec<RunEvent>, Result<()>)>> {
        self.evaluations_by(&mut |session, set, at, step| evaluate(session, set, at, step, stop))
    }

    /// Evaluates as [`Run::evaluations`] does, each set by a function.
    pub(super) fn evaluations_by(&mut self, evaluate: Evaluator) -> Result<Option<(Vec<RunEvent>, Result<()>)>> {
        if self.session.plan().chain.average().is_none() || self.evaluates == EvaluatedWeights::Trained {
            return self.evaluations_of(evaluate);
        }
        self.session.exchange_average()?;
        let result = self.evaluations_of(evaluate);
        self.session.exchange_average()?;
        result
    }

    /// Evaluates the present weights.
    fn evaluations_of(&mut self, evaluate: Evaluator) -> Result<Option<(Vec<RunEvent>, Result<()>)>> {
        let sets = [self.splits.validation.clone(), self.splits.test.clone()];
        let (mut events, mut bad) = (Vec::new(), None);
        for set in sets.into_iter().flatten() {
            let result = evaluate(&mut self.session, &set, (self.job.part(), self.job.workers()), self.step)?;
            let Some(result) = result else { return Ok(None) };
            events.push(result.event);
            bad = bad.or(result.bad);
        }
        for event in events.clone() {
            if let RunEvent::Eval { step, split, loss, metrics, images } = event {
                let metrics = metrics.into_iter().map(|metric| (metric.name.to_string(), metric.value)).collect();
                self.evaluations.retain(|e| e.split != split);
                self.evaluations.push(Evaluation { step, split, loss, images, metrics });
            }
        }
        let result = bad.map_or(Ok(()), |batch| Err(self.nonfinite_evaluation(batch)));
        Ok(Some((events, result)))
    }

    /// Saves a checkpoint; if that fails, training may go on, because the next one tries again.
    fn save_if_possible(&mut self, reporter: &mut Reporter) -> Result<()> {
        match self.save(reporter) {
            Err(error @ Error::NotFinite(_)) => Err(error),
            Err(error) if self.job.config.train.checkpoint.on_error == OnError::Retry => {
                let text = format!("step {}: no checkpoint: {}; training goes on", self.step, error.with_causes());
                reporter.emit(&RunEvent::Note { text })
            }
            saved => saved,
        }
    }

    fn save(&mut self, reporter: &mut Reporter) -> Result<()> {
        reporter.sync()?;
        let path = self.save_together()?;
        self.saved = Some(self.step);
        let path = self.relative(&path).display().to_string();
        reporter.emit(&RunEvent::Checkpoint { step: self.step, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_an_average_that_follows_a_change() {
        let mut throughput = Throughput::default();
        assert!((throughput.add(10, 0.1) - 100.0).abs() < 1e-9);
        // One step in ten is ten times as fast: the average hardly moves.
        for i in 0..200 {
            let seconds = if i % 10 == 0 { 0.01 } else { 0.1 };
            let rate = throughput.add(10, seconds);
            assert!(i < 20 || (95.0..125.0).contains(&rate), "{rate}");
        }
        let rate = (0..200).map(|_| throughput.add(10, 0.05)).last().unwrap();
        assert!((rate - 200.0).abs() < 2.0, "{rate}");
    }
}
