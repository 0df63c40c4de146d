//! A run: its job, its data and its session, opened at the start or from a checkpoint, and saved to one.

use super::changes;
use super::checkpoint::{self, Checkpoint, Retention, Snapshot};
use super::exchange::{self, Export};
use super::headers::note_same_data;
use super::job::{Evaluates, Job};
use super::manifest::{Evaluation, FORMAT, Info, Ranking};
use super::method_run::MethodRun;
use super::sample_losses::{self, SampleLosses, WithLosses};
use super::start::tensors;
use super::watch::Watch;
use super::weights::TensorSource;
use super::whitening::{self, WithWhitening};
use crate::config::{learned_length, learned_settings};
use crate::data::{self, DataRecord, Known, Place, Preparation, SampleSets};
use crate::device::LibraryUse;
use crate::error::{Error, Result};
use crate::layers::Param;
use crate::optim::ScheduleState;
use crate::program::{Persistent, Plan, Session};
use crate::storage::{Fs, free_bytes, is_full, needed_and_free};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    data: DataRecord,
    /// Updates made.
    pub(super) step: u64,
    /// The place of the next sample.
    pub(super) place: Place,
    /// Seconds in which updates waited for their batches.
    pub(super) input_wait: f64,
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
        let opened = data::open_known(&job.config.data, job.config.seed, &job.config.base, Known::default())?;
        let mut run = Run::open(job, plan, opened, records)?;
        if run.data.is_test_train() {
            note_same_data(&mut run.job.notes);
        }
        run.job.initialise(&mut run.session, &run.splits)?;
        run.warn_of_shortage();
        Ok(run)
    }

    /// Resumes from the newest valid checkpoint of the run directory; notes which ones were skipped.
    ///
    /// # Errors
    /// When there is none, when it does not fit the network, or when settings or data have changed that may not change.
    pub fn resume(mut job: Job, mut plan: Plan, records: Records, options: &ResumeOptions) -> Result<Run> {
        let found = checkpoint::latest(&records.fs, &records.dir, &records.run)?;
        let info = &found.checkpoint.info;
        let has_length = job.config.optimizer.schedule.depends_on_length();
        let settings = changes::settings_like(info, &job.config.resolved, has_length);
        changes::check_keys(&options.allow_change, info, &settings)?;
        let changed = changes::of_settings(info, &settings);
        let mut notes = changes::allow(&changed, &options.allow_change)?;
        let has_changed = |key| changed.iter().any(|change| changes::covers(key, &change.key));
        let measure = has_changed("data.normalize");
        // Whitening is fitted to normalised images.
        let keeps = job.config.data.whiten.is_some() && !measure && !has_changed("data.whiten");
        let whitening = keeps.then(|| whitening::read(&found.checkpoint)).transpose()?;
        let known = Known {
            is_resumed: true,
            record: info.data.as_ref(),
            verify: options.verify_data,
            measure,
            whitening: whitening.as_ref(),
        };
        let opened = data::open_known(&job.config.data, job.config.seed, &job.config.base, known)?;
        notes.extend(changes::allow(&changes::of_data(info, &opened.1), &options.allow_change)?);
        notes.extend(found.skipped.iter().map(|skipped| format!("skipped a checkpoint: {}", skipped.with_causes())));
        job.notes.extend(notes);
        if let Some(with_rest) = job.go_on(info.step, info.place)? {
            plan = with_rest;
        }
        // A transform that is new to the chain counts its updates from here.
        let chain = Arc::new(job.config.optimizer.chain.joined(|name| found.checkpoint.start(name)));
        (job.config.optimizer.chain, plan.chain) = (Arc::clone(&chain), chain);
        let mut run = Run::open(job, plan, opened, records)?;
        run.restore_model(&found.checkpoint)?;
        run.restore_state(&found.checkpoint)?;
        let by = run.retention().best_by;
        run.best = checkpoint::best_score(&run.records.fs, &run.records.dir, &found.checkpoint.info, &by)?;
        run.unproven = true;
        let tidied = checkpoint::tidy(&run.records.fs, &run.records.dir, &found.checkpoint.info, &run.retention());
        if let Err(error) = tidied {
            run.job.notes.push(format!("what a kill left could not be removed: {}", error.with_causes()));
        }
        run.warn_of_shortage();
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
                (data::open_test(settings, seed, base, record, whitening)?, record.clone())
            }
            _ => data::open_known(
                settings,
                seed,
                base,
                Known { is_resumed: true, record, whitening, ..Known::default() },
            )?,
        };
        let mut run = Run::open(job, plan, opened, Records::default())?;
        run.restore_model(checkpoint)?;
        run.evaluates = evaluates;
        if let Some(slot) = run.session.plan().chain.average() {
            run.restore_average(checkpoint, slot)?;
        }
        Ok(run)
    }

    fn open(mut job: Job, plan: Plan, (splits, data): (SampleSets, DataRecord), records: Records) -> Result<Run> {
        job.notes.extend(splits.notes.iter().cloned());
        let mut session = job.session(plan)?;
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

    fn restore_model(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let network = Arc::clone(&self.job.network);
        let file = &checkpoint.model;
        for (which, parameter) in tensors(&network) {
            let index = file.find(&parameter.name).ok_or_else(|| {
                let message = "resume with the configuration of this run";
                Error::file(&checkpoint.path, format!("it has no tensor \"{}\"; {message}", parameter.name))
            })?;
            exchange::import(&mut self.session, which, parameter, file, index)?;
        }
        self.step = checkpoint.info.step;
        Ok(())
    }

    /// Restores the averages of the weights, of all the optimiser's state.
    fn restore_average(&mut self, checkpoint: &Checkpoint, slot: usize) -> Result<()> {
        let network = Arc::clone(&self.job.network);
        for (which, name, parameter) in self.slots() {
            let Persistent::Slot(number, _) = which else { continue };
            if number != slot {
                continue;
            }
            let index = checkpoint.state.find(&name).ok_or_else(|| {
                Error::file(
                    &checkpoint.path,
                    format!("it has no tensor \"{name}\"; the run was trained without train.ema"),
                )
            })?;
            exchange::import(&mut self.session, which, &network.parameters[parameter], &checkpoint.state, index)?;
        }
        Ok(())
    }

    /// Restores the optimiser's state, by parameter and transform; slots of transforms that are new start at zero.
    fn restore_state(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let network = Arc::clone(&self.job.network);
        let (file, info) = (&checkpoint.state, &checkpoint.info);
        let (mut fresh, mut used) = (Vec::new(), Vec::new());
        let average = self.session.plan().chain.average();
        for (which, name, parameter) in self.slots() {
            match file.find(&name) {
                Some(index) => {
                    exchange::import(&mut self.session, which, &network.parameters[parameter], file, index)?;
                    used.push(index);
                }
                // An evaluation may come before the first update.
                None if matches!(which, Persistent::Slot(slot, _) if Some(slot) == average) => {
                    let weights = exchange::read_values(&self.session, Persistent::Parameter(parameter))?;
                    exchange::write_values(&mut self.session, which, &weights)?;
                }
                None => fresh.push(name),
            }
        }
        if let Some(method) = &mut self.method {
            used.extend(method.restore(file, &info.method)?);
        }
        // Read with the data, or fitted again because its setting has changed.
        used.extend(whitening::indices(file));
        used.extend(sample_losses::index(file));
        if self.chooses_hard_examples() {
            self.losses = sample_losses::read(checkpoint, self.splits.train.samples.len())?;
        }
        let unused = file.tensors.iter().enumerate().filter(|(index, _)| !used.contains(index));
        let unused: Vec<String> = unused.map(|(_, tensor)| tensor.name.clone()).collect();
        for (what, names) in [("starts at zero", fresh), ("of the checkpoint is not used", unused)] {
            if !names.is_empty() {
                self.job.notes.push(format!("optimiser state {what}: {}", names.join(", ")));
            }
        }
        if self.job.config.devices.libraries != LibraryUse::Off {
            self.job.notes.extend(self.session.restore_choices(&info.algorithms));
        }
        (self.samples, self.skips) = (info.samples, info.skips);
        self.schedules = self.job.config.optimizer.schedule.states(&info.schedules);
        self.saved = Some(self.step);
        self.evaluations.clone_from(&info.evaluations);
        Ok(())
    }

    /// Returns the optimiser's tensors: which one, its name in files, its parameter.
    fn slots(&self) -> Vec<(Persistent, String, usize)> {
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
        let newest = Info { step: self.saved.unwrap_or(self.step), ..self.info() };
        if let Err(error) = checkpoint::prune(&self.records.fs, &self.records.dir, &newest, &self.retention()) {
            tracing::warn!("an old checkpoint could not be removed: {}", error.with_causes());
        }
    }

    /// Writes a checkpoint; returns its folder.
    pub(super) fn write_checkpoint(&mut self) -> Result<PathBuf> {
        self.unproven = true;
        let [model, state] = self.exported();
        let (model, state) = (Export::new(&self.session, model), Export::new(&self.session, state));
        // A method has no slots, and a chain no vectors.
        let vectors = self.method.as_ref().map(MethodRun::tensors);
        let state: &dyn TensorSource = vectors.as_ref().map_or(&state, |vectors| vectors);
        let state = WithWhitening { state, whitening: self.splits.train.whitening.as_deref() };
        let state = WithLosses { state: &state, losses: self.losses().map(|losses| &losses[..]) };
        let snapshot = Snapshot { model: &model, state: &state, info: &self.info() };
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
    fn warn_of_shortage(&mut self) {
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
