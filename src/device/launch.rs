//! What a step sees on a GPU: its operands as addresses, the stream that it launches on, the clock in device memory.

use super::args::Operand;
use super::driver::{AnyConst, AnyMut, Const, Format, Grid, Issue, Mut};
use super::libraries::{Convolution, Factors, Images, Product, Workspace};
use crate::error::{Error, Result};
use crate::tensor::Element;
use half::bf16;

/// Bytes of the clock in device memory: step and epoch as 32-bit numbers, the learning rate as f32.
pub const CLOCK_BYTES: usize = 12;

/// The arguments of a step on a GPU. A launch never allocates or waits.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Where launches go.
    pub issue: Issue<'a>,
    /// The operands, in the order in which the phase declares them; absent ones are not wanted. Scratch memory that
    /// the layer asked for is the last.
    pub operands: &'a [Option<Operand>],
    /// Address of the clock: kernels read the step and the learning rate from there, so that a captured graph follows.
    pub clock: u64,
    /// The run's seed.
    pub seed: u64,
    /// The layer's index in the network: the stream of its random numbers.
    pub layer: u64,
    /// Samples in the global batch.
    pub rows: usize,
    /// Whether products round f32 factors to tf32.
    pub tf32: bool,
    /// Whether the phase writes max(y, 0) in place of its output y.
    pub relu: bool,
}

impl Launch<'_> {
    /// Returns true when operand `i` is wanted.
    pub fn has(&self, i: usize) -> bool {
        self.operands.get(i).is_some_and(Option::is_some)
    }

    /// Returns operand `i`: its shape and window.
    ///
    /// # Panics
    /// When it is absent.
    pub fn operand(&self, i: usize) -> &Operand {
        self.operands[i].as_ref().expect("the phase declares this operand")
    }

    /// Returns how operand `i` is computed with.
    pub fn format(&self, i: usize) -> Format {
        Format::of(self.operand(i).element, self.tf32)
    }

    /// Returns the address of operand `i`, to read, in whichever format it is.
    pub fn any(&self, i: usize) -> AnyConst {
        AnyConst { address: self.operand(i).address(), format: self.format(i) }
    }

    /// Returns the address of operand `i`, to write, in whichever format it is.
    pub fn any_mut(&self, i: usize) -> AnyMut {
        AnyMut { address: self.operand(i).address(), format: self.format(i) }
    }

    /// Returns the address of operand `i`, to read.
    ///
    /// # Panics
    /// When it is not f32.
    pub fn read(&self, i: usize) -> Const<f32> {
        Const::at(self.floats(i).address())
    }

    /// Returns the address of operand `i`, to write.
    ///
    /// # Panics
    /// When it is not f32.
    pub fn write(&self, i: usize) -> Mut<f32> {
        Mut::at(self.floats(i).address())
    }

    /// Returns the address of operand `i`, to write.
    ///
    /// # Panics
    /// When it is not bf16.
    pub fn write_halves(&self, i: usize) -> Mut<bf16> {
        assert_eq!(self.operand(i).element, Element::Bf16, "operand {i} is bf16 where it is wanted");
        Mut::at(self.operand(i).address())
    }

    fn floats(&self, i: usize) -> &Operand {
        let operand = self.operand(i);
        assert_eq!(operand.element, Element::F32, "operand {i} is f32 in every mode");
        operand
    }

    /// Returns the address of operand `i`, or null when it is absent.
    pub fn read_or_null(&self, i: usize) -> Const<f32> {
        if self.has(i) { self.read(i) } else { Const::NONE }
    }

    /// Returns the number of elements of operand `i`, as kernels count them.
    pub fn count(&self, i: usize) -> i64 {
        self.operand(i).elements() as i64
    }

    /// Returns the address of the scratch memory.
    ///
    /// # Panics
    /// When the phase asked for none.
    pub fn scratch(&self) -> Mut<f32> {
        self.write(self.operands.len() - 1)
    }

    /// Returns the scratch memory as workspace of a library; none when the plan has only the `declared` operands.
    fn workspace(&self, declared: usize) -> Workspace {
        match self.operands.get(declared) {
            Some(Some(scratch)) => Workspace::inside(scratch.address(), scratch.bytes()),
            _ => Workspace { address: 0, bytes: 0 },
        }
    }

    /// Computes a product with a library, in the scratch memory that follows the `declared` operands. Returns false
    /// when an own kernel shall compute it.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// The operands hold as much as the product says, and do not overlap.
    pub unsafe fn multiply(&self, product: &Product, at: &Factors, declared: usize) -> Result<bool> {
        let Issue { driver, stream } = self.issue;
        // SAFETY: passed on; nothing else uses the scratch memory meanwhile.
        unsafe { driver.multiply(product, at, self.workspace(declared), stream) }
    }

    /// Computes a convolution with a library, as [`Launch::multiply`] does a product.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// As for a product.
    pub unsafe fn convolve(&self, convolution: &Convolution, at: &Images, declared: usize) -> Result<bool> {
        let Issue { driver, stream } = self.issue;
        // SAFETY: passed on; nothing else uses the scratch memory meanwhile.
        unsafe { driver.convolve(convolution, at, self.workspace(declared), stream) }
    }

    /// Sets every element of operand `i` to zero.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn clear(&self, i: usize) -> Result<()> {
        let to = self.operand(i);
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
    pub fn copy(&self, from: usize, first: usize, to: usize) -> Result<()> {
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

    /// Returns a grid of blocks of 256 threads with one thread for each of `n` things.
    pub fn threads(n: usize) -> Grid {
        Grid::cover(n, 256)
    }

    /// Returns a grid of blocks of 256 threads with one thread for each 16 bytes of operand `i`.
    pub fn packs(&self, i: usize) -> Grid {
        Grid::cover(self.operand(i).bytes(), 256 * 16)
    }
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
