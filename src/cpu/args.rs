//! What a step sees on a CPU: its operands, the clock, the worker threads.

use crate::device::{Clock, Key, Operand, Operands, Pool, Random, RandomStream};
use crate::tensor::{Precision, Real};

/// Which of a layer's two CPU implementations runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Implementation {
    /// The fast one: tiles, products of matrices.
    #[default]
    Fast,
    /// The plain loops that the fast one is tested against.
    Reference,
}

/// The arguments of a step.
#[derive(Debug)]
pub struct Args<'a, R> {
    /// The operands.
    pub operands: &'a Operands<R>,
    /// The device's threads.
    pub pool: &'a Pool,
    /// The element type.
    pub precision: Precision,
    /// Fast or plain.
    pub implementation: Implementation,
    /// Step, epoch and learning rate.
    pub clock: Clock,
    /// The run's seed.
    pub seed: u64,
    /// The layer's index in the network: the stream of its random numbers.
    pub layer: u64,
    /// Samples in the global batch.
    pub batch: usize,
}

impl<R: Key> Args<'_, R> {
    /// Returns true when the step has an operand of this role.
    pub fn has(&self, role: R) -> bool {
        self.operands.has(role)
    }

    /// Returns the operand of a role.
    ///
    /// # Panics
    /// When the step has none.
    pub fn operand(&self, role: R) -> &Operand {
        &self.operands[role]
    }

    fn placed<'o, T: Real>(&self, operand: &'o Operand) -> &'o Operand {
        assert_eq!(T::PRECISION, self.precision, "a step computes in its program's precision");
        operand
    }

    /// Returns the elements of an operand, to read.
    pub fn read<T: Real>(&self, role: R) -> &[T] {
        let o = self.placed::<T>(self.operand(role));
        // SAFETY: `Operand::new` checked the bounds; the event order keeps writers away.
        unsafe { std::slice::from_raw_parts(o.base().cast::<T>(), o.elements()) }
    }

    /// Returns the elements of an operand, to write.
    ///
    /// Operands of one step never overlap, so several may be held at once; take each once.
    #[allow(clippy::mut_from_ref, reason = "each operand is its own memory, and each is taken once")]
    pub fn write<T: Real>(&self, role: R) -> &mut [T] {
        let o = self.placed::<T>(self.operand(role));
        // SAFETY: `Operand::new` checked the bounds; the event order makes this step their only user.
        unsafe { std::slice::from_raw_parts_mut(o.base().cast::<T>(), o.elements()) }
    }

    /// Returns the scratch memory; empty when the step asked for none. Take it once.
    #[allow(clippy::mut_from_ref, reason = "it is its own memory, and is taken once")]
    pub fn scratch<T: Real>(&self) -> &mut [T] {
        let Some(scratch) = self.operands.scratch() else { return Default::default() };
        let o = self.placed::<T>(scratch);
        // SAFETY: `Operand::new` checked the bounds; the event order makes this step its only user.
        unsafe { std::slice::from_raw_parts_mut(o.base().cast::<T>(), o.elements()) }
    }

    /// Returns the counted random numbers of this layer at this step.
    pub fn random(&self, purpose: RandomStream) -> Random {
        Random::new(self.seed, purpose, self.clock.step, self.layer)
    }

    /// Shares out disjoint parts of a slice: task i gets `data[i * size..(i + 1) * size]`, the last one less.
    pub fn chunks<T: Real>(&self, data: &mut [T], size: usize, task: impl Fn(usize, &mut [T], usize) + Sync) {
        let len = data.len();
        let base = Shared(data.as_mut_ptr());
        self.pool.run(len.div_ceil(size.max(1)), |i, worker| {
            let start = i * size;
            // SAFETY: the ranges of different tasks are disjoint and inside `data`.
            let part = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), size.min(len - start)) };
            task(i, part, worker);
        });
    }

    /// Shares out two slices side by side: task i gets the i-th `size` elements of each, the last one less.
    pub fn zip_chunks<T: Real>(
        &self,
        (a, a_size): (&mut [T], usize),
        (b, b_size): (&mut [T], usize),
        task: impl Fn(usize, &mut [T], &mut [T]) + Sync,
    ) {
        let (b_len, b_base) = (b.len(), Shared(b.as_mut_ptr()));
        self.chunks(a, a_size, |i, a, _| {
            let start = (i * b_size).min(b_len);
            // SAFETY: the ranges of different tasks are disjoint and inside `b`.
            let b = unsafe { std::slice::from_raw_parts_mut(b_base.get().add(start), b_size.min(b_len - start)) };
            task(i, a, b);
        });
    }

    /// Like [`Args::chunks`], with `task(i, part, scratch)`: each worker has its own equal part of `scratch`.
    pub fn chunks_with_scratch<T: Real>(
        &self,
        data: &mut [T],
        size: usize,
        scratch: &mut [T],
        task: impl Fn(usize, &mut [T], &mut [T]) + Sync,
    ) {
        let each = scratch.len() / self.pool.threads();
        let base = Shared(scratch.as_mut_ptr());
        self.chunks(data, size, |i, part, worker| {
            // SAFETY: no two running tasks share a worker's number, which is below the number of threads.
            let scratch = unsafe { std::slice::from_raw_parts_mut(base.get().add(worker * each), each) };
            task(i, part, scratch);
        });
    }

    /// Gives `task(i, scratch, whole)` the i-th worker-private scratch and the whole of `out`, for outputs that
    /// tasks write in strided, disjoint parts.
    ///
    /// # Safety
    /// Different tasks must write different elements of `out`.
    pub unsafe fn strided<T: Real>(
        &self,
        tasks: usize,
        out: &mut [T],
        scratch: &mut [T],
        task: impl Fn(usize, &mut [T], &mut [T]) + Sync,
    ) {
        let len = out.len();
        let each = scratch.len() / self.pool.threads();
        let (out, scratch) = (Shared(out.as_mut_ptr()), Shared(scratch.as_mut_ptr()));
        self.pool.run(tasks, |i, worker| {
            // SAFETY: workers have their own scratch; the caller promises disjoint writes to `out`.
            let (out, scratch) = unsafe {
                (
                    std::slice::from_raw_parts_mut(out.get(), len),
                    std::slice::from_raw_parts_mut(scratch.get().add(worker * each), each),
                )
            };
            task(i, out, scratch);
        });
    }
}

/// A pointer that tasks may share because each uses its own part.
struct Shared<T>(*mut T);

// SAFETY: the methods above hand out disjoint parts.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}
