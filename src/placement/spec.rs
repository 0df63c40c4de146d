//! Where and how a network runs: the part of the configuration that placement, lowering and sessions use.

use super::Variant;
use crate::collectives::{CollectiveAlgorithm, NcclUse};
use crate::cpu::Implementation;
use crate::data::AugmentSizes;
use crate::device::Target;
use crate::tensor::{MatmulPrecision, Mesh, Precision};
use std::ops::Range;

/// The devices that can read each other's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Peers {
    /// All of them.
    #[default]
    All,
    /// Only devices on the same GPU, given the GPU of each device. Transfers between GPUs go through host memory.
    SameGpu(Vec<usize>),
}

/// The process of each device. Devices of one process share its memory; each process runs the instructions of its own devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processes(Vec<usize>);

impl Processes {
    /// Returns processes that have `each` devices one after another: those of process 0 are the first.
    pub fn with(count: usize, each: usize) -> Self {
        Processes(if count > 1 { (0..count * each).map(|device| device / each).collect() } else { Vec::new() })
    }

    /// Returns the number of processes.
    pub fn count(&self) -> usize {
        self.0.last().map_or(1, |last| last + 1)
    }

    /// Returns the process of a device.
    pub fn of(&self, device: usize) -> usize {
        self.0.get(device).copied().unwrap_or(0)
    }

    /// Returns the devices of a process, of `devices` in all.
    pub fn devices(&self, process: usize, devices: usize) -> Range<usize> {
        if self.0.is_empty() {
            return 0..devices;
        }
        self.0.partition_point(|&other| other < process)..self.0.partition_point(|&other| other <= process)
    }

    /// Returns true if devices are of one process.
    pub fn is_one(&self, devices: &[usize]) -> bool {
        devices.windows(2).all(|pair| self.of(pair[0]) == self.of(pair[1]))
    }
}

/// Where and how a network runs. The default is one CPU device of one thread, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The mesh of devices.
    pub mesh: Mesh,
    /// The kind of devices.
    pub target: Target,
    /// The element type.
    pub precision: Precision,
    /// The precision to which GPUs round activations and the factors of products.
    pub products: MatmulPrecision,
    /// The algorithm of collectives.
    pub algorithm: CollectiveAlgorithm,
    /// The devices that can read each other's memory.
    pub peers: Peers,
    /// The process of each device.
    pub processes: Processes,
    /// Which collectives NCCL carries out.
    pub nccl: NcclUse,
    /// Whether NCCL sums gradients in bf16.
    pub reduces_in_bf16: bool,
    /// Whether collectives between processes add in the order of those within a process, for the same bits.
    pub deterministic: bool,
    /// The fast or the reference implementation of layers.
    pub implementation: Implementation,
    /// Width of the targets: 1 for class numbers, otherwise the number of classes or of values.
    pub target_width: usize,
    /// What the augmentation and the mixing of training images need; none of it if the images of batches have been prepared.
    pub augment: AugmentSizes,
    /// The seed of counter-based random numbers.
    pub seed: u64,
    /// Whether training steps have a backward pass. Without it, they only compute losses.
    pub backward: bool,
    /// Whether the norms by which the chain clips follow the metrics of each step.
    pub keeps_norms: bool,
    /// The kinds of steps that will be run.
    pub variants: Vec<Variant>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            mesh: Mesh::ONE,
            target: Target::Cpu { threads: 1 },
            precision: Precision::F32,
            products: MatmulPrecision::Full,
            algorithm: CollectiveAlgorithm::OnePass,
            peers: Peers::All,
            processes: Processes::default(),
            nccl: NcclUse::Never,
            reduces_in_bf16: false,
            deterministic: false,
            implementation: Implementation::Fast,
            target_width: 1,
            augment: AugmentSizes::default(),
            seed: 0,
            backward: true,
            keeps_norms: false,
            variants: Vec::new(),
        }
    }
}
