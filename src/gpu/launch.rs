//! What a step sees on a GPU: its operands as addresses, the stream that it launches on, the clock in device memory.

use super::address::{AnyConst, AnyMut, ComputeType, Const, Mut};
use super::driver::Issue;
use super::handles::Grid;
use super::libraries::{Convolution, Factors, Images, Product, Workspace};
use crate::device::{Epilogue, Key, Operand, Operands};
use crate::error::{Error, Result};
use crate::tensor::Element;
use half::bf16;

/// Bytes of the clock in device memory: step and epoch as 32-bit numbers, the learning rate as f32.
pub const CLOCK_BYTES: usize = 12;

/// The arguments of a step on a GPU. A launch never allocates or waits.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a, R> {
    /// Where launches go.
    pub issue: Issue<'a>,
    /// The operands.
    pub operands: &'a Operands<R>,
    /// Address of the clock: kernels read the step and the learning rate from there, so that a captured graph follows.
    pub clock: u64,
    /// The run's seed.
    pub seed: u64,
    /// The layer's index in the network: the stream of its random numbers.
    pub layer: u64,
    /// Samples in the global batch.
    pub batch: usize,
    /// Whether products round f32 factors to tf32.
    pub tf32: bool,
    /// What is done to the output before it is stored.
    pub epilogue: Option<Epilogue>,
}

impl<R: Key> Launch<'_, R> {
    /// Returns true when the step has an operand of this role.
    pub fn has(&self, role: R) -> bool {
        self.operands.has(role)
    }

    /// Returns the operand of a role: its shape and window.
    ///
    /// # Panics
    /// When the step has none.
    pub fn operand(&self, role: R) -> &Operand {
        &self.operands[role]
    }

    /// Returns true when the step stores max(y, 0) in place of its output y.
    pub fn relu(&self) -> bool {
        self.epilogue == Some(Epilogue::Relu)
    }

    /// Returns how an operand is computed with.
    pub fn format(&self, role: R) -> ComputeType {
        ComputeType::of(self.operand(role).element, self.tf32)
    }

    /// Returns the address of an operand, to read, in whichever format it is.
    pub fn any(&self, role: R) -> AnyConst {
        AnyConst { address: self.operand(role).address(), format: self.format(role) }
    }

    /// Returns the address of an operand, to write, in whichever format it is.
    pub fn any_mut(&self, role: R) -> AnyMut {
        AnyMut { address: self.operand(role).address(), format: self.format(role) }
    }

    /// Returns the address of an operand, to read.
    ///
    /// # Panics
    /// When it is not f32.
    pub fn read(&self, role: R) -> Const<f32> {
        Const::at(self.floats(role).address())
    }

    /// Returns the address of an operand, to write.
    ///
    /// # Panics
    /// When it is not f32.
    pub fn write(&self, role: R) -> Mut<f32> {
        Mut::at(self.floats(role).address())
    }

    /// Returns the address of an operand, to write.
    ///
    /// # Panics
    /// When it is not bf16.
    pub fn write_bf16(&self, role: R) -> Mut<bf16> {
        assert_eq!(self.operand(role).element, Element::Bf16, "{role:?} must be bf16");
        Mut::at(self.operand(role).address())
    }

    fn floats(&self, role: R) -> &Operand {
        let operand = self.operand(role);
        assert_eq!(operand.element, Element::F32, "{role:?} is f32 in every precision");
        operand
    }

    /// Returns the address of an operand, or null when the step has none.
    pub fn read_or_null(&self, role: R) -> Const<f32> {
        if self.has(role) { self.read(role) } else { Const::NONE }
    }

    /// Returns the number of elements of an operand, as kernels count them.
    pub fn count(&self, role: R) -> i64 {
        self.operand(role).elements() as i64
    }

    /// Returns the address of the scratch memory.
    ///
    /// # Panics
    /// When the step asked for none.
    pub fn scratch(&self) -> Mut<f32> {
        let scratch = self.operands.scratch().expect("the step asked for scratch memory");
        assert_eq!(scratch.element, Element::F32, "scratch memory is f32");
        Mut::at(scratch.address())
    }

    /// Returns the scratch memory as workspace of a library; none when the plan has no scratch memory.
    fn workspace(&self) -> Workspace {
        match self.operands.scratch() {
            Some(scratch) => Workspace::inside(scratch.address(), scratch.bytes()),
            None => Workspace { address: 0, bytes: 0 },
        }
    }

    /// Computes a product with a library, in the scratch memory. Returns false if the caller should fall back to its own
    /// kernel.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// The operands hold as much as the product says, and do not overlap.
    pub unsafe fn multiply(&self, product: &Product, at: &Factors) -> Result<bool> {
        let Issue { driver, stream } = self.issue;
        // SAFETY: passed on; nothing else uses the scratch memory meanwhile.
        unsafe { driver.multiply(product, at, self.workspace(), stream) }
    }

    /// Computes a convolution with a library, as [`Launch::multiply`] does a product.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// As for a product.
    pub unsafe fn convolve(&self, convolution: &Convolution, at: &Images) -> Result<bool> {
        let Issue { driver, stream } = self.issue;
        // SAFETY: passed on; nothing else uses the scratch memory meanwhile.
        unsafe { driver.convolve(convolution, at, self.workspace(), stream) }
    }

    /// Sets every element of an operand to zero.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn clear(&self, role: R) -> Result<()> {
        let to = self.operand(role);
        let Issue { driver, stream } = self.issue;
        // SAFETY: the operand lies inside its device's memory; the event order keeps others away.
        unsafe { driver.fill(to.address(), 0, to.bytes(), stream) }
    }

    /// Copies elements of operand `from`, beginning with element `first`, over the whole of operand `to`.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Panics
    /// When there are fewer elements.
    pub fn copy(&self, from: R, first: usize, to: R) -> Result<()> {
        let (from, to) = (self.operand(from), self.operand(to));
        assert!(first + to.elements() <= from.elements(), "the copy lies inside its source");
        assert_eq!(from.element, to.element, "a copy changes no type");
        let Issue { driver, stream } = self.issue;
        let source = from.address() + (first * from.element.bytes()) as u64;
        // SAFETY: both lie inside their device's memory, and operands of a phase never overlap.
        unsafe { driver.copy(to.address(), source, to.bytes(), stream) }
    }

    /// Returns the address of the number of the step.
    pub fn step(&self) -> Const<u32> {
        Const::at(self.clock)
    }

    /// Returns the address of the learning rate.
    pub fn lr(&self) -> Const<f32> {
        Const::at(self.clock + 8)
    }

    /// Returns a grid of blocks of 256 threads with one thread for each 16 bytes of an operand.
    pub fn packs(&self, role: R) -> Grid {
        Grid::cover(self.operand(role).bytes(), 256 * 16)
    }
}

/// Returns a grid of blocks of 256 threads with one thread for each of `n` elements.
pub fn threads(n: usize) -> Grid {
    Grid::cover(n, 256)
}

/// Returns an extent as kernels take it.
///
/// # Errors
/// When it is 2^31 or more.
pub fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| {
        Error::Run(format!("a kernel counts to {n}, more than 2147483647; use a smaller batch or more devices"))
    })
}

/// Returns extents as kernels take them.
///
/// # Errors
/// When one is 2^31 or more.
pub fn ints<const N: usize>(all: [usize; N]) -> Result<[i32; N]> {
    let mut taken = [0; N];
    for (to, n) in taken.iter_mut().zip(all) {
        *to = int(n)?;
    }
    Ok(taken)
}
