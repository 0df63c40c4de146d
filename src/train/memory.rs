//! The memory that a run needs, before anything is allocated, and the memory that there is.

use crate::config::{Config, DeviceKind};
use crate::data::{Header, Loader};
use crate::gpu::Driver;
use crate::program::{InputStaging, Plan};
use crate::storage::size;
use std::fs;

/// The memory of the program itself, the largest piece of a tensor that is copied, and the packing of matrix products.
const PROGRAM: u64 = 25_000_000;
/// The loaders that may exist at once: of training, and of an evaluation.
const LOADERS: usize = 2;

/// The memory of a run's process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessMemory {
    /// The arenas of CPU and emulated devices.
    pub arenas: u64,
    /// The data sets.
    pub data: u64,
    /// Batches that are filled ahead.
    pub batches: u64,
    /// What a second-order method needs.
    pub method: u64,
    /// What is received from other processes, before it is added or stored.
    pub messages: u64,
    /// Everything else.
    pub program: u64,
}

impl ProcessMemory {
    /// Returns the memory of a plan whose data have these headers.
    pub fn of(config: &Config, plan: &Plan, headers: [Option<&Header>; 2]) -> Self {
        let kind = config.devices.kind;
        let arenas = if kind == DeviceKind::Cuda {
            0
        } else {
            plan.arena.iter().take(config.devices.each()).map(|&bytes| bytes as u64).sum()
        };
        let features = plan.network.input.features() as u64;
        // CPU devices get prepared images, one batch at a time; GPUs read ahead what the data set has.
        let (held, value) = match headers[0] {
            _ if kind == DeviceKind::Cpu => (1, features * size_of::<f32>() as u64),
            Some(header) => (InputStaging::READS, header.features() * header.pixels.bytes() as u64),
            None => (InputStaging::READS, features * size_of::<f32>() as u64),
        };
        let part = config.data.batch.div_ceil(config.train.accumulate);
        // A GPU gets pairs of training images with `mix`; an evaluation has single ones.
        let pairs = kind != DeviceKind::Cpu && !config.data.mix.is_empty();
        let batches = LOADERS as u64 + u64::from(pairs);
        let batch = part as u64 * value;
        // GPUs exchange data through their host memory.
        let messages = match kind {
            DeviceKind::Cpu => plan.scratch_of_messages()[..config.devices.each()].iter().sum(),
            _ => 0,
        };
        let messages = (messages * plan.spec.precision.bytes()) as u64;
        ProcessMemory {
            arenas,
            data: config.data.bytes(headers[0], headers[1]),
            batches: batches * Loader::buffers(held) as u64 * batch,
            method: 0,
            messages,
            program: PROGRAM + if kind == DeviceKind::Cpu { 0 } else { plan.hosts[0] as u64 },
        }
    }

    /// Returns the sum.
    pub fn total(&self) -> u64 {
        [self.data, self.batches, self.method, self.messages, self.program]
            .iter()
            .fold(self.arenas, |sum, &part| sum.saturating_add(part))
    }
}

/// Returns that data sets which need so many bytes do not fit into the memory of this machine, as a sentence; `None` if they
/// do.
pub(super) fn excess_of_data(needed: u64) -> Option<String> {
    let machine = machine().filter(|&machine| needed > machine)?;
    let (needed, machine) = (size(needed), size(machine));
    Some(format!("the data needs {needed} of memory, but this machine has {machine}; use fewer or smaller images"))
}

/// Returns what a plan needs more than the devices or the machine have, as a sentence; `None` if it fits or that is not
/// known.
pub(super) fn excess(config: &Config, plan: &Plan, needed: ProcessMemory) -> Option<String> {
    let advice = "use a smaller batch, more devices, train.accumulate, or a smaller network";
    if let Some(machine) = machine().filter(|&machine| needed.total() > machine) {
        let (needed, machine) = (size(needed.total()), size(machine));
        return Some(format!("the run needs {needed} of memory, but this machine has {machine}; {advice}"));
    }
    let driver = config.devices.kind.driver().filter(|_| config.devices.kind == DeviceKind::Cuda)?;
    let mut gpus: Vec<usize> = config.devices.ordinals.clone();
    gpus.sort_unstable();
    gpus.dedup();
    gpus.into_iter().find_map(|gpu| {
        let arenas = config.devices.ordinals.iter().zip(&plan.arena).filter(|(ordinal, _)| **ordinal == gpu);
        let needed: u64 = arenas.map(|(_, &bytes)| bytes as u64).sum();
        let (_, total) = Driver::open(driver, gpu, 1).ok()?.memory().ok()?;
        let (has, needs) = (size(total as u64), size(needed));
        (needed > total as u64).then(|| format!("cuda:{gpu} needs {needs} of memory, but has {has}; {advice}"))
    })
}

/// Returns the memory of this machine, or of the control group that limits this process.
fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().trim_end_matches(" kB");
    let total = total.parse::<u64>().ok()? * 1024;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    Some(limit.map_or(total, |limit| limit.min(total)))
}
