//! The chain on a GPU: each stage of transforms is one launch, interpreted per element from tables in device memory. A
//! transform with slots has a kernel of its own, for stages that have no other except weight decay.

use super::chain::{SLOTS, layer_of};
use super::transform::{Norm, Transform};
use super::{Chain, Segment, UpdatePass, UpdateRole};
use crate::error::Result;
use crate::gpu::kernels::{TransformOp, TransformSettings, UpdateAddresses};
use crate::gpu::{Const, Gpus, Grid, Launch, Mut, kernels, threads};
use std::ops::Range;
use std::sync::Arc;

/// Number of elements that a block updates, at most: 256 threads with 4 each, eight times.
const BLOCK: usize = 8 * 1024;
/// Number of gradients that a block checks, at most.
const CHECKED: usize = 16 * 1024;
/// Number of parts of a segment's norm.
const PARTS: usize = 64;

/// The transforms of a stage.
#[derive(Debug, Clone, Copy)]
struct StageProgram {
    /// The address and number of the operations that the interpreter reads.
    operations: (u64, usize),
    /// The transform of the stage, if there is only one, and the weight decay before and after it.
    single: Option<(TransformOp, f32, f32)>,
}

/// The tables of a chain on one device.
#[derive(Debug, Clone)]
pub struct DeviceChain {
    programs: Vec<StageProgram>,
    /// The segments: begin and end.
    ranges: u64,
    /// For each group, which segments count in its norms.
    counted: Vec<u64>,
    /// For each group, the elements of each unit that count in its norms; 0 without norms of units.
    units: Vec<u64>,
    num_units: usize,
    parts: u64,
    /// For each bucket, the address and number of the ranges of gradients that are checked: those that are not frozen.
    checked: Vec<(u64, usize)>,
    segments: usize,
    /// For each group, the blocks of its update: their ranges and segments, the multipliers of these, and their number.
    blocks: Vec<(u64, u64, usize)>,
}

impl DeviceChain {
    /// Uploads the tables of a chain for a device's segments, whose gradients are checked in buckets of whole segments;
    /// all parameters have `num_units` units.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn new(
        chain: &Chain,
        segments: &[Segment],
        buckets: &[Range<usize>],
        num_units: usize,
        gpus: &mut Gpus,
        device: usize,
    ) -> Result<DeviceChain> {
        let mut programs = Vec::new();
        for stage in chain.stages() {
            let (mut operations, mut single) = (Vec::new(), None);
            if let UpdatePass::Apply { transforms, .. } = stage {
                let operation = |i: usize| {
                    let transform = &chain.transforms[i];
                    TransformOp { settings: transform.on_gpu(), slots: transform.slots().len(), start: chain.starts[i] }
                };
                operations = transforms.clone().map(operation).collect();
                single = single_of(&chain.transforms[transforms], &operations);
            }
            let table = gpus.upload(device, &TransformOp::table(&operations))?;
            programs.push(StageProgram { operations: (table, operations.len()), single });
        }
        let ranges: Vec<i64> = segments.iter().flat_map(|s| [s.offset as i64, (s.offset + s.len) as i64]).collect();
        let (mut blocks, mut counted, mut units) = (Vec::new(), Vec::new(), Vec::new());
        let has_units = chain.transforms.iter().any(|transform| transform.norms().contains(&Norm::Units));
        for group in 0..chain.groups.len() {
            let own = segments.iter().enumerate().filter(|(_, s)| s.group == group);
            let all = own.flat_map(|(i, s)| {
                pieces(s, 0, BLOCK).map(move |[begin, end]| {
                    let [first, after] = layer_of(segments, i).map(|at| at as i64);
                    let of_units = [s.offset, s.unit, s.run].map(|x| x as i64);
                    let all = [begin, end, i as i64, first, after, of_units[0], of_units[1], of_units[2]];
                    (all, [s.lr_mult as f32, s.decay_mult as f32])
                })
            });
            let (updated, factors): (Vec<[i64; 8]>, Vec<[f32; 2]>) = all.unzip();
            blocks.push((gpus.upload(device, &updated)?, gpus.upload(device, &factors)?, updated.len()));
            let counts = |s: &Segment| f32::from(u8::from(s.counted && s.group == group));
            counted.push(gpus.upload(device, &segments.iter().map(counts).collect::<Vec<f32>>())?);
            let mut of_units = vec![[0i64; 2]; if has_units { num_units } else { 0 }];
            for s in segments.iter().filter(|s| has_units && s.counted && s.group == group) {
                for (unit, range) in (0..s.len).step_by(s.run).enumerate() {
                    let begin = s.offset + range;
                    of_units[s.unit + unit] = [begin as i64, (begin + s.run) as i64];
                }
            }
            units.push(gpus.upload(device, &of_units)?);
        }
        let mut checked = Vec::new();
        for bucket in buckets {
            let before = |end: usize| segments.partition_point(|s| s.offset < end);
            let own = &segments[before(bucket.start)..before(bucket.end)];
            let learning = own.iter().filter(|s| s.lr_mult != 0.0);
            let pieces: Vec<[i64; 2]> = learning.flat_map(|s| pieces(s, bucket.start, CHECKED)).collect();
            checked.push((gpus.upload(device, &pieces)?, pieces.len()));
        }
        Ok(DeviceChain {
            programs,
            checked,
            ranges: gpus.upload(device, &ranges)?,
            counted,
            units,
            num_units,
            blocks,
            parts: gpus.upload(device, &vec![0.0f32; segments.len() * PARTS])?,
            segments: segments.len(),
        })
    }

    /// Computes the sum of squares of each segment of a region that counts in the norms of a group.
    fn squares(&self, group: usize, launch: &Launch<UpdateRole>, of: Const<f32>, to: Mut<f32>) -> Result<()> {
        let (parts, segments) = (Mut::at(self.parts), self.segments as i32);
        // SAFETY: there is one norm per segment, and the tables are in this device's memory.
        unsafe {
            let (on, grid) = (&launch.issue, Grid::new(PARTS, self.segments, 1));
            kernels::optim_norm_parts(on, grid, of, parts, Const::at(self.ranges), segments)?;
            let grid = threads(self.segments);
            kernels::optim_norm(on, grid, parts.into(), Const::at(self.counted[group]), to, segments)
        }
    }
}

impl DeviceChain {
    /// Computes the sums of squares of all units, of gradients and then of weights, after those of segments.
    fn launch_unit_norms(&self, group: usize, launch: &Launch<UpdateRole>) -> Result<()> {
        let (grid, ranges) = (Grid::new(self.num_units, 1, 1), Const::at(self.units[group]));
        let first = launch.write(UpdateRole::Norms).offset(2 * self.segments);
        let (g, w) = (launch.read(UpdateRole::Gradients), launch.read(UpdateRole::Weights));
        // SAFETY: there are two norms per unit after those of segments, and the table is in this device's memory.
        unsafe {
            let on = &launch.issue;
            kernels::optim_unit_norms(on, grid, g, ranges, first)?;
            kernels::optim_unit_norms(on, grid, w, ranges, first.offset(self.num_units))
        }
    }
}

/// Divides a segment into ranges of at most `most` elements, one per block: begin and end, counted from `start`.
fn pieces(segment: &Segment, start: usize, most: usize) -> impl Iterator<Item = [i64; 2]> + use<> {
    let (begin, end) = (segment.offset - start, segment.offset + segment.len - start);
    (begin..end).step_by(most).map(move |from| [from as i64, (from + most).min(end) as i64])
}

/// Returns the only transform of a stage, and the weight decay before and after it, if nothing else is in the stage.
fn single_of(transforms: &[Arc<dyn Transform>], operations: &[TransformOp]) -> Option<(TransformOp, f32, f32)> {
    let decay = |settings: &TransformSettings| match settings {
        TransformSettings::WeightDecay(settings) => Some(settings.decay),
        _ => None,
    };
    let at = transforms.iter().position(|transform| !transform.slots().is_empty())?;
    let around = |operations: &[TransformOp]| match operations {
        [] => Some(0.0),
        [one] => decay(&one.settings),
        _ => None,
    };
    Some((operations[at], around(&operations[..at])?, around(&operations[at + 1..])?))
}

impl Chain {
    /// Launches stage `number` of the chain. [`UpdatePass::Check`] checks one bucket; the first that is checked also
    /// has the metrics as an operand, and sets the counts.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn launch(
        &self,
        number: usize,
        bucket: usize,
        tables: &DeviceChain,
        launch: &Launch<UpdateRole>,
    ) -> Result<()> {
        let segments = tables.segments as i32;
        match &self.stages()[number] {
            UpdatePass::Check => {
                if launch.has(UpdateRole::Metrics) {
                    count_gradients(Const::NONE, 0, launch)?;
                }
                let (g, bad) = (launch.read(UpdateRole::Gradients), launch.write(UpdateRole::NonFiniteGradients));
                let (ranges, count) = tables.checked[bucket];
                if count == 0 {
                    return Ok(());
                }
                // SAFETY: the gradients are the whole bucket, in which the ranges are, and the table is in this device's
                // memory.
                unsafe { kernels::optim_check_parts(&launch.issue, Grid::new(count, 1, 1), g, Const::at(ranges), bad) }
            }
            UpdatePass::Norm { group, weights, units } => {
                let norms = launch.write(UpdateRole::Norms);
                tables.squares(*group, launch, launch.read(UpdateRole::Gradients), norms)?;
                if *weights {
                    tables.squares(*group, launch, launch.read(UpdateRole::Weights), norms.offset(tables.segments))?;
                }
                if *units && tables.num_units > 0 {
                    tables.launch_unit_norms(*group, launch)?;
                }
                match launch.has(UpdateRole::NonFiniteGradients) {
                    true => count_gradients(norms.into(), tables.segments, launch),
                    false => Ok(()),
                }
            }
            UpdatePass::Apply { group, transforms, update, .. } => {
                let slots = self.slots_of(transforms.clone());
                assert!(slots.len() <= SLOTS, "a stage has four slots at most");
                let slot = |i: usize| slots.get(i).map_or(Mut::NONE, |&slot| launch.write(UpdateRole::Slot(slot)));
                let copies = launch.has(UpdateRole::LowPrecision);
                let norms = launch.read_or_null(UpdateRole::Norms);
                let has_weights =
                    launch.has(UpdateRole::Norms) && launch.count(UpdateRole::Norms) > i64::from(segments);
                let has_units =
                    launch.has(UpdateRole::Norms) && launch.count(UpdateRole::Norms) > 2 * i64::from(segments);
                let (ranges, factors, blocks) = tables.blocks[*group];
                if blocks == 0 {
                    return Ok(());
                }
                let args = UpdateAddresses {
                    w: launch.write(UpdateRole::Weights),
                    halves: if copies { launch.write_bf16(UpdateRole::LowPrecision) } else { Mut::NONE },
                    g: launch.write(UpdateRole::Gradients),
                    norms,
                    weight_norms: if has_weights { norms.offset(tables.segments) } else { Const::NONE },
                    slots: [slot(0), slot(1), slot(2), slot(3)],
                    unit_norms: if has_units { norms.offset(2 * tables.segments) } else { Const::NONE },
                    ranges: Const::at(ranges),
                    factors: Const::at(factors),
                    step: launch.step(),
                    lr: launch.lr(),
                    bad_gradients: launch.read(UpdateRole::NonFiniteGradients),
                    bad_weights: if *update { launch.write(UpdateRole::NonFiniteWeights) } else { Mut::NONE },
                    update: i32::from(*update),
                    segments,
                    units: tables.num_units as i32,
                };
                let (on, grid) = (&launch.issue, Grid::new(blocks, 1, 1));
                let StageProgram { operations, single } = tables.programs[number];
                if let Some((operation, before, after)) = single {
                    // SAFETY: weights, their copy, gradients and slots are whole regions, in which the ranges are, there
                    // is one norm per segment, and the tables are in this device's memory.
                    let launched =
                        unsafe { operation.settings.launch(on, grid, &args, operation.start as i64, before, after) };
                    if let Some(done) = launched {
                        return done;
                    }
                }
                // SAFETY: as above.
                unsafe { args.launch_table(on, grid, Const::at(operations.0), operations.1) }
            }
        }
    }
}

/// Writes the counts of what is not finite, given values of which one is not finite if a gradient of the device is not.
fn count_gradients(values: Const<f32>, n: usize, launch: &Launch<UpdateRole>) -> Result<()> {
    // SAFETY: there are n values, and each of the two counts is one element.
    unsafe {
        kernels::optim_check(
            &launch.issue,
            Grid::new(1, 1, 1),
            values,
            launch.read(UpdateRole::Metrics),
            launch.write(UpdateRole::NonFiniteGradients),
            launch.write(UpdateRole::NonFiniteWeights),
            n as i32,
            launch.count(UpdateRole::Metrics) as i32,
        )
    }
}
