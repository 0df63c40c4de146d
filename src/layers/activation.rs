//! The values that flow between layers.

use crate::tensor::Shape;

/// The shape of the values that flow between layers, for one sample: (H, W, C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// True after `flatten`: the values form one vector of H * W * C features. Their order in memory does not change,
    /// and a shard of the features is still a shard of the channels.
    pub flat: bool,
}

impl Activation {
    /// Creates an image-like activation.
    pub fn new(h: usize, w: usize, c: usize) -> Self {
        Activation { h, w, c, flat: false }
    }
    /// Returns the number of values per sample.
    pub fn features(self) -> usize {
        self.h * self.w * self.c
    }
    /// Returns the shape of a batch: (N, H, W, C).
    pub fn batch(self, rows: usize) -> Shape {
        Shape::from([rows, self.h, self.w, self.c])
    }
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.flat || (self.h == 1 && self.w == 1) {
            write!(f, "{}", self.features())
        } else {
            write!(f, "{}x{}x{}", self.h, self.w, self.c)
        }
    }
}
