//! An index of parts of buffers or of memory: finds those that lie near a part without visiting all others.

use crate::tensor::Strided;

/// Parts of several spaces, each with a value. A space is a buffer, or the memory of a device.
#[derive(Debug, Clone)]
pub(super) struct PartIndex<T> {
    spaces: Vec<Vec<SizeClass<T>>>,
}

/// The parts of a space that span at least 4^`class` elements and fewer than 4^(`class` + 1), by their first element. Those
/// that reach a range start at most that far before it.
#[derive(Debug, Clone)]
struct SizeClass<T> {
    class: u32,
    /// In blocks, none of them empty, so that adding a part does not move all others.
    blocks: Vec<Vec<(Strided, T)>>,
}

impl<T: Copy> SizeClass<T> {
    /// The largest number of parts in a block.
    const BLOCK: usize = 128;

    fn of(part: Strided) -> u32 {
        (part.end() - part.offset).ilog2() / 2
    }

    /// Returns the block and the place in it of the first part that may share elements with `part`.
    fn first_near(&self, part: Strided) -> (usize, usize) {
        let first = (part.offset + 2).saturating_sub(4 << (2 * self.class));
        let before = |(other, _): &(Strided, T)| other.offset < first;
        let block = self.blocks.partition_point(|block| block.last().is_some_and(before));
        (block, self.blocks.get(block).map_or(0, |block| block.partition_point(before)))
    }

    /// Returns all parts that may share elements with `part`.
    fn near(&self, part: Strided) -> impl Iterator<Item = &(Strided, T)> {
        let (first, skip) = self.first_near(part);
        let end = part.end();
        let blocks = self.blocks[first..].iter().enumerate();
        let parts = blocks.flat_map(move |(number, block)| &block[if number == 0 { skip } else { 0 }..]);
        parts.take_while(move |(other, _)| other.offset < end)
    }

    fn add(&mut self, part: Strided, value: T) {
        let after = |(other, _): &(Strided, T)| other.offset <= part.offset;
        let at = self.blocks.partition_point(|block| block.last().is_some_and(after)).min(self.blocks.len() - 1);
        let block = &mut self.blocks[at];
        block.insert(block.partition_point(after), (part, value));
        if block.len() > Self::BLOCK {
            let rest = block.split_off(Self::BLOCK / 2);
            self.blocks.insert(at + 1, rest);
        }
    }

    fn remove_covered(&mut self, part: Strided) {
        if !self.near(part).any(|(other, _)| part.covers(*other)) {
            return;
        }
        let (first, end) = (self.first_near(part).0, part.end());
        let reached = self.blocks[first..].iter().take_while(|block| block[0].0.offset < end).count();
        self.blocks[first..first + reached]
            .iter_mut()
            .for_each(|block| block.retain(|(other, _)| !part.covers(*other)));
        self.blocks.retain(|block| !block.is_empty());
    }

    /// Gives a value to the only part near `part` if it has the same elements; returns whether it did.
    fn replace_same(&mut self, part: Strided, value: T) -> bool {
        let same = {
            let mut near = self.near(part);
            near.next().is_some_and(|(other, _)| *other == part) && near.next().is_none()
        };
        if same {
            let (block, at) = self.first_near(part);
            self.blocks[block][at].1 = value;
        }
        same
    }
}

impl<T: Copy> PartIndex<T> {
    /// Creates an index of no parts in `spaces` spaces.
    pub(super) fn new(spaces: usize) -> Self {
        PartIndex { spaces: vec![Vec::new(); spaces] }
    }

    /// Adds a part, which must have elements.
    pub(super) fn add(&mut self, space: usize, part: Strided, value: T) {
        let class = SizeClass::<T>::of(part);
        let classes = &mut self.spaces[space];
        match classes.iter_mut().find(|other| other.class == class) {
            Some(class) => class.add(part, value),
            None => classes.push(SizeClass { class, blocks: vec![vec![(part, value)]] }),
        }
    }

    /// Returns the parts of a space that share elements with `part`.
    pub(super) fn overlapping(&self, space: usize, part: Strided) -> impl Iterator<Item = (Strided, T)> {
        let near = self.spaces[space].iter().flat_map(move |class| class.near(part));
        near.filter(move |(other, _)| part.overlaps(*other)).copied()
    }

    /// Removes the parts of a space that `part` covers.
    pub(super) fn remove_covered(&mut self, space: usize, part: Strided) {
        self.spaces[space].iter_mut().for_each(|class| class.remove_covered(part));
        self.spaces[space].retain(|class| !class.blocks.is_empty());
    }

    /// Removes the parts of a space that `part` covers, and adds it.
    pub(super) fn replace_covered(&mut self, space: usize, part: Strided, value: T) {
        // Most often, it covers one part of the same elements.
        let own = SizeClass::<T>::of(part);
        let same = self.spaces[space].iter_mut().find(|class| class.class == own);
        let replaced = same.is_some_and(|class| class.replace_same(part, value));
        // No part of a larger class is covered.
        let smaller = self.spaces[space].iter_mut().filter(|class| class.class < own + u32::from(!replaced));
        smaller.for_each(|class| class.remove_covered(part));
        self.spaces[space].retain(|class| !class.blocks.is_empty());
        if !replaced {
            self.add(space, part, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_finds_and_removes_the_parts_that_a_search_of_all_finds() {
        let mut index = PartIndex::new(2);
        let mut all: Vec<(Strided, usize)> = Vec::new();
        let mut found = 0;
        for number in 0..400 {
            let spread = number * 7919 % 251;
            let (rows, len, stride) = [(1, 1, 1), (1, 5, 5), (1, 64, 64), (3, 2, 5), (5, 7, 40)][number % 5];
            let part = Strided { offset: spread, rows, len, stride };
            let expected: Vec<usize> = all.iter().filter(|(p, _)| part.overlaps(*p)).map(|(_, n)| *n).collect();
            let mut overlapping: Vec<usize> = index.overlapping(1, part).map(|(_, n)| n).collect();
            overlapping.sort_unstable();
            assert_eq!(overlapping, expected, "{part:?}");
            found += expected.len();
            index.add(0, part, usize::MAX);
            if number % 3 > 0 {
                all.retain(|(p, _)| !part.covers(*p));
            }
            match number % 3 {
                0 => index.add(1, part, number),
                1 => index.replace_covered(1, part, number),
                _ => {
                    index.remove_covered(1, part);
                    index.add(1, part, number);
                }
            }
            all.push((part, number));
        }
        assert!(found > 1000 && all.len() < 200, "{found} {}", all.len());
    }
}
