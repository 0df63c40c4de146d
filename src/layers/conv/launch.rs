//! Convolution on a GPU: with cuDNN if possible, otherwise as products whose operands are read in place
//! (kernels/conv.cu), with one launch per run of equal groups.

use super::depthwise;
use super::dilated;
use super::fold::Fold;
use super::local::{Group, LocalConv};
use crate::device::LibraryUse;
use crate::error::Result;
use crate::gpu::kernels::{self, ConvGeometry, any};
use crate::gpu::libraries::{CONVOLUTION_WORKSPACE, Convolution, Direction, Images, Workspace};
use crate::gpu::{AnyConst, ComputeType, Const, Grid, Mut, int, ints};
use crate::layers::split_k::{SplitK, sum_rows_on, tiles, tiles_of};
use crate::layers::window::{Pair, WindowGeometry};
use crate::layers::{Launch, Role};
use crate::tensor::Element;

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

/// Returns the elements of scratch memory that a phase needs.
pub(super) fn scratch(part: &LocalConv, phase: &str, element: Element, libraries: LibraryUse) -> usize {
    let fold = Fold::of(part, element);
    let products = fold.map_or(*part, |fold| fold.part);
    let folded = fold.map_or(0, |fold| fold.bytes());
    let weights = part.o * products.filter();
    let rounded = if libraries == LibraryUse::Fast { Workspace::piece(weights * Element::Bf16.bytes()) } else { 0 };
    let library = if libraries == LibraryUse::Off { 0 } else { CONVOLUTION_WORKSPACE };
    let piece = |bytes: usize| if bytes == 0 { 0 } else { Workspace::elements(bytes) };
    if phase == "forward" {
        return piece(folded + library);
    }
    let parts = products.parts();
    let own = match fold {
        Some(_) => piece(folded + parts.count * weights * Element::F32.bytes()),
        None => parts.scratch(weights),
    };
    let library = if library == 0 { 0 } else { piece(folded + rounded + library) };
    let bias = if part.has_bias { SplitK::of_rows(part.n * part.pixels(), part.o).scratch(part.o) } else { 0 };
    own.max(library).max(bias)
}

/// The operands of the products of a convolution, with the scratch memory that is left.
#[derive(Debug, Clone, Copy)]
struct Products {
    part: LocalConv,
    x: AnyConst,
    /// The filters, or their gradient.
    w: AnyConst,
    y: AnyConst,
    room: Workspace,
}

impl Products {
    /// Returns the operands as they are.
    fn of(part: &LocalConv, launch: &Launch, [x, w, y]: [Role; 3]) -> Self {
        Products { part: *part, x: launch.any(x), w: launch.any(w), y: launch.any(y), room: launch.workspace() }
    }

    /// Computes a pass with a library. Returns false if no library supports it.
    fn library(&self, launch: &Launch, direction: Direction) -> Result<bool> {
        let part = &self.part;
        let groups = part.groups().count();
        // A split may divide a group, or leave channels that no filter on this device reads.
        let whole = part.groups().all(|group| group.outputs * groups == part.o) && groups * part.depth == part.c;
        let LocalConv { window, n, h, w: width, c, oh, ow, o, .. } = *part;
        // Libraries have the same padding on both sides.
        let WindowGeometry { stride, pad, .. } = window;
        let is_even = |n: usize, kernel: usize, stride: usize, pad: usize, out: usize| {
            (n + 2 * pad).checked_sub(kernel).is_some_and(|rest| rest / stride + 1 == out)
        };
        let extent = window.extent();
        let even = is_even(h, extent.h, stride.h, pad.h, oh) && is_even(width, extent.w, stride.w, pad.w, ow);
        if !whole || !even || depthwise::fits(part) {
            return Ok(false);
        }
        let both = |pair: Pair| [pair.h, pair.w];
        let convolution = Convolution {
            direction,
            x: [n, h, width, c],
            y: [n, oh, ow, o],
            kernel: both(window.kernel),
            stride: both(window.stride),
            pad: both(window.pad),
            dilation: both(window.dilation),
            groups,
            format: self.x.format,
        };
        let images = Images { x: self.x.address, w: self.w.address, y: self.y.address };
        // SAFETY: x is (n, h, w, c), the filters (o, kh, kw, depth), y (n, oh, ow, o), and so are their gradients.
        unsafe { launch.convolve(&convolution, &images, self.room) }
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
    let mut products = Products::of(part, launch, [Role::X(0), Role::WEIGHT, Role::Y]);
    if let Some(fold) = Fold::of(part, launch.operand(Role::X(0)).element) {
        products.part = fold.part;
        products.x = fold.x(launch, &mut products.room)?;
        products.w = fold.w(launch, &mut products.room)?;
    }
    if products.library(launch, Direction::Forward)? {
        return finish(launch, part.adds_bias);
    }
    if part.is_dilated() {
        return dilated::forward(part, launch);
    }
    let Products { part, x, w, .. } = products;
    let geometry = part.geometry()?;
    for (group, count) in part.runs() {
        let grid = tiles(part.n * part.pixels(), group.outputs, count);
        let (x, y) = (x.offset(group.channel), launch.any_mut(Role::Y).offset(group.first));
        let filters = w.offset(group.first * part.filter());
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
    if part.n == 0 {
        return launch.clear(Role::D_WEIGHT);
    }
    if depthwise::fits(part) {
        return depthwise::backward_weight(part, launch);
    }
    let mut products = Products::of(part, launch, [Role::X(0), Role::D_WEIGHT, Role::Dy]);
    let fold = Fold::of(part, launch.operand(Role::X(0)).element);
    if let Some(fold) = &fold {
        products.part = fold.part;
        products.x = fold.x(launch, &mut products.room)?;
    }
    if library_weight(products, fold.as_ref(), launch)? {
        return Ok(());
    }
    if part.is_dilated() {
        return dilated::backward_weight(part, launch);
    }
    let Products { part, x, mut room, .. } = products;
    let (geometry, parts, weights) = (part.geometry()?, part.parts(), part.o * part.filter());
    let sums = match fold {
        Some(_) => Mut::at(room.take(parts.count * weights * Element::F32.bytes())),
        None => parts.target(launch, Role::D_WEIGHT),
    };
    for (group, count) in part.runs() {
        let grid = tiles(group.outputs, part.filter(), parts.count * count);
        let (x, dy) = (x.offset(group.channel), launch.any(Role::Dy).offset(group.first));
        let dw = sums.offset(group.first * part.filter());
        let (outputs, groups, each) = (int(group.outputs)?, int(count)?, int(parts.each)?);
        // SAFETY: x is (n, h, w, c), dy (n, oh, ow, o), dw or the scratch (parts, o, kh, kw, depth); each pointer is to
        // the first channel of the run's first group.
        unsafe {
            any::conv_backward_weight(&launch.issue, grid, x, dy, dw, geometry, outputs, groups, each)?;
        }
    }
    match fold {
        Some(fold) => fold.dw(launch, AnyConst { address: sums.address(), format: ComputeType::F32 }, parts.count),
        None => parts.add(launch, Role::D_WEIGHT),
    }
}

/// Computes dw with a library. Where that rounds dw to the format of its factors, it is written to the scratch memory
/// and widened. Returns false if no library supports it.
fn library_weight(mut products: Products, fold: Option<&Fold>, launch: &Launch) -> Result<bool> {
    if products.x.format.bytes() == Element::F32.bytes() {
        return products.library(launch, Direction::BackwardWeight);
    }
    let weights = products.part.o * products.part.filter();
    let bytes = weights * Element::Bf16.bytes();
    if products.room.bytes < Workspace::piece(bytes) {
        return Ok(false);
    }
    products.w = AnyConst { address: products.room.take(bytes), format: ComputeType::Bf16 };
    if !products.library(launch, Direction::BackwardWeight)? {
        return Ok(false);
    }
    if let Some(fold) = fold {
        fold.dw(launch, products.w, 1)?;
    } else {
        let (from, dw, n) = (Const::at(products.w.address), launch.write(Role::D_WEIGHT), weights as i64);
        // SAFETY: both have n elements.
        unsafe { kernels::cast_to_float(&launch.issue, Grid::cover(weights, 256 * 8), from, dw, n)? };
    }
    Ok(true)
}

fn backward_input(part: &LocalConv, launch: &Launch) -> Result<()> {
    let geometry = part.geometry()?;
    let products = Products::of(part, launch, [Role::Dx(0), Role::WEIGHT, Role::Dy]);
    if products.library(launch, Direction::BackwardInput)? {
        return Ok(());
    }
    if part.groups().count() * part.depth < part.c {
        // Some channels are not read by any filter on this device.
        launch.clear(Role::Dx(0))?;
    }
    if depthwise::fits(part) {
        return depthwise::backward_input(part, launch);
    }
    if part.is_dilated() {
        return dilated::backward_input(part, launch);
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
