//! Convolution on a GPU with a dilation, where cuDNN does not compute it: plain sums (kernels/conv_dilated.cu).

use super::local::LocalConv;
use crate::error::Result;
use crate::gpu::kernels::any;
use crate::gpu::{AnyConst, int, ints, threads};
use crate::layers::{Launch, Role};

/// Returns the dilations, the outputs of a group, and the groups in a run.
fn numbers(part: &LocalConv, outputs: usize, groups: usize) -> Result<[i32; 4]> {
    ints([part.window.dilation.h, part.window.dilation.w, outputs, groups])
}

pub(super) fn forward(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    for (group, count) in part.runs() {
        let grid = threads(part.n * part.pixels() * group.outputs * count);
        let (x, y) = (launch.any(Role::X(0)).offset(group.channel), launch.any_mut(Role::Y).offset(group.first));
        let filters = launch.any(Role::WEIGHT).offset(group.first * part.filter());
        let bias = if part.adds_bias { launch.any(Role::BIAS).offset(group.first) } else { AnyConst::NONE };
        let ([dh, dw, outputs, groups], relu) = (numbers(part, group.outputs, count)?, i32::from(launch.relu()));
        // SAFETY: x is (n, h, w, c), the filters (o, kh, kw, depth), the bias (o), y (n, oh, ow, o); each pointer is to
        // the first channel of the run's first group.
        unsafe {
            any::conv_dilated_forward(
                &launch.issue,
                grid,
                x,
                filters,
                bias,
                y,
                geometry,
                dh,
                dw,
                outputs,
                groups,
                relu,
            )?;
        }
    }
    Ok(())
}

pub(super) fn backward_weight(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    int(part.o * part.filter())?;
    for (group, count) in part.runs() {
        let grid = threads(group.outputs * count * part.filter());
        let (x, dy) = (launch.any(Role::X(0)).offset(group.channel), launch.any(Role::Dy).offset(group.first));
        let to = launch.write(Role::D_WEIGHT).offset(group.first * part.filter());
        let [dh, dw, outputs, groups] = numbers(part, group.outputs, count)?;
        // SAFETY: x is (n, h, w, c), dy (n, oh, ow, o), the gradient (o, kh, kw, depth); each pointer is to the first channel
        // of the run's first group.
        unsafe {
            any::conv_dilated_backward_weight(&launch.issue, grid, x, dy, to, geometry, dh, dw, outputs, groups)?;
        }
    }
    Ok(())
}

pub(super) fn backward_input(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    for (group, count) in part.runs() {
        let grid = threads(part.n * part.h * part.w * part.depth * count);
        let (dy, dx) = (launch.any(Role::Dy).offset(group.first), launch.any_mut(Role::Dx(0)).offset(group.channel));
        let filters = launch.any(Role::WEIGHT).offset(group.first * part.filter());
        let [dh, dw, outputs, groups] = numbers(part, group.outputs, count)?;
        // SAFETY: dy is (n, oh, ow, o), the filters (o, kh, kw, depth), dx (n, h, w, c); each pointer is to the first
        // channel of the run's first group.
        unsafe {
            any::conv_dilated_backward_input(&launch.issue, grid, dy, filters, dx, geometry, dh, dw, outputs, groups)?;
        }
    }
    Ok(())
}
