//! Device memory that is filled, used by a few launches and read back, for running a single layer on a GPU.

use super::driver::{Driver, Issue};
use super::handles::Stream;
use super::launch::Launch;
use super::staging::clock_words;
use crate::device::{Clock, Epilogue, Operand, Operands};
use crate::error::Result;
use crate::tensor::{Element, LocalSlice, Shape};
use half::bf16;

/// Allocations on a device, freed together.
#[derive(Debug)]
pub struct Allocations<'a> {
    driver: &'a Driver,
    stream: Stream,
    allocations: Vec<u64>,
}

/// How a single step is launched.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LaunchOptions {
    /// The step, epoch and learning rate.
    pub clock: Clock,
    /// The seed of random numbers.
    pub seed: u64,
    /// The stream of the layer's random numbers.
    pub layer: u64,
    /// The samples that the loss is divided by.
    pub divisor: usize,
    /// The factor of the layer's loss in the loss of the network.
    pub loss_weight: f64,
    /// Whether products round f32 factors to tf32.
    pub tf32: bool,
    /// The operation fused into the output, if any.
    pub epilogue: Option<Epilogue>,
}

impl<'a> Allocations<'a> {
    /// Creates an empty set of allocations.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn new(driver: &'a Driver) -> Result<Self> {
        Ok(Allocations { driver, stream: driver.stream()?, allocations: Vec::new() })
    }

    /// Copies values to a new allocation on the device, rounded to `element`.
    ///
    /// # Errors
    /// If there is not enough memory.
    ///
    /// # Panics
    /// If the number of values differs from the number of elements in the window.
    pub fn put(&mut self, values: &[f32], element: Element, shape: Shape, window: LocalSlice) -> Result<Operand> {
        assert_eq!(values.len(), window.elements(), "an operand needs as many values as its window has elements");
        let bytes: Vec<u8> = match element {
            Element::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_ne_bytes()).collect(),
            Element::Real(_) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        };
        let address = self.driver.allocate(bytes.len().max(1))?;
        self.allocations.push(address);
        // SAFETY: the allocation is large enough, and `bytes` lives until the synchronisation below.
        unsafe { self.driver.copy_in(address, bytes.as_ptr(), bytes.len(), self.stream)? };
        self.driver.synchronize(self.stream)?;
        Ok(Operand::at(address, element, shape, window))
    }

    /// Allocates f32 scratch memory on the device and fills it with NaN, so that a read before a write shows.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn scratch(&mut self, elements: usize) -> Result<Operand> {
        let bytes = elements * Element::F32.bytes();
        let address = self.driver.allocate(bytes.max(1))?;
        self.allocations.push(address);
        // SAFETY: the allocation has this size. An f32 of which every bit is set is NaN.
        unsafe { self.driver.fill(address, 0xff, bytes, self.stream)? };
        let window = LocalSlice { start: vec![0], len: vec![elements] };
        Ok(Operand::at(address, Element::F32, Shape::from([elements]), window))
    }

    /// Calls `f` with a launch, and waits until everything it launched has finished.
    ///
    /// # Errors
    /// The error that `f` returns, or if the device reports an error.
    pub fn launch<R>(
        &mut self,
        operands: &Operands<R>,
        how: LaunchOptions,
        f: impl FnOnce(&Launch<R>) -> Result<()>,
    ) -> Result<()> {
        let LaunchOptions { clock, seed, layer, divisor, loss_weight, tf32, epilogue } = how;
        let words = clock_words(clock);
        let window = LocalSlice { start: vec![0], len: vec![words.len()] };
        let clock = self.put(&words, Element::F32, Shape::from([words.len()]), window)?.address();
        let issue = Issue { driver: self.driver, stream: self.stream };
        f(&Launch { issue, operands, clock, seed, layer, divisor, loss_weight, tf32, epilogue })?;
        self.driver.synchronize(self.stream)
    }

    /// Copies an operand from the device, as f32.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn take(&self, operand: &Operand) -> Result<Vec<f32>> {
        let mut bytes = vec![0u8; operand.bytes()];
        // SAFETY: `bytes` is large enough and lives until the synchronisation below; the device reports an error if the
        // operand is not in its memory.
        unsafe { self.driver.copy_out(bytes.as_mut_ptr(), operand.address(), bytes.len(), self.stream)? };
        self.driver.synchronize(self.stream)?;
        Ok(match operand.element {
            Element::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_ne_bytes([b[0], b[1]]).to_f32()).collect(),
            Element::Real(_) => bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect(),
        })
    }
}

impl Drop for Allocations<'_> {
    fn drop(&mut self) {
        if self.driver.synchronize(self.stream).is_ok() {
            for &address in &self.allocations {
                // SAFETY: allocated in `put`; all work on the stream has finished.
                let _ = unsafe { self.driver.free(address) };
            }
            let _ = self.driver.discard(self.stream);
        }
    }
}
