//! Batch normalisation on a GPU (kernels/batch_norm.cu): statistics are computed for parts of the rows, then merged
//! in order.

use super::settings::{BatchNorm, PART, SAVED, SUMS, width};
use crate::device::Operand;
use crate::error::Result;
use crate::gpu::kernels::{self, any};
use crate::gpu::{Const, Grid, Mut, int, threads};
use crate::layers::{Launch, Operands, Role};

/// Number of channels that one block processes.
const CHANNELS: usize = 32;
/// Number of channels that one block merges.
const MERGED: usize = 8;
/// Minimum number of rows in a part, maximum number of parts, and number of blocks that keeps a large GPU busy.
const ROWS: usize = 128;
const PARTS: usize = 256;
const BLOCKS: usize = 512;

/// Returns (rows, rows per part, parts) of a device's input. There is at least one part; the division depends only on
/// the shape.
fn cut(x: &Operand, width: usize) -> (usize, usize, usize) {
    let rows = x.elements() / width.max(1);
    let parts = (BLOCKS / width.div_ceil(CHANNELS).max(1)).clamp(1, PARTS);
    let each = rows.div_ceil(parts).max(ROWS);
    (rows, each, rows.div_ceil(each).max(1))
}

/// Returns the scratch elements of a phase.
pub(super) fn scratch(phase: &str, shapes: &Operands) -> usize {
    let width = width(shapes);
    let parts = cut(&shapes[Role::X(0)], width).2;
    let scratch = |values: usize| if parts > 1 { parts * values * width } else { 0 };
    match phase {
        "forward" => width,
        "statistics" | "train" => scratch(3),
        "reduce" => scratch(2),
        _ => 0,
    }
}

/// Where the statistics of a batch are kept.
struct Keep {
    running: [Mut<f32>; 2],
    kept: Mut<f32>,
    momentum: f32,
    /// The number of the update, if the momentum is 1 divided by that.
    step: Const<u32>,
    epsilon: f32,
}

impl Keep {
    /// For a device that has a part of the batch.
    const NOTHING: Keep =
        Keep { running: [Mut::NONE; 2], kept: Mut::NONE, momentum: 0.0, step: Const::NONE, epsilon: 0.0 };
}

pub(super) fn count(launch: &Launch) -> Result<()> {
    count_into(launch, &Keep::NOTHING).map(|_| ())
}

/// Computes PART, and what is kept if it merges parts; returns whether it did.
fn count_into(launch: &Launch, keep: &Keep) -> Result<bool> {
    let width = width(launch.operands);
    let (rows, each, parts) = cut(launch.operand(Role::X(0)), width);
    let (on, x, c) = (&launch.issue, launch.any(Role::X(0)), int(width)?);
    let to = if parts > 1 { launch.scratch() } else { launch.write(PART) };
    let grid = Grid::new(width.div_ceil(CHANNELS), parts, 1);
    // SAFETY: x is (rows, width), scratch (parts, 3, width), PART (3, width); what is kept, if it is not null, has the
    // shapes of batch_norm_keep.
    unsafe {
        any::batch_norm_statistics(on, grid, x, to, rows as i64, c, int(each)?)?;
        if parts > 1 {
            let (grid, part, parts) = (Grid::cover(width, MERGED), launch.write(PART), int(parts)?);
            let Keep { running: [mean, variance], kept, momentum, step, epsilon } = *keep;
            let from = to.into();
            kernels::batch_norm_merge(on, grid, from, part, mean, variance, kept, step, parts, c, momentum, epsilon)?;
        }
    }
    Ok(parts > 1)
}

pub(super) fn reduce(launch: &Launch) -> Result<()> {
    let width = width(launch.operands);
    let (rows, each, parts) = cut(launch.operand(Role::X(0)), width);
    let (on, x, kept, dy) = (&launch.issue, launch.any(Role::X(0)), launch.read(SAVED), launch.any(Role::Dy));
    let to = if parts > 1 { launch.scratch() } else { launch.write(SUMS) };
    let grid = Grid::new(width.div_ceil(CHANNELS), parts, 1);
    // SAFETY: x and dy are (rows, width), kept (2, width), w and b have width elements, scratch (parts, 2, width), SUMS
    // (2, width).
    unsafe {
        let (w, b, relu) =
            (launch.read_or_null(Role::WEIGHT), launch.read_or_null(Role::BIAS), i32::from(launch.relu()));
        any::batch_norm_reduce(on, grid, x, kept, dy, w, b, to, rows as i64, int(width)?, int(each)?, relu)?;
        if parts > 1 {
            let (grid, n) = (Grid::cover(2 * width, CHANNELS), int(parts)?);
            kernels::sum_rows(on, grid, to.into(), launch.write(SUMS), n, 2 * width as i64, n)?;
        }
    }
    Ok(())
}

impl BatchNorm {
    fn keep(&self, launch: &Launch) -> Keep {
        let running =
            [0, 1].map(Role::Statistic).map(|role| if launch.has(role) { launch.write(role) } else { Mut::NONE });
        let (momentum, epsilon) = (self.momentum as f32, self.epsilon as f32);
        let step = if self.cumulative { launch.step() } else { Const::NONE };
        Keep { running, kept: launch.write(SAVED), momentum, step, epsilon }
    }

    /// Launches both phases of a device that has the whole batch.
    pub(super) fn launch_train(&self, launch: &Launch) -> Result<()> {
        let keep = self.keep(launch);
        if count_into(launch, &keep)? {
            return self.launch_apply(launch, keep.kept.into(), keep.kept.offset(width(launch.operands)).into());
        }
        self.launch_normalize(launch)
    }

    pub(super) fn launch_normalize(&self, launch: &Launch) -> Result<()> {
        let width = width(launch.operands);
        let devices = launch.operand(PART).len(0);
        let Keep { running: [mean, variance], kept, momentum, step, epsilon } = self.keep(launch);
        let (grid, parts, c) = (threads(width), launch.read(PART), int(width)?);
        // SAFETY: the parts are (devices, 3, width), kept is (2, width), the running statistics, if they are not null, have width
        // elements.
        unsafe {
            let (on, devices) = (&launch.issue, int(devices)?);
            kernels::batch_norm_keep(on, grid, parts, mean, variance, kept, step, devices, c, momentum, epsilon)?;
        }
        self.launch_apply(launch, kept.into(), kept.offset(width).into())
    }

    /// Keeps the running statistics for the backward pass, and normalises by them.
    pub(super) fn launch_fixed(&self, launch: &Launch) -> Result<()> {
        let (width, kept) = (width(launch.operands), launch.write(SAVED));
        let [mean, variance] = [0, 1].map(|i| launch.read(Role::Statistic(i)));
        // SAFETY: kept is (2, width), the others have width elements.
        unsafe {
            let (grid, c, epsilon) = (threads(width), int(width)?, self.epsilon as f32);
            kernels::batch_norm_fixed(&launch.issue, grid, mean, variance, kept, c, epsilon)?;
        }
        self.launch_apply(launch, kept.into(), kept.offset(width).into())
    }

    pub(super) fn launch_evaluate(&self, launch: &Launch) -> Result<()> {
        let width = width(launch.operands);
        let (variance, deviation) = (launch.read(Role::Statistic(1)), launch.scratch());
        let grid = threads(width);
        // SAFETY: both have width elements.
        unsafe {
            let epsilon = self.epsilon as f32;
            kernels::batch_norm_deviation(&launch.issue, grid, variance, deviation, int(width)?, epsilon)?;
        }
        self.launch_apply(launch, launch.read(Role::Statistic(0)), deviation.into())
    }

    /// Computes y = (x - mean) deviation w + b.
    fn launch_apply(&self, launch: &Launch, mean: Const<f32>, deviation: Const<f32>) -> Result<()> {
        let (n, c, x) = (launch.count(Role::X(0)), int(width(launch.operands))?, launch.any(Role::X(0)));
        let relu = i32::from(launch.relu());
        let (w, b, to) = (launch.read_or_null(Role::WEIGHT), launch.read_or_null(Role::BIAS), launch.any_mut(Role::Y));
        // SAFETY: x and y are (rows, width) with n elements, the others have width elements.
        unsafe {
            any::batch_norm_apply(&launch.issue, launch.vectors(Role::X(0)), x, mean, deviation, w, b, to, n, c, relu)
        }
    }

    pub(super) fn launch_backward(&self, launch: &Launch) -> Result<()> {
        let width = width(launch.operands);
        if !launch.has(Role::Dx(0)) {
            let sums = [(Role::D_WEIGHT, width), (Role::D_BIAS, 0)];
            return sums.into_iter().filter(|_| self.affine).try_for_each(|(role, at)| launch.copy(SUMS, at, role));
        }
        let (x, kept, dy, sums) = (launch.any(Role::X(0)), launch.read(SAVED), launch.any(Role::Dy), launch.read(SUMS));
        let (w, b) = (launch.read_or_null(Role::WEIGHT), launch.read_or_null(Role::BIAS));
        let [dw, db] = [Role::D_WEIGHT, Role::D_BIAS].map(|to| if self.affine { launch.write(to) } else { Mut::NONE });
        let kept_shape = &launch.operand(SAVED).shape;
        let values = launch.operand(Role::X(0)).shape.elements() / (kept_shape.0[2] * kept_shape.0[3]);
        // Statistics that do not depend on x have no gradient.
        let share = if self.is_fixed() { 0.0 } else { (1.0 / values as f64) as f32 };
        let (n, dx) = (launch.count(Role::X(0)), launch.any_mut(Role::Dx(0)));
        // At least one block writes dw and db.
        let grid = Grid::cover(launch.operand(Role::X(0)).bytes().max(1), 256 * 16);
        let relu = i32::from(launch.relu());
        // SAFETY: x, dy and dx are (rows, width) with n elements, kept and the sums (2, width), the others have width
        // elements.
        unsafe {
            let width = int(width)?;
            any::batch_norm_backward(&launch.issue, grid, x, kept, dy, sums, w, b, dx, dw, db, n, width, share, relu)
        }
    }
}
