//! The values of parameters by which they are watched: all of a small one, some blocks of a large one.

use crate::error::Result;
use crate::placement::Region;
use crate::program::{Plan, Session};
use std::ops::Range;

/// The most values of a parameter that are read on each device. Of more, [`BLOCKS`] blocks at equal distances stand for all.
pub(super) const MOST: usize = 1 << 16;
const BLOCKS: usize = 4;

/// A device's part of a trained parameter. Of several devices that hold a copy, one has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub device: usize,
    /// The node of its layer.
    pub node: usize,
    /// The elements that are read, in every flat region.
    pub ranges: Vec<Range<usize>>,
    /// How many elements each of these stands for.
    pub scale: f64,
}

impl Part {
    /// Returns all parts of the trained parameters of a plan.
    pub fn all(plan: &Plan) -> Vec<Part> {
        let of_device = |device| {
            let counted = plan.segments(device).into_iter().filter(|segment| segment.counted && segment.len > 0);
            counted.map(move |segment| {
                let ranges = blocks(segment.offset, segment.len);
                let read: usize = ranges.iter().map(Range::len).sum();
                Part { device, node: segment.layer, ranges, scale: segment.len as f64 / read as f64 }
            })
        };
        (0..plan.own.len()).flat_map(of_device).collect()
    }

    /// Returns its values, given those of its ranges.
    pub fn read(&self, mut read: impl FnMut(Range<usize>) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for range in &self.ranges {
            all.append(&mut read(range.clone())?);
        }
        Ok(all)
    }

    /// Returns its weights.
    pub fn weights(&self, session: &Session) -> Result<Vec<f64>> {
        self.read(|range| session.read_elements(self.device, Region::Weights, range))
    }
}

/// Returns the ranges that are read of `len` elements from `first` on.
fn blocks(first: usize, len: usize) -> Vec<Range<usize>> {
    let (blocks, block) = if len <= MOST { (1, len) } else { (BLOCKS, MOST / BLOCKS) };
    let start = |number: usize| first + number * (len - block) / (BLOCKS - 1);
    (0..blocks).map(|number| start(number)..start(number) + block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_reach_from_the_first_element_to_the_last() {
        assert_eq!(blocks(7, MOST), vec![7..7 + MOST; 1]);
        let (len, block) = (10 * MOST + 1, MOST / BLOCKS);
        let all = blocks(100, len);
        assert_eq!((all.len(), all[0].start, all[3].end), (4, 100, 100 + len));
        assert!(all.iter().all(|range| range.len() == block) && all.is_sorted_by_key(|range| range.start));
        let third = (len - block) / 3;
        assert_eq!((all[1].start, all[2].start), (100 + third, 100 + 2 * (len - block) / 3));
    }
}
