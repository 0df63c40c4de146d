//! The operands of a step, each under the role in which the step uses it.

use super::operand::Operand;
use std::fmt::Debug;
use std::ops::Index;

/// What names an operand. Each room that runs steps has roles of its own; this one knows none of them.
pub trait Key: Copy + PartialEq + Debug {}

impl<R: Copy + PartialEq + Debug> Key for R {}

/// The operands of a step by their roles, and its scratch memory. An operand that nobody requires is absent.
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
    /// Adds the scratch memory that the step asked for.
    pub fn with_scratch(self, scratch: Option<Operand>) -> Self {
        Operands { scratch, ..self }
    }

    /// Returns the scratch memory, if the step asked for any.
    pub fn scratch(&self) -> Option<&Operand> {
        self.scratch.as_ref()
    }

    /// Returns the operand of a role, if the step has one.
    pub fn get(&self, role: R) -> Option<&Operand> {
        self.operands.iter().find(|(r, _)| *r == role).map(|(_, operand)| operand)
    }

    /// Returns true when the step has an operand of this role.
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

    /// Returns the operand of a role.
    ///
    /// # Panics
    /// When the step has none.
    fn index(&self, role: R) -> &Operand {
        let roles = || self.roles().collect::<Vec<_>>();
        self.get(role).unwrap_or_else(|| panic!("the step has no operand {role:?}, only {:?}", roles()))
    }
}

/// What runs the steps of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A CPU device.
    Cpu {
        /// Its threads.
        threads: usize,
    },
    /// A GPU, or an emulated one.
    Gpu {
        /// Whether NVIDIA's libraries may compute products and convolutions: there is scratch memory for them.
        libraries: bool,
        /// Threads of this machine that emulate one.
        threads: usize,
    },
}

impl Target {
    /// Returns the threads of a device.
    pub fn threads(self) -> usize {
        let (Target::Cpu { threads } | Target::Gpu { threads, .. }) = self;
        threads
    }

    /// Returns true for a GPU, or an emulated one.
    pub fn is_gpu(self) -> bool {
        matches!(self, Target::Gpu { .. })
    }
}

/// What a step does to its output before it stores it, in place of a step of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// y = max(y, 0).
    Relu,
}
