//! A chain of transforms, divided into stages, each of which passes once over the flat regions of a device.

use super::ema::Ema;
use super::entry::ChainEntry;
use super::role::{Slot, UpdateArgs, UpdateRole};
use super::transform::{Blocks, Elements, Norm, Norms, Slots, Transform, UnitNorms};
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
    /// The group of the chain that updates the parameter.
    pub group: usize,
    /// The first of its units on this device, counted over all parameters.
    pub unit: usize,
    /// The number of consecutive elements of a unit on this device, at least 1.
    pub run: usize,
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
        /// The group whose parameters are transformed; others are neither read nor written.
        group: usize,
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
    /// on this device or belongs to another group. With `weights`, those of the weights follow. As the first stage, also does what
    /// [`UpdatePass::Check`] does; a norm of gradients that overflows counts as a gradient that is not finite.
    Norm {
        /// The group of the parameters.
        group: usize,
        /// Whether the norms of the weights are required as well.
        weights: bool,
        /// Whether the norms of units follow, of the gradients and then of the weights; then those of the weights are
        /// computed, too.
        units: bool,
    },
}

impl UpdatePass {
    /// Returns the number of norms that it computes, given those of segments and of units.
    pub fn num_norms(&self, segments: usize, units: usize) -> usize {
        match self {
            UpdatePass::Norm { units: true, .. } => 2 * (segments + units),
            UpdatePass::Norm { weights: true, .. } => 2 * segments,
            UpdatePass::Norm { .. } => segments,
            UpdatePass::Check | UpdatePass::Apply { .. } => 0,
        }
    }
}

/// The transforms of some of the parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainGroup {
    /// What the file calls it; empty for the parameters that belong to no other group.
    pub label: String,
    /// The range of its transforms in the chain.
    pub transforms: Range<usize>,
}

/// The transforms of an optimiser, in order. An empty chain is plain gradient descent.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The transforms, group by group.
    pub transforms: Vec<Arc<dyn Transform>>,
    /// The groups of parameters, at least one.
    pub groups: Vec<ChainGroup>,
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

impl Default for Chain {
    fn default() -> Self {
        Chain::new(&[])
    }
}

impl Chain {
    /// Returns a chain for all parameters whose transforms begin with the first update. Those that leave every gradient as it
    /// is are not part of it.
    pub fn new(entries: &[Box<dyn ChainEntry>]) -> Self {
        Chain::grouped([(String::new(), entries)])
    }

    /// Returns a chain of groups, each with its label and entries.
    pub fn grouped<'a>(all: impl IntoIterator<Item = (String, &'a [Box<dyn ChainEntry>])>) -> Self {
        let mut chain = Chain { transforms: Vec::new(), groups: Vec::new(), starts: Vec::new() };
        for (label, entries) in all {
            let start = chain.transforms.len();
            let transforms = entries.iter().flat_map(|entry| entry.transforms());
            chain.transforms.extend(transforms.filter(|transform| !transform.is_identity()).map(Arc::from));
            chain.groups.push(ChainGroup { label, transforms: start..chain.transforms.len() });
        }
        chain.starts = vec![0; chain.transforms.len()];
        chain
    }

    /// Returns the region of the averages of the weights, if the chain keeps them.
    pub fn average(&self) -> Option<usize> {
        self.slots().find(|(slot, _)| self.transforms[slot.transform].key() == Ema::KEY).map(|(_, region)| region)
    }

    /// Returns the chain with another transform at the end of each group.
    pub fn then(&self, last: impl Transform + Clone + 'static) -> Self {
        let mut chain = Chain { transforms: Vec::new(), groups: Vec::new(), starts: Vec::new() };
        for ChainGroup { label, transforms } in &self.groups {
            let start = chain.transforms.len();
            chain.transforms.extend_from_slice(&self.transforms[transforms.clone()]);
            chain.transforms.push(Arc::new(last.clone()));
            chain.starts.extend_from_slice(&self.starts[transforms.clone()]);
            chain.starts.push(0);
            chain.groups.push(ChainGroup { label: label.clone(), transforms: start..chain.transforms.len() });
        }
        chain
    }

    /// Returns the name of each transform within its group: `momentum`, and `momentum2` for the second of its kind.
    pub fn names(&self) -> Vec<String> {
        let keys: Vec<&str> = self.transforms.iter().map(|transform| transform.key()).collect();
        let name = |of: &ChainGroup, i: usize| {
            let before = keys[of.transforms.start..i].iter().filter(|key| **key == keys[i]).count();
            numbered(keys[i], before)
        };
        self.groups.iter().flat_map(|group| group.transforms.clone().map(move |i| name(group, i))).collect()
    }

    /// Returns the name of each transform, with the label of its group.
    fn labelled(&self) -> Vec<String> {
        let labels = self.groups.iter().flat_map(|group| group.transforms.clone().map(|_| group.label.as_str()));
        let label = |(name, label): (String, &str)| if label.is_empty() { name } else { format!("{label}: {name}") };
        self.names().into_iter().zip(labels).map(label).collect()
    }

    /// Returns for each name the number of updates made before the transform joined the chain.
    pub fn started(&self) -> impl Iterator<Item = (String, u64)> {
        self.labelled().into_iter().zip(self.starts.iter().copied())
    }

    /// Returns the same chain, given for each name the number of updates made before the transform joined the chain.
    pub fn joined(&self, start: impl Fn(&str) -> u64) -> Self {
        Chain { starts: self.labelled().iter().map(|name| start(name)).collect(), ..self.clone() }
    }

    /// Returns the stages, group by group. The chain of a group is divided before each transform that requires norms, which a
    /// separate stage computes, and wherever a stage would have more than four slots or more operations than a GPU's table.
    pub fn stages(&self) -> Vec<UpdatePass> {
        let first = self.transforms.first().is_some_and(|first| !first.norms().is_empty());
        let checked = first && self.groups.len() == 1;
        let mut stages = if checked { Vec::new() } else { vec![UpdatePass::Check] };
        for (group, of) in self.groups.iter().enumerate() {
            let (mut start, mut norm, mut held) = (of.transforms.start, false, 0);
            for i in of.transforms.clone() {
                let (slots, norms) = (self.transforms[i].slots().len(), self.transforms[i].norms());
                if !norms.is_empty() || held + slots > SLOTS || i - start == TransformOp::MOST {
                    if start < i {
                        stages.push(UpdatePass::Apply { group, transforms: start..i, update: false, norm });
                    }
                    (start, norm, held) = (i, !norms.is_empty(), 0);
                    if norm {
                        let [weights, units] = [Norm::Weights, Norm::Units].map(|norm| norms.contains(&norm));
                        stages.push(UpdatePass::Norm { group, weights, units });
                    }
                }
                held += slots;
            }
            stages.push(UpdatePass::Apply { group, transforms: start..of.transforms.end, update: true, norm });
        }
        stages
    }

    /// Returns the number of norms of the stage that computes most of them, given those of segments and of units.
    pub fn num_norms(&self, segments: usize, units: usize) -> usize {
        self.stages().iter().map(|stage| stage.num_norms(segments, units)).max().unwrap_or(0)
    }

    /// Returns the slots of all transforms, in order, with the number of the region that has the slot. Groups share regions,
    /// as each parameter belongs to one of them; the averages of the weights are in the last region.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, usize)> {
        let is_average = |slot: &Slot| self.transforms[slot.transform].key() == Ema::KEY;
        let own = |group: &ChainGroup| self.slots_of(group.transforms.clone());
        let kept = |group: &ChainGroup| own(group).iter().filter(|slot| !is_average(slot)).count();
        let most = self.groups.iter().map(kept).max().unwrap_or(0);
        let region = move |(number, slot): (usize, Slot)| (slot, if is_average(&slot) { most } else { number });
        self.groups.iter().flat_map(move |group| own(group).into_iter().enumerate().map(region))
    }

    /// Returns the number of regions that have slots.
    pub fn num_regions(&self) -> usize {
        self.slots().map(|(_, region)| region + 1).max().unwrap_or(0)
    }

    /// Returns the slots of some of the transforms, in order.
    pub fn slots_of(&self, transforms: Range<usize>) -> Vec<Slot> {
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
            UpdatePass::Norm { group, weights, units } => norms::<T>(segments, *group, [*weights, *units], args),
            UpdatePass::Apply { .. } if args.read::<T>(UpdateRole::NonFiniteGradients)[0] != T::ZERO => {}
            UpdatePass::Apply { group, transforms, update, .. } => {
                let all = if args.has(UpdateRole::Norms) { args.read::<T>(UpdateRole::Norms) } else { &[] };
                let (gradients, rest) = all.split_at(all.len().min(segments.len()));
                let (weights, rest) = rest.split_at(rest.len().min(segments.len()));
                let of_units = rest.split_at(rest.len() / 2);
                let finite = each_part(segments, args, |part: Ranges<T, UpdateRole>, (index, segment)| {
                    if segment.group != *group {
                        return true;
                    }
                    let at = part.start() - segment.offset;
                    let units = UnitNorms {
                        gradients: of_units.0,
                        weights: of_units.1,
                        first: segment.unit + at / segment.run,
                        before: at % segment.run,
                        run: segment.run,
                    };
                    let norms = Norms { gradients, weights, segment: index, layer: layer_of(segments, index), units };
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

/// Writes the sums of squares of the gradients and, if required, of the weights, and of the units of both.
fn norms<T: Real>(segments: &[Segment], group: usize, [weights, units]: [bool; 2], args: &UpdateArgs) {
    let (gradients, rest) = args.write::<T>(UpdateRole::Norms).split_at_mut(segments.len());
    squares(args.read::<T>(UpdateRole::Gradients), segments, group, gradients, args);
    if weights {
        let (of_weights, of_units) = rest.split_at_mut(segments.len());
        squares(args.read::<T>(UpdateRole::Weights), segments, group, of_weights, args);
        if units {
            let (first, second) = of_units.split_at_mut(of_units.len() / 2);
            squares_of_units(args.read::<T>(UpdateRole::Gradients), segments, group, first, args);
            squares_of_units(args.read::<T>(UpdateRole::Weights), segments, group, second, args);
        }
    }
    if args.has(UpdateRole::NonFiniteGradients) {
        count_gradients::<T>(are_finite(gradients), args);
    }
}

/// Writes the sum of squares of this device's part of each unit of the counted segments of a group, otherwise 0.
fn squares_of_units<T: Real>(values: &[T], segments: &[Segment], group: usize, norms: &mut [T], args: &UpdateArgs) {
    norms.fill(T::ZERO);
    for segment in segments.iter().filter(|segment| segment.counted && segment.group == group && segment.len > 0) {
        let (values, run) = (&values[segment.range()], segment.run);
        let own = &mut norms[segment.unit..segment.unit + segment.len / run];
        args.chunks(own, 1, |unit, sum, _| {
            sum[0] = sum_lanes(&values[unit * run..(unit + 1) * run], |x| x * x);
        });
    }
}

/// Writes the sum of squares of each counted segment of a group, otherwise 0. Large segments are summed in up to [`SUMS`] parallel parts of
/// whole blocks, which are then added in order.
fn squares<T: Real>(values: &[T], segments: &[Segment], group: usize, norms: &mut [T], args: &UpdateArgs) {
    for (norm, segment) in norms.iter_mut().zip(segments) {
        let values = &values[segment.range()];
        let part = values.len().div_ceil(BLOCK).div_ceil(SUMS).max(1) * BLOCK;
        let mut sums = [T::ZERO; SUMS];
        if segment.counted && segment.group == group {
            args.chunks(&mut sums[..values.len().div_ceil(part)], 1, |i, sum, _| {
                let part = &values[i * part..values.len().min((i + 1) * part)];
                sum[0] = part.chunks(BLOCK).fold(T::ZERO, |sum, block| sum + sum_lanes(block, |x| x * x));
            });
        }
        *norm = sums.iter().fold(T::ZERO, |sum, &part| sum + part);
    }
}
