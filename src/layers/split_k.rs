//! Divides sums over the samples into parts, so that they occupy the whole GPU. The division depends only on the
//! shape. The parts are written to scratch memory, and a second launch adds them in order.

use crate::error::Result;
use crate::gpu::kernels::{self, any};
use crate::gpu::{Grid, Mut, int};
use crate::layers::{Launch, Role};

/// Number of blocks that keeps a large GPU busy, about two per multiprocessor, or four with small tiles.
const BLOCKS: usize = 256;
const SMALL_BLOCKS: usize = 512;
/// Number of rows, and of columns, of the product tile that one block computes, for every element type: `LARGE` and
/// `SMALL` in kernels/tile.cuh, and the grid of a launch chooses one.
const LARGE: usize = 128;
const SMALL: usize = 64;
/// Minimum number of large tiles that keeps a large GPU busy; below it, small tiles are used.
const ENOUGH: usize = 128;
/// The first row of a part of a product is a multiple of this.
const STEP: usize = 32;
/// Minimum number of rows in a part.
const ROWS: usize = 128;
/// Number of columns that one block sums.
const COLUMNS: usize = 32;

/// Number of columns from which parts are added by one thread per column instead of a block for every 32.
const MANY: usize = 4096;

/// A sum over rows, divided into `count` parts of `each` rows. The last part may be shorter. There is always at least
/// one part; without rows it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SplitK {
    /// Number of parts.
    pub count: usize,
    /// Number of rows in a part.
    pub each: usize,
}

impl SplitK {
    fn new(rows: usize, blocks: usize, enough: usize) -> Self {
        let required = (enough / blocks.max(1)).max(1);
        let each = rows.div_ceil(required).max(ROWS).next_multiple_of(STEP);
        SplitK { count: rows.div_ceil(each).max(1), each }
    }

    /// Divides the rows that `z` products (m, rows) (rows, n) sum over.
    pub fn of_products(rows: usize, m: usize, n: usize, z: usize) -> Self {
        let (side, enough) = if m.min(n) > SMALL { (LARGE, BLOCKS) } else { (SMALL, SMALL_BLOCKS) };
        SplitK::new(rows, m.div_ceil(side) * n.div_ceil(side) * z, enough)
    }

    /// Divides the rows of a table with `columns` columns.
    pub fn of_rows(rows: usize, columns: usize) -> Self {
        SplitK::new(rows, columns.div_ceil(COLUMNS), BLOCKS)
    }

    /// Returns the scratch size for parts of `elements` elements: 0 if there is only one part.
    pub fn scratch(self, elements: usize) -> usize {
        if self.count > 1 { self.count * elements } else { 0 }
    }

    /// Returns the destination of the parts: scratch memory, or operand `to` if there is only one part.
    pub fn target(self, launch: &Launch, to: Role) -> Mut<f32> {
        if self.count > 1 { launch.scratch() } else { launch.write(to) }
    }

    /// Writes the sum of the parts to operand `to`; a single part is already there.
    pub fn add(self, launch: &Launch, to: Role) -> Result<()> {
        if self.count == 1 {
            return Ok(());
        }
        let (parts, to, columns) = (int(self.count)?, launch.write(to), launch.operand(to).elements());
        let from = launch.scratch().into();
        // SAFETY: the scratch memory holds all parts, each with as many elements as the operand.
        unsafe {
            if columns >= MANY {
                kernels::sum_parts(&launch.issue, Grid::cover(columns, 256 * 4), from, to, parts, columns as i64)
            } else {
                let grid = Grid::cover(columns, COLUMNS);
                kernels::sum_rows(&launch.issue, grid, from, to, parts, columns as i64, parts)
            }
        }
    }
}

/// Returns the grid of `z` simultaneous products, each with m rows and n columns.
pub(super) fn tiles(m: usize, n: usize, z: usize) -> Grid {
    tiles_of(&[m], n, z)
}

/// Returns the grid of `z` simultaneous sets of products. The products of a set, which have these numbers of rows and
/// n columns each, follow one another along x.
pub(super) fn tiles_of(rows: &[usize], n: usize, z: usize) -> Grid {
    let down = |side: usize| rows.iter().map(|m| m.div_ceil(side)).sum::<usize>();
    let most = rows.iter().copied().max().unwrap_or(0);
    let large = most.min(n) > SMALL && down(LARGE) * n.div_ceil(LARGE) * z >= ENOUGH;
    let side = if large { LARGE } else { SMALL };
    Grid::new(down(side), n.div_ceil(side), z).with_small_tiles(!large)
}

/// Computes operand `to` (columns) = sum over the rows of operand `from` (rows, columns). The scratch memory must hold
/// `SplitK::of_rows(rows, columns).scratch(columns)` elements.
pub(super) fn sum_rows_on(launch: &Launch, from: Role, rows: usize, to: Role) -> Result<()> {
    let (x, columns) = (launch.any(from), launch.operand(to).elements());
    let parts = SplitK::of_rows(rows, columns);
    let grid = Grid::new(columns.div_ceil(COLUMNS), parts.count, 1);
    let sums = parts.target(launch, to);
    // SAFETY: operand `from` is (rows, columns); the parts fit in the scratch memory, or in operand `to`.
    unsafe {
        any::sum_rows(&launch.issue, grid, x, sums, int(rows)?, columns as i64, int(parts.each)?)?;
    }
    parts.add(launch, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_those_of_the_kernels() {
        let source = include_str!("../../kernels/tile.cuh");
        let line = format!("constexpr int LARGE = {LARGE}, SMALL = {SMALL};");
        assert!(source.contains(&line), "kernels/tile.cuh lacks `{line}`");
    }

    #[test]
    fn large_tiles_are_used_if_there_are_enough() {
        let blocks = |m, n, z| tiles(m, n, z).blocks;
        assert_eq!(blocks(4096, 4096, 1), [32, 32, 1]);
        assert_eq!(blocks(128, 4096, 1), [2, 64, 1]);
        assert_eq!(blocks(128, 4096, 4), [1, 32, 4]);
        assert_eq!(blocks(100_000, 64, 1), [1563, 1, 1]);
    }

    #[test]
    fn parts_cover_the_rows_and_begin_at_whole_steps() {
        for rows in [0, 1, 127, 128, 129, 1000, 100_000] {
            for blocks in [0, 1, 7, 256, 9216] {
                let parts = SplitK::new(rows, blocks, BLOCKS);
                assert!(parts.count >= 1 && parts.each.is_multiple_of(STEP));
                assert!(parts.count * parts.each >= rows && (parts.count - 1) * parts.each <= rows);
                assert!(parts.count * blocks <= BLOCKS || parts.count == 1, "{rows} {blocks}");
            }
        }
    }
}
