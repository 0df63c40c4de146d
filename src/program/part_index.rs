//! An index of parts of buffers or of memory: finds those that lie near a part without visiting all others.

use crate::tensor::Strided;
use std::ops::Range;

/// Parts of several spaces, each with a value. A space is a buffer, or the memory of a device.
#[derive(Debug, Clone)]
pub(super) struct PartIndex<T> {
    spaces: Vec<Vec<SizeClass<T>>>,
}

/// The parts of a space that span at least 2^`log` elements and fewer than twice as many, by their first element. Those
/// that reach a range start at most that far before it.
#[derive(Debug, Clone)]
struct SizeClass<T> {
    log: u32,
    /// The first element of each part: a search does not read the parts themselves.
    firsts: Vec<usize>,
    parts: Vec<(Strided, T)>,
}

impl<T: Copy> SizeClass<T> {
    /// Returns the places of all parts that may share elements with `part`.
    fn near(&self, part: Strided) -> Range<usize> {
        let (first, end) = ((part.offset + 2).saturating_sub(2 << self.log), part.end());
        let start = self.firsts.partition_point(|&other| other < first);
        start..start + self.firsts[start..].iter().take_while(|&&other| other < end).count()
    }

    fn add(&mut self, part: Strided, value: T) {
        let at = self.firsts.partition_point(|&other| other <= part.offset);
        self.firsts.insert(at, part.offset);
        self.parts.insert(at, (part, value));
    }

    fn remove_covered(&mut self, part: Strided) {
        let near = self.near(part);
        let mut kept = near.start;
        for at in near.clone() {
            if !part.covers(self.parts[at].0) {
                self.firsts.swap(kept, at);
                self.parts.swap(kept, at);
                kept += 1;
            }
        }
        self.firsts.drain(kept..near.end);
        self.parts.drain(kept..near.end);
    }
}

impl<T: Copy> PartIndex<T> {
    /// Creates an index of no parts in `spaces` spaces.
    pub(super) fn new(spaces: usize) -> Self {
        PartIndex { spaces: vec![Vec::new(); spaces] }
    }

    /// Adds a part, which must have elements.
    pub(super) fn add(&mut self, space: usize, part: Strided, value: T) {
        let log = (part.end() - part.offset).ilog2();
        let classes = &mut self.spaces[space];
        match classes.iter_mut().find(|class| class.log == log) {
            Some(class) => class.add(part, value),
            None => classes.push(SizeClass { log, firsts: vec![part.offset], parts: vec![(part, value)] }),
        }
    }

    /// Returns the parts of a space that share elements with `part`.
    pub(super) fn overlapping(&self, space: usize, part: Strided) -> impl Iterator<Item = (Strided, T)> {
        let near = self.spaces[space].iter().flat_map(move |class| &class.parts[class.near(part)]);
        near.filter(move |(other, _)| part.overlaps(*other)).copied()
    }

    /// Removes the parts of a space that `part` covers.
    pub(super) fn remove_covered(&mut self, space: usize, part: Strided) {
        self.spaces[space].iter_mut().for_each(|class| class.remove_covered(part));
    }

    /// Removes the parts of a space that `part` covers, and adds it.
    pub(super) fn replace_covered(&mut self, space: usize, part: Strided, value: T) {
        let mut added = false;
        for class in &mut self.spaces[space] {
            // Most often, it covers one part of the same elements.
            match class.near(part) {
                near if near.len() == 1 && !added && class.parts[near.start].0 == part => {
                    class.parts[near.start].1 = value;
                    added = true;
                }
                near if near.is_empty() => {}
                _ => class.remove_covered(part),
            }
        }
        if !added {
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
