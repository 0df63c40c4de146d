//! The environment of a step on a GPU: its operands as addresses, its stream, and the clock in device memory.

use super::address::{AnyConst, AnyMut, ComputeType, Const, Mut};
use super::driver::Issue;
use super::handles::Grid;
use super::libraries::{Convolution, Factors, Images, Product, Workspace};
use crate::device::{Epilogue, Key, Operand, Operands};
use crate::error::{Error, Result};
use crate::tensor::Element;
use half::bf16;

/// Bytes of the clock in device memory: step and epoch as 32-bit numbers, the learning rate as f32, and the row as a 32-bit
/// number.
pub const CLOCK_BYTES: usize = 16;

/// The arguments of a step on a GPU. A launch never allocates or waits.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a, R> {
    /// The device and stream of its launches.
    pub issue: Issue<'a>,
    /// The operands.
    pub operands: &'a Operands<R>,
    /// Address of the clock. Kernels read the step and the learning rate there, so a captured graph sees new values.
    pub clock: u64,
    /// The run's seed.
    pub seed: u64,
    /// The stream of the layer's random numbers.
    pub layer: u64,
    /// The samples that the loss is divided by: those of the batch of an update.
    pub divisor: usize,
    /// The factor of the layer's loss in the loss of the network.
    pub loss_weight: f64,
    /// Whether products round f32 factors to tf32.
    pub tf32: bool,
    /// The operation applied to the output before it is stored, if any.
    pub epilogue: Option<Epilogue>,
}

impl<R: Key> Launch<'_, R> {
    /// Returns the factor of a sample in a mean over the batch.
    pub fn mean_scale(&self) -> f32 {
        (1.0 / self.divisor as f64) as f32
    }

    /// Returns the factor of a sample's gradient in that of the network's loss.
    pub fn loss_scale(&self) -> f64 {
        self.loss_weight / self.divisor as f64
    }

    /// Returns true if the step has an operand with this role.
    pub fn has(&self, role: R) -> bool {
        self.operands.has(role)
    }

    /// Returns the operand with this role.
    ///
    /// # Panics
    /// If the step has no such operand.
    pub fn operand(&self, role: R) -> &Operand {
        &self.operands[role]
    }

    /// Returns true if the step stores max(y, 0) instead of its output y.
    pub fn relu(&self) -> bool {
        self.epilogue == Some(Epilogue::Relu)
    }

    /// Returns the compute type of an operand.
    pub fn format(&self, role: R) -> ComputeType {
        ComputeType::of(self.operand(role).element, self.tf32)
    }

    /// Returns the address of an operand of any format, for reading.
    pub fn any(&self, role: R) -> AnyConst {
        AnyConst { address: self.operand(role).address(), format: self.format(role) }
    }

    /// Returns the address of an operand of any format, for writing.
    pub fn any_mut(&self, role: R) -> AnyMut {
        AnyMut { address: self.operand(role).address(), format: self.format(role) }
    }

    /// Returns the address of an f32 operand, for reading.
    ///
    /// # Panics
    /// If it is not f32.
    pub fn read(&self, role: R) -> Const<f32> {
        Const::at(self.floats(role).address())
    }

    /// Returns the address of an f32 operand, for writing.
    ///
    /// # Panics
    /// If it is not f32.
    pub fn write(&self, role: R) -> Mut<f32> {
        Mut::at(self.floats(role).address())
    }

    /// Returns the address of a bf16 operand, for writing.
    ///
    /// # Panics
    /// If it is not bf16.
    pub fn write_bf16(&self, role: R) -> Mut<bf16> {
        assert_eq!(self.operand(role).element, Element::Bf16, "{role:?} must be bf16");
        Mut::at(self.operand(role).address())
    }

    fn floats(&self, role: R) -> &Operand {
        let operand = self.operand(role);
        assert_eq!(operand.element, Element::F32, "{role:?} must be f32 in every precision");
        operand
    }

    /// Returns the address of an f32 operand, or null if the step has no such operand.
    pub fn read_or_null(&self, role: R) -> Const<f32> {
        if self.has(role) { self.read(role) } else { Const::NONE }
    }

    /// Returns the number of elements of an operand, in the type that kernels use.
    pub fn count(&self, role: R) -> i64 {
        self.operand(role).elements() as i64
    }

    /// Returns the address of the scratch memory.
    ///
    /// # Panics
    /// If the step requested none.
    pub fn scratch(&self) -> Mut<f32> {
        let scratch = self.operands.scratch().expect("the step requested scratch memory");
        assert_eq!(scratch.element, Element::F32, "scratch memory must be f32");
        Mut::at(scratch.address())
    }

    /// Returns the scratch memory as the workspace of a library; it is empty if the plan has no scratch memory.
    pub fn workspace(&self) -> Workspace {
        match self.operands.scratch() {
            Some(scratch) => Workspace::inside(scratch.address(), scratch.bytes()),
            None => Workspace { address: 0, bytes: 0 },
        }
    }

    /// Computes a product with a library, using the scratch memory. Returns false if the caller should fall back to its
    /// own kernel.
    ///
    /// # Errors
    /// If the library fails.
    ///
    /// # Safety
    /// The operands are large enough for the product and do not overlap.
    pub unsafe fn multiply(&self, product: &Product, at: &Factors) -> Result<bool> {
        let Issue { driver, stream } = self.issue;
        // SAFETY: the caller's guarantees are passed on; nothing else uses the scratch memory at the same time.
        unsafe { driver.multiply(product, at, self.workspace(), stream) }
    }

    /// Computes a convolution with a library, using part of the scratch memory. Returns false if the caller should fall
    /// back to its own kernel.
    ///
    /// # Errors
    /// If the library fails.
    ///
    /// # Safety
    /// The addresses are large enough for the convolution and do not overlap, nor does the workspace.
    pub unsafe fn convolve(&self, convolution: &Convolution, at: &Images, workspace: Workspace) -> Result<bool> {
        let Issue { driver, stream } = self.issue;
        // SAFETY: the caller's guarantees are passed on.
        unsafe { driver.convolve(convolution, at, workspace, stream) }
    }

    /// Sets every element of an operand to zero.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn clear(&self, role: R) -> Result<()> {
        let to = self.operand(role);
        let Issue { driver, stream } = self.issue;
        // SAFETY: the operand is within its device's memory; events order conflicting accesses.
        unsafe { driver.fill(to.address(), 0, to.bytes(), stream) }
    }

    /// Fills operand `to` with elements of operand `from`, starting at element `first`.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Panics
    /// If operand `from` has too few elements, or the element types differ.
    pub fn copy(&self, from: R, first: usize, to: R) -> Result<()> {
        let (from, to) = (self.operand(from), self.operand(to));
        assert!(first + to.elements() <= from.elements(), "a copy must be within its source");
        assert_eq!(from.element, to.element, "a copy cannot change the element type");
        let Issue { driver, stream } = self.issue;
        let source = from.address() + (first * from.element.bytes()) as u64;
        // SAFETY: both are within their device's memory, and the operands of a phase never overlap.
        unsafe { driver.copy(to.address(), source, to.bytes(), stream) }
    }

    /// Returns the address of the step number.
    pub fn step(&self) -> Const<u32> {
        Const::at(self.clock)
    }

    /// Returns the address of the position of the first sample in the batch of the update.
    pub fn row(&self) -> Const<u32> {
        Const::at(self.clock + 12)
    }

    /// Returns the address of the learning rate.
    pub fn lr(&self) -> Const<f32> {
        Const::at(self.clock + 8)
    }

    /// Returns a grid with blocks of 256 threads and one thread per 16 bytes of an operand.
    pub fn vectors(&self, role: R) -> Grid {
        Grid::cover(self.operand(role).bytes(), 256 * 16)
    }
}

/// Returns a grid with blocks of 256 threads and one thread per element, for `n` elements.
pub fn threads(n: usize) -> Grid {
    Grid::cover(n, 256)
}

/// Converts an extent to the 32-bit integer that kernels use.
///
/// # Errors
/// If it is 2^31 or more.
pub fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| {
        Error::Run(format!("a kernel extent is {n}, more than 2147483647; use a smaller batch or more devices"))
    })
}

/// Converts extents to the 32-bit integers that kernels use.
///
/// # Errors
/// If one of them is 2^31 or more.
pub fn ints<const N: usize>(all: [usize; N]) -> Result<[i32; N]> {
    let mut taken = [0; N];
    for (to, n) in taken.iter_mut().zip(all) {
        *to = int(n)?;
    }
    Ok(taken)
}
