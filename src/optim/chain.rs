//! A chain of transforms, divided into stages, each of which passes once over the flat regions of a device.

use super::ema::Ema;
use super::entry::ChainEntry;
use super::role::{Slot, UpdateArgs, UpdateRole};
use super::transform::{Blocks, Elements, Norm, Norms, Slots, Transform};
use crate::cpu::{Ranges, sum_lanes, vectorized};
use crate::gpu::kernels::TransformOp;
use crate::tensor::{Dual, Precision, Real};
use std::ops::Range;
use std::sync::Arc;
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
    /// The layer of the parameter; those of a layer are next to each other.
    pub layer: usize,
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
    /// on this device. With `weights`, those of the weights follow. As the first stage, also does what
    /// [`UpdatePass::Check`] does; a norm of gradients that overflows counts as a gradient that is not finite.
    Norm {
        /// Whether the norms of the weights are required as well.
        weights: bool,
    },
}

/// The transforms of an optimiser, in order. An empty chain is plain gradient descent.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// The transforms.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// For each transform, the number of updates made before it joined the chain: 0 unless a resume changed the chain.
    pub starts: Vec<u64>,
}

/// Elements per task: gradients, weights and a slot of one block stay in the first-level cache from transform to
/// transform.
const BLOCK: usize = 4096;

/// Maximum number of slots of a stage; the GPU kernel has one operand for each.
pub(super) const SLOTS: usize = 4;

/// Maximum number of tasks for one segment's norm; their sums are on the stack.
const SUMS: usize = 64;

impl Chain {
    /// Returns a chain whose transforms begin with the first update.
    /// Those that leave every gradient as it is are not part of it.
    pub fn new(entries: &[Box<dyn ChainEntry>]) -> Self {
        let transforms = entries.iter().flat_map(|entry| entry.transforms());
        let transforms: Vec<_> = transforms.filter(|transform| !transform.is_identity()).map(Arc::from).collect();
        let starts = vec![0; transforms.len()];
        Chain { transforms, starts }
    }

    /// Returns the index among all slots of the one with the averages of the weights, if the chain keeps them.
    pub fn average(&self) -> Option<usize> {
        let slots = self.slots(0..self.transforms.len());
        slots.iter().position(|slot| self.transforms[slot.transform].key() == Ema::KEY)
    }

    /// Returns the chain with another transform at its end.
    pub fn then(&self, last: impl Transform + 'static) -> Self {
        let mut chain = self.clone();
        chain.transforms.push(Arc::new(last));
        chain.starts.push(0);
        chain
    }

    /// Returns the names of the transforms: `momentum`, and `momentum2` for the second of its kind.
    pub fn names(&self) -> Vec<String> {
        let keys: Vec<&str> = self.transforms.iter().map(|transform| transform.key()).collect();
        let before = |i: usize| keys[..i].iter().filter(|key| **key == keys[i]).count();
        (0..keys.len()).map(|i| numbered(keys[i], before(i))).collect()
    }

    /// Returns for each name the number of updates made before the transform joined the chain.
    pub fn started(&self) -> impl Iterator<Item = (String, u64)> {
        self.names().into_iter().zip(self.starts.iter().copied())
    }

    /// Returns the same chain, given for each name the number of updates made before the transform joined the chain.
    pub fn joined(&self, start: impl Fn(&str) -> u64) -> Self {
        Chain { transforms: self.transforms.clone(), starts: self.names().iter().map(|name| start(name)).collect() }
    }

    /// Returns the stages. The chain is divided before each transform that requires norms, which a separate stage
    /// computes, and wherever a stage would have more than four slots or more operations than a GPU's table.
    pub fn stages(&self) -> Vec<UpdatePass> {
        let checked = self.transforms.first().is_some_and(|first| !first.norms().is_empty());
        let mut stages = if checked { Vec::new() } else { vec![UpdatePass::Check] };
        let (mut start, mut norm, mut held) = (0, false, 0);
        for (i, transform) in self.transforms.iter().enumerate() {
            let (slots, norms) = (transform.slots().len(), transform.norms());
            if !norms.is_empty() || held + slots > SLOTS || i - start == TransformOp::MOST {
                if start < i {
                    stages.push(UpdatePass::Apply { transforms: start..i, update: false, norm });
                }
                (start, norm, held) = (i, !norms.is_empty(), 0);
                if norm {
                    stages.push(UpdatePass::Norm { weights: norms.contains(&Norm::Weights) });
                }
            }
            held += slots;
        }
        stages.push(UpdatePass::Apply { transforms: start..self.transforms.len(), update: true, norm });
        stages
    }

    /// Returns the number of norms of the stage that computes most of them, given the number of segments.
    pub fn num_norms(&self, segments: usize) -> usize {
        let of_weights = self.transforms.iter().any(|transform| transform.norms().contains(&Norm::Weights));
        if of_weights { 2 * segments } else { segments }
    }

    /// Returns the slots of some of the transforms, in order.
    pub fn slots(&self, transforms: Range<usize>) -> Vec<Slot> {
        let slots = |i: usize| self.transforms[i].slots().iter().map(move |&name| Slot { transform: i, name });
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
            UpdatePass::Norm { weights } => norms::<T>(segments, *weights, args),
            UpdatePass::Apply { .. } if args.read::<T>(UpdateRole::NonFiniteGradients)[0] != T::ZERO => {}
            UpdatePass::Apply { transforms, update, .. } => {
                let all = if args.has(UpdateRole::Norms) { args.read::<T>(UpdateRole::Norms) } else { &[] };
                let (gradients, weights) = all.split_at(all.len().min(segments.len()));
                let finite = each_part(segments, args, |part: Ranges<T, UpdateRole>, (index, segment)| {
                    let norms = Norms { gradients, weights, segment: index, layer: layer_of(segments, index) };
                    self.apply(transforms.clone(), *update, part, (segment, norms), args)
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
        parameter: (&Segment, Norms<T>),
        args: &UpdateArgs,
    ) -> bool {
        if update {
            let w = ranges.write(UpdateRole::Weights);
            // A copy is transformed, which stays in the cache, so that memory is not written once more.
            let mut copy = [T::ZERO; BLOCK];
            let g = &mut copy[..w.len()];
            g.copy_from_slice(ranges.read(UpdateRole::Gradients));
            self.transform(transforms, g, w, ranges, parameter, args);
            if parameter.0.frozen() {
                return true;
            }
            descend(w, g, T::from_f64(args.clock.lr * parameter.0.lr_mult));
            are_finite(w)
        } else {
            let (g, w) = (ranges.write(UpdateRole::Gradients), ranges.read(UpdateRole::Weights));
            self.transform(transforms, g, w, ranges, parameter, args);
            true
        }
    }

    fn transform<T: Blocks>(
        &self,
        transforms: Range<usize>,
        g: &mut [T],
        w: &[T],
        mut ranges: Ranges<T, UpdateRole>,
        (segment, norms): (&Segment, Norms<T>),
        args: &UpdateArgs,
    ) {
        for number in transforms {
            let elements = Elements {
                g: &mut *g,
                w,
                slots: Slots::of(number, &mut ranges),
                update: args.clock.step.saturating_sub(self.starts[number]),
                lr: args.clock.lr * segment.lr_mult,
                decay_mult: segment.decay_mult,
                norms,
            };
            self.transforms[number].apply(T::block(elements));
        }
    }
}

/// Returns the first segment of the same layer, and the one after its last.
pub(super) fn layer_of(segments: &[Segment], segment: usize) -> [usize; 2] {
    let is_own = |other: &&Segment| other.layer == segments[segment].layer;
    let before = segments[..segment].iter().rev().take_while(is_own).count();
    let after = segments[segment..].iter().take_while(is_own).count();
    [segment - before, segment + after]
}

/// Returns the name of a transform that has `before` others of its kind before it in the chain.
pub fn numbered(kind: &str, before: usize) -> String {
    if before == 0 { kind.to_string() } else { format!("{kind}{}", before + 1) }
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
    let finite = finite && are_finite(args.read::<T>(UpdateRole::Metrics));
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

/// Writes the sums of squares of the gradients and, if required, of the weights.
fn norms<T: Real>(segments: &[Segment], weights: bool, args: &UpdateArgs) {
    let (gradients, rest) = args.write::<T>(UpdateRole::Norms).split_at_mut(segments.len());
    squares(args.read::<T>(UpdateRole::Gradients), segments, gradients, args);
    if weights {
        squares(args.read::<T>(UpdateRole::Weights), segments, rest, args);
    }
    if args.has(UpdateRole::NonFiniteGradients) {
        count_gradients::<T>(are_finite(gradients), args);
    }
}

/// Writes the sum of squares of each counted segment. Large segments are summed in up to [`SUMS`] parallel parts of
/// whole blocks, which are then added in order.
fn squares<T: Real>(values: &[T], segments: &[Segment], norms: &mut [T], args: &UpdateArgs) {
    for (norm, segment) in norms.iter_mut().zip(segments) {
        let values = &values[segment.range()];
        let part = values.len().div_ceil(BLOCK).div_ceil(SUMS).max(1) * BLOCK;
        let mut sums = [T::ZERO; SUMS];
        if segment.counted {
            args.chunks(&mut sums[..values.len().div_ceil(part)], 1, |i, sum, _| {
                let part = &values[i * part..values.len().min((i + 1) * part)];
                sum[0] = part.chunks(BLOCK).fold(T::ZERO, |sum, block| sum + sum_lanes(block, |x| x * x));
            });
        }
        *norm = sums.iter().fold(T::ZERO, |sum, &part| sum + part);
    }
}
