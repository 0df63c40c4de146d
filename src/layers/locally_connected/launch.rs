//! The layer on a GPU: a product for each position, or for each pixel of x, whose operands are read in place
//! (kernels/locally_connected.cu).

use super::local::LocalPart;
use crate::error::Result;
use crate::gpu::kernels::{ConvGeometry, any};
use crate::gpu::{AnyConst, Grid, ints};
use crate::layers::split_k::tiles_of;
use crate::layers::{Launch, Role};

/// Number of columns of dy that a block of threads sums on a GPU.
const COLUMNS: usize = 32;

/// Returns the geometry in the form that kernels expect.
fn geometry(part: &LocalPart) -> Result<ConvGeometry> {
    let (kernel, stride, pad) = (part.window.kernel, part.window.stride, part.window.pad);
    let LocalPart { n, h, w, c, oh, ow, o, .. } = *part;
    // Kernels use 32-bit indices for pixels, within one image, and for positions in all filters of a position or an output.
    ints([n * h * w, n * oh * ow, h * w * c, part.outputs(), part.positions() * part.filter()])?;
    ints([kernel.h * kernel.w * o])?;
    let [n, h, w, c, oh, ow, o] = ints([n, h, w, c, oh, ow, o])?;
    let [kh, kw, stride_h, stride_w, pad_h, pad_w] = ints([kernel.h, kernel.w, stride.h, stride.w, pad.h, pad.w])?;
    Ok(ConvGeometry { n, h, w, c, oh, ow, o, kh, kw, depth: c, stride_h, stride_w, pad_h, pad_w })
}

/// Returns the grid of `count` products, each with m rows and n columns, which follow one another along x.
fn products_along(count: usize, m: usize, n: usize) -> Grid {
    tiles_of(&vec![m; count], n, 1)
}

pub(super) fn forward(part: &LocalPart, launch: &Launch) -> Result<()> {
    let (x, w, y) = (launch.any(Role::X(0)), launch.any(Role::WEIGHT), launch.any_mut(Role::Y));
    let bias = if part.adds_bias { launch.any(Role::BIAS) } else { AnyConst::NONE };
    let grid = products_along(part.positions(), part.n, part.o);
    let (geometry, relu) = (geometry(part)?, i32::from(launch.relu()));
    // SAFETY: x is (n, h, w, c), w (o, oh ow, kh kw, c), the bias (o, oh ow), y (n, oh, ow, o).
    unsafe { any::locally_connected_forward(&launch.issue, grid, x, w, bias, y, geometry, relu) }
}

pub(super) fn backward(part: &LocalPart, launch: &Launch) -> Result<()> {
    let (x, w, dy) = (launch.any(Role::X(0)), launch.any(Role::WEIGHT), launch.any(Role::Dy));
    let (geometry, grid) = (geometry(part)?, products_along(part.positions(), part.o, part.filter()));
    let dw = launch.write(Role::D_WEIGHT);
    // SAFETY: x is (n, h, w, c), dy (n, oh, ow, o), dw (o, oh ow, kh kw, c).
    unsafe { any::locally_connected_backward_weight(&launch.issue, grid, x, dy, dw, geometry)? };
    if part.has_bias {
        let (grid, db) = (Grid::cover(part.outputs(), COLUMNS), launch.write(Role::D_BIAS));
        let [n, positions, o] = ints([part.n, part.positions(), part.o])?;
        // SAFETY: dy is (n, oh ow, o), db (o, oh ow).
        unsafe { any::locally_connected_backward_bias(&launch.issue, grid, dy, db, n, positions, o)? };
    }
    if !launch.has(Role::Dx(0)) {
        return Ok(());
    }
    let (grid, dx) = (products_along(part.h * part.w, part.n, part.c), launch.any_mut(Role::Dx(0)));
    // SAFETY: dy is (n, oh, ow, o), w (o, oh ow, kh kw, c), dx (n, h, w, c).
    unsafe { any::locally_connected_backward_input(&launch.issue, grid, dy, w, dx, geometry) }
}
