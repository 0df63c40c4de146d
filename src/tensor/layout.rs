//! Shapes, the mesh of devices, and layouts: the slice of a logical tensor that each device holds.

use std::fmt;

/// The shape of a tensor in row-major order, outermost dimension first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }
    /// Returns the number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    fn from(dims: [usize; R]) -> Self {
        Shape(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(f, "({})", dims.join(", "))
    }
}

/// An axis of the device mesh (never a dimension of a tensor).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Axis {
    /// The batch is split over this axis first.
    Data,
    /// Layers are split over this axis.
    Columns,
}

impl Axis {
    /// Both axes in the order of redistribution: the inner one first.
    pub const INNER_FIRST: [Axis; 2] = [Axis::Columns, Axis::Data];
}

/// The grid of devices; device index = data * columns + column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mesh {
    /// Number of positions on the data axis.
    pub data: usize,
    /// Number of positions on the columns axis.
    pub columns: usize,
}

impl Mesh {
    /// A mesh of one device.
    pub const ONE: Mesh = Mesh { data: 1, columns: 1 };

    /// Returns the number of devices.
    pub fn devices(self) -> usize {
        self.data * self.columns
    }
    /// Returns the number of positions on an axis.
    pub fn size(self, axis: Axis) -> usize {
        match axis {
            Axis::Data => self.data,
            Axis::Columns => self.columns,
        }
    }
    /// Returns the position of a device.
    pub fn position(self, device: usize) -> Position {
        Position { data: device / self.columns, column: device % self.columns }
    }
    /// Returns the device at a position.
    pub fn device(self, at: Position) -> usize {
        at.data * self.columns + at.column
    }
    /// Returns the groups of devices that differ only in their position on `axis`, each in order along the axis.
    pub fn groups(self, axis: Axis) -> Vec<Vec<usize>> {
        match axis {
            Axis::Data => (0..self.columns).map(|c| (0..self.data).map(|d| d * self.columns + c).collect()).collect(),
            Axis::Columns => {
                (0..self.data).map(|d| (0..self.columns).map(|c| d * self.columns + c).collect()).collect()
            }
        }
    }
}

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.data, self.columns)
    }
}

/// The position of a device in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Index on the data axis.
    pub data: usize,
    /// Index on the columns axis.
    pub column: usize,
}

impl Position {
    /// Returns the index on an axis.
    pub fn on(self, axis: Axis) -> usize {
        match axis {
            Axis::Data => self.data,
            Axis::Columns => self.column,
        }
    }
}

/// A dim of a tensor, by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dim(pub usize);

impl Dim {
    /// The samples of an activation (N, H, W, C).
    pub const BATCH: Dim = Dim(0);
    /// The channels of an activation (N, H, W, C).
    pub const CHANNELS: Dim = Dim(3);
    /// The outputs of a weight (O, H, W, I), and of a vector with a value for each output.
    pub const OUTPUTS: Dim = Dim(0);
    /// The inputs of a weight (O, H, W, I).
    pub const INPUTS: Dim = Dim(3);
}

/// How a tensor is placed along one axis of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Each device holds the same values.
    Replicate,
    /// Each device holds a contiguous part of this dim.
    Shard(Dim),
    /// Each device holds a term; the value is the sum of all terms.
    Partial,
}

/// How a tensor is placed on the mesh: one [`Placement`] per axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    data: Placement,
    columns: Placement,
}

impl Layout {
    /// The layout in which every device holds the whole tensor.
    pub const REPLICATE: Layout = Layout { data: Placement::Replicate, columns: Placement::Replicate };

    /// Builds a layout.
    pub const fn new(data: Placement, columns: Placement) -> Self {
        Layout { data, columns }
    }
    /// Returns the placement on an axis.
    pub fn on(self, axis: Axis) -> Placement {
        match axis {
            Axis::Data => self.data,
            Axis::Columns => self.columns,
        }
    }
    /// Returns this layout with another placement on one axis.
    pub fn with(mut self, axis: Axis, place: Placement) -> Self {
        match axis {
            Axis::Data => self.data = place,
            Axis::Columns => self.columns = place,
        }
        self
    }
    /// Returns true if some axis holds partial sums.
    pub fn is_partial(self) -> bool {
        self.data == Placement::Partial || self.columns == Placement::Partial
    }
    /// Replaces the placement on axes of size one by `Replicate`, so that equal slices have equal layouts.
    pub fn on_mesh(mut self, mesh: Mesh) -> Self {
        for axis in Axis::INNER_FIRST {
            if mesh.size(axis) == 1 {
                self = self.with(axis, Placement::Replicate);
            }
        }
        self
    }
    /// Returns the slice of `shape` held at a position: split over `data` first, then over `columns`.
    pub fn window(self, shape: &Shape, mesh: Mesh, at: Position) -> LocalSlice {
        let mut window = LocalSlice { start: vec![0; shape.rank()], len: shape.0.clone() };
        for axis in [Axis::Data, Axis::Columns] {
            if let Placement::Shard(Dim(dim)) = self.on(axis) {
                let (start, len) = cut(window.len[dim], mesh.size(axis), at.on(axis));
                window.start[dim] += start;
                window.len[dim] = len;
            }
        }
        window
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |p: Placement| match p {
            Placement::Replicate => "R".to_string(),
            Placement::Shard(Dim(dim)) => format!("S{dim}"),
            Placement::Partial => "P".to_string(),
        };
        write!(f, "[{} {}]", show(self.data), show(self.columns))
    }
}

/// The slice of a logical tensor that one device holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LocalSlice {
    /// First index in each dimension.
    pub start: Vec<usize>,
    /// Length in each dimension; may be 0.
    pub len: Vec<usize>,
}

impl LocalSlice {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.len.iter().product()
    }

    /// Returns the intersection of two slices.
    pub fn intersect(&self, other: &LocalSlice) -> LocalSlice {
        let mut both = self.clone();
        for dim in 0..self.len.len() {
            let end = (self.start[dim] + self.len[dim]).min(other.start[dim] + other.len[dim]);
            both.start[dim] = self.start[dim].max(other.start[dim]);
            both.len[dim] = end.saturating_sub(both.start[dim]);
        }
        both
    }
}

/// Returns (start, length) of part `index` when `n` things are divided into `parts` contiguous parts whose sizes differ
/// by at most one.
pub fn cut(n: usize, parts: usize, index: usize) -> (usize, usize) {
    let start = n * index / parts;
    (start, n * (index + 1) / parts - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_is_split_over_data_first_then_over_columns() {
        let mesh = Mesh { data: 2, columns: 2 };
        let layout = Layout::new(Placement::Shard(Dim::BATCH), Placement::Shard(Dim::BATCH));
        let shape = Shape::from([7, 3]);
        let starts: Vec<_> = (0..4).map(|d| layout.window(&shape, mesh, mesh.position(d)).start[0]).collect();
        let lens: Vec<_> = (0..4).map(|d| layout.window(&shape, mesh, mesh.position(d)).len[0]).collect();
        assert_eq!((starts, lens), (vec![0, 1, 3, 5], vec![1, 2, 2, 2]));
    }

    #[test]
    fn three_samples_on_four_devices_leave_one_with_none() {
        let lens: Vec<_> = (0..4).map(|i| cut(3, 4, i).1).collect();
        assert_eq!(lens, [0, 1, 1, 1]);
    }

    #[test]
    fn groups_run_along_one_axis() {
        let mesh = Mesh { data: 2, columns: 3 };
        assert_eq!(mesh.groups(Axis::Data), [[0, 3], [1, 4], [2, 5]]);
        assert_eq!(mesh.groups(Axis::Columns), [[0, 1, 2], [3, 4, 5]]);
    }
}
