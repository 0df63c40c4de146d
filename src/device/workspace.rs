//! Memory of one device that is filled, used by a few launches and read back: how a layer by itself runs on a GPU.

use super::args::{Clock, Operand};
use super::driver::{Driver, Issue, Stream};
use super::launch::Launch;
use crate::error::Result;
use crate::tensor::{Shape, Window};

/// Allocations on a device, freed together.
#[derive(Debug)]
pub struct Workspace<'a> {
    driver: &'a Driver,
    stream: Stream,
    allocations: Vec<u64>,
}

impl<'a> Workspace<'a> {
    /// A workspace without allocations.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn new(driver: &'a Driver) -> Result<Self> {
        Ok(Workspace { driver, stream: driver.stream()?, allocations: Vec::new() })
    }

    /// Copies values to the device, each operand to an allocation of its own.
    ///
    /// # Errors
    /// When there is not enough memory.
    ///
    /// # Panics
    /// When the window has another number of elements.
    pub fn put(&mut self, values: &[f32], shape: Shape, window: Window) -> Result<Operand> {
        assert_eq!(values.len(), window.elements(), "an operand has as many values as its window");
        let bytes = size_of_val(values);
        let address = self.driver.allocate(bytes.max(1))?;
        self.allocations.push(address);
        // SAFETY: the allocation has room; the wait follows.
        unsafe { self.driver.copy_in(address, values.as_ptr().cast(), bytes, self.stream)? };
        self.driver.synchronize(self.stream)?;
        Ok(Operand::at(address, shape, window))
    }

    /// Calls `f` with a launch of seed 1 and layer 0 at a clock, and waits until all that it launched is done.
    ///
    /// # Errors
    /// What `f` returns, or when the device refuses.
    pub fn launch(
        &mut self,
        operands: &[Option<Operand>],
        clock: Clock,
        rows: usize,
        f: impl FnOnce(&Launch) -> Result<()>,
    ) -> Result<()> {
        let words = [clock.step as u32, clock.epoch as u32].map(f32::from_bits);
        let window = Window { start: vec![0], len: vec![3] };
        let clock = self.put(&[words[0], words[1], clock.lr as f32], Shape::from([3]), window)?.address();
        let issue = Issue { driver: self.driver, stream: self.stream };
        f(&Launch { issue, operands, clock, seed: 1, layer: 0, rows })?;
        self.driver.synchronize(self.stream)
    }

    /// Copies an operand from the device.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn take(&self, operand: &Operand) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; operand.elements()];
        // SAFETY: `values` has room, the device reports an operand of another; the wait follows.
        unsafe {
            let to = values.as_mut_ptr().cast();
            self.driver.copy_out(to, operand.address(), size_of_val(&values[..]), self.stream)?;
        }
        self.driver.synchronize(self.stream)?;
        Ok(values)
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        if self.driver.synchronize(self.stream).is_ok() {
            for &address in &self.allocations {
                // SAFETY: allocated in `put`; nothing runs any more.
                let _ = unsafe { self.driver.free(address) };
            }
        }
    }
}
