//! The arguments of a step on a CPU: its operands, the clock and the worker threads.

use crate::device::{Clock, Key, Operand, Operands, Pool, Random, RandomStream};
use crate::tensor::{Precision, Real};
use std::sync::atomic::{AtomicBool, Ordering};

/// One of a layer's two CPU implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Implementation {
    /// The fast implementation, with tiles and matrix products.
    #[default]
    Fast,
    /// Plain loops, against which the fast implementation is tested.
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
    /// The implementation to run.
    pub implementation: Implementation,
    /// The step, epoch and learning rate.
    pub clock: Clock,
    /// The run's seed.
    pub seed: u64,
    /// The stream of the layer's random numbers.
    pub layer: u64,
    /// The samples that the loss is divided by: those of the batch of an update.
    pub divisor: usize,
    /// The factor of the layer's loss in the loss of the network.
    pub loss_weight: f64,
    /// See [`Args::tell_finite`].
    pub(crate) finite: AtomicBool,
}

impl<'a, R: Key> Args<'a, R> {
    /// Returns the arguments of a step outside training, with the fast implementation.
    pub fn new(operands: &'a Operands<R>, pool: &'a Pool, precision: Precision) -> Self {
        let (implementation, clock) = (Implementation::default(), Clock::default());
        let finite = AtomicBool::new(false);
        let loss_weight = 1.0;
        Args { operands, pool, precision, implementation, clock, seed: 0, layer: 0, divisor: 0, loss_weight, finite }
    }

    /// Returns the factor of a sample's gradient in that of the network's loss.
    pub fn loss_scale(&self) -> f64 {
        self.loss_weight / self.divisor as f64
    }

    /// Tells whether this step knows that the gradient of its layer's first parameter is finite, and far enough from
    /// overflow to be summed over a mesh, from what it was computed from. Then the optimiser does not read it to check
    /// it.
    pub fn tell_finite(&self, known: bool) {
        self.finite.store(known, Ordering::Relaxed);
    }

    /// Returns what the step told by [`Args::tell_finite`], or false.
    pub fn gradient_is_finite(&self) -> bool {
        self.finite.load(Ordering::Relaxed)
    }

    /// Returns true if the step has an operand with this role.
    pub fn has(&self, role: R) -> bool {
        self.operands.has(role)
    }

    /// Returns the operand with this role.
    ///
    /// # Panics
    /// If the step has no such operand.
    pub fn operand(&self, role: R) -> &Operand {
        &self.operands[role]
    }

    fn placed<'o, T: Real>(&self, operand: &'o Operand) -> &'o Operand {
        assert_eq!(T::PRECISION, self.precision, "a step must compute in its program's precision");
        operand
    }

    /// Returns the elements of an operand, for reading.
    pub fn read<T: Real>(&self, role: R) -> &[T] {
        let o = self.placed::<T>(self.operand(role));
        // SAFETY: `Operand::new` checked the bounds; events order all writes before or after this step.
        unsafe { std::slice::from_raw_parts(o.base().cast::<T>(), o.elements()) }
    }

    /// Returns the elements of an operand, for writing.
    ///
    /// The operands of a step never overlap, so several may be held at once. Do not call it again for an
    /// operand while a borrow of it is alive.
    #[allow(clippy::mut_from_ref, reason = "operands do not overlap, and no two borrows of one are alive at once")]
    pub fn write<T: Real>(&self, role: R) -> &mut [T] {
        let o = self.placed::<T>(self.operand(role));
        // SAFETY: `Operand::new` checked the bounds; events order all other accesses before or after this step.
        unsafe { std::slice::from_raw_parts_mut(o.base().cast::<T>(), o.elements()) }
    }

    /// Returns the scratch memory, which is empty if the step requested none. Do not call it again while a borrow of it
    /// is alive.
    #[allow(clippy::mut_from_ref, reason = "scratch overlaps no operand, and no two borrows of it are alive at once")]
    pub fn scratch<T: Real>(&self) -> &mut [T] {
        let Some(scratch) = self.operands.scratch() else { return Default::default() };
        let o = self.placed::<T>(scratch);
        // SAFETY: `Operand::new` checked the bounds; events order all other accesses before or after this step.
        unsafe { std::slice::from_raw_parts_mut(o.base().cast::<T>(), o.elements()) }
    }

    /// Returns the counter-based random numbers of this layer at this step.
    pub fn random(&self, purpose: RandomStream) -> Random {
        Random::new(self.seed, purpose, self.clock.step, self.layer)
    }

    /// Divides a slice among tasks: task i gets `data[i * size..(i + 1) * size]`; the last part may be shorter.
    pub fn chunks<T: Real>(&self, data: &mut [T], size: usize, task: impl Fn(usize, &mut [T], usize) + Sync) {
        let len = data.len();
        let base = Shared(data.as_mut_ptr());
        self.pool.run(len.div_ceil(size.max(1)), |i, worker| {
            let start = i * size;
            // SAFETY: the ranges of different tasks are disjoint and within `data`.
            let part = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), size.min(len - start)) };
            task(i, part, worker);
        });
    }

    /// Divides two slices in parallel: task i gets the i-th part of each, with `a_size` and `b_size` elements; the last
    /// parts may be shorter.
    pub fn zip_chunks<T: Real>(
        &self,
        (a, a_size): (&mut [T], usize),
        (b, b_size): (&mut [T], usize),
        task: impl Fn(usize, &mut [T], &mut [T]) + Sync,
    ) {
        let (b_len, b_base) = (b.len(), Shared(b.as_mut_ptr()));
        self.chunks(a, a_size, |i, a, _| {
            let start = (i * b_size).min(b_len);
            // SAFETY: the ranges of different tasks are disjoint and within `b`.
            let b = unsafe { std::slice::from_raw_parts_mut(b_base.get().add(start), b_size.min(b_len - start)) };
            task(i, a, b);
        });
    }

    /// Works like [`Args::chunks`], but calls `task(i, part, scratch)`: each worker has an equal part of `scratch`.
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
            // SAFETY: no two running tasks share a worker number, and it is less than the number of threads.
            let scratch = unsafe { std::slice::from_raw_parts_mut(base.get().add(worker * each), each) };
            task(i, part, scratch);
        });
    }

    /// Calls `task(i, out, scratch)` for each i, with all of `out` and the worker's part of `scratch`, for tasks that
    /// write strided, disjoint parts of an output.
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
            // SAFETY: each worker has its own scratch; the caller guarantees disjoint writes to `out`.
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

/// A pointer that tasks may share, because each task uses its own part.
struct Shared<T>(*mut T);

// SAFETY: the methods above hand out disjoint parts.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}
