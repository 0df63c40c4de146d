//! Work on the host between that of a stream, in the host memory through which GPUs exchange data.

use super::gpus::Gpus;
use super::handles::HostCall;
use crate::device::{MemorySlice, Queue};
use crate::error::Result;
use crate::tensor::{Element, Strided};
use std::sync::Arc;

impl Gpus {
    /// Returns a piece of the host memory, which starts at a byte of it. It must not be used once the GPUs are closed.
    ///
    /// # Panics
    /// If the piece is not within the memory.
    pub fn host_slice(&self, byte: usize, part: Strided, element: Element) -> MemorySlice {
        let _end = self.address(usize::MAX, byte + part.end() * element.bytes());
        // SAFETY: the piece is within the memory, which the callers of this crate keep as long as the instructions that use it.
        unsafe { MemorySlice::at_address(self.address(usize::MAX, byte), part, element) }
    }

    /// Calls a function of the host between the work of a queue.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn call(&self, device: usize, queue: Queue, call: &Arc<HostCall>) -> Result<()> {
        let issue = self.issue(device, queue);
        // SAFETY: the instructions of a session keep the call until their work has finished.
        unsafe { issue.driver.call(call, issue.stream) }
    }
}
