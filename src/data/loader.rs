//! A thread that computes batches ahead of their use, in a few buffers that circulate.
//!
//! The buffers travel through two channels: full ones to the consumer, empty ones back. When either side ends, its
//! channel closes and the other side returns, so neither waits forever.

use super::{Batch, BatchPart, Batches, Place, Preparer, SampleSet, SampleSets, Share};
use crate::device::{Heap, HostMemory, Pool, thread};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Besides the buffers that the consumer holds, one is waiting and one being filled.
const AHEAD: usize = 2;

/// What batches are computed for.
#[derive(Debug)]
pub struct Destination<'a> {
    /// Who augments and normalises the images.
    pub preparer: Preparer,
    /// The memory for raw pixels.
    pub memory: &'a dyn HostMemory,
    /// How many batches the consumer holds at once: those that may still be read when it requests the next one, and
    /// that one.
    pub reads: usize,
    /// The threads that read images, at least 1.
    pub workers: usize,
    /// The rows of each batch that it reads.
    pub share: Share,
}

impl Destination<'_> {
    /// Returns the destination of batches that the host prepares and reads, one at a time.
    pub fn host() -> Self {
        Destination { preparer: Preparer::Host, memory: &Heap, reads: 1, workers: 1, share: Share::ALL }
    }

    /// Returns the threads that read images besides the loader's own.
    fn pool(&self) -> Result<Option<Arc<Pool>>> {
        (self.workers > 1).then(|| Pool::new(self.workers).map(Arc::new)).transpose()
    }

    fn buffers(&self, batches: &Batches, rows: usize) -> Result<Vec<Batch>> {
        (0..Loader::buffers(self.reads)).map(|_| batches.empty_in(self.memory, rows)).collect()
    }
}

/// Returns the batches of a sample set in order.
#[derive(Debug)]
pub struct Loader {
    /// `None` only while the loader is dropped.
    channels: Option<(Receiver<Batch>, SyncSender<Batch>)>,
    /// The batches that the consumer holds, and how many it may hold at once.
    held: VecDeque<Batch>,
    hold: usize,
    thread: Option<JoinHandle<Result<()>>>,
    failed: bool,
}

impl Loader {
    /// Returns the number of buffers for a consumer that holds some of them at once.
    pub const fn buffers(held: usize) -> usize {
        held + AHEAD
    }

    /// Starts at a place in the training data, and returns every batch in parts of at most `part` samples; never ends by
    /// itself.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn train(sets: &SampleSets, to: Destination, start: Place, part: usize) -> Result<Self> {
        Loader::train_on(Batches::train(sets), to, start, part)
    }

    /// Starts at a place in these batches, as [`Loader::train`] does.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn train_on(batches: Batches, to: Destination, start: Place, part: usize) -> Result<Self> {
        let mut batches = batches.prepared_by(to.preparer).read_by(to.pool()?).shared(to.share.clone());
        let (mut place, mut row) = (start, 0);
        let buffers = to.buffers(&batches, part.min(batches.plan().rows(0)))?;
        Loader::start(buffers, move |batch| {
            let mut parts = BatchPart::divide(batches.plan().rows_at(place), part);
            let next =
                parts.find(|(_, own)| own.start == row).expect("a batch has samples, and parts follow each other");
            let (end, is_last) = (next.1.end, next.0.is_last());
            batches.fill_part(place, next, batch)?;
            (row, place) = if is_last { (0, batches.plan().after(place)) } else { (end, place) };
            Ok(true)
        })
    }

    /// Starts one pass over a sample set for evaluation.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn eval(set: &Arc<SampleSet>, to: Destination, batch: usize) -> Result<Self> {
        let mut batches =
            Batches::eval(set, batch).prepared_by(to.preparer).read_by(to.pool()?).shared(to.share.clone());
        let buffers = to.buffers(&batches, batches.plan().rows(0))?;
        let mut index = 0;
        Loader::start(buffers, move |batch| {
            let more = index < batches.plan().batches();
            if more {
                batches.fill(0, index, batch)?;
                index += 1;
            }
            Ok(more)
        })
    }

    /// Starts a thread that calls `fill` for each batch until it returns false.
    fn start(buffers: Vec<Batch>, mut fill: impl FnMut(&mut Batch) -> Result<bool> + Send + 'static) -> Result<Self> {
        let (ready, full) = sync_channel::<Batch>(buffers.len());
        let (free, empty) = sync_channel::<Batch>(buffers.len());
        let hold = buffers.len() - AHEAD;
        for buffer in buffers {
            free.send(buffer).expect("the receiver is alive, and the channel has room for every buffer");
        }
        let work = move || {
            while let Ok(mut batch) = empty.recv() {
                if !fill(&mut batch)? || ready.send(batch).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let thread = thread("loader".to_string(), work)?;
        Ok(Loader { channels: Some((full, free)), held: VecDeque::new(), hold, thread: Some(thread), failed: false })
    }

    /// Returns the next batch, or `None` after the last one of an evaluation. If the consumer already holds as many
    /// batches as the destination reads at once, takes back the first of them.
    ///
    /// # Errors
    /// When the loader thread failed.
    pub fn next_batch(&mut self) -> Result<Option<&mut Batch>> {
        let Some((full, free)) = &self.channels else { return Ok(None) };
        if self.held.len() == self.hold
            && let Some(batch) = self.held.pop_front()
        {
            // After the last batch the thread has ended and no longer takes buffers.
            let _ = free.send(batch);
        }
        match full.recv() {
            Ok(batch) => {
                self.held.push_back(batch);
                Ok(self.held.back_mut())
            }
            Err(_) => self.ended().map(|()| None),
        }
    }

    /// Returns how the thread ended.
    fn ended(&mut self) -> Result<()> {
        let failure = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(()))) => return Ok(()),
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
                Error::Run(format!("the thread that reads data panicked: {text}"))
            }
            None if self.failed => Error::Run("the thread that reads data has already failed".to_string()),
            None => return Ok(()),
        };
        self.failed = true;
        Err(failure)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channels ends the thread, whichever of them it is waiting on.
        self.channels = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_the_thread_reaches_the_consumer() {
        let mut count = 0;
        let mut loader = Loader::start(vec![Batch::default(); 3], move |batch| {
            batch.index = count;
            count += 1;
            assert!(count < 3, "image {count} is broken");
            Ok(true)
        })
        .unwrap();
        assert_eq!(loader.next_batch().unwrap().unwrap().index, 0);
        assert_eq!(loader.next_batch().unwrap().unwrap().index, 1);
        let error = loader.next_batch().unwrap_err().to_string();
        assert_eq!(error, "the thread that reads data panicked: image 3 is broken");
        let error = loader.next_batch().unwrap_err().to_string();
        assert_eq!(error, "the thread that reads data has already failed");
    }

    #[test]
    fn an_error_in_the_thread_reaches_the_consumer_after_the_batches_before_it() {
        let mut count = 0;
        let mut loader = Loader::start(vec![Batch::default(); 3], move |_| {
            count += 1;
            if count == 3 { Err(Error::Run("no more".to_string())) } else { Ok(true) }
        })
        .unwrap();
        assert!(loader.next_batch().unwrap().is_some() && loader.next_batch().unwrap().is_some());
        assert_eq!(loader.next_batch().unwrap_err().to_string(), "no more");
    }

    #[test]
    fn buffers_circulate_and_the_end_is_final() {
        let mut count = 0;
        let buffers = (0..3).map(|_| Batch { images: vec![0.0; 8], ..Batch::default() }).collect();
        let mut loader = Loader::start(buffers, move |batch| {
            batch.rows = count;
            count += 1;
            Ok(count <= 100)
        })
        .unwrap();
        let mut places = std::collections::BTreeSet::new();
        for i in 0..100 {
            let batch = loader.next_batch().unwrap().unwrap();
            assert_eq!(batch.rows, i);
            places.insert(batch.images.as_ptr());
        }
        assert_eq!(places.len(), 3);
        assert!(loader.next_batch().unwrap().is_none() && loader.next_batch().unwrap().is_none());
    }

    #[test]
    fn a_batch_stays_as_it_is_while_the_destination_may_read_it() {
        for reads in 1..4 {
            let mut count = 0;
            let buffers = (0..reads + AHEAD).map(|_| Batch { targets: vec![0.0], ..Batch::default() }).collect();
            let mut loader = Loader::start(buffers, move |batch| {
                batch.targets[0] = count as f32;
                count += 1;
                Ok(true)
            })
            .unwrap();
            let mut places = Vec::new();
            for i in 0..50 {
                let batch = loader.next_batch().unwrap().unwrap();
                assert_eq!(batch.targets, [i as f32]);
                places.push(batch.targets.as_ptr());
            }
            for window in places.windows(reads + 1) {
                assert!(!window[..reads].contains(&window[reads]), "of {reads} batches, one was taken back early");
            }
        }
    }

    #[test]
    fn a_dropped_loader_stops_its_thread() {
        let alive = Arc::new(());
        for taken in 0..5 {
            let held = Arc::clone(&alive);
            let mut loader = Loader::start(vec![Batch::default(); 3], move |_| {
                let _ = &held;
                Ok(true)
            })
            .unwrap();
            for _ in 0..taken {
                assert!(loader.next_batch().unwrap().is_some());
            }
            drop(loader);
            assert_eq!(Arc::strong_count(&alive), 1);
        }
    }
}
