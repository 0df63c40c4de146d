//! The threads that read the images of a batch.

use super::dataset::ImageMemory;
use crate::device::Pool;
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The threads that read images, each with its memory.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    /// None if the thread that asks for a batch reads alone.
    pool: Option<Arc<Pool>>,
    /// The memory of each; no two threads use one at once.
    own: Arc<[Mutex<Scratch>]>,
}

/// The memory in which one image is read and augmented.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub image: ImageMemory,
    /// Two raw images, used in turn by the augmentations.
    pub images: [Vec<f32>; 2],
    /// The drawn values.
    pub drawn: Vec<f32>,
    /// Scratch memory for one augmentation.
    pub work: Vec<f32>,
    /// The image that is mixed with another.
    pub partner: Vec<f32>,
    /// Scratch memory for whitening: images without their mean.
    pub centred: Vec<f32>,
}

impl Workers {
    /// How many tasks a thread takes on average: images may differ in cost.
    const TASKS: usize = 4;

    /// Uses the threads of a pool, besides the one that asks for a batch.
    pub fn new(pool: Option<Arc<Pool>>) -> Self {
        let threads = pool.as_ref().map_or(1, |pool| pool.threads());
        Workers { pool, own: (0..threads).map(|_| Mutex::default()).collect() }
    }

    /// Calls `read(row, part, memory)` for every row of `all`, whose parts have `width` elements; several at once.
    ///
    /// # Errors
    /// That of the first row that cannot be read.
    pub fn each<T: Send>(
        &self,
        all: &mut [T],
        width: usize,
        read: impl Fn(usize, &mut [T], &mut Scratch) -> Result<()> + Sync,
    ) -> Result<()> {
        let rows = (all.len() / width.max(1)).div_ceil(self.own.len() * Self::TASKS).max(1);
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let task = |index: usize, part: &mut [T], worker: usize| {
            let mut memory = lock(&self.own[worker]);
            for (i, part) in part.chunks_exact_mut(width).enumerate() {
                let row = index * rows + i;
                if let Err(error) = read(row, part, &mut memory) {
                    let mut failed = lock(&failed);
                    if failed.as_ref().is_none_or(|(first, _)| row < *first) {
                        *failed = Some((row, error));
                    }
                    return;
                }
            }
        };
        match &self.pool {
            Some(pool) => pool.chunks(all, rows * width, task),
            None => all.chunks_mut((rows * width).max(1)).enumerate().for_each(|(i, part)| task(i, part, 0)),
        }
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Calls `visit(part, memory)` for every part of `size` elements of `all`, several at once.
    pub fn blocks<T: Send>(&self, all: &mut [T], size: usize, visit: impl Fn(&mut [T], &mut Scratch) + Sync) {
        let task = |part: &mut [T], worker: usize| visit(part, &mut lock(&self.own[worker]));
        match &self.pool {
            Some(pool) => pool.chunks(all, size, |_, part, worker| task(part, worker)),
            None => all.chunks_mut(size.max(1)).for_each(|part| task(part, 0)),
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
