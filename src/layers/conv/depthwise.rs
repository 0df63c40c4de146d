//! Convolution on a GPU with filters of depth 1, as in depthwise convolution (kernels/conv_depthwise.cu). There are too
//! few products to fill tiles.

use super::local::LocalConv;
use crate::error::Result;
use crate::gpu::kernels::any;
use crate::gpu::{AnyConst, Grid, int, threads};
use crate::layers::{Launch, Role};

/// Maximum number of outputs in a group for these kernels, which add products one by one; more outputs fill a tile.
const OUTPUTS: usize = 8;
/// Number of outputs that one block sums.
const COLUMNS: usize = 32;

/// Returns true if these kernels are faster than tiled products.
pub(super) fn fits(part: &LocalConv) -> bool {
    part.depth == 1 && part.group_outputs <= OUTPUTS && !part.is_dilated()
}

pub(super) fn forward(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    for (group, count) in part.runs() {
        let grid = threads(part.n * part.pixels() * group.outputs * count);
        let (x, y) = (launch.any(Role::X(0)).offset(group.channel), launch.any_mut(Role::Y).offset(group.first));
        let filters = launch.any(Role::WEIGHT).offset(group.first * part.filter());
        let bias = if part.adds_bias { launch.any(Role::BIAS).offset(group.first) } else { AnyConst::NONE };
        let (outputs, groups) = (int(group.outputs)?, int(count)?);
        // SAFETY: x is (n, h, w, c), the filters (o, kh, kw, 1), the bias (o), y (n, oh, ow, o); each pointer is to the
        // first channel of the run's first group.
        unsafe {
            let relu = i32::from(launch.relu());
            any::conv_depthwise_forward(&launch.issue, grid, x, filters, bias, y, geometry, outputs, groups, relu)?;
        }
    }
    Ok(())
}

pub(super) fn backward_weight(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    let parts = part.parts();
    for (group, count) in part.runs() {
        let columns = (group.outputs * count).div_ceil(COLUMNS);
        let grid = Grid::new(columns, part.filter(), parts.count);
        let (x, dy) = (launch.any(Role::X(0)).offset(group.channel), launch.any(Role::Dy).offset(group.first));
        let dw = parts.target(launch, Role::D_WEIGHT).offset(group.first * part.filter());
        let (outputs, groups, each) = (int(group.outputs)?, int(count)?, int(parts.each)?);
        // SAFETY: x is (n, h, w, c), dy (n, oh, ow, o), dw or the scratch (parts, o, kh, kw, 1); each pointer is to the
        // first channel of the run's first group.
        unsafe {
            any::conv_depthwise_backward_weight(&launch.issue, grid, x, dy, dw, geometry, outputs, groups, each)?;
        }
    }
    parts.add(launch, Role::D_WEIGHT)
}

pub(super) fn backward_input(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    for (group, count) in part.runs() {
        let grid = threads(part.n * part.h * part.w * count);
        let (dy, dx) = (launch.any(Role::Dy).offset(group.first), launch.any_mut(Role::Dx(0)).offset(group.channel));
        let filters = launch.any(Role::WEIGHT).offset(group.first * part.filter());
        let (outputs, groups) = (int(group.outputs)?, int(count)?);
        // SAFETY: dy is (n, oh, ow, o), the filters (o, kh, kw, 1), dx (n, h, w, c); each pointer is to the first
        // channel of the run's first group.
        unsafe {
            any::conv_depthwise_backward_input(&launch.issue, grid, dy, filters, dx, geometry, outputs, groups)?;
        }
    }
    Ok(())
}
