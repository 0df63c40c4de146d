//! A run: its job, its data and its session, opened at the start or from a checkpoint, and saved to one.

use super::checkpoint::{self, Checkpoint, Retention, Snapshot};
use super::exchange::{self, Export};
use super::headers::note_same_data;
use super::job::{Evaluates, Job};
use super::manifest::{Evaluation, FORMAT, History, Info, Ranking};
use super::method_run::MethodRun;
use super::pace::Pace;
use super::sample_losses::{SampleLosses, WithLosses};
use super::start::tensors;
use super::team;
use super::watch::Watch;
use super::weights::TensorSource;
use super::whitening::{self, WithWhitening};
use crate::config::{learned_length, learned_settings};
use crate::data::{self, DataRecord, Known, Place, Preparation, SampleSets};
use crate::error::{Error, Result};
use crate::layers::Param;
use crate::optim::ScheduleState;
use crate::program::{Persistent, Plan, Session};
use crate::storage::{Fs, free_bytes, is_full, needed_and_free};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The manifest, names and headers of a checkpoint, about.
const OTHER_BYTES: u64 = 8_000;

/// Where a run is recorded.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The run directory.
    pub dir: PathBuf,
    /// The identity of the run, as recorded in its configuration.
    pub run: String,
    /// The file system.
    pub fs: Fs,
}

/// What a resume may change, and what it verifies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumeOptions {
    /// The keys that may change, with everything below them.
    pub allow_change: Vec<String>,
    /// Whether data files with unchanged sizes and times are compared as well.
    pub verify_data: bool,
}

/// The weights that are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EvaluatedWeights {
    /// The averages of the weights if `train.ema` keeps them, otherwise the weights.
    #[default]
    Averaged,
    /// The weights themselves.
    Trained,
}

/// A run between two steps.
#[derive(Debug)]
pub struct Run {
    pub(super) job: Job,
    pub(super) records: Records,
    pub(super) session: Session,
    pub(super) splits: SampleSets,
    pub(super) data: DataRecord,
    /// Updates made.
    pub(super) step: u64,
    /// The place of the next sample.
    pub(super) place: Place,
    /// Seconds in which updates waited for their batches.
    pub(super) input_wait: f64,
    /// The time of the run.
    pub(super) history: History,
    /// How long the processes of a team work for an update.
    pub(super) pace: Pace,
    /// Training samples used.
    pub(super) samples: u64,
    pub(super) evaluations: Vec<Evaluation>,
    /// Which weights are evaluated.
    pub(super) evaluates: EvaluatedWeights,
    /// The states of the schedules.
    pub(super) schedules: ScheduleState,
    /// The step of the last checkpoint.
    pub(super) saved: Option<u64>,
    /// The score of the best evaluation of which a checkpoint is kept.
    pub(super) best: Option<f64>,
    /// Whether no update has succeeded yet that starts from the newest checkpoint; until then, one more is kept.
    pub(super) unproven: bool,
    /// The updates in a row that were skipped because the loss or a gradient was not finite.
    pub(super) skips: u64,
    /// The second-order method, if one takes the place of the chain.
    pub(super) method: Option<MethodRun>,
    /// What watches the run, if anything does.
    pub(super) watch: Option<Watch>,
    /// The losses by which the samples of an epoch are chosen, if they were measured.
    pub(super) losses: Option<SampleLosses>,
    /// The weights at the start and after each update, if they are kept.
    pub(super) path: Option<Vec<Vec<f64>>>,
}

impl Run {
    /// Starts a run from initial values, or from the weights that the configuration names.
    ///
    /// # Errors
    /// When the data or the weights cannot be read.
    pub fn start(job: Job, plan: Plan, records: Records) -> Result<Run> {
        let opened = data::open_known(&job.config.data, job.config.seed, &job.config.base, Known::default());
        let mut run = Run::open(job, plan, opened, records)?;
        if run.data.is_test_train() {
            note_same_data(&mut run.job.notes);
        }
        run.job.compare(&run.data, (run.step, run.place))?;
        let initialised = run.job.initialise(&mut run.session, &run.splits);
        run.job.agree(initialised)?;
        if run.job.leads() {
            run.warn_of_shortage();
        }
        Ok(run)
    }

    /// Opens what a checkpoint was trained to, only to evaluate it.
    ///
    /// # Errors
    /// When the checkpoint does not fit the network, or the data cannot be read.
    pub fn to_evaluate(job: Job, plan: Plan, checkpoint: &Checkpoint, evaluates: EvaluatedWeights) -> Result<Run> {
        let (settings, seed, base) = (&job.config.data, job.config.seed, &job.config.base);
        let record = checkpoint.info.data.as_ref();
        let whitening = settings.whiten.is_some().then(|| whitening::read(checkpoint)).transpose()?;
        let whitening = whitening.as_ref();
        let opened = match (job.evaluates, record) {
            (Some(Evaluates::Test), Some(record)) => {
                data::open_test(settings, seed, base, record, whitening).map(|test| (test, record.clone()))
            }
            _ => data::open_known(
                settings,
                seed,
                base,
                Known { is_resumed: true, record, whitening, ..Known::default() },
            ),
        };
        let mut run = Run::open(job, plan, opened, Records::default())?;
        run.restore_model(checkpoint)?;
        run.evaluates = evaluates;
        if let Some(slot) = run.session.plan().chain.average() {
            run.restore_average(checkpoint, slot)?;
        }
        Ok(run)
    }

    pub(super) fn open(
        mut job: Job,
        plan: Plan,
        opened: Result<(SampleSets, DataRecord)>,
        records: Records,
    ) -> Result<Run> {
        let (splits, data) = job.agree(opened)?;
        job.notes.extend(splits.notes.iter().cloned());
        let mut session = job.agree(job.session(plan))?;
        let method = MethodRun::new(&job)?;
        let watch = Watch::new(&job, &session).filter(|_| job.evaluates.is_none());
        session.prepare(Preparation::of(&splits))?;
        let (step, place) = job.from;
        let schedules = job.config.optimizer.schedule.states(&BTreeMap::new());
        Ok(Run {
            evaluates: EvaluatedWeights::default(),
            schedules,
            job,
            records,
            session,
            splits,
            data,
            step,
            place,
            samples: 0,
            input_wait: 0.0,
            history: History::start(),
            pace: Pace::default(),
            evaluations: Vec::new(),
            saved: None,
            best: None,
            unproven: false,
            skips: 0,
            method,
            watch,
            losses: None,
            path: None,
        })
    }

    /// Keeps the weights from now on: for small networks, because they are read after every update.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn keep_path(&mut self) -> Result<()> {
        self.path = Some(Vec::new());
        self.extend_path()
    }

    /// Returns the weights at the start and after each update, all parameters one after another; none if they are not kept.
    pub fn path(&self) -> &[Vec<f64>] {
        self.path.as_deref().unwrap_or_default()
    }

    /// Adds the present weights, if they are kept.
    pub(super) fn extend_path(&mut self) -> Result<()> {
        let Some(path) = &mut self.path else { return Ok(()) };
        let read = |parameter| exchange::read_values(&self.session, Persistent::Parameter(parameter));
        let values = (0..self.job.network.parameters.len()).map(read).collect::<Result<Vec<_>>>()?;
        path.push(values.concat());
        Ok(())
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

    /// Returns the optimiser's tensors: which one, its name in files, its parameter.
    pub(super) fn slots(&self) -> Vec<(Persistent, String, usize)> {
        let chain = &self.session.plan().chain;
        let names = chain.names();
        let mut all = Vec::new();
        for (slot, number) in chain.slots() {
            let is_own = |group: usize| chain.groups[group].transforms.contains(&slot.transform);
            let parameters = self.job.network.parameters.iter().enumerate();
            for (parameter, p) in parameters.filter(|(_, p)| is_own(p.group)) {
                let name = format!("{}.{}.{}", p.name, names[slot.transform], slot.name);
                all.push((Persistent::Slot(number, parameter), name, parameter));
            }
        }
        all
    }

    /// Returns the tensors of a checkpoint's model and of its state.
    fn exported(&self) -> [Vec<(Persistent, String, &Param)>; 2] {
        let network = &self.job.network;
        let model = tensors(network).into_iter().map(|(which, p)| (which, p.name.clone(), &p.param));
        let state = self.slots().into_iter().map(|(which, name, p)| (which, name, &network.parameters[p].param));
        [model.collect(), state.collect()]
    }

    fn info(&self) -> Info {
        let config = &self.job.config;
        Info {
            format: FORMAT,
            run: self.records.run.clone(),
            step: self.step,
            place: self.place,
            samples: self.samples,
            skips: self.skips,
            seed: config.seed,
            precision: config.devices.precision,
            mesh: config.devices.mesh.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            settings: [learned_settings(&config.resolved), learned_length(&config.resolved)]
                .into_iter()
                .flatten()
                .collect(),
            data: Some(self.data.clone()),
            evaluations: self.evaluations.clone(),
            schedules: config.optimizer.schedule.named(&self.schedules),
            method: self.method.as_ref().map(MethodRun::numbers).unwrap_or_default(),
            starts: self.session.plan().chain.started().collect(),
            history: self.history,
            algorithms: self.session.choices(),
        }
    }

    pub(super) fn retention(&self) -> Retention {
        let settings = &self.job.config.train.checkpoint;
        let newest = settings.keep + usize::from(self.unproven);
        Retention { newest, best: settings.keep_best, best_by: Ranking::new(&settings.best_by, &self.job.network) }
    }

    /// Removes the checkpoint that was kept until an update succeeded that starts from the newest one.
    pub(super) fn prove(&mut self) {
        if !std::mem::take(&mut self.unproven) {
            return;
        }
        if !self.job.leads() {
            return;
        }
        let newest = Info { step: self.saved.unwrap_or(self.step), ..self.info() };
        if let Err(error) = checkpoint::prune(&self.records.fs, &self.records.dir, &newest, &self.retention()) {
            tracing::warn!("an old checkpoint could not be removed: {}", error.with_causes());
        }
    }

    /// Writes a checkpoint; returns its folder. Of several processes, the first one writes, and all know how that ended.
    pub(super) fn save_together(&mut self) -> Result<PathBuf> {
        self.unproven = true;
        let [model, state] = self.exported();
        let (model, state) = (Export::new(&self.session, model), Export::new(&self.session, state));
        let Some(team) = self.job.team.clone() else {
            return self.write_checkpoint(&model, &state).map_err(|error| self.with_space(error));
        };
        team.engine().pause_deadlines(true);
        let written = match team.rank() {
            0 => self.write_checkpoint(&model, &state).map_err(|error| self.with_space(error)),
            _ => Ok(PathBuf::new()),
        };
        model.finish()?;
        state.finish()?;
        let written = team::first(&team, written)?;
        team.engine().pause_deadlines(false);
        written
    }

    fn write_checkpoint(&self, model: &Export, state: &Export) -> Result<PathBuf> {
        // A method has no slots, and a chain no vectors.
        let vectors = self.method.as_ref().map(MethodRun::tensors);
        let state: &dyn TensorSource = vectors.as_ref().map_or(state, |vectors| vectors);
        let state = WithWhitening { state, whitening: self.splits.train.whitening.as_deref() };
        let state = WithLosses { state: &state, losses: self.losses().map(|losses| &losses[..]) };
        let snapshot = Snapshot { model, state: &state, info: &self.info() };
        checkpoint::write(&self.records.fs, &self.records.dir, &snapshot, &self.retention())
    }

    /// Returns the bytes of a checkpoint, about.
    fn checkpoint_bytes(&self) -> u64 {
        let elements: usize = self.exported().iter().flatten().map(|(_, _, param)| param.shape.elements()).sum();
        let vectors = self.method.as_ref().map_or(0, MethodRun::values) * size_of::<f64>();
        let whitened = self.splits.train.whitening.as_ref().map_or(0, |whitening| whitening.features());
        let whitening = whitened * (whitened + 1) * size_of::<f32>();
        let losses = if self.chooses_hard_examples() { self.splits.train.samples.len() * size_of::<f32>() } else { 0 };
        (elements * self.session.plan().spec.precision.bytes() + vectors + whitening + losses) as u64 + OTHER_BYTES
    }

    /// Adds to the error of a failed save how much room it needs, if there was none.
    pub(super) fn with_space(&self, error: Error) -> Error {
        match free_bytes(&self.records.dir).filter(|_| is_full(&error)) {
            Some(free) => {
                let space = needed_and_free(self.checkpoint_bytes(), free);
                Error::Run(format!("{} ({space})", error.with_causes()))
            }
            None => error,
        }
    }

    /// Adds a note if the disk has no room for the checkpoints that the run keeps, and the one that is being written.
    pub(super) fn warn_of_shortage(&mut self) {
        let Retention { newest, best, .. } = self.retention();
        let kept = (newest + best + 1) as u64;
        let needed = self.checkpoint_bytes().saturating_mul(kept);
        if let Some(free) = free_bytes(&self.records.dir).filter(|&free| free < needed) {
            let (dir, space) = (self.records.dir.display(), needed_and_free(needed, free));
            self.job.notes.push(format!("{dir} may become too small for {kept} checkpoints: {space}"));
        }
    }

    /// Returns the path of a file relative to the run directory.
    pub(super) fn relative<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.records.dir).unwrap_or(path)
    }
}
