//! Conversion between f32 and bf16 on a device, with the kernels of kernels/cast.cu.

use super::address::{Const, Mut};
use super::driver::{Driver, Issue};
use super::handles::Grid;
use super::kernels;
use crate::error::Result;
use half::bf16;

/// Elements per block: 256 threads with 8 elements each.
const BLOCK: usize = 256 * 8;

/// Rounds numbers to bf16 on a device.
///
/// # Errors
/// If the device reports an error.
pub fn to_bf16(driver: &Driver, x: &[f32]) -> Result<Vec<bf16>> {
    let n = x.len() as i64;
    // SAFETY: `mapped` allocates one element of each type for every number.
    mapped(driver, x, |on, grid, x, y| unsafe { kernels::cast_to_bf16(on, grid, x, y, n) })
}

/// Converts numbers from bf16 to f32 on a device.
///
/// # Errors
/// If the device reports an error.
pub fn to_f32(driver: &Driver, x: &[bf16]) -> Result<Vec<f32>> {
    let n = x.len() as i64;
    // SAFETY: as above.
    mapped(driver, x, |on, grid, x, y| unsafe { kernels::cast_to_float(on, grid, x, y, n) })
}

/// Copies the numbers to the device, launches a kernel, and copies the same number of results back.
fn mapped<A: Copy, B: Copy + Default>(
    driver: &Driver,
    from: &[A],
    launch: impl FnOnce(&Issue, Grid, Const<A>, Mut<B>) -> Result<()>,
) -> Result<Vec<B>> {
    let mut to = vec![B::default(); from.len()];
    let on = Issue { driver, stream: driver.stream()? };
    let (x, y) = (driver.allocate(size_of_val(from))?, driver.allocate(size_of_val(&to[..]))?);
    // SAFETY: both allocations are large enough; the stream is synchronised before they are freed.
    unsafe {
        driver.copy_in(x, from.as_ptr().cast(), size_of_val(from), on.stream)?;
        launch(&on, Grid::cover(from.len(), BLOCK), Const::at(x), Mut::at(y))?;
        driver.copy_out(to.as_mut_ptr().cast(), y, size_of_val(&to[..]), on.stream)?;
        driver.synchronize(on.stream)?;
        driver.free(x)?;
        driver.free(y)?;
    }
    driver.discard(on.stream)?;
    Ok(to)
}
