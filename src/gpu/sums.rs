//! Sums, copies and conversions of elements in the arenas of GPUs.

use super::address::{AnyConst, AnyMut, ComputeType, Const, Mut};
use super::gpus::Gpus;
use super::handles::{Grid, Rows};
use super::kernels;
use crate::device::{Operand, Queue};
use crate::error::Result;
use crate::tensor::{Element, Strided};

/// Elements at an address in an arena.
pub type ArenaSlice = (u64, Strided);

impl Gpus {
    /// Sets the target to the sum of the sources, for strided pieces at arena addresses. If there are several sources,
    /// the target may be the first or second of them. Each piece is one run, or in runs of one common length. With a
    /// mask, which is one run, the sum of several sources is 0 where the mask is not positive.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn sum(
        &self,
        device: usize,
        queue: Queue,
        element: Element,
        (sources, mask): (&[ArenaSlice], Option<ArenaSlice>),
        (target, part): ArenaSlice,
    ) -> Result<()> {
        let issue = self.issue(device, queue);
        let (width, height) = run(sources.iter().chain([&(target, part)]).chain(&mask));
        let stride = |p: Strided| if p.len == width { p.stride } else { width };
        let bytes = element.bytes();
        let at = |(base, p): ArenaSlice| base + (p.offset * bytes) as u64;
        if let [source] = sources {
            let rows = |piece: ArenaSlice| Rows { address: at(piece), pitch: stride(piece.1) * bytes };
            // SAFETY: the plan's checker proved that the pieces are within their buffers and do not overlap.
            return unsafe {
                issue.driver.copy_rows(rows((target, part)), rows(*source), width * bytes, height, issue.stream)
            };
        }
        let format = ComputeType::of(element, false);
        assert!(mask.is_none() || height == 1, "a mask is one run");
        let mut first = sources[0];
        for (number, &next) in sources.iter().enumerate().skip(1) {
            let mask = mask.filter(|_| number + 1 == sources.len()).map_or(0, at);
            // SAFETY: as above. The sum is computed element by element, so the target may be a source.
            unsafe {
                kernels::any::strided_add(
                    &issue,
                    Grid::cover(width * height * bytes, 256 * 16),
                    AnyConst { address: at(first), format },
                    AnyConst { address: at(next), format },
                    AnyConst { address: mask, format },
                    AnyMut { address: at((target, part)), format },
                    stride(first.1) as i64,
                    stride(next.1) as i64,
                    stride(part) as i64,
                    width as i64,
                    height as i64,
                )?;
            }
            first = (target, part);
        }
        Ok(())
    }

    /// Copies f32 operand `from` to bf16 operand `to`, rounding to nearest with ties to even.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Panics
    /// If their lengths differ or the types are not f32 and bf16.
    pub fn to_bf16(&self, device: usize, queue: Queue, from: &Operand, to: &Operand) -> Result<()> {
        assert_eq!((from.element, to.element, from.elements()), (Element::F32, Element::Bf16, to.elements()));
        self.round(device, queue, from.address(), to.address(), to.elements())
    }

    /// Rounds f32 values at an address to bf16 at another one.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn round(&self, device: usize, queue: Queue, from: u64, to: u64, n: usize) -> Result<()> {
        let (x, y) = (Const::at(from), Mut::at(to));
        // SAFETY: there are n elements at both; events order conflicting accesses.
        unsafe { kernels::cast_to_bf16(&self.issue(device, queue), Grid::cover(n, 256 * 8), x, y, n as i64) }
    }

    /// Widens bf16 values at an address to f32 at another one.
    ///
    /// # Errors
    /// If the device reports an error.
    pub fn widen(&self, device: usize, queue: Queue, from: u64, to: u64, n: usize) -> Result<()> {
        let (x, y) = (Const::at(from), Mut::at(to));
        // SAFETY: as above.
        unsafe { kernels::cast_to_float(&self.issue(device, queue), Grid::cover(n, 256 * 8), x, y, n as i64) }
    }
}

/// Returns the common shape of pieces: the length of the shortest run, and the number of runs of that length.
fn run<'a>(pieces: impl Iterator<Item = &'a ArenaSlice>) -> (usize, usize) {
    let (mut width, mut elements, mut longest) = (usize::MAX, 0, 0);
    for (_, part) in pieces {
        width = width.min(part.len);
        elements = part.elements();
        if part.rows > 1 {
            longest = longest.max(part.len);
        }
    }
    assert!(longest <= width, "each piece must be one run or runs of one common length");
    (width, elements.checked_div(width).unwrap_or(0))
}
