//! The operands of a step, each identified by its role in the step.

use super::operand::Operand;
use serde::Deserialize;
use std::fmt::Debug;
use std::ops::Index;

/// The role of an operand. Each room that runs steps defines its roles; this room does not depend on them.
pub trait Key: Copy + PartialEq + Debug {}

impl<R: Copy + PartialEq + Debug> Key for R {}

/// The operands of a step by role, and its scratch memory. An operand that is not required is absent.
#[derive(Debug, Clone)]
pub struct Operands<R> {
    operands: Vec<(R, Operand)>,
    scratch: Option<Operand>,
}

impl<R> FromIterator<(R, Operand)> for Operands<R> {
    fn from_iter<I: IntoIterator<Item = (R, Operand)>>(operands: I) -> Self {
        Operands { operands: operands.into_iter().collect(), scratch: None }
    }
}

impl<R: Key> Operands<R> {
    /// Adds the scratch memory that the step requested.
    pub fn with_scratch(self, scratch: Option<Operand>) -> Self {
        Operands { scratch, ..self }
    }

    /// Returns the scratch memory, if the step requested any.
    pub fn scratch(&self) -> Option<&Operand> {
        self.scratch.as_ref()
    }

    /// Returns the operand with this role, if the step has one.
    pub fn get(&self, role: R) -> Option<&Operand> {
        self.operands.iter().find(|(r, _)| *r == role).map(|(_, operand)| operand)
    }

    /// Returns true if the step has an operand with this role.
    pub fn has(&self, role: R) -> bool {
        self.get(role).is_some()
    }

    /// Returns the roles, in the order in which the step declares them.
    pub fn roles(&self) -> impl Iterator<Item = R> {
        self.operands.iter().map(|(role, _)| *role)
    }
}

impl<R: Key> Index<R> for Operands<R> {
    type Output = Operand;

    /// Returns the operand with this role.
    ///
    /// # Panics
    /// If the step has no such operand.
    fn index(&self, role: R) -> &Operand {
        let roles = || self.roles().collect::<Vec<_>>();
        self.get(role).unwrap_or_else(|| panic!("the step has no operand {role:?}, only {:?}", roles()))
    }
}

/// What NVIDIA's libraries may compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LibraryUse {
    /// Nothing: only our own kernels run.
    Off,
    /// Products and convolutions as accurate as those of our own kernels.
    Auto,
    /// Also the gradients of convolution weights in bf16, which cuDNN rounds to bf16, as PyTorch's autocast does.
    Fast,
}

/// The kind of device that runs steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A CPU device.
    Cpu {
        /// The number of its threads.
        threads: usize,
    },
    /// A GPU, or an emulated GPU.
    Gpu {
        /// What NVIDIA's libraries may compute. Scratch memory includes their workspace.
        libraries: LibraryUse,
        /// The number of host threads of an emulated GPU.
        threads: usize,
    },
}

impl Target {
    /// Returns the number of threads.
    pub fn threads(self) -> usize {
        let (Target::Cpu { threads } | Target::Gpu { threads, .. }) = self;
        threads
    }

    /// Returns true for a GPU, including an emulated one.
    pub fn is_gpu(self) -> bool {
        matches!(self, Target::Gpu { .. })
    }
}

/// An operation that a step applies to its output before it stores it, instead of a separate step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// y = max(y, 0).
    Relu,
}
