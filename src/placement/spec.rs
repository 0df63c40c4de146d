//! Where and how a network runs: what placement, lowering and sessions take from the configuration.

use super::Variant;
use crate::collectives::CollectiveAlgorithm;
use crate::cpu::Implementation;
use crate::device::Target;
use crate::tensor::{MatmulPrecision, Mesh, Precision};

/// Which devices read each other's memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Peers {
    /// All of them.
    #[default]
    All,
    /// Only devices of one GPU: the GPU of each device. What crosses between others goes through the host's memory.
    SameGpu(Vec<usize>),
}

/// Where and how a network runs. The default is one CPU device of one thread, in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The mesh of devices.
    pub mesh: Mesh,
    /// What kind of devices they are.
    pub target: Target,
    /// The element type.
    pub precision: Precision,
    /// What GPUs round factors of products, and activations, to.
    pub products: MatmulPrecision,
    /// How collectives are done.
    pub algorithm: CollectiveAlgorithm,
    /// Which devices read each other's memory.
    pub peers: Peers,
    /// Fast or plain layers.
    pub implementation: Implementation,
    /// Width of the targets: 1 for class indices, else the number of classes.
    pub target_width: usize,
    /// Passes of augmentation that training images go through.
    pub augment: usize,
    /// The seed of counter-based random numbers.
    pub seed: u64,
    /// The steps that will be run.
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
            implementation: Implementation::Fast,
            target_width: 1,
            augment: 0,
            seed: 0,
            variants: Vec::new(),
        }
    }
}
