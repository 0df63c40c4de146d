//! Sums over the rows of a table, in blocks that depend only on its shape, merged in order: gradients of parameters that
//! are shared by all samples or pixels.

use super::split_k::SplitK;
use super::{Args, Launch, Role};
use crate::cpu::vectorized;
use crate::error::Result;
use crate::gpu::{Grid, Mut};
use crate::tensor::Real;

/// Elements of a block.
const BLOCK: usize = 1 << 15;
/// Columns that one block of threads sums.
const COLUMNS: usize = 32;

fn rows_per_block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(16)
}

/// Returns the scratch elements that [`sum`] needs for a table of so many elements.
pub(super) fn scratch(elements: usize, width: usize) -> usize {
    (elements / width.max(1)).div_ceil(rows_per_block(width)) * width
}

/// Writes the sums of `width` columns to `out`. `add` adds a row, given its first element, to some sums.
pub(super) fn sum<T: Real>(
    args: &Args,
    elements: usize,
    out: &mut [T],
    scratch: &mut [T],
    add: impl Fn(usize, &mut [T]) + Sync,
) {
    let width = out.len();
    out.fill(T::ZERO);
    if width == 0 {
        return;
    }
    let (rows, each) = (elements / width, rows_per_block(width));
    let scratch = &mut scratch[..self::scratch(elements, width)];
    args.chunks(scratch, width, |block, sums, _| {
        sums.fill(T::ZERO);
        for row in block * each..rows.min((block + 1) * each) {
            add(row * width, sums);
        }
    });
    for sums in scratch.chunks_exact(width) {
        vectorized(
            #[inline(always)]
            || out.iter_mut().zip(sums).for_each(|(out, &sum)| *out += sum),
        );
    }
}

/// The launches of a sum on a GPU: kernels sum parts of the rows of 32 columns per block, and a second launch adds the parts.
pub(super) struct Launches {
    parts: SplitK,
    columns: usize,
}

impl Launches {
    /// Divides a table of so many rows and columns.
    pub fn new(rows: usize, columns: usize) -> Self {
        Launches { parts: SplitK::of_rows(rows, columns), columns }
    }

    /// Returns the scratch elements.
    pub fn scratch(&self) -> usize {
        self.parts.scratch(self.columns)
    }

    /// Returns the grid of the first launch, the number of parts, and the rows of each.
    pub fn in_parts(&self) -> (Grid, usize, usize) {
        (Grid::new(self.columns.div_ceil(COLUMNS), self.parts.count, 1), self.parts.count, self.parts.each)
    }

    /// Sums into an operand. `launch` receives the grid, the destination of the parts, and the rows of each.
    pub fn run(&self, on: &Launch, to: Role, launch: impl FnOnce(Grid, Mut<f32>, usize) -> Result<()>) -> Result<()> {
        let (grid, _, each) = self.in_parts();
        launch(grid, self.parts.target(on, to), each)?;
        self.parts.add(on, to)
    }
}
