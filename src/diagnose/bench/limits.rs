//! Measures the peak rates of devices: those of large copies and of large products.

use crate::cpu::{Args, Matrix, QueueProgram, Queues, Scalar};
use crate::device::{Clock, Memory, Operand, Operands, Pool, Queue};
use crate::error::Result;
use crate::gpu::{DriverKind, GpuOptions, Gpus, INPUTS};
use crate::tensor::{Element, LocalSlice, Precision, Shape};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes of a copy, over all devices: far more than caches hold.
const COPY_BYTES: usize = 1 << 27;
/// Elements that a thread copies at a time.
const BLOCK: usize = 1 << 16;
/// Rows and columns of the matrices of a product: it takes one core about a millisecond, so that even on a busy machine
/// one of many runs is undisturbed.
const EXTENT: usize = 512;
/// Minimum duration of each measurement, in seconds.
const SECONDS: f64 = 0.5;
/// Minimum number of runs of each measurement.
const RUNS: usize = 5;

/// The rates of all devices together: the best of several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes per second that a copy reads and writes.
    pub copy_bytes_per_second: f64,
    /// Floating-point operations per second in f32 products of 512 x 512 matrices, one per thread: the sum of every
    /// thread's best rate while all are busy.
    pub flops_per_second: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Copy,
    Product,
}

/// A region of memory: the source of a copy or the first factor of a product, the second factor, or the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Region {
    From,
    Factor,
    To,
}

/// One instruction on every compute queue.
struct Load {
    work: Work,
    operands: Vec<Operands<Region>>,
    /// The shortest time of a product on each thread of each device, in nanoseconds.
    least: Vec<Vec<AtomicU64>>,
}

impl Load {
    fn new(work: Work, (devices, threads): (usize, usize), elements: &[(Region, usize)]) -> Result<Self> {
        let bytes = Precision::F32.bytes();
        let room = |n: usize| (n * bytes).next_multiple_of(Memory::ALIGN);
        let place = |_| {
            let memory = Arc::new(Memory::new(elements.iter().map(|&(_, n)| room(n)).sum())?);
            let mut end = 0;
            let operand = |&(region, n): &(Region, usize)| {
                let window = LocalSlice { start: vec![0], len: vec![n] };
                end += room(n);
                (region, Operand::new(&memory, end - room(n), Shape::from([n]), window, Precision::F32))
            };
            Ok(elements.iter().map(operand).collect())
        };
        let least = |_| (0..threads).map(|_| AtomicU64::new(u64::MAX)).collect();
        let operands = (0..devices).map(place).collect::<Result<_>>()?;
        Ok(Load { work, operands, least: (0..devices).map(least).collect() })
    }

    /// Returns the operations per second of all threads together.
    fn flops_per_second(&self) -> f64 {
        let took = self.least.iter().flatten().map(|least| least.load(Ordering::Relaxed)).filter(|&ns| ns < u64::MAX);
        took.map(|ns| 2.0 * (EXTENT as f64).powi(3) / (ns as f64 * 1e-9)).sum()
    }

    fn args<'a>(&'a self, device: usize, pool: &'a Pool) -> Args<'a, Region> {
        Args::new(&self.operands[device], pool, Precision::F32)
    }
}

impl QueueProgram for Load {
    fn len(&self, queue: usize) -> usize {
        usize::from(queue % Queue::COUNT == Queue::Compute as usize)
    }
    fn waits(&self, _: usize, _: usize) -> &[(usize, usize)] {
        &[]
    }
    fn perform(&self, queue: usize, _: usize, clock: Clock, pool: &Pool) -> Result<()> {
        let device = queue / Queue::COUNT;
        let args = self.args(device, pool);
        if clock.step == 0 {
            // Until it is written, all of fresh memory may map to one page of zeros.
            args.operands.roles().for_each(|region| args.write::<f32>(region).fill(1.0));
        } else if self.work == Work::Copy {
            let from = args.read::<f32>(Region::From);
            args.chunks(args.write::<f32>(Region::To), BLOCK, |i, to, _| {
                to.copy_from_slice(&from[i * BLOCK..][..to.len()])
            });
        } else {
            let (a, b) =
                (Matrix::rows(args.read(Region::From), EXTENT), Matrix::rows(args.read(Region::Factor), EXTENT));
            args.chunks(args.write::<f32>(Region::To), EXTENT * EXTENT, |_, c, worker| {
                let start = Instant::now();
                f32::gemm(EXTENT, EXTENT, EXTENT, a, b, c, EXTENT, false);
                self.least[device][worker].fetch_min(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            });
        }
        Ok(())
    }
    fn name(&self, _: usize, _: usize) -> String {
        format!("{:?}", self.work).to_lowercase()
    }
}

/// Measures CPU devices of `threads` threads each, all at once.
///
/// # Errors
/// If a step fails.
pub fn cpu(devices: usize, threads: usize) -> Result<Limits> {
    let mut queues = Queues::new(devices, threads)?;
    let mut best = |load: &Arc<Load>| {
        let script: Arc<dyn QueueProgram> = Arc::clone(load) as Arc<dyn QueueProgram>;
        queues.run(&script, Clock::default())?;
        best_of(|| {
            let start = Instant::now();
            queues.run(&script, Clock { step: 1, ..Clock::default() })?;
            Ok(start.elapsed().as_secs_f64())
        })
    };
    let (elements, square) = (COPY_BYTES / Precision::F32.bytes() / devices, EXTENT * EXTENT);
    let copied = 2 * elements * Precision::F32.bytes() * devices;
    let counts = (devices, threads);
    let copy = best(&Arc::new(Load::new(Work::Copy, counts, &[(Region::From, elements), (Region::To, elements)])?))?;
    let squares = [(Region::From, square), (Region::Factor, square), (Region::To, square * threads)];
    let products = Arc::new(Load::new(Work::Product, counts, &squares)?);
    best(&products)?;
    Ok(Limits { copy_bytes_per_second: copied as f64 / copy, flops_per_second: products.flops_per_second() })
}

/// Measures the bytes per second that a copy within a GPU reads and writes.
///
/// # Errors
/// If there is no such device, or it fails.
pub fn gpu_copy(kind: DriverKind, ordinal: usize, threads: usize) -> Result<f64> {
    let bytes = if kind == DriverKind::Emu { COPY_BYTES } else { 4 * COPY_BYTES };
    let gpus = Gpus::open(&GpuOptions {
        kind,
        ordinals: &[ordinal],
        arenas: &[2 * bytes],
        staging: [0; INPUTS],
        values: 1,
        slots: 1,
        reach: true,
        host: 0,
        threads,
    })?;
    let n = bytes / Element::F32.bytes();
    let window = LocalSlice { start: vec![0], len: vec![n] };
    let to = Operand::at(gpus.address(0, bytes), Element::F32, Shape::from([n]), window);
    let (start, end) = (gpus.timer(0)?, gpus.timer(0)?);
    let best = best_of(|| {
        gpus.record_timer(0, Queue::Compute, start)?;
        gpus.receive(0, Queue::Compute, gpus.address(0, 0), &to)?;
        gpus.record_timer(0, Queue::Compute, end)?;
        gpus.synchronize(0, Queue::Compute)?;
        gpus.seconds_between(0, start, end)
    })?;
    Ok(2.0 * bytes as f64 / best)
}

/// Returns the shortest of several measured times.
fn best_of(mut seconds: impl FnMut() -> Result<f64>) -> Result<f64> {
    let begin = Instant::now();
    let (mut best, mut runs) = (f64::INFINITY, 0);
    while runs < RUNS || begin.elapsed().as_secs_f64() < SECONDS {
        best = best.min(seconds()?);
        runs += 1;
    }
    Ok(best)
}
