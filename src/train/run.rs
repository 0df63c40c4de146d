//! The training loop: submits batches, evaluates and saves when due, until the end or a signal.

use super::checkpoint::{self, Evaluation, Info, Snapshot};
use super::evaluate::evaluate;
use super::exchange;
use super::job::Job;
use super::signals::Stop;
use super::start::tensors;
use crate::config::{Every, LibraryUse};
use crate::data::{self, Loader, Preparation, SampleSets};
use crate::device::Clock;
use crate::error::{Error, Result};
use crate::layers::Mode;
use crate::placement::Variant;
use crate::program::{Persistent, Plan, Session};
use crate::report::{Reporter, RunEvent};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A run between two steps.
#[derive(Debug)]
pub struct Run {
    job: Job,
    dir: PathBuf,
    session: Session,
    splits: SampleSets,
    step: u64,
    evaluations: Vec<Evaluation>,
    /// The step of the last checkpoint.
    saved: Option<u64>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All updates were made.
    Finished,
    /// A signal stopped the run; a checkpoint was written.
    Interrupted,
}

impl Run {
    /// Starts a run from initial values, or from the weights that the configuration names.
    ///
    /// # Errors
    /// When the data or the weights cannot be read.
    pub fn start(job: Job, plan: Plan, dir: &Path) -> Result<Run> {
        let mut run = Run::open(job, plan, dir)?;
        let seed = run.job.config.seed;
        exchange::initialise(&mut run.session, seed)?;
        if let Some(start) = run.job.start.take() {
            start.apply(&mut run.session, &run.job.network)?;
        }
        Ok(run)
    }

    /// Resumes from the newest valid checkpoint of the run directory; notes which ones were skipped.
    ///
    /// # Errors
    /// When there is none, or it does not fit the network.
    pub fn resume(job: Job, plan: Plan, dir: &Path) -> Result<Run> {
        let found = checkpoint::latest(dir)?;
        let mut run = Run::open(job, plan, dir)?;
        for skipped in &found.skipped {
            run.job.notes.push(format!("skipped a checkpoint: {}", skipped.with_causes()));
        }
        for line in found.snapshot.info.differences(&run.job.training_settings()) {
            run.job.notes.push(format!("resumed with a different setting: {line}"));
        }
        run.restore(&found.path, &found.snapshot)?;
        Ok(run)
    }

    fn open(job: Job, plan: Plan, dir: &Path) -> Result<Run> {
        let splits = data::open(&job.config.data, job.config.seed, &job.config.base)?;
        let mut session = job.session(plan)?;
        session.prepare(Preparation::of(&splits))?;
        Ok(Run { job, dir: dir.to_path_buf(), session, splits, step: 0, evaluations: Vec::new(), saved: None })
    }

    /// Returns the number of updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Returns the job of the run.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Returns the session: the devices and their memory.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    fn restore(&mut self, path: &Path, snapshot: &Snapshot) -> Result<()> {
        let network = std::sync::Arc::clone(&self.job.network);
        let missing = |name: &str| {
            Error::file(path, format!("it has no tensor \"{name}\"; resume with the configuration of this run"))
        };
        for (which, parameter) in tensors(&network) {
            let tensor = snapshot.model.iter().find(|t| t.name == parameter.name);
            let tensor = tensor.ok_or_else(|| missing(&parameter.name))?;
            exchange::import(&mut self.session, which, parameter, tensor, path)?;
        }
        for (which, name, parameter) in self.slots() {
            let tensor = snapshot.state.iter().find(|t| t.name == name).ok_or_else(|| missing(&name))?;
            exchange::import(&mut self.session, which, &network.parameters[parameter], tensor, path)?;
        }
        if self.job.config.devices.libraries == LibraryUse::Auto {
            self.job.notes.extend(self.session.restore_choices(&snapshot.info.algorithms));
        }
        self.step = snapshot.info.step;
        self.saved = Some(self.step);
        self.evaluations.clone_from(&snapshot.info.evaluations);
        Ok(())
    }

    /// Returns the optimiser's tensors: which one, its name in files, its parameter.
    fn slots(&self) -> Vec<(Persistent, String, usize)> {
        let chain = &self.session.plan().chain;
        let slots = chain.slots(0..chain.0.len());
        let mut all = Vec::new();
        for (number, slot) in slots.iter().enumerate() {
            for (parameter, p) in self.job.network.parameters.iter().enumerate() {
                let name = format!("{}.{}{}.{}", p.name, chain.0[slot.transform].key(), slot.transform, slot.name);
                all.push((Persistent::Slot(number, parameter), name, parameter));
            }
        }
        all
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let network = &self.job.network;
        let own = tensors(network).into_iter();
        let batches = self.job.epoch().batches() as u64;
        let export = |which, name, param| exchange::export(&self.session, which, name, param);
        Ok(Snapshot {
            model: own.map(|(which, p)| export(which, p.name.clone(), &p.param)).collect::<Result<_>>()?,
            state: self
                .slots()
                .into_iter()
                .map(|(which, name, p)| export(which, name, &network.parameters[p].param))
                .collect::<Result<_>>()?,
            info: Info {
                step: self.step,
                epoch: self.step / batches,
                batch_in_epoch: self.step % batches,
                samples: self.step / batches * self.job.epoch().samples as u64
                    + self.step % batches * self.job.epoch().batch as u64,
                seed: self.job.config.seed,
                precision: self.job.config.devices.precision,
                mesh: self.job.config.devices.mesh.to_string(),
                version: env!("CARGO_PKG_VERSION").to_string(),
                settings: self.job.training_settings(),
                evaluations: self.evaluations.clone(),
                algorithms: self.session.choices(),
            },
        })
    }

    /// Trains to the end, or until `stop`.
    ///
    /// # Errors
    /// When a step fails, the loss is not finite, or a file cannot be written.
    pub fn train(&mut self, reporter: &mut Reporter, stop: &Stop) -> Result<Ended> {
        let begin = Instant::now();
        reporter.emit(&self.start_event())?;
        let result = self.steps(reporter, stop, begin);
        let (reason, error) = match &result {
            Ok(Ended::Finished) => ("finished", None),
            Ok(Ended::Interrupted) => ("interrupted", None),
            Err(error) => ("failed", Some(error.with_causes())),
        };
        let seconds = begin.elapsed().as_secs_f64();
        let reported = reporter.emit(&RunEvent::End { steps: self.step, seconds, reason: reason.to_string(), error });
        result.and_then(|ended| reported.map(|()| ended))
    }

    fn steps(&mut self, reporter: &mut Reporter, stop: &Stop, begin: Instant) -> Result<Ended> {
        for text in std::mem::take(&mut self.job.notes) {
            reporter.emit(&RunEvent::Note { text })?;
        }
        let batches = self.job.epoch().batches() as u64;
        let (steps, train) = (self.job.steps(), self.job.config.train.clone());
        let (epoch, index) = (self.step / batches, (self.step % batches) as usize);
        let mut loader = Loader::train(&self.splits, self.session.preparer(), epoch, index)?;
        let due = |every: Every, step: u64| match every {
            Every::Never => false,
            Every::At(interval) => step.is_multiple_of(interval.steps(batches)) || step == steps,
        };
        let lacks_evaluation = |run: &Run| {
            run.step > 0 && due(train.evaluate, run.step) && run.evaluations.iter().all(|e| e.step != run.step)
        };
        // An evaluation that a signal ended is made up for.
        if lacks_evaluation(self) {
            self.evaluate(reporter, stop)?;
        }
        let inspects = |step: u64| due(train.evaluate, step) || due(train.checkpoint.every, step);
        let mut last = Instant::now();
        let mut under_way: VecDeque<(Clock, usize)> = VecDeque::new();
        loop {
            // Steps are submitted ahead of their results, but none beyond a step after which the weights are inspected.
            while under_way.len() < self.session.depth() && !stop.requested() {
                let before = self.step + under_way.len() as u64;
                if before >= steps || (before > self.step && inspects(before)) {
                    break;
                }
                let Some(batch) = loader.next_batch()? else { break };
                let clock = Clock { step: before + 1, epoch: batch.epoch, lr: self.job.lr(before + 1) };
                let variant = Variant { mode: Mode::Train, batch: batch.rows, update: true };
                self.session.submit(variant, batch, clock)?;
                under_way.push_back((clock, batch.rows));
            }
            let Some((clock, rows)) = under_way.pop_front() else { break };
            let next = clock.step;
            let metrics = self.session.finish()?;
            let seconds = last.elapsed().as_secs_f64();
            if !metrics.loss.is_finite() {
                return Err(self.not_finite(next, metrics.loss));
            }
            self.step = next;
            reporter.emit(&RunEvent::Step {
                step: next,
                epoch: clock.epoch,
                loss: metrics.loss,
                lr: clock.lr,
                images_per_second: rows as f64 / seconds,
                seconds: begin.elapsed().as_secs_f64(),
            })?;
            last = Instant::now();
            if due(train.evaluate, next) {
                self.evaluate(reporter, stop)?;
            }
            if due(train.checkpoint.every, next) {
                self.save(reporter)?;
            }
            if inspects(next) {
                last = Instant::now();
            }
        }
        // After the last step, a signal may still end the evaluation.
        let evaluated = !stop.requested() || !lacks_evaluation(self);
        let ended = if self.step >= steps && evaluated { Ended::Finished } else { Ended::Interrupted };
        if ended == Ended::Interrupted && self.saved != Some(self.step) {
            self.save(reporter)?;
        }
        Ok(ended)
    }

    fn start_event(&self) -> RunEvent {
        let config = &self.job.config;
        RunEvent::Start {
            name: config.name.clone(),
            step: self.step,
            devices: config.devices.names(),
            mesh: config.devices.mesh.to_string(),
            parameters: self.job.network.num_parameters() as u64,
            precision: config.devices.products.name(config.devices.precision).to_string(),
            threads: config.devices.threads,
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    fn not_finite(&self, step: u64, loss: f64) -> Error {
        Error::Run(format!(
            "the loss of step {step} is {loss}; lower lr (now {}) or put {{ clip_by_global_norm = 1.0 }} first in the \
             chain, then start again or resume from the last checkpoint",
            self.job.lr(step)
        ))
    }

    /// Evaluates the validation and test sets, until `stop`: an evaluation that is not complete leaves no result.
    ///
    /// # Errors
    /// When a step fails or the result cannot be written.
    pub fn evaluate(&mut self, reporter: &mut Reporter, stop: &Stop) -> Result<()> {
        for event in self.evaluations(stop)?.into_iter().flatten() {
            reporter.emit(&event)?;
        }
        Ok(())
    }

    /// Evaluates the validation and test sets and returns the results; `None` if `stop` was requested first.
    ///
    /// # Errors
    /// When a step fails.
    pub fn evaluations(&mut self, stop: &Stop) -> Result<Option<Vec<RunEvent>>> {
        let sets = [self.splits.validation.clone(), self.splits.test.clone()];
        let mut events = Vec::new();
        for split in sets.into_iter().flatten() {
            let event = evaluate(&mut self.session, &split, self.job.config.data.batch, self.step, stop)?;
            let Some(event) = event else { return Ok(None) };
            events.push(event);
        }
        for event in events.clone() {
            if let RunEvent::Eval { step, split, loss, top1, top5, images } = event {
                self.evaluations.retain(|e| e.split != split);
                self.evaluations.push(Evaluation { step, split, loss, top1, top5, images });
            }
        }
        Ok(Some(events))
    }

    fn save(&mut self, reporter: &mut Reporter) -> Result<()> {
        reporter.sync()?;
        let path = checkpoint::write(&self.dir, &self.snapshot()?, self.job.config.train.checkpoint.keep)?;
        self.saved = Some(self.step);
        let path = path.strip_prefix(&self.dir).unwrap_or(&path).display().to_string();
        reporter.emit(&RunEvent::Checkpoint { step: self.step, path })
    }
}
