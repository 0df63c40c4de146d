//! Benchmarks of the training step, its layers and its all-reduces, compared with the machine's peak rates.
//!
//! A benchmark runs the same program as `train`, on one batch of noise. Each repeat yields the median of its steps;
//! reported numbers are the median over the repeats, with minimum and maximum. The peak rates are measured in the same
//! run. Every report is a struct whose fields have the names of the keys in the JSON.

mod allreduce;
mod layers;
mod limits;

pub use allreduce::{AllReduce, AllReduces, all_reduce};
pub use layers::{LayerTime, Layers, layers};

use crate::config::{self, DeviceKind, Devices};
use crate::data::{
    Batch, Batches, Dataset, Labels, Normalization, Normalize, Pixels, Preparation, SampleOrder, SampleSet, SampleSets,
};
use crate::device::{Clock, Random, RandomStream};
use crate::error::{Error, Result};
use crate::gpu;
use crate::layers::{Activation, Mode};
use crate::network::{CheckedConfig, Network, Node};
use crate::placement::Variant;
use crate::program::{Plan, Session, Work};
use crate::train::{DataPolicy, Job, exchange};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The duration of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Seconds of measured steps, for all repeats together.
    pub seconds: f64,
    /// Number of repeats, at least 1.
    pub repeats: usize,
}

impl Effort {
    /// Calls `run`, which returns its own time in seconds, in each repeat until the repeat's share of the time is over.
    /// Returns the spread of the repeats' medians, and the total number of calls.
    fn repeat(self, mut run: impl FnMut() -> Result<f64>) -> Result<(Spread, usize)> {
        let share = Duration::from_secs_f64(self.seconds / self.repeats as f64);
        let (mut medians, mut count) = (Vec::new(), 0);
        for _ in 0..self.repeats {
            let begin = Instant::now();
            let mut times = Vec::new();
            while times.len() < 2 || begin.elapsed() < share {
                times.push(run()?);
            }
            count += times.len();
            medians.push(Spread::of(times).median);
        }
        Ok((Spread::of(medians), count))
    }
}

/// The median of some numbers, with their minimum and maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub most: f64,
}

impl Spread {
    /// Returns the spread of one or more numbers.
    pub fn of(mut all: Vec<f64>) -> Spread {
        all.sort_by(f64::total_cmp);
        let n = all.len();
        let median = (all[(n - 1) / 2] + all[n / 2]) / 2.0;
        Spread { median, least: all[0], most: all[n - 1] }
    }
}

/// The peak rates of all devices together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// TFLOP/s of large products: on a CPU, f32 products of 512 x 512 matrices on every thread; on a GPU, a dense layer
    /// with 4096 inputs, units and samples in the precision of the configuration.
    pub limit_tflops: f64,
    /// GB/s that a large copy reads and writes.
    pub limit_gb_per_second: f64,
}

impl Limits {
    /// Measures the devices of a configuration.
    ///
    /// # Errors
    /// If a device cannot be used.
    pub fn measure(devices: &Devices) -> Result<Limits> {
        let (copy, flops) = match devices.kind.driver() {
            None => {
                let limits = limits::cpu(devices.len(), devices.threads)?;
                (limits.copy_bytes_per_second, limits.flops_per_second)
            }
            Some(kind) => {
                let first = devices.ordinals[0];
                let mut gpus = devices.ordinals.clone();
                gpus.dedup();
                let count = if kind == gpu::DriverKind::Emu { 1.0 } else { gpus.len() as f64 };
                (limits::gpu_copy(kind, first, devices.threads)? * count, product_rate(devices)? * count)
            }
        };
        Ok(Limits { limit_tflops: flops / 1e12, limit_gb_per_second: copy / 1e9 })
    }
}

/// Returns the operations per second in the forward pass of a dense layer on one GPU.
fn product_rate(devices: &Devices) -> Result<f64> {
    let n = if devices.kind == DeviceKind::Emu { 64 } else { 4096 };
    let name = if devices.kind == DeviceKind::Emu { "emu".to_string() } else { devices.name(0) };
    let precision = devices.products.name(devices.precision);
    let text = format!(
        "[devices]\nuse = {name:?}\nprecision = {precision:?}\n[data]\ntrain = {{ synthetic = {{ images = {n}, classes \
         = {n}, shape = [1, 1, {n}] }} }}\nbatch = {n}\n[model]\ninput = [1, 1, {n}]\nlayers = [{{ dense = {{ units = \
         {n} }} }}]\n[optimizer]\nlr = 1e-9\n[train]\nsteps = 1\n"
    );
    let parsed = config::from_text("product peak", &text, Path::new(""), &[]);
    let mut bench = Bench::of(Job::complete(CheckedConfig::new(parsed), DataPolicy::Optional)?)?;
    let steps = &bench.session.plan().programs[bench.program()].instructions;
    let forward = steps.iter().position(|step| matches!(step.work, Work::Phase { node: 0, phase: "forward", .. }));
    let forward = forward.ok_or_else(|| Error::Run("the dense layer has no forward phase".into()))?;
    let mut best = f64::INFINITY;
    for _ in 0..if devices.kind == DeviceKind::Emu { 2 } else { 20 } {
        best = best.min(bench.step_timed()?[forward]);
    }
    Ok(2.0 * (n as f64).powi(3) / best)
}

/// Makes a data set of one batch of noise. It is 8-bit, as most images are, so that a GPU augments and normalises it as
/// the job specifies.
fn noise(job: &Job, rows: usize, target_width: usize) -> SampleSets {
    let Activation { h, w, c, .. } = job.network.input;
    let random = Random::new(job.config.seed, RandomStream::Synthetic, 0, 0);
    let values = rows * h * w * c;
    let words = (0..values.div_ceil(16) as u64).flat_map(|i| random.words(i));
    let pixels = Pixels::U8(words.flat_map(u32::to_le_bytes).take(values).collect());
    let classes = job.network.nodes.last().map_or(1, |loss| loss.input_shapes[0].features());
    let one_hot = |i: usize| f32::from(u8::from(i % target_width == i / target_width % classes));
    let labels = match target_width {
        1 => Labels::Index((0..rows).map(|i| (i % classes) as u32).collect()),
        width => Labels::Dense((0..rows * width).map(one_hot).collect()),
    };
    let data = Dataset { pixels, labels, shape: [h, w, c], classes: classes.max(target_width) };
    let samples: Vec<u32> = (0..rows as u32).collect();
    let measured = |how| Normalization::new(how, &data, &samples);
    let normalization = measured(Normalize::Standardize).or_else(|_| measured(Normalize::None));
    let normalization = Arc::new(normalization.expect("unnormalised pixels need no statistics"));
    let train = Arc::new(SampleSet { name: "noise", data: Arc::new(data), samples, normalization });
    let (augment, order, seed) = (job.config.data.augment.clone(), SampleOrder::Sequential, job.config.seed);
    SampleSets { train, validation: None, test: None, batch: rows, augment, order, seed }
}

/// A job with its devices and one batch.
#[derive(Debug)]
pub struct Bench {
    /// The job.
    pub job: Job,
    session: Session,
    variant: Variant,
    batch: Batch,
    clock: Clock,
    loss: f64,
}

impl Bench {
    /// Opens a configuration, whose data need not exist.
    ///
    /// # Errors
    /// Every mistake in the configuration, or a device that cannot be used.
    pub fn open(path: &Path, sets: &[String]) -> Result<Bench> {
        Self::of(Job::open(path, sets, DataPolicy::Optional)?)
    }

    fn of((job, plan): (Job, Plan)) -> Result<Bench> {
        let trained = plan.spec.variants.iter().filter(|v| v.mode == Mode::Train && v.update);
        let variant = trained.max_by_key(|v| v.batch).copied().expect("every run has a training variant");
        let noise = noise(&job, variant.batch, plan.spec.target_width);
        let mut session = job.session(plan)?;
        session.prepare(Preparation::of(&noise))?;
        exchange::initialise(&mut session, job.config.seed)?;
        let mut batches = Batches::train(&noise).prepared_by(session.preparer());
        let mut batch = batches.empty();
        batches.fill(0, 0, &mut batch);
        Ok(Bench { job, session, variant, batch, clock: Clock::default(), loss: 0.0 })
    }

    fn program(&self) -> usize {
        let found = self.session.plan().programs.iter().position(|p| p.variant == self.variant);
        found.expect("every variant has a program")
    }

    fn tick(&mut self) -> Clock {
        let step = self.clock.step + 1;
        // Nothing can be learned from noise; a small learning rate keeps the values finite.
        self.clock = Clock { step, epoch: 0, lr: 1e-6 };
        self.clock
    }

    /// Runs a step and returns its seconds. As in training, the next step is submitted before the end of this one if
    /// the devices support it.
    fn step(&mut self) -> Result<f64> {
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
    fn step_timed(&mut self) -> Result<Vec<f64>> {
        self.drain()?;
        let clock = self.tick();
        let (metrics, times) = self.session.run_timed(self.variant, &mut self.batch, clock)?;
        self.loss = metrics.loss;
        Ok(times)
    }

    /// Runs until caches are warm and clocks have risen; returns the seconds of the first step.
    fn warm_up(&mut self) -> Result<f64> {
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

    fn about(&self) -> About {
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

/// The time of a training step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTime {
    /// What was measured.
    #[serde(flatten)]
    pub about: About,
    /// Number of repeats.
    pub repeats: usize,
    /// Number of steps in all repeats.
    pub steps: usize,
    /// The first step, in ms, including all that is compiled, captured or touched only once.
    pub first_step_ms: f64,
    /// The median step, in ms.
    pub step_ms: f64,
    /// The fastest repeat.
    pub step_ms_min: f64,
    /// The slowest repeat.
    pub step_ms_max: f64,
    /// Images per second.
    pub images_per_second: f64,
    /// Images per second of the slowest repeat.
    pub images_per_second_min: f64,
    /// Images per second of the fastest repeat.
    pub images_per_second_max: f64,
    /// Operations of one image's forward pass: twice the multiplications of convolutions and dense layers.
    pub flops_per_image: u64,
    /// TFLOP/s of the step, counted as three forward passes.
    pub tflops: f64,
    /// Bytes that the instructions of the program read and write.
    pub step_bytes: f64,
    /// GB/s of these bytes.
    pub gb_per_second: f64,
    /// The peak rates of the devices.
    #[serde(flatten)]
    pub limits: Limits,
    /// `tflops` / `limit_tflops`.
    pub product_ratio: f64,
    /// `gb_per_second` / `limit_gb_per_second`.
    pub copy_ratio: f64,
    /// The loss of the last step.
    pub loss: f64,
}

/// Measures the training step of a configuration.
///
/// # Errors
/// If a step fails.
pub fn step(bench: &mut Bench, effort: Effort) -> Result<StepTime> {
    let about = bench.about();
    let first_step = bench.warm_up()?;
    let (seconds, steps) = effort.repeat(|| bench.step())?;
    let limits = Limits::measure(&bench.job.config.devices)?;
    let plan = bench.session.plan();
    let program = &plan.programs[bench.program()];
    let uses = program.instructions.iter().flat_map(|step| &step.uses);
    let step_bytes = uses.map(|u| program.bytes(u)).sum::<usize>() as f64;
    let flops_per_image = flops_per_image(&bench.job.network);
    let images = about.batch as f64;
    let tflops = 3.0 * flops_per_image as f64 * images / seconds.median / 1e12;
    let gb_per_second = step_bytes / seconds.median / 1e9;
    Ok(StepTime {
        about,
        repeats: effort.repeats,
        steps,
        first_step_ms: first_step * 1e3,
        step_ms: seconds.median * 1e3,
        step_ms_min: seconds.least * 1e3,
        step_ms_max: seconds.most * 1e3,
        images_per_second: images / seconds.median,
        images_per_second_min: images / seconds.most,
        images_per_second_max: images / seconds.least,
        flops_per_image,
        tflops,
        step_bytes,
        gb_per_second,
        limits,
        product_ratio: tflops / limits.limit_tflops,
        copy_ratio: gb_per_second / limits.limit_gb_per_second,
        loss: bench.loss,
    })
}

/// Returns twice the multiplications of one image's forward pass in convolutions and dense layers.
pub fn flops_per_image(network: &Network) -> u64 {
    let products = network.nodes.iter().filter(|node| is_product(network, node));
    products.map(|node| node.layer.cost(&node.input_shapes)).sum()
}

/// Returns true for layers that multiply by a matrix of weights.
fn is_product(network: &Network, node: &Node) -> bool {
    node.params.iter().any(|&p| network.parameters[p].param.shape.rank() > 1)
}

/// Returns the load average of the last minute.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
