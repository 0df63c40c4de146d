//! The chain on a GPU: each stage of transforms is one launch, interpreted per element from tables in device memory.
//! Weight decay and momentum have a kernel of their own.

use super::chain::SLOTS;
use super::opcode::{Opcode, WORDS};
use super::transform::Transform;
use super::{Chain, Segment, UpdatePass, UpdateRole};
use crate::error::Result;
use crate::gpu::{Const, Gpus, Grid, Launch, Mut, kernels, threads};
use std::ops::Range;

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
    /// Decay and mu, if there is a kernel for the whole stage.
    sgd: Option<(f32, f32)>,
}

/// The tables of a chain on one device.
#[derive(Debug, Clone)]
pub struct DeviceChain {
    programs: Vec<StageProgram>,
    /// The segments: begin and end.
    ranges: u64,
    counted: u64,
    parts: u64,
    /// For each bucket, the address and number of the ranges of gradients that are checked: those that are not frozen.
    checked: Vec<(u64, usize)>,
    segments: usize,
    /// The blocks of an update: their ranges, the multipliers of their segments, and their number.
    blocks: (u64, u64, usize),
}

impl DeviceChain {
    /// Uploads the tables of a chain for a device's segments, whose gradients are checked in buckets of whole segments.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn new(
        chain: &Chain,
        segments: &[Segment],
        buckets: &[Range<usize>],
        gpus: &mut Gpus,
        device: usize,
    ) -> Result<DeviceChain> {
        let mut programs = Vec::new();
        for stage in chain.stages() {
            let (mut words, mut sgd) = (Vec::new(), None);
            if let UpdatePass::Apply { transforms, update, .. } = stage {
                sgd = decay_and_momentum(&chain.0[transforms.clone()]).filter(|_| update);
                let mut slot = 0;
                for transform in &chain.0[transforms] {
                    words.extend(transform.code().words(slot));
                    slot += transform.slots().len();
                }
            }
            programs.push(StageProgram { operations: (gpus.upload(device, &words)?, words.len() / WORDS), sgd });
        }
        let ranges: Vec<i64> = segments.iter().flat_map(|s| [s.offset as i64, (s.offset + s.len) as i64]).collect();
        let blocks = segments.iter().flat_map(|s| pieces(s, 0, BLOCK).map(move |piece| (piece, s)));
        let (updated, factors): (Vec<[i64; 2]>, Vec<[f32; 2]>) =
            blocks.map(|(piece, s)| (piece, [s.lr_mult as f32, s.decay_mult as f32])).unzip();
        let counted: Vec<f32> = segments.iter().map(|s| f32::from(u8::from(s.counted))).collect();
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
            counted: gpus.upload(device, &counted)?,
            parts: gpus.upload(device, &vec![0.0f32; segments.len() * PARTS])?,
            segments: segments.len(),
            blocks: (gpus.upload(device, &updated)?, gpus.upload(device, &factors)?, updated.len()),
        })
    }
}

/// Divides a segment into ranges of at most `most` elements, one per block: begin and end, counted from `start`.
fn pieces(segment: &Segment, start: usize, most: usize) -> impl Iterator<Item = [i64; 2]> + use<> {
    let (begin, end) = (segment.offset - start, segment.offset + segment.len - start);
    (begin..end).step_by(most).map(move |from| [from as i64, (from + most).min(end) as i64])
}

/// Returns decay and mu if the transforms are weight decay, momentum without look-ahead, or both in this order, for
/// which there is a kernel.
fn decay_and_momentum(transforms: &[Box<dyn Transform>]) -> Option<(f32, f32)> {
    let codes: Vec<Opcode> = transforms.iter().map(|transform| transform.code()).collect();
    match codes[..] {
        [Opcode::Momentum(mu)] => Some((0.0, mu as f32)),
        [Opcode::WeightDecay(decay), Opcode::Momentum(mu)] => Some((decay as f32, mu as f32)),
        _ => None,
    }
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
            UpdatePass::Norm => {
                let parts = Mut::at(tables.parts);
                // SAFETY: there is one norm per segment, and the tables are in this device's memory.
                unsafe {
                    let grid = Grid::new(PARTS, tables.segments, 1);
                    kernels::optim_norm_parts(
                        &launch.issue,
                        grid,
                        launch.read(UpdateRole::Gradients),
                        parts,
                        Const::at(tables.ranges),
                        segments,
                    )?;
                    kernels::optim_norm(
                        &launch.issue,
                        threads(tables.segments),
                        parts.into(),
                        Const::at(tables.counted),
                        launch.write(UpdateRole::Norms),
                        segments,
                    )?;
                }
                match launch.has(UpdateRole::NonFiniteGradients) {
                    true => count_gradients(launch.read(UpdateRole::Norms), tables.segments, launch),
                    false => Ok(()),
                }
            }
            UpdatePass::Apply { transforms, update, .. } => {
                let slots = self.slots(transforms.clone());
                assert!(slots.len() <= SLOTS, "a stage has four slots at most");
                let slot = |i: usize| slots.get(i).map_or(Mut::NONE, |&slot| launch.write(UpdateRole::Slot(slot)));
                let copies = launch.has(UpdateRole::LowPrecision);
                let halves = if copies { launch.write_bf16(UpdateRole::LowPrecision) } else { Mut::NONE };
                let (weights, bad_gradients) =
                    (launch.write(UpdateRole::Weights), launch.read(UpdateRole::NonFiniteGradients));
                let (ranges, factors, blocks) = tables.blocks;
                let (grid, ranges, factors) = (Grid::new(blocks, 1, 1), Const::at(ranges), Const::at(factors));
                let StageProgram { operations: (program, ops), sgd } = tables.programs[number];
                if let Some((decay, mu)) = sgd {
                    let (g, bad_weights) =
                        (launch.read(UpdateRole::Gradients), launch.write(UpdateRole::NonFiniteWeights));
                    // SAFETY: weights, their copy, gradients and velocity are whole regions, in which the ranges are,
                    // and the tables are in this device's memory.
                    return unsafe {
                        let lr = launch.lr();
                        kernels::optim_sgd(
                            &launch.issue,
                            grid,
                            weights,
                            halves,
                            g,
                            slot(0),
                            ranges,
                            factors,
                            lr,
                            bad_gradients,
                            bad_weights,
                            decay,
                            mu,
                        )
                    };
                }
                // SAFETY: as above; there is one norm per segment.
                unsafe {
                    kernels::optim_apply(
                        &launch.issue,
                        grid,
                        weights,
                        halves,
                        launch.write(UpdateRole::Gradients),
                        launch.read_or_null(UpdateRole::Norms),
                        slot(0),
                        slot(1),
                        slot(2),
                        slot(3),
                        Const::at(program),
                        ranges,
                        factors,
                        if *update { launch.lr() } else { Const::NONE },
                        bad_gradients,
                        if *update { launch.write(UpdateRole::NonFiniteWeights) } else { Mut::NONE },
                        ops as i32,
                        segments,
                    )
                }
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
        )
    }
}
