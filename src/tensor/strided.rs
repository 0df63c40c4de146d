//! Strided parts of a device's slice of a tensor: runs of equal length at equal distances.

use super::layout::LocalSlice;

/// `rows` runs of `len` elements, `stride` apart, the first at `offset`; all in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Strided {
    /// First element.
    pub offset: usize,
    /// Number of runs.
    pub rows: usize,
    /// Elements of a run.
    pub len: usize,
    /// Distance between the starts of runs.
    pub stride: usize,
}

impl Strided {
    /// Creates a contiguous part.
    pub fn contiguous(offset: usize, len: usize) -> Self {
        Strided { offset, rows: 1, len, stride: len }
    }

    /// Returns the number of elements.
    pub fn elements(self) -> usize {
        self.rows * self.len
    }

    /// Returns the part shifted by an offset.
    pub fn shifted(self, by: usize) -> Self {
        Strided { offset: self.offset + by, ..self }
    }

    /// Returns the part in units of which `by` make an element.
    pub fn scaled(self, by: usize) -> Self {
        Strided { offset: self.offset * by, rows: self.rows, len: self.len * by, stride: self.stride * by }
    }

    /// Returns the end: one past the last element.
    pub fn end(self) -> usize {
        if self.elements() == 0 { self.offset } else { self.offset + (self.rows - 1) * self.stride + self.len }
    }

    /// Returns the part of `outer`'s elements that the slice `inner` (in logical coordinates) covers.
    ///
    /// # Panics
    /// When `inner` is not inside `outer`, or does not consist of equal runs.
    pub fn of(inner: &LocalSlice, outer: &LocalSlice) -> Self {
        let rank = outer.len.len();
        if inner.elements() == 0 {
            return Strided::contiguous(0, 0);
        }
        let start = |dim: usize| inner.start[dim] - outer.start[dim];
        assert!((0..rank).all(|d| start(d) + inner.len[d] <= outer.len[d]), "inner is inside outer");
        let full = |dim: usize| inner.len[dim] == outer.len[dim];
        let cut = (0..rank).rev().find(|&d| !full(d)).unwrap_or(0);
        assert!((1..cut).all(full), "inner is smaller than outer in the first dimension and at most one other");
        let below: usize = outer.len[cut + 1..].iter().product();
        let mut offset = 0;
        let mut size = 1;
        for dim in (0..rank).rev() {
            offset += start(dim) * size;
            size *= outer.len[dim];
        }
        let (rows, len) = (inner.len[..cut].iter().product(), inner.len[cut] * below);
        let stride = if rows == 1 { len } else { outer.len[cut] * below };
        Strided { offset, rows, len, stride }.merged()
    }

    /// Merges runs that touch, so that equal parts compare equal.
    fn merged(self) -> Self {
        if self.stride == self.len { Strided::contiguous(self.offset, self.elements()) } else { self }
    }

    /// Returns true if two parts share an element. Exact if the strides are equal or one of them is a single run;
    /// otherwise true whenever their ranges overlap.
    pub fn overlaps(self, other: Strided) -> bool {
        if self.elements() == 0 || other.elements() == 0 || self.offset >= other.end() || other.offset >= self.end() {
            return false;
        }
        let (a, b) = if self.rows > 1 { (self, other) } else { (other, self) };
        if a.rows == 1 {
            return true;
        }
        if b.rows == 1 {
            // The first run of `a` that ends after `b` starts.
            let row = (b.offset + 1).saturating_sub(a.offset + a.len).div_ceil(a.stride);
            return row < a.rows && a.offset + row * a.stride < b.end();
        }
        if a.stride != b.stride {
            return true;
        }
        let shift = b.offset as isize - a.offset as isize;
        let stride = a.stride as isize;
        let row = shift.div_euclid(stride);
        let within = shift.rem_euclid(stride) as usize;
        let meets = |row: isize, shift: isize| {
            let rows = row > -(b.rows as isize) && row < a.rows as isize;
            rows && shift < a.len as isize && shift + b.len as isize > 0
        };
        meets(row, within as isize) || meets(row + 1, within as isize - stride)
    }

    /// Returns true if this part contains every element of `other`. If their rows differ, only a contiguous part can
    /// return true.
    pub fn covers(self, other: Strided) -> bool {
        if self == other {
            return true;
        }
        self.rows == 1 && self.offset <= other.offset && other.end() <= self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(s: Strided) -> Vec<usize> {
        (0..s.rows).flat_map(|r| (0..s.len).map(move |i| s.offset + r * s.stride + i)).collect()
    }

    #[test]
    fn overlap_agrees_with_sets_of_elements() {
        let mut pieces = Vec::new();
        for offset in 0..7 {
            for (rows, len, stride) in [(1, 1, 1), (1, 4, 4), (3, 2, 5), (2, 1, 5), (4, 3, 5), (2, 5, 5), (1, 9, 9)] {
                pieces.push(Strided { offset, rows, len, stride });
            }
        }
        for &a in &pieces {
            for &b in &pieces {
                let exact = set(a).iter().any(|x| set(b).contains(x));
                assert_eq!(a.overlaps(b), exact, "{a:?} {b:?}");
                assert!(!a.covers(b) || set(b).iter().all(|x| set(a).contains(x)));
            }
        }
    }

    #[test]
    fn a_channel_block_of_a_batch_is_strided() {
        let outer = LocalSlice { start: vec![4, 0, 0, 0], len: vec![2, 3, 3, 8] };
        let inner = LocalSlice { start: vec![5, 0, 0, 4], len: vec![1, 3, 3, 2] };
        assert_eq!(Strided::of(&inner, &outer), Strided { offset: 76, rows: 9, len: 2, stride: 8 });
        let rows = LocalSlice { start: vec![5, 0, 0, 0], len: vec![1, 3, 3, 8] };
        assert_eq!(Strided::of(&rows, &outer), Strided::contiguous(72, 72));
    }
}
