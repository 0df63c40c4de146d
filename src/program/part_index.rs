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
    /// None of them empty. With blocks, adding a part does not move all others.
    blocks: Vec<Block<T>>,
}

#[derive(Debug, Clone)]
struct Block<T> {
    /// The first element of the last part.
    last: usize,
    parts: Vec<(Strided, T)>,
}

impl<T> Block<T> {
    /// The largest number of parts.
    const MOST: usize = 64;

    fn new(parts: Vec<(Strided, T)>) -> Self {
        Block { last: parts[parts.len() - 1].0.offset, parts }
    }
}

impl<T: Copy> SizeClass<T> {
    fn of(part: Strided) -> u32 {
        (part.end() - part.offset).ilog2() / 2
    }

    /// Returns the block and the place in it of the first part that may share elements with `part`.
    fn first_near(&self, part: Strided) -> (usize, usize) {
        let first = (part.offset + 2).saturating_sub(4 << (2 * self.class));
        let block = self.blocks.partition_point(|block| block.last < first);
        let place = |block: &Block<T>| block.parts.partition_point(|(other, _)| other.offset < first);
        (block, self.blocks.get(block).map_or(0, place))
    }

    /// Returns all parts that may share elements with `part`.
    fn near(&self, part: Strided) -> impl Iterator<Item = &(Strided, T)> {
        let (first, skip) = self.first_near(part);
        let end = part.end();
        let blocks = self.blocks[first..].iter().enumerate();
        let parts = blocks.flat_map(move |(number, block)| &block.parts[if number == 0 { skip } else { 0 }..]);
        parts.take_while(move |(other, _)| other.offset < end)
    }

    fn add(&mut self, part: Strided, value: T) {
        let at = self.blocks.partition_point(|block| block.last <= part.offset).min(self.blocks.len() - 1);
        let block = &mut self.blocks[at];
        block.parts.insert(block.parts.partition_point(|(other, _)| other.offset <= part.offset), (part, value));
        block.last = block.last.max(part.offset);
        if block.parts.len() > Block::<T>::MOST {
            let rest = Block::new(block.parts.split_off(Block::<T>::MOST / 2));
            block.last = block.parts[block.parts.len() - 1].0.offset;
            self.blocks.insert(at + 1, rest);
        }
    }

    fn remove_covered(&mut self, part: Strided) {
        if !self.near(part).any(|(other, _)| part.covers(*other)) {
            return;
        }
        let (first, end) = (self.first_near(part).0, part.end());
        for block in &mut self.blocks[first..] {
            if block.parts[0].0.offset >= end {
                break;
            }
            block.parts.retain(|(other, _)| !part.covers(*other));
            block.last = block.parts.last().map_or(0, |(last, _)| last.offset);
        }
        self.blocks.retain(|block| !block.parts.is_empty());
    }

    /// Gives a value to a part of the same elements whose value it succeeds; returns whether there is one.
    fn succeed(&mut self, part: Strided, value: T, succeeds: impl Fn(T) -> bool) -> bool {
        let (first, skip) = self.first_near(part);
        for (number, block) in self.blocks[first..].iter_mut().enumerate() {
            for (other, old) in &mut block.parts[if number == 0 { skip } else { 0 }..] {
                if *other == part && succeeds(*old) {
                    *old = value;
                    return true;
                }
                if other.offset > part.offset {
                    return false;
                }
            }
        }
        false
    }
}

impl<T: Copy> PartIndex<T> {
    /// Creates an index of no parts in `spaces` spaces.
    pub(super) fn new(spaces: usize) -> Self {
        PartIndex { spaces: vec![Vec::new(); spaces] }
    }

    /// Adds a part, which must have elements.
    pub(super) fn add(&mut self, space: usize, part: Strided, value: T) {
        self.add_latest(space, part, value, |_| false);
    }

    /// Adds a part, which must have elements, in the place of one with the same elements whose value it succeeds.
    pub(super) fn add_latest(&mut self, space: usize, part: Strided, value: T, succeeds: impl Fn(T) -> bool) {
        let class = SizeClass::<T>::of(part);
        let classes = &mut self.spaces[space];
        match classes.iter_mut().find(|other| other.class == class) {
            Some(class) => {
                if !class.succeed(part, value, succeeds) {
                    class.add(part, value);
                }
            }
            None => classes.push(SizeClass { class, blocks: vec![Block::new(vec![(part, value)])] }),
        }
    }

    /// Returns the parts of a space that share elements with `part`.
    pub(super) fn overlapping(&self, space: usize, part: Strided) -> impl Iterator<Item = (Strided, T)> {
        let near = self.spaces[space].iter().flat_map(move |class| class.near(part));
        near.filter(move |(other, _)| part.overlaps(*other)).copied()
    }

    /// Removes the parts of a space that `part` covers.
    pub(super) fn remove_covered(&mut self, space: usize, part: Strided) {
        // No part of a larger class is covered.
        let most = SizeClass::<T>::of(part);
        let mut emptied = false;
        for class in self.spaces[space].iter_mut().filter(|class| class.class <= most) {
            class.remove_covered(part);
            emptied |= class.blocks.is_empty();
        }
        if emptied {
            self.spaces[space].retain(|class| !class.blocks.is_empty());
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
                1 => {
                    index.add(1, part, usize::MAX);
                    index.remove_covered(1, part);
                    index.add(1, part, usize::MAX);
                    index.add_latest(1, part, number, |old| old == usize::MAX);
                }
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
