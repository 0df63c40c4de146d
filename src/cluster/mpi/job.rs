//! What the thread of MPI is asked for.

use crate::cluster::EngineFailure;
use crate::error::Result;
use std::ptr::slice_from_raw_parts_mut;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// The most bytes that MPI gets at once: it counts in 32 bits. A multiple of the size of every number.
pub(super) const LARGEST_PIECE: usize = 1 << 30;

/// Memory of a caller that waits until its job has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory(*mut [u8]);

// SAFETY: the caller waits, so that only the thread of MPI uses its memory meanwhile.
unsafe impl Send for Memory {}

impl Memory {
    /// Returns the memory of bytes that are only read.
    pub fn read(bytes: &[u8]) -> Self {
        Memory(std::ptr::from_ref(bytes).cast_mut())
    }

    /// Returns the memory of bytes or values.
    pub fn written<T>(values: &mut [T]) -> Self {
        Memory(slice_from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)))
    }

    /// Returns its parts, of at most `most` bytes each.
    pub fn pieces(self, most: usize) -> Pieces {
        Pieces { rest: self.0, most }
    }
}

/// The parts of memory that remain to be done.
#[derive(Debug)]
pub(super) struct Pieces {
    rest: *mut [u8],
    most: usize,
}

impl Pieces {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Iterator for Pieces {
    type Item = *mut [u8];

    fn next(&mut self) -> Option<*mut [u8]> {
        let (start, len) = (self.rest.cast::<u8>(), self.rest.len().min(self.most));
        self.rest = slice_from_raw_parts_mut(start.wrapping_add(len), self.rest.len() - len);
        (len > 0).then(|| slice_from_raw_parts_mut(start, len))
    }
}

/// A message to or from a process.
#[derive(Debug)]
pub(super) struct Message {
    pub process: usize,
    pub tag: u16,
    pub memory: Memory,
}

/// The type of summed values.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    F32,
    F64,
}

/// What the thread is asked for, and where it answers. A job that was begun is answered when MPI no longer uses its memory; one whose
/// answer is dropped was never begun.
#[derive(Debug)]
pub(super) enum Job {
    Exchange {
        outgoing: Vec<Message>,
        incoming: Vec<Message>,
        done: Sender<Result<()>>,
    },
    Sum {
        group: usize,
        number: Number,
        memory: Memory,
        done: Sender<Result<()>>,
    },
    StartSum {
        values: Vec<f64>,
        done: Sender<Vec<f64>>,
    },
    Prepare {
        groups: Vec<Vec<usize>>,
        done: Sender<Result<()>>,
    },
    /// Answered twice: when all processes have asked for it, and when MPI has ended.
    Finish {
        done: Sender<()>,
    },
}

impl EngineFailure {
    /// Returns the failure of a sum with other processes.
    pub(super) fn of_sum(others: &[usize], message: String) -> Self {
        EngineFailure { peers: others.to_vec(), waited: Duration::ZERO, message }
    }

    /// Returns the failure of a message to or from a process.
    pub(super) fn with(process: usize, why: String) -> Self {
        let message = format!("message to or from process {process}: {why}");
        EngineFailure { peers: vec![process], waited: Duration::ZERO, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_memory_in_order() {
        // The memory is not touched.
        let len = 2 * LARGEST_PIECE + 24;
        let memory = Memory(slice_from_raw_parts_mut(std::ptr::without_provenance_mut(64), len));
        let pieces: Vec<(usize, usize)> =
            memory.pieces(LARGEST_PIECE).map(|piece| (piece.cast::<u8>() as usize - 64, piece.len())).collect();
        assert_eq!(pieces, [(0, LARGEST_PIECE), (LARGEST_PIECE, LARGEST_PIECE), (2 * LARGEST_PIECE, 24)]);
        assert_eq!(Memory::read(&[]).pieces(8).count(), 0);
    }
}
