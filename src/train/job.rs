//! From a file to a plan: all checks that precede the first step.

use super::devices;
use super::fit;
use super::headers::{DataPolicy, Headers};
use super::memory::{self, ProcessMemory};
use super::ranges::{self, RunLimits};
use super::start::Start;
use crate::cluster::Team;
use crate::config::{self, Config, DeviceKind, Environment};
use crate::cpu::Implementation;
use crate::data::{BatchPart, Contents, DataRecord, Description, EpochPlan, Header, Place, SampleOrder};
use crate::error::{Error, Fault, Problem, Problems, Result, quantity};
use crate::layers::Mode;
use crate::network::{CheckedConfig, Network};
use crate::optim::{Interval, RunProgress, ScheduleState};
use crate::placement::{Peers, Processes, Spec, Variant};
use crate::program::{MOST_USES, Plan, Session, num_uses};
use crate::tensor::Precision;
use std::path::Path;
use std::sync::Arc;

/// The largest number of values of a tensor in a batch.
const MOST_VALUES: usize = 1 << 40;

fn refuse(mut problems: Vec<Problem>) -> Error {
    config::sort(&mut problems);
    Error::Config(problems.into())
}

/// Like [`refuse`], but also names the checks that cannot run before these problems are fixed; `file` is `None` if
/// nothing in the file could be checked.
fn refuse_early(mut found: Vec<Problem>, file: Option<String>, unchecked: &str) -> Error {
    config::sort(&mut found);
    let message = format!("not checked yet: {unchecked}; fix the problems above first");
    let unchecked = file.into_iter().map(|location| Problem { location, message: message.clone() }).collect();
    Error::Config(Problems { found, unchecked })
}

/// The sets that an evaluation reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evaluates {
    /// The test set; no training data are read.
    Test,
    /// The test set and the validation set, which is a part of the training data.
    All,
}

/// A valid configuration with its network.
#[derive(Debug)]
pub struct Job {
    /// The configuration.
    pub config: Config,
    /// The network.
    pub network: Arc<Network>,
    /// The header of the training set, if it could be read.
    pub train: Option<Header>,
    /// The header of the test set, if there is one and it could be read.
    pub test: Option<Header>,
    /// The contents of the data, if they were inspected.
    pub contents: Option<Contents>,
    /// Notes to log once: settings without effect, data that could not be read.
    pub notes: Vec<String>,
    /// Which devices can read each other's memory.
    peers: Peers,
    /// Whether the run only evaluates, and if so on which of its sets.
    pub(super) evaluates: Option<Evaluates>,
    /// The updates already made, and the place where training goes on.
    pub(super) from: (u64, Place),
    /// The weights to start from.
    pub(super) start: Option<Start>,
    /// The processes that train together, if there are several.
    pub team: Option<Arc<Team>>,
    /// The hash of the plan, if it is needed.
    pub(super) plan_hash: String,
}

impl Job {
    /// Reads a file with every `--set` applied and runs all checks: the file, the network, how it fits the data, and
    /// how it fits the devices.
    ///
    /// # Errors
    /// All problems.
    pub fn open(path: &Path, sets: &[String], needs: DataPolicy) -> Result<(Job, Plan)> {
        Self::open_in(None, path, sets, needs)
    }

    /// Like [`Job::open`], for the process of an environment.
    ///
    /// # Errors
    /// All problems.
    pub fn open_in(
        environment: Option<Environment>,
        path: &Path,
        sets: &[String],
        needs: DataPolicy,
    ) -> Result<(Job, Plan)> {
        Self::complete(CheckedConfig::new(config::read_in(environment, path, sets)?), needs)
    }

    /// Like [`Job::open`], for a parsed configuration.
    ///
    /// # Errors
    /// All problems, in the order of the file.
    pub fn complete(checked: CheckedConfig, needs: DataPolicy) -> Result<(Job, Plan)> {
        Self::complete_for(checked, needs, None)
    }

    /// Like [`Job::complete`], but only to evaluate what was trained on the data of a record.
    ///
    /// # Errors
    /// All problems, in the order of the file.
    pub fn to_evaluate(checked: CheckedConfig, record: &DataRecord) -> Result<(Job, Plan)> {
        Self::complete_for(checked, DataPolicy::Trained, Some(record))
    }

    fn complete_for(checked: CheckedConfig, needs: DataPolicy, record: Option<&DataRecord>) -> Result<(Job, Plan)> {
        let CheckedConfig { file, config, network, mut problems } = checked;
        let Some(config) = config else {
            return Err(refuse_early(problems, file, "the data and the placement on the devices"));
        };
        let mut found = Headers::default();
        // Settings of the data that are out of range have been reported; the data cannot be opened with them.
        let sound = config.data.check().is_ok();
        if sound {
            let (headers, mut more) = Headers::read(&config, needs, record)?;
            found = headers;
            problems.append(&mut more);
        }
        let missing = if needs == DataPolicy::Optional { None } else { devices::missing(&config) };
        let elsewhere = needs.may_run_elsewhere() && (needs == DataPolicy::Optional || missing.is_some());
        match missing {
            Some(message) if elsewhere => {
                found.notes.push(format!("[devices]: not checked on this machine: {message}"))
            }
            missing => problems.extend(missing.map(|message| devices::problem(&config, message))),
        }
        let too_large = found.too_large(&config).filter(|_| !elsewhere || needs == DataPolicy::Inspected);
        if needs == DataPolicy::Inspected && sound && too_large.is_none() {
            problems.append(&mut found.inspect(&config)?);
        }
        let fits_memory = too_large.is_none();
        problems.extend(too_large);
        let Headers { train, test, contents, notes, without_train, unread } = found;
        let Some(network) = network else {
            let unread = unread.map_or(String::new(), |unread| format!("{unread}, and "));
            return Err(refuse_early(problems, file, &(unread + "how the network fits the data and the devices")));
        };
        let evaluates = record.map(|_| match config.data.validation > 0.0 && !without_train {
            true => Evaluates::All,
            false => Evaluates::Test,
        });
        let (peers, apart) = devices::peers(&config);
        let notes = [config.notes.clone(), notes, apart.into_iter().collect()].concat();
        let network = Arc::new(network);
        let header = |set: &Option<Description>| set.as_ref().map(|set| set.header);
        let mut job = Job {
            notes,
            config,
            network,
            train: header(&train),
            test: header(&test),
            contents,
            peers,
            evaluates,
            from: (0, Place::default()),
            start: None,
            team: None,
            plan_hash: String::new(),
        };
        if let Some(train) = train.filter(|_| sound) {
            let faults = fit::faults(&job.config, &job.network, &train, test.as_ref());
            problems.extend(faults.iter().map(|fault| job.config.data_locations.problem("[data]", fault)));
            if needs != DataPolicy::Optional && record.is_none() {
                job.notes.extend(fit::notes(&job.network, &train, test.as_ref(), job.epoch()));
            }
        }
        if sound {
            problems.extend(ranges::problems(&job.ranges()));
            let notes = ranges::notes(&job.ranges());
            job.notes.extend(notes);
        }
        if needs.includes_weights() {
            problems.extend(job.read_start()?);
        }
        if !sound {
            return Err(refuse_early(problems, file, "the data and the placement on the devices"));
        }
        if let Some(problem) = job.excessive_batch() {
            problems.push(problem);
            return Err(refuse(problems));
        }
        let plan = job.plan();
        let excess = plan.as_ref().ok().and_then(|plan| memory::excess(&job.config, plan, job.memory(plan)));
        match excess.filter(|_| fits_memory) {
            // The plan may be for another machine.
            Some(excess) if elsewhere => job.notes.push(excess),
            excess => problems.extend(excess.map(|excess| devices::problem(&job.config, excess))),
        }
        match plan {
            Ok(plan) if problems.is_empty() => Ok((job, plan)),
            plan => {
                problems.extend(plan.err().into_iter().flatten());
                Err(match unread {
                    Some(unread) => refuse_early(problems, file, &unread),
                    None => refuse(problems),
                })
            }
        }
    }

    /// Opens the devices of the configuration and loads a plan on them.
    ///
    /// # Errors
    /// When a GPU is missing, has too little memory, or cannot be used.
    pub fn session(&self, plan: Plan) -> Result<Session> {
        devices::session(&self.config, plan, self.team.as_ref())
    }

    /// Returns the memory of a process that runs a plan of this job.
    pub fn memory(&self, plan: &Plan) -> ProcessMemory {
        let memory = ProcessMemory::of(&self.config, plan, [self.train.as_ref(), self.test.as_ref()]);
        ProcessMemory { method: self.method_bytes(), ..memory }
    }

    /// Returns the bytes that a second-order method needs.
    fn method_bytes(&self) -> u64 {
        let Some(method) = self.config.optimizer.method.as_deref().filter(|_| self.evaluates.is_none()) else {
            return 0;
        };
        let trained = self.network.parameters.iter().filter(|parameter| parameter.lr_mult != 0.0);
        let weights = trained.map(|parameter| parameter.param.shape.elements()).sum();
        let products = self.plan_of_products().ok().flatten();
        let arenas = products.map_or(0, |plan| plan.arena.iter().map(|&bytes| bytes as u64).sum());
        let batch = (self.config.data.batch * self.network.input.features() * size_of::<f32>()) as u64;
        method.bytes(weights).saturating_add(arenas).saturating_add(batch)
    }

    /// Returns the plan in dual numbers by which a second-order method computes products with the Hessian, if it does.
    pub(super) fn plan_of_products(&self) -> std::result::Result<Option<Plan>, Vec<Problem>> {
        if !self.config.optimizer.method.as_ref().is_some_and(|method| method.uses_products()) {
            return Ok(None);
        }
        let variants = self.variants().into_iter().filter(|variant| variant.mode == Mode::Train).collect();
        let spec = Spec { precision: Precision::Dual, ..self.spec(variants) };
        Plan::new(Arc::clone(&self.network), Arc::clone(&self.config.optimizer.chain), spec).map(Some)
    }

    /// Reads the weights to start from, and returns their problems.
    fn read_start(&mut self) -> Result<Vec<Problem>> {
        let Some(from) = &self.config.model.from else { return Ok(Vec::new()) };
        let problem = |fault: &Fault| self.config.model.locations.problem("[model]", fault);
        let (weights, skipped) = match Start::open(from, &self.config.base) {
            Err(error) if error.exit_code() == 1 => return Err(error),
            Err(error) => return Ok(vec![problem(&Fault::at("from", error.with_causes()))]),
            Ok(opened) => opened,
        };
        let start = match Start::new(weights, from, &self.network) {
            Err(faults) => return Ok(faults.iter().map(problem).collect()),
            Ok(start) => start,
        };
        if let Some(fault) = start.wrong_values(&self.network, self.config.devices.precision)? {
            return Ok(vec![problem(&fault)]);
        }
        self.notes.extend(skipped);
        self.notes.extend(start.notes.iter().cloned());
        self.start = Some(start);
        Ok(Vec::new())
    }

    /// Returns the problem of a batch that no memory can hold, so that no plan is made for it.
    fn excessive_batch(&self) -> Option<Problem> {
        let batch = self.config.data.batch;
        let outputs = self.network.nodes.iter().map(|node| (node.output.features(), node.name.as_str()));
        let (values, largest) = outputs.chain([(self.network.input.features(), "images")]).max()?;
        if values.checked_mul(batch).is_some_and(|values| values <= MOST_VALUES) {
            return None;
        }
        let message = format!(
            "batch = {batch} makes more than {MOST_VALUES} values of \"{largest}\", which has {values} for a sample; \
             use a smaller batch"
        );
        Some(self.config.data_locations.problem("[data]", &Fault::at("batch", message)))
    }

    /// Returns the number of training samples and batches of an epoch; without data, one batch.
    pub fn epoch(&self) -> EpochPlan {
        let batch = self.config.data.batch;
        let samples = self.train.map_or(batch, |h| h.images - self.config.data.num_validation(h.images));
        EpochPlan { samples: samples.max(1), batch }
    }

    /// Returns the most samples of the parts into which a training batch is divided. Evaluations take as many at once.
    pub fn part(&self) -> usize {
        self.config.data.batch.div_ceil(self.config.train.accumulate)
    }

    /// Returns the number of updates of the whole run.
    pub fn steps(&self) -> u64 {
        self.counted_steps().unwrap_or(u64::MAX)
    }

    /// Returns the number of updates of the whole run, unless it is too large to count.
    fn counted_steps(&self) -> Option<u64> {
        let epochs = match self.config.train.length {
            Interval::Steps(steps) => return Some(steps),
            Interval::Epochs(epochs) => epochs,
        };
        let (made, place) = self.from;
        let (epoch, left) = (self.epoch(), epochs.saturating_sub(place.epoch));
        if left == 0 {
            return Some(made);
        }
        let later = (left - 1).checked_mul(epoch.batches() as u64)?;
        made.checked_add(epoch.batches_left(place) as u64)?.checked_add(later)
    }

    fn ranges(&self) -> RunLimits<'_> {
        let variants = self.variants();
        let training = variants.iter().filter(|variant| variant.mode == Mode::Train);
        let least_rows = training.map(|variant| variant.batch).min();
        let (config, network, epoch) = (&self.config, &self.network, self.epoch());
        RunLimits { config, network, epoch, steps: self.counted_steps(), least_rows }
    }

    /// Returns the learning rate of an update, counted from 1, in an epoch, counted from 0, if no schedule has observed
    /// anything yet.
    pub fn lr(&self, step: u64, epoch: u64) -> f64 {
        self.lr_with(&ScheduleState::default(), step, epoch)
    }

    /// Returns the learning rate of an update, given the states of the schedules.
    pub(super) fn lr_with(&self, states: &ScheduleState, step: u64, epoch: u64) -> f64 {
        let (optimizer, per_epoch) = (&self.config.optimizer, self.epoch().batches() as u64);
        let progress = RunProgress { step: step.saturating_sub(1), epoch, per_epoch, steps: self.steps() };
        optimizer.schedule.lr(optimizer.lr, progress, states)
    }

    /// Sets the updates already made and the place from which training goes on. Returns another plan if it needs one:
    /// after a change of the batch, the epoch may end with a batch of another size.
    ///
    /// # Errors
    /// When no such plan can be made.
    pub(super) fn go_on(&mut self, step: u64, place: Place) -> Result<Option<Plan>> {
        self.from = (step, self.epoch().nearest(place));
        if self.from.1.sample.is_multiple_of(self.config.data.batch) {
            return Ok(None);
        }
        self.plan().map(Some).map_err(refuse)
    }

    /// Returns whether programs update weights. If not, a second-order method does.
    pub(super) fn updates(&self) -> bool {
        self.config.optimizer.method.is_none()
    }

    /// Returns the variants of the program: one for each mode and batch size that occurs in the run.
    fn variants(&self) -> Vec<Variant> {
        let batch = self.config.data.batch;
        let validation = self.train.map_or(0, |h| self.config.data.num_validation(h.images));
        let test = self.test.map_or(0, |h| h.images);
        let mut variants = Vec::new();
        // From the place where training goes on to the end of its epoch.
        let rest = self.epoch().samples - self.from.1.sample;
        let mut add = |mode, samples: usize| {
            let most = if mode == Mode::Train { batch } else { self.part() };
            for rows in [samples.min(most), samples % most] {
                let own: Vec<Variant> = match mode {
                    Mode::Eval => vec![Variant::eval(rows)],
                    Mode::Train => BatchPart::divide(rows, self.part())
                        .map(|(part, own)| Variant::of_part(own.len(), rows, part, self.updates()))
                        .collect(),
                };
                for variant in own.into_iter().filter(|variant| variant.batch > 0) {
                    if !variants.contains(&variant) {
                        variants.push(variant);
                    }
                }
            }
        };
        if self.evaluates.is_none() {
            add(Mode::Train, self.epoch().samples);
            add(Mode::Train, rest);
        }
        if self.evaluates.is_none() && matches!(self.config.data.order, SampleOrder::HardExamples(_)) {
            add(Mode::Eval, self.epoch().samples);
        }
        add(Mode::Eval, validation);
        add(Mode::Eval, test);
        variants
    }

    /// Returns the number of threads that read images.
    pub(super) fn workers(&self) -> usize {
        let beside = match self.config.devices.kind {
            DeviceKind::Cuda => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8)),
            _ => 1,
        };
        self.config.data.workers.unwrap_or(beside)
    }

    /// Returns the shape (H, W, C) of the images as they are stored; if that is not known, of those that the network gets.
    pub fn stored_shape(&self) -> [usize; 3] {
        let input = self.network.input;
        self.train.map_or([input.h, input.w, input.c], |header| header.shape)
    }

    /// Returns the number of values in the target of a sample.
    fn target_width(&self) -> usize {
        let data = &self.config.data;
        match self.train {
            Some(train) => data.targets(&train, self.test.as_ref()).width(),
            // Unknown data have class numbers, which become distributions when they are mixed.
            None if data.mix.is_empty() => 1,
            None => self.network.losses().next().map_or(1, |loss| loss.input_shapes[0].features()),
        }
    }

    /// Returns the specification of the plan for the given variants.
    pub fn spec(&self, variants: Vec<Variant>) -> Spec {
        let settings = &self.config.devices;
        Spec {
            mesh: settings.mesh,
            target: devices::target(&self.config),
            precision: settings.precision,
            products: settings.products,
            algorithm: settings.collectives.algorithm,
            peers: self.peers.clone(),
            processes: Processes::with(settings.processes, settings.each()),
            nccl: settings.collectives.nccl,
            reduces_in_bf16: settings.collectives.reduces_in_bf16,
            deterministic: settings.collectives.deterministic,
            implementation: Implementation::Fast,
            target_width: self.target_width(),
            augment: self.config.data.sizes(self.stored_shape()),
            seed: self.config.seed,
            backward: true,
            keeps_norms: self.config.train.watch.is_some(),
            variants,
        }
    }

    pub(super) fn plan(&self) -> std::result::Result<Plan, Vec<Problem>> {
        let (chain, spec) = (Arc::clone(&self.config.optimizer.chain), self.spec(self.variants()));
        let uses = num_uses(&self.network, &chain, &spec)?;
        if uses > MOST_USES {
            let (devices, layers) = (spec.mesh.devices(), self.network.nodes.len() as u64);
            let message = format!(
                "{} on {devices} devices make about {uses} uses of buffers, expected at most {MOST_USES}; use fewer devices",
                quantity(layers, "layer")
            );
            return Err(vec![devices::problem(&self.config, message)]);
        }
        Plan::new(Arc::clone(&self.network), chain, spec)
    }
}
