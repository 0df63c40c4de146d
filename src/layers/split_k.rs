//! How sums over the samples are cut into parts on a GPU, so that all of it has work: by the shape alone. The parts
//! go to scratch memory, and a second launch adds them in order.

use crate::error::Result;
use crate::gpu::kernels::{self, any};
use crate::gpu::{Const, Grid, Mut, int};
use crate::layers::{Launch, Role};

/// Blocks that keep a large GPU busy, about two for each of its multiprocessors.
const BLOCKS: usize = 256;
/// Rows, and columns, of a tile of a product that one block makes, for every kind of number: `LARGE` and `SMALL` in
/// kernels/tile.cuh, which tells from the grid which of them is meant.
const LARGE: usize = 128;
const SMALL: usize = 64;
/// Fewest large tiles that keep a large GPU busy; fewer are cut into small ones.
const ENOUGH: usize = 128;
/// Rows of a part of a product begin at multiples of this.
const STEP: usize = 32;
/// Fewest rows of a part.
const ROWS: usize = 128;
/// Columns that one block sums.
const COLUMNS: usize = 32;

/// A sum over rows in `count` parts of `each` rows, the last one less; at least one part, of which all rows may be
/// missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SplitK {
    /// Number of parts.
    pub count: usize,
    /// Rows of a part.
    pub each: usize,
}

impl SplitK {
    fn new(rows: usize, blocks: usize) -> Self {
        let wanted = (BLOCKS / blocks.max(1)).max(1);
        let each = rows.div_ceil(wanted).max(ROWS).next_multiple_of(STEP);
        SplitK { count: rows.div_ceil(each).max(1), each }
    }

    /// Cuts the rows that `z` products (m, rows) (rows, n) sum over.
    pub fn of_products(rows: usize, m: usize, n: usize, z: usize) -> Self {
        let side = if m.min(n) > SMALL { LARGE } else { SMALL };
        SplitK::new(rows, m.div_ceil(side) * n.div_ceil(side) * z)
    }

    /// Cuts the rows of a table of `columns` columns.
    pub fn of_rows(rows: usize, columns: usize) -> Self {
        SplitK::new(rows, columns.div_ceil(COLUMNS))
    }

    /// Returns the scratch that parts of `elements` elements take: none when there is one part.
    pub fn scratch(self, elements: usize) -> usize {
        if self.count > 1 { self.count * elements } else { 0 }
    }

    /// Returns where the parts go: to the scratch memory, or the only one to operand `to`.
    pub fn target(self, launch: &Launch, to: Role) -> Mut<f32> {
        if self.count > 1 { launch.scratch() } else { launch.write(to) }
    }

    /// Adds the parts into operand `to`, unless the only one is there already.
    pub fn add(self, launch: &Launch, to: Role) -> Result<()> {
        if self.count == 1 {
            return Ok(());
        }
        let (parts, to, columns) = (int(self.count)?, launch.write(to), launch.operand(to).elements());
        let grid = Grid::cover(columns, COLUMNS);
        // SAFETY: the scratch holds every part, each of as many elements as the operand.
        unsafe { kernels::sum_rows(&launch.issue, grid, launch.scratch().into(), to, parts, columns as i64, parts) }
    }
}

/// Returns the grid of a product with m rows and n columns, `z` of them at once.
pub(super) fn tiles(m: usize, n: usize, z: usize) -> Grid {
    tiles_of(&[m], n, z)
}

/// Returns the grid of products with these rows, one after another along x, and n columns each; `z` of all at once.
pub(super) fn tiles_of(rows: &[usize], n: usize, z: usize) -> Grid {
    let down = |side: usize| rows.iter().map(|m| m.div_ceil(side)).sum::<usize>();
    let most = rows.iter().copied().max().unwrap_or(0);
    let large = most.min(n) > SMALL && down(LARGE) * n.div_ceil(LARGE) * z >= ENOUGH;
    let side = if large { LARGE } else { SMALL };
    Grid::new(down(side), n.div_ceil(side), z)
}

/// Finishes the output that a library computed: adds the bias, if `adds_bias`, to every row, then applies the epilogue.
pub(super) fn finish(launch: &Launch, adds_bias: bool) -> Result<()> {
    if !adds_bias && launch.epilogue.is_none() {
        return Ok(());
    }
    let (y, n, relu) = (launch.any_mut(Role::Y), launch.count(Role::Y), i32::from(launch.relu()));
    let columns = int(launch.operand(Role::Y).len(3))?;
    let bias = if adds_bias { launch.read(Role::BIAS) } else { Const::NONE };
    // SAFETY: y is (rows, columns), the bias (columns).
    unsafe { any::bias_add(&launch.issue, launch.packs(Role::Y), y, bias, n, columns, relu) }
}

/// Operand `to` (columns) = sum over the rows of operand `from` (rows, columns); the scratch holds
/// `SplitK::of_rows(rows, columns).scratch(columns)` elements.
pub(super) fn sum_rows_on(launch: &Launch, from: Role, rows: usize, to: Role) -> Result<()> {
    let (x, columns) = (launch.any(from), launch.operand(to).elements());
    let parts = SplitK::of_rows(rows, columns);
    let grid = Grid::new(columns.div_ceil(COLUMNS), parts.count, 1);
    let sums = parts.target(launch, to);
    // SAFETY: operand `from` is (rows, columns); the parts fit the scratch, or operand `to`.
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
    fn large_tiles_where_there_are_enough() {
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
                let parts = SplitK::new(rows, blocks);
                assert!(parts.count >= 1 && parts.each.is_multiple_of(STEP));
                assert!(parts.count * parts.each >= rows && (parts.count - 1) * parts.each <= rows);
                assert!(parts.count * blocks <= BLOCKS || parts.count == 1, "{rows} {blocks}");
            }
        }
    }
}
