//! Memory of one device that is filled, used by a few launches and read back: how a layer by itself runs on a GPU.

use super::driver::{Driver, Issue};
use super::handles::Stream;
use super::launch::Launch;
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

/// How a step runs by itself.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LaunchOptions {
    /// When.
    pub clock: Clock,
    /// Samples in the global batch.
    pub batch: usize,
    /// Whether products round f32 factors to tf32.
    pub tf32: bool,
    /// What is done to the output.
    pub epilogue: Option<Epilogue>,
}

impl<'a> Allocations<'a> {
    /// A workspace without allocations.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn new(driver: &'a Driver) -> Result<Self> {
        Ok(Allocations { driver, stream: driver.stream()?, allocations: Vec::new() })
    }

    /// Copies values to the device, rounded to its element type, each operand to an allocation of its own.
    ///
    /// # Errors
    /// When there is not enough memory.
    ///
    /// # Panics
    /// When the window has another number of elements.
    pub fn put(&mut self, values: &[f32], element: Element, shape: Shape, window: LocalSlice) -> Result<Operand> {
        assert_eq!(values.len(), window.elements(), "an operand has as many values as its window");
        let bytes: Vec<u8> = match element {
            Element::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_ne_bytes()).collect(),
            Element::Real(_) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        };
        let address = self.driver.allocate(bytes.len().max(1))?;
        self.allocations.push(address);
        // SAFETY: the allocation has room; the wait follows.
        unsafe { self.driver.copy_in(address, bytes.as_ptr(), bytes.len(), self.stream)? };
        self.driver.synchronize(self.stream)?;
        Ok(Operand::at(address, element, shape, window))
    }

    /// Calls `f` with a launch of seed 1 and layer 0, and waits until all that it launched is done.
    ///
    /// # Errors
    /// What `f` returns, or when the device refuses.
    pub fn launch<R>(
        &mut self,
        operands: &Operands<R>,
        how: LaunchOptions,
        f: impl FnOnce(&Launch<R>) -> Result<()>,
    ) -> Result<()> {
        let LaunchOptions { clock, batch, tf32, epilogue } = how;
        let words = [clock.step as u32, clock.epoch as u32].map(f32::from_bits);
        let window = LocalSlice { start: vec![0], len: vec![3] };
        let clock = self.put(&[words[0], words[1], clock.lr as f32], Element::F32, Shape::from([3]), window)?.address();
        let issue = Issue { driver: self.driver, stream: self.stream };
        f(&Launch { issue, operands, clock, seed: 1, layer: 0, batch, tf32, epilogue })?;
        self.driver.synchronize(self.stream)
    }

    /// Copies an operand from the device, as f32.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn take(&self, operand: &Operand) -> Result<Vec<f32>> {
        let mut bytes = vec![0u8; operand.bytes()];
        // SAFETY: `bytes` has room, the device reports an operand of another; the wait follows.
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
                // SAFETY: allocated in `put`; nothing runs any more.
                let _ = unsafe { self.driver.free(address) };
            }
            let _ = self.driver.discard(self.stream);
        }
    }
}
