//! A job with one batch of noise, whose steps are measured.

use crate::data::{
    Batch, Batches, Dataset, Labels, Normalization, Normalize, Pixels, Preparation, SampleOrder, SampleSet, SampleSets,
    Whitening, augment::ColorAxes,
};
use crate::device::{Clock, Random, RandomStream};
use crate::error::{Error, Result};
use crate::layers::Mode;
use crate::placement::Variant;
use crate::program::{Plan, Session};
use crate::train::{DataPolicy, Job, exchange};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Makes a data set of one batch of noise. It is 8-bit, as most images are, so that a GPU augments and normalises it as
/// the job specifies.
fn noise(job: &Job, rows: usize, target_width: usize) -> SampleSets {
    let [h, w, c] = job.stored_shape();
    let random = Random::new(job.config.seed, RandomStream::Synthetic, 0, 0);
    let values = rows * h * w * c;
    let words = (0..values.div_ceil(16) as u64).flat_map(|i| random.words(i));
    let pixels = Pixels::U8(words.flat_map(u32::to_le_bytes).take(values).collect());
    let classes = job.network.losses().next().map_or(1, |loss| loss.input_shapes[0].features());
    let one_hot = |i: usize| f32::from(u8::from(i % target_width == i / target_width % classes));
    let labels = match target_width {
        1 => Labels::Index((0..rows).map(|i| (i % classes) as u32).collect()),
        width => Labels::Dense((0..rows * width).map(one_hot).collect()),
    };
    let data = Dataset::loaded(pixels, labels, [h, w, c], classes.max(target_width));
    let samples: Vec<u32> = (0..rows as u32).collect();
    let measured = |how| Normalization::new(how, &data, &samples);
    let normalization = measured(Normalize::Standardize).or_else(|_| measured(Normalize::None));
    let normalization = Arc::new(normalization.expect("unnormalised pixels need no statistics"));
    let (data, augment) = (Arc::new(data), Arc::from(job.config.data.augmentations()));
    let mix = Arc::from(&job.config.data.mix[..]);
    // As much work as with a matrix that was fitted.
    let whitening = job.config.data.whiten.as_ref().map(|_| {
        let n = h * w * c;
        Arc::new(Whitening::new(vec![0.0; n], &(0..n * n).map(|i| f32::from(i % (n + 1) == 0)).collect::<Vec<_>>()))
    });
    let (name, colors) = ("noise", ColorAxes::UNIFORM);
    let train =
        Arc::new(SampleSet { name, data, samples, normalization, whitening, augment, colors, mix, target_width });
    let (order, seed) = (SampleOrder::Sequential, job.config.seed);
    SampleSets { train, validation: None, test: None, batch: rows, order, seed, notes: Vec::new() }
}

/// A job with its devices and one batch.
#[derive(Debug)]
pub struct Bench {
    /// The job.
    pub job: Job,
    pub(super) session: Session,
    variant: Variant,
    batch: Batch,
    clock: Clock,
    pub(super) loss: f64,
}

impl Bench {
    /// Opens a configuration, whose data need not exist. A batch is measured as a whole, even if a run would divide it into
    /// parts.
    ///
    /// # Errors
    /// Every mistake in the configuration, or a device that cannot be used.
    pub fn open(path: &Path, sets: &[String]) -> Result<Bench> {
        let sets = [sets, &["train.accumulate=1".to_string()]].concat();
        Self::of(Job::open(path, &sets, DataPolicy::Optional)?)
    }

    pub(super) fn of((job, plan): (Job, Plan)) -> Result<Bench> {
        let trained = plan.spec.variants.iter().filter(|v| v.mode == Mode::Train && v.update);
        let variant = trained.max_by_key(|v| v.batch).copied().expect("every run has a training variant");
        // Without the data, nothing else has compared the settings with the images.
        if let Some(fault) = job.config.data.faults_with_shape(job.stored_shape()).into_iter().next() {
            return Err(Error::Usage(format!("[data]: {}", fault.message)));
        }
        let noise = noise(&job, variant.batch, plan.spec.target_width);
        let mut session = job.session(plan)?;
        session.prepare(Preparation::of(&noise))?;
        exchange::initialise(&mut session, job.config.seed)?;
        let mut batches = Batches::train(&noise).prepared_by(session.preparer());
        let mut batch = batches.empty();
        batches.fill(0, 0, &mut batch)?;
        Ok(Bench { job, session, variant, batch, clock: Clock::default(), loss: 0.0 })
    }

    pub(super) fn program(&self) -> usize {
        let found = self.session.plan().programs.iter().position(|p| p.variant == self.variant);
        found.expect("every variant has a program")
    }

    fn tick(&mut self) -> Clock {
        let step = self.clock.step + 1;
        // Nothing can be learned from noise; a small learning rate keeps the values finite.
        self.clock = Clock { step, epoch: 0, lr: 1e-6, row: 0 };
        self.clock
    }

    /// Runs a step and returns its seconds. As in training, the next step is submitted before the end of this one if
    /// the devices support it.
    pub(super) fn step(&mut self) -> Result<f64> {
        let start = Instant::now();
        while self.session.under_way() < self.session.depth() {
            let clock = self.tick();
            self.session.submit(self.variant, &mut self.batch, clock)?;
        }
        self.loss = self.session.finish()?.loss;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Finishes the steps that were submitted.
    fn drain(&mut self) -> Result<()> {
        while self.session.under_way() > 0 {
            self.session.finish()?;
        }
        Ok(())
    }

    /// Runs a step and returns the seconds of each instruction of its program.
    pub(super) fn step_timed(&mut self) -> Result<Vec<f64>> {
        self.drain()?;
        let clock = self.tick();
        let (metrics, times) = self.session.run_timed(self.variant, &mut self.batch, clock)?;
        self.loss = metrics.loss;
        Ok(times)
    }

    /// Runs until caches are warm and clocks have risen; returns the seconds of the first step.
    pub(super) fn warm_up(&mut self) -> Result<f64> {
        self.drain()?;
        let begin = Instant::now();
        let clock = self.tick();
        self.session.run(self.variant, &mut self.batch, clock)?;
        let first = begin.elapsed().as_secs_f64();
        let mut steps = 1;
        while steps < 3 || begin.elapsed() < Duration::from_millis(500) {
            self.step()?;
            steps += 1;
        }
        Ok(first)
    }

    pub(super) fn about(&self) -> About {
        let devices = &self.job.config.devices;
        About {
            framework: "peristyle",
            version: env!("CARGO_PKG_VERSION"),
            network: self.job.config.name.clone(),
            batch: self.variant.batch,
            device: devices.kind.to_string(),
            devices: devices.len(),
            threads: devices.threads,
            precision: devices.products.name(devices.precision),
            load_average: load_average(),
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct About {
    /// `peristyle`; bench/torch_step.py writes the same fields, with `torch` here.
    pub framework: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The name of the configuration.
    pub network: String,
    /// Samples per step, over all devices.
    pub batch: usize,
    /// `cpu`, `cuda` or `emu`.
    pub device: String,
    /// Number of devices.
    pub devices: usize,
    /// Threads per CPU device.
    pub threads: usize,
    /// `f32`, `f64`, `tf32` or `bf16`.
    pub precision: &'static str,
    /// The machine's load average of the last minute when the benchmark began; none if the system does not report it.
    pub load_average: Option<f64>,
}

/// Returns the load average of the last minute.
pub(super) fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
