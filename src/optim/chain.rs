//! A chain of transforms, cut into stages, and its one pass over the flat regions of a device.

use super::{Blocks, Elements, Transform};
use crate::device::{Args, Parts, vectorized};
use crate::tensor::{Dual, Precision, Real};
use std::ops::Range;

/// The part of one parameter in a device's flat regions.
///
/// Weights, gradients and every slot lie at the same offsets, each in its own region. Segments are in the order of
/// their offsets and may have padding between them, which nothing reads or writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// First element.
    pub offset: usize,
    /// Number of elements; may be 0.
    pub len: usize,
    /// Multiplies the learning rate.
    pub lr_mult: f64,
    /// Multiplies the weight decay.
    pub decay_mult: f64,
    /// True on the one device, of all that hold a copy of this part, whose copy counts in norms.
    pub counted: bool,
}

impl Segment {
    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// A part of the update that every device does without communication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Some of the transforms, in one pass.
    ///
    /// Operands: 0 weights, read, or updated when `update`; 1 gradients, updated; 2 norms, read, absent unless
    /// `norm`; 3 the weights in bf16, written, absent unless `update` and where nobody reads them; from 4 the slots of
    /// the transforms, in order, updated.
    Apply {
        /// Which transforms of the chain.
        transforms: Range<usize>,
        /// Whether w = w - lr * lr_mult * g follows.
        update: bool,
        /// Whether the first of the transforms reads the norms.
        norm: bool,
    },
    /// The squared norms of this device's gradients, to be summed over all devices before the next stage.
    ///
    /// Operands: 0 gradients, read; 1 norms, one element per segment, written: the sum of squares, or 0 when the
    /// segment is not counted here.
    Norm,
}

/// What a transform of a chain remembers of each weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The transform's index in the chain.
    pub transform: usize,
    /// The slot's name.
    pub name: &'static str,
}

/// The transforms of an optimiser, in order; without any it is plain gradient descent.
#[derive(Debug, Default)]
pub struct Chain(pub Vec<Box<dyn Transform>>);

/// Elements per task: gradients, weights and a slot of one block stay in the nearest cache from transform to
/// transform.
const BLOCK: usize = 4096;

/// Most slots of a stage: a GPU's kernel takes each as an operand.
const SLOTS: usize = 4;

/// Most tasks of one segment's norm: their sums lie on the stack.
const SUMS: usize = 64;

impl Chain {
    /// Returns the stages: before each transform that needs norms the chain is cut, and the norms are taken; it is also
    /// cut where a stage would have more than four slots.
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = Vec::new();
        let (mut start, mut norm, mut held) = (0, false, 0);
        for (i, transform) in self.0.iter().enumerate() {
            let slots = transform.slots().len();
            if transform.needs_norm() || held + slots > SLOTS {
                if start < i {
                    stages.push(Stage::Apply { transforms: start..i, update: false, norm });
                }
                (start, norm, held) = (i, transform.needs_norm(), 0);
                if norm {
                    stages.push(Stage::Norm);
                }
            }
            held += slots;
        }
        stages.push(Stage::Apply { transforms: start..self.0.len(), update: true, norm });
        stages
    }

    /// Returns the slots of some of the transforms, in the order of their operands.
    pub fn slots(&self, transforms: Range<usize>) -> Vec<Slot> {
        let slots = |i: usize| self.0[i].slots().iter().map(move |&name| Slot { transform: i, name });
        transforms.flat_map(slots).collect()
    }

    /// Runs a stage on one CPU device, at the learning rate of the clock.
    ///
    /// Every element is treated alone and every sum has an order fixed by the segments, so the result does not
    /// depend on the number of threads.
    pub fn run(&self, stage: &Stage, segments: &[Segment], args: &Args) {
        match args.precision {
            Precision::F32 => self.run_in::<f32>(stage, segments, args),
            Precision::F64 => self.run_in::<f64>(stage, segments, args),
            Precision::Dual => self.run_in::<Dual>(stage, segments, args),
        }
    }

    fn run_in<T: Blocks>(&self, stage: &Stage, segments: &[Segment], args: &Args) {
        match stage {
            Stage::Norm => norms::<T>(segments, args),
            Stage::Apply { transforms, update, .. } => {
                let end = segments.last().map_or(0, |s| s.range().end);
                args.parts::<T>(end, BLOCK, |mut parts| {
                    let end = parts.start() + parts.len();
                    let first = segments.partition_point(|s| s.range().end <= parts.start());
                    for (i, segment) in segments.iter().enumerate().skip(first).take_while(|(_, s)| s.offset < end) {
                        let (_padding, rest) = parts.cut(segment.offset);
                        let (mine, rest) = rest.cut(segment.range().end);
                        self.apply(transforms.clone(), *update, mine, (i, segment), args);
                        parts = rest;
                    }
                });
            }
        }
    }

    /// Applies the transforms to some elements of a segment and, at the end of the chain, moves its weights.
    fn apply<T: Blocks>(
        &self,
        transforms: Range<usize>,
        update: bool,
        parts: Parts<T>,
        segment: (usize, &Segment),
        args: &Args,
    ) {
        let (w, rest) = parts.separate(1);
        let (g, rest) = rest.separate(1);
        let (_norms_and_halves, slots) = rest.separate(2);
        let [g] = g.into_slices();
        if update {
            let [w] = w.into_slices();
            self.transform(transforms, g, w, slots, segment, args);
            descend(w, g, T::from_f64(args.clock.lr * segment.1.lr_mult));
        } else {
            self.transform(transforms, g, w.into_read(), slots, segment, args);
        }
    }

    fn transform<T: Blocks>(
        &self,
        transforms: Range<usize>,
        g: &mut [T],
        w: &[T],
        mut slots: Parts<T>,
        (index, segment): (usize, &Segment),
        args: &Args,
    ) {
        for transform in &self.0[transforms] {
            let (own, others) = slots.separate(transform.slots().len());
            slots = others;
            let norms = if transform.needs_norm() { args.read::<T>(2) } else { &[] };
            let decay_mult = segment.decay_mult;
            transform.apply(T::block(Elements { g: &mut *g, w, slots: own, norms, segment: index, decay_mult }));
        }
    }
}

/// w = w - rate * g.
fn descend<T: Real>(w: &mut [T], g: &[T], rate: T) {
    vectorized(
        #[inline(always)]
        || w.iter_mut().zip(g).for_each(|(w, &g)| *w -= rate * g),
    );
}

/// Writes the sum of squares of each segment that counts. Large segments are summed in at most [`SUMS`] parallel
/// parts, each over whole blocks, and the parts in order.
fn norms<T: Real>(segments: &[Segment], args: &Args) {
    let g = args.read::<T>(0);
    for (norm, segment) in args.write::<T>(1).iter_mut().zip(segments) {
        let g = &g[segment.range()];
        let part = g.len().div_ceil(BLOCK).div_ceil(SUMS).max(1) * BLOCK;
        let mut sums = [T::ZERO; SUMS];
        if segment.counted {
            args.chunks(&mut sums[..g.len().div_ceil(part)], 1, |i, sum, _| {
                let part = &g[i * part..g.len().min((i + 1) * part)];
                sum[0] = part.chunks(BLOCK).fold(T::ZERO, |sum, block| sum + sum_of_squares(block));
            });
        }
        *norm = sums.iter().fold(T::ZERO, |sum, &part| sum + part);
    }
}

/// Sums over interleaved lanes, then the lanes in order: one fixed order that vectors of any width can follow.
fn sum_of_squares<T: Real>(g: &[T]) -> T {
    const LANES: usize = 32;
    vectorized(
        #[inline(always)]
        || {
            let mut lanes = [T::ZERO; LANES];
            let rows = g.chunks_exact(LANES);
            let last = rows.remainder();
            for row in rows {
                lanes.iter_mut().zip(row).for_each(|(lane, &g)| *lane += g * g);
            }
            lanes.iter_mut().zip(last).for_each(|(lane, &g)| *lane += g * g);
            lanes.iter().fold(T::ZERO, |sum, &lane| sum + lane)
        },
    )
}
