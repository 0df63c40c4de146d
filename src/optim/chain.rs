//! A chain of transforms, divided into stages, each of which passes once over the flat regions of a device.

use super::role::{Slot, UpdateArgs, UpdateRole};
use super::transform::{Blocks, Elements, Slots, Transform};
use crate::cpu::{Ranges, sum_lanes, vectorized};
use crate::tensor::{Dual, Precision, Real};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// The part of one parameter in a device's flat regions.
///
/// Weights, gradients and every slot are at the same offsets, each in its own region. Segments are ordered by offset.
/// Padding between them is neither read nor written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// First element.
    pub offset: usize,
    /// Number of elements; may be 0.
    pub len: usize,
    /// Multiplies the learning rate; 0 for a frozen parameter.
    pub lr_mult: f64,
    /// Multiplies the weight decay.
    pub decay_mult: f64,
    /// Whether this device's copy counts in norms: exactly one of the devices that hold a copy sets this, unless the
    /// parameter is frozen.
    pub counted: bool,
}

impl Segment {
    /// Returns true if the parameter does not change. Its gradients do not matter.
    fn frozen(&self) -> bool {
        self.lr_mult == 0.0
    }

    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// A part of the update that every device executes without communication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdatePass {
    /// Checks that the loss and all gradients are finite, before anything is updated. The first stage of a chain, unless
    /// that computes norms, which show it as well.
    ///
    /// Reads the gradients and the metrics, and writes the counts of what is not finite: 1 or 0 for this device's
    /// gradients, 0 for its weights. The former is summed over all devices before the next stage.
    Check,
    /// Applies some of the transforms in one pass, unless a gradient is not finite.
    ///
    /// Updates the slots of the transforms, and reads the norms if `norm`. If `update`, also updates the weights and the
    /// count of those that are not finite afterwards, writes the weights' bf16 copy, if there is one, and leaves the
    /// gradients as they are; otherwise updates the gradients and only reads the weights.
    Apply {
        /// The range of transforms in the chain.
        transforms: Range<usize>,
        /// Whether w = w - lr * lr_mult * g follows.
        update: bool,
        /// Whether the first of the transforms reads the norms.
        norm: bool,
    },
    /// Computes the squared norms of this device's gradients, which are summed over all devices before the next stage.
    ///
    /// Reads the gradients and writes the norms: the sum of squares of each segment, or 0 if the segment is not counted
    /// on this device. As the first stage, also does what [`UpdatePass::Check`] does; a norm that overflows counts as a
    /// gradient that is not finite.
    Norm,
}

/// The transforms of an optimiser, in order. An empty chain is plain gradient descent.
#[derive(Debug, Default)]
pub struct Chain(pub Vec<Box<dyn Transform>>);

/// Elements per task: gradients, weights and a slot of one block stay in the first-level cache from transform to
/// transform.
const BLOCK: usize = 4096;

/// Maximum number of slots of a stage; the GPU kernel has one operand for each.
pub(super) const SLOTS: usize = 4;

/// Maximum number of tasks for one segment's norm; their sums are on the stack.
const SUMS: usize = 64;

impl Chain {
    /// Returns the stages. The chain is divided before each transform that needs norms, which a separate stage
    /// computes, and wherever a stage would have more than four slots.
    pub fn stages(&self) -> Vec<UpdatePass> {
        let checked = self.0.first().is_some_and(|first| first.needs_norm());
        let mut stages = if checked { Vec::new() } else { vec![UpdatePass::Check] };
        let (mut start, mut norm, mut held) = (0, false, 0);
        for (i, transform) in self.0.iter().enumerate() {
            let slots = transform.slots().len();
            if transform.needs_norm() || held + slots > SLOTS {
                if start < i {
                    stages.push(UpdatePass::Apply { transforms: start..i, update: false, norm });
                }
                (start, norm, held) = (i, transform.needs_norm(), 0);
                if norm {
                    stages.push(UpdatePass::Norm);
                }
            }
            held += slots;
        }
        stages.push(UpdatePass::Apply { transforms: start..self.0.len(), update: true, norm });
        stages
    }

    /// Returns the slots of some of the transforms, in order.
    pub fn slots(&self, transforms: Range<usize>) -> Vec<Slot> {
        let slots = |i: usize| self.0[i].slots().iter().map(move |&name| Slot { transform: i, name });
        transforms.flat_map(slots).collect()
    }

    /// Runs a stage on one CPU device, at the learning rate of the clock. [`UpdatePass::Check`] leaves out the segments
    /// that are `known` to be finite.
    ///
    /// Elements are processed independently, and the order of every sum is fixed by the segments, so the result does
    /// not depend on the number of threads.
    pub fn run(
        &self,
        stage: &UpdatePass,
        segments: &[Segment],
        known: impl Fn(usize) -> bool + Sync,
        args: &UpdateArgs,
    ) {
        match args.precision {
            Precision::F32 => self.run_in::<f32>(stage, segments, known, args),
            Precision::F64 => self.run_in::<f64>(stage, segments, known, args),
            Precision::Dual => self.run_in::<Dual>(stage, segments, known, args),
        }
    }

    fn run_in<T: Blocks>(
        &self,
        stage: &UpdatePass,
        segments: &[Segment],
        known: impl Fn(usize) -> bool + Sync,
        args: &UpdateArgs,
    ) {
        match stage {
            UpdatePass::Check => {
                let finite = each_part(segments, args, |mut part: Ranges<T, UpdateRole>, (index, segment)| {
                    segment.frozen() || known(index) || are_finite(part.read(UpdateRole::Gradients))
                });
                count_gradients::<T>(finite, args);
            }
            UpdatePass::Norm => norms::<T>(segments, args),
            UpdatePass::Apply { .. } if args.read::<T>(UpdateRole::NonFiniteGradients)[0] != T::ZERO => {}
            UpdatePass::Apply { transforms, update, .. } => {
                let finite = each_part(segments, args, |part: Ranges<T, UpdateRole>, segment| {
                    self.apply(transforms.clone(), *update, part, segment, args)
                });
                if !finite {
                    args.write::<T>(UpdateRole::NonFiniteWeights)[0] = T::ONE;
                }
            }
        }
    }

    /// Applies the transforms to some elements of a segment and, at the end of the chain, updates its weights. Returns
    /// whether these are finite.
    fn apply<T: Blocks>(
        &self,
        transforms: Range<usize>,
        update: bool,
        mut ranges: Ranges<T, UpdateRole>,
        segment: (usize, &Segment),
        args: &UpdateArgs,
    ) -> bool {
        if update {
            let w = ranges.write(UpdateRole::Weights);
            // A copy is transformed, which stays in the cache, so that memory is not written once more.
            let mut copy = [T::ZERO; BLOCK];
            let g = &mut copy[..w.len()];
            g.copy_from_slice(ranges.read(UpdateRole::Gradients));
            self.transform(transforms, g, w, ranges, segment, args);
            if segment.1.frozen() {
                return true;
            }
            descend(w, g, T::from_f64(args.clock.lr * segment.1.lr_mult));
            are_finite(w)
        } else {
            let (g, w) = (ranges.write(UpdateRole::Gradients), ranges.read(UpdateRole::Weights));
            self.transform(transforms, g, w, ranges, segment, args);
            true
        }
    }

    fn transform<T: Blocks>(
        &self,
        transforms: Range<usize>,
        g: &mut [T],
        w: &[T],
        mut ranges: Ranges<T, UpdateRole>,
        (index, segment): (usize, &Segment),
        args: &UpdateArgs,
    ) {
        for number in transforms {
            let transform = &self.0[number];
            let norms = if transform.needs_norm() { args.read::<T>(UpdateRole::Norms) } else { &[] };
            let (slots, decay_mult) = (Slots::of(number, &mut ranges), segment.decay_mult);
            transform.apply(T::block(Elements { g: &mut *g, w, slots, norms, segment: index, decay_mult }));
        }
    }
}

/// Calls `f` for the elements of every segment, block by block in parallel, with the segment's index; returns whether all
/// calls returned true.
fn each_part<T: Real>(
    segments: &[Segment],
    args: &UpdateArgs,
    f: impl Fn(Ranges<T, UpdateRole>, (usize, &Segment)) -> bool + Sync,
) -> bool {
    let all = AtomicBool::new(true);
    let end = segments.last().map_or(0, |s| s.range().end);
    args.ranges::<T>(end, BLOCK, |mut ranges| {
        let end = ranges.start() + ranges.len();
        let first = segments.partition_point(|s| s.range().end <= ranges.start());
        for (i, segment) in segments.iter().enumerate().skip(first).take_while(|(_, s)| s.offset < end) {
            let (_padding, rest) = ranges.cut(segment.offset);
            let (part, rest) = rest.cut(segment.range().end);
            if !f(part, (i, segment)) {
                all.store(false, Ordering::Relaxed);
            }
            ranges = rest;
        }
    });
    all.into_inner()
}

/// Writes the counts of what is not finite, given whether this device's gradients are finite.
fn count_gradients<T: Real>(finite: bool, args: &UpdateArgs) {
    let finite = finite && are_finite(&args.read::<T>(UpdateRole::Metrics)[..1]);
    args.write::<T>(UpdateRole::NonFiniteGradients)[0] = if finite { T::ZERO } else { T::ONE };
    args.write::<T>(UpdateRole::NonFiniteWeights)[0] = T::ZERO;
}

/// Returns true if all values are finite: 0 x is 0 if x is, and otherwise NaN.
fn are_finite<T: Real>(values: &[T]) -> bool {
    sum_lanes(values, |x| x * T::ZERO) == T::ZERO
}

/// w = w - rate * g.
fn descend<T: Real>(w: &mut [T], g: &[T], rate: T) {
    vectorized(
        #[inline(always)]
        || w.iter_mut().zip(g).for_each(|(w, &g)| *w -= rate * g),
    );
}

/// Writes the sum of squares of each counted segment. Large segments are summed in up to [`SUMS`] parallel parts of
/// whole blocks, which are then added in order.
fn norms<T: Real>(segments: &[Segment], args: &UpdateArgs) {
    let g = args.read::<T>(UpdateRole::Gradients);
    for (norm, segment) in args.write::<T>(UpdateRole::Norms).iter_mut().zip(segments) {
        let g = &g[segment.range()];
        let part = g.len().div_ceil(BLOCK).div_ceil(SUMS).max(1) * BLOCK;
        let mut sums = [T::ZERO; SUMS];
        if segment.counted {
            args.chunks(&mut sums[..g.len().div_ceil(part)], 1, |i, sum, _| {
                let part = &g[i * part..g.len().min((i + 1) * part)];
                sum[0] = part.chunks(BLOCK).fold(T::ZERO, |sum, block| sum + sum_lanes(block, |g| g * g));
            });
        }
        *norm = sums.iter().fold(T::ZERO, |sum, &part| sum + part);
    }
    if args.has(UpdateRole::NonFiniteGradients) {
        count_gradients::<T>(are_finite(args.read::<T>(UpdateRole::Norms)), args);
    }
}
