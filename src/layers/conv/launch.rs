//! Convolution on a GPU: with cuDNN if possible, otherwise as products whose operands are read in place
//! (kernels/conv.cu), with one launch per run of equal groups.

use super::depthwise;
use super::local::{Group, LocalConv};
use crate::error::Result;
use crate::gpu::kernels::{ConvGeometry, any};
use crate::gpu::libraries::{Convolution, Direction, Images};
use crate::gpu::{AnyConst, int, ints};
use crate::layers::split_k::{SplitK, sum_rows_on, tiles, tiles_of};
use crate::layers::window::Pair;
use crate::layers::{Launch, Role};

impl LocalConv {
    /// Returns the groups as runs of consecutive groups of equal size: the first group of each run, and its length.
    pub(super) fn runs(&self) -> impl Iterator<Item = (Group, usize)> + use<> {
        let mut groups = self.groups().peekable();
        std::iter::from_fn(move || {
            let first = groups.next()?;
            let mut count = 1;
            while groups.next_if(|group| group.outputs == first.outputs).is_some() {
                count += 1;
            }
            Some((first, count))
        })
    }

    /// Returns how the sum over the output pixels in dw is divided into parts.
    pub(super) fn parts(&self) -> SplitK {
        let (rows, groups) = (self.n * self.pixels(), self.groups().count());
        if depthwise::fits(self) {
            return SplitK::of_rows(rows, self.o * self.filter());
        }
        SplitK::of_products(rows, self.o.div_ceil(groups.max(1)), self.filter(), groups)
    }

    /// Returns the geometry in the form that kernels expect.
    pub(super) fn geometry(&self) -> Result<ConvGeometry> {
        let (kernel, stride, pad) = (self.window.kernel, self.window.stride, self.window.pad);
        let LocalConv { n, h, w, c, oh, ow, o, depth, .. } = *self;
        // Kernels use 32-bit indices for pixels and for positions in all filters.
        ints([n * h * w, n * self.pixels(), kernel.h * kernel.w * o.max(depth)])?;
        let [n, h, w, c, oh, ow, o] = ints([n, h, w, c, oh, ow, o])?;
        let [kh, kw, depth] = ints([kernel.h, kernel.w, depth])?;
        let [stride_h, stride_w, pad_h, pad_w] = ints([stride.h, stride.w, pad.h, pad.w])?;
        Ok(ConvGeometry { n, h, w, c, oh, ow, o, kh, kw, depth, stride_h, stride_w, pad_h, pad_w })
    }

    /// Returns the number of input pixels in each class, in the order of conv_backward_input. The pixels of a class
    /// have the same remainders of row and column, divided by the strides.
    fn classes(&self) -> Vec<usize> {
        let stride = self.window.stride;
        let along = |first: usize, size: usize, stride: usize| size.saturating_sub(first).div_ceil(stride);
        let one = |i: usize| along(i / stride.w, self.h, stride.h) * along(i % stride.w, self.w, stride.w);
        (0..stride.h * stride.w).map(|i| self.n * one(i)).collect()
    }
}

/// Returns the scratch elements of the backward phase.
pub(super) fn backward_scratch(part: &LocalConv) -> usize {
    let weight = part.parts().scratch(part.o * part.filter());
    let bias = if part.has_bias { SplitK::of_rows(part.n * part.pixels(), part.o).scratch(part.o) } else { 0 };
    weight.max(bias)
}

/// Computes a pass with a library; x, w and y are the operands or their gradients. Returns false if no library supports
/// it.
fn library(part: &LocalConv, launch: &Launch, direction: Direction, [x, w, y]: [Role; 3]) -> Result<bool> {
    let groups = part.groups().count();
    // A split may divide a group, or leave channels that no filter on this device reads.
    let whole = part.groups().all(|group| group.outputs * groups == part.o) && groups * part.depth == part.c;
    if !whole || depthwise::fits(part) {
        return Ok(false);
    }
    let LocalConv { window, n, h, w: width, c, oh, ow, o, .. } = *part;
    let both = |pair: Pair| [pair.h, pair.w];
    let convolution = Convolution {
        direction,
        x: [n, h, width, c],
        y: [n, oh, ow, o],
        kernel: both(window.kernel),
        stride: both(window.stride),
        pad: both(window.pad),
        groups,
        format: launch.format(x),
    };
    let at = |role| launch.operand(role).address();
    let images = Images { x: at(x), w: at(w), y: at(y) };
    // SAFETY: x is (n, h, w, c), the filters (o, kh, kw, depth), y (n, oh, ow, o), and so are their gradients.
    unsafe {
        if launch.operand(w).element == launch.operand(x).element {
            launch.convolve(&convolution, &images)
        } else {
            launch.convolve_rounded(&convolution, &images, w)
        }
    }
}

/// Finishes an output computed by a library: adds the bias to every row if `adds_bias`, then applies the epilogue.
fn finish(launch: &Launch, adds_bias: bool) -> Result<()> {
    if !adds_bias && launch.epilogue.is_none() {
        return Ok(());
    }
    let (y, n, relu) = (launch.any_mut(Role::Y), launch.count(Role::Y), i32::from(launch.relu()));
    let columns = int(launch.operand(Role::Y).len(3))?;
    let bias = if adds_bias { launch.any(Role::BIAS) } else { AnyConst::NONE };
    // SAFETY: y is (rows, columns), the bias (columns).
    unsafe { any::bias_add(&launch.issue, launch.vectors(Role::Y), y, bias, n, columns, relu) }
}

pub(super) fn forward(part: &LocalConv, launch: &Launch) -> Result<()> {
    if depthwise::fits(part) {
        return depthwise::forward(part, launch);
    }
    if library(part, launch, Direction::Forward, [Role::X(0), Role::WEIGHT, Role::Y])? {
        return finish(launch, part.adds_bias);
    }
    let geometry = part.geometry()?;
    for (group, count) in part.runs() {
        let grid = tiles(part.n * part.pixels(), group.outputs, count);
        let (x, y) = (launch.any(Role::X(0)).offset(group.channel), launch.any_mut(Role::Y).offset(group.first));
        let filters = launch.any(Role::WEIGHT).offset(group.first * part.filter());
        let bias = if part.adds_bias { launch.any(Role::BIAS).offset(group.first) } else { AnyConst::NONE };
        let outputs = int(group.outputs)?;
        // SAFETY: x is (n, h, w, c), the filters (o, kh, kw, depth), the bias (o), y (n, oh, ow, o); each pointer is to
        // the first channel of the run's first group.
        unsafe {
            let relu = i32::from(launch.relu());
            any::conv_forward(&launch.issue, grid, x, filters, bias, y, geometry, outputs, relu)?;
        }
    }
    Ok(())
}

pub(super) fn backward(part: &LocalConv, launch: &Launch) -> Result<()> {
    backward_weight(part, launch)?;
    if part.has_bias {
        sum_rows_on(launch, Role::Dy, part.n * part.pixels(), Role::D_BIAS)?;
    }
    if launch.has(Role::Dx(0)) { backward_input(part, launch) } else { Ok(()) }
}

fn backward_weight(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    if part.n == 0 {
        return launch.clear(Role::D_WEIGHT);
    }
    if depthwise::fits(part) {
        return depthwise::backward_weight(part, launch);
    }
    if library(part, launch, Direction::BackwardWeight, [Role::X(0), Role::D_WEIGHT, Role::Dy])? {
        return Ok(());
    }
    let parts = part.parts();
    for (group, count) in part.runs() {
        let grid = tiles(group.outputs, part.filter(), parts.count * count);
        let (x, dy) = (launch.any(Role::X(0)).offset(group.channel), launch.any(Role::Dy).offset(group.first));
        let dw = parts.target(launch, Role::D_WEIGHT).offset(group.first * part.filter());
        let (outputs, groups, each) = (int(group.outputs)?, int(count)?, int(parts.each)?);
        // SAFETY: x is (n, h, w, c), dy (n, oh, ow, o), dw or the scratch (parts, o, kh, kw, depth); each pointer is to
        // the first channel of the run's first group.
        unsafe {
            any::conv_backward_weight(&launch.issue, grid, x, dy, dw, geometry, outputs, groups, each)?;
        }
    }
    parts.add(launch, Role::D_WEIGHT)
}

fn backward_input(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    if library(part, launch, Direction::BackwardInput, [Role::Dx(0), Role::WEIGHT, Role::Dy])? {
        return Ok(());
    }
    if part.groups().count() * part.depth < part.c {
        // Some channels are not read by any filter on this device.
        launch.clear(Role::Dx(0))?;
    }
    if depthwise::fits(part) {
        return depthwise::backward_input(part, launch);
    }
    let classes = part.classes();
    for (group, count) in part.runs() {
        let grid = tiles_of(&classes, part.depth, count);
        let (dy, dx) = (launch.any(Role::Dy).offset(group.first), launch.any_mut(Role::Dx(0)).offset(group.channel));
        let filters = launch.any(Role::WEIGHT).offset(group.first * part.filter());
        let outputs = int(group.outputs)?;
        // SAFETY: dy is (n, oh, ow, o), the filters (o, kh, kw, depth), dx (n, h, w, c); each pointer is to the first
        // channel of the run's first group.
        unsafe {
            any::conv_backward_input(&launch.issue, grid, dy, filters, dx, geometry, outputs)?;
        }
    }
    Ok(())
}
