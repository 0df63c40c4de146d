//! On a GPU (kernels/batch_norm.cu): statistics in parts of the rows, merged in order.

use super::{BatchNorm, evaluates, width};
use crate::device::kernels::{self, any};
use crate::device::{Const, Grid, Launch, Operand, int};
use crate::error::Result;
use crate::layers::Pass;

/// Channels that one block treats.
const CHANNELS: usize = 32;
/// Fewest rows of a part, and most parts.
const ROWS: usize = 128;
const PARTS: usize = 256;

/// (rows, rows of a part, parts) of a device's input, at least one part; by the shape alone.
fn cut(x: &Operand, width: usize) -> (usize, usize, usize) {
    let rows = x.elements() / width.max(1);
    let each = rows.div_ceil(PARTS).max(ROWS);
    (rows, each, rows.div_ceil(each).max(1))
}

/// Returns the scratch elements of a phase.
pub(super) fn scratch(pass: Pass, phase: usize, operands: &[Option<Operand>]) -> usize {
    let width = width(operands);
    let parts = operands[0].as_ref().map_or(1, |x| cut(x, width).2);
    let scratch = |values: usize| if parts > 1 { parts * values * width } else { 0 };
    match (pass, phase) {
        (Pass::Forward, 0) if evaluates(operands) => width,
        (Pass::Forward, 0) => scratch(3),
        (Pass::Backward, 0) => scratch(2),
        _ => 0,
    }
}

/// Operands (x, part, scratch).
pub(super) fn count(launch: &Launch) -> Result<()> {
    let width = width(launch.operands);
    let (rows, each, parts) = cut(launch.operand(0), width);
    let (on, x, c) = (&launch.issue, launch.any(0), int(width)?);
    let to = if parts > 1 { launch.scratch() } else { launch.write(1) };
    let grid = Grid::new(width.div_ceil(CHANNELS), parts, 1);
    // SAFETY: x is (rows, width), the scratch (parts, 3, width), the part (3, width).
    unsafe {
        any::batch_norm_statistics(on, grid, x, to, rows as i64, c, int(each)?)?;
        if parts > 1 {
            let grid = Launch::threads(width);
            kernels::batch_norm_merge(on, grid, to.into(), launch.write(1), int(parts)?, c)?;
        }
    }
    Ok(())
}

/// Operands (x, kept, dy, term, scratch).
pub(super) fn reduce(launch: &Launch) -> Result<()> {
    let width = width(launch.operands);
    let (rows, each, parts) = cut(launch.operand(0), width);
    let (on, x, kept, dy) = (&launch.issue, launch.any(0), launch.read(1), launch.any(2));
    let to = if parts > 1 { launch.scratch() } else { launch.write(3) };
    let grid = Grid::new(width.div_ceil(CHANNELS), parts, 1);
    // SAFETY: x and dy are (rows, width), kept (2, width), the scratch (parts, 2, width), the term (2, width).
    unsafe {
        any::batch_norm_reduce(on, grid, x, kept, dy, to, rows as i64, int(width)?, int(each)?)?;
        if parts > 1 {
            let (grid, n) = (Grid::cover(2 * width, CHANNELS), int(parts)?);
            kernels::sum_rows(on, grid, to.into(), launch.write(3), n, 2 * width as i64, n)?;
        }
    }
    Ok(())
}

impl BatchNorm {
    /// Operands (x, part, running mean, running variance, kept mean and 1 / deviation, y, w, b).
    pub(super) fn launch_normalize(&self, launch: &Launch) -> Result<()> {
        let width = width(launch.operands);
        let devices = launch.operand(1).len(0);
        let kept = launch.write(4);
        let (mean, variance) = (launch.write(2), launch.write(3));
        let (momentum, epsilon) = (self.momentum as f32, self.epsilon as f32);
        let (grid, parts, c) = (Launch::threads(width), launch.read(1), int(width)?);
        // SAFETY: the parts are (devices, 3, width), kept is (2, width), the running statistics have width elements.
        unsafe {
            let (on, devices) = (&launch.issue, int(devices)?);
            kernels::batch_norm_keep(on, grid, parts, mean, variance, kept, devices, c, momentum, epsilon)?;
        }
        self.launch_apply(launch, 5, kept.into(), kept.offset(width).into())
    }

    /// Operands (x, running mean, running variance, y, w, b, scratch).
    pub(super) fn launch_evaluate(&self, launch: &Launch) -> Result<()> {
        let width = width(launch.operands);
        let (variance, deviation) = (launch.read(2), launch.scratch());
        let grid = Launch::threads(width);
        // SAFETY: both have width elements.
        unsafe {
            let epsilon = self.epsilon as f32;
            kernels::batch_norm_deviation(&launch.issue, grid, variance, deviation, int(width)?, epsilon)?;
        }
        self.launch_apply(launch, 3, launch.read(1), deviation.into())
    }

    /// y = (x - mean) deviation w + b; y is operand `y`, w and b are the next two.
    fn launch_apply(&self, launch: &Launch, y: usize, mean: Const<f32>, deviation: Const<f32>) -> Result<()> {
        let affine = |i: usize| if self.affine { launch.read(y + i) } else { Const::NONE };
        let (n, c, x) = (launch.count(0), int(width(launch.operands))?, launch.any(0));
        let relu = i32::from(launch.relu);
        let (w, b, to) = (affine(1), affine(2), launch.any_mut(y));
        // SAFETY: x and y are (rows, width) with n elements, the others have width elements.
        unsafe { any::batch_norm_apply(&launch.issue, launch.packs(0), x, mean, deviation, w, b, to, n, c, relu) }
    }

    /// Operands (x, kept, dy, sums, dx, w, dw, db).
    pub(super) fn launch_backward(&self, launch: &Launch) -> Result<()> {
        let width = width(launch.operands);
        for (i, first) in [(6, width), (7, 0)] {
            if self.affine && launch.has(i) {
                launch.copy(3, first, i)?;
            }
        }
        if !launch.has(4) {
            return Ok(());
        }
        let (x, kept, dy, sums) = (launch.any(0), launch.read(1), launch.any(2), launch.read(3));
        let w = if self.affine { launch.read(5) } else { Const::NONE };
        let kept_shape = &launch.operand(1).shape;
        let values = launch.operand(0).shape.elements() / (kept_shape.0[2] * kept_shape.0[3]);
        let (n, share, dx) = (launch.count(0), (1.0 / values as f64) as f32, launch.any_mut(4));
        let grid = launch.packs(0);
        // SAFETY: x, dy and dx are (rows, width) with n elements, kept and the sums (2, width), w has width elements.
        unsafe { any::batch_norm_backward(&launch.issue, grid, x, kept, dy, sums, w, dx, n, int(width)?, share) }
    }
}
