//! The principal axes of the colours of a training set.

use serde::{Deserialize, Serialize};

/// The principal axes of the colours of pixels, by falling variance. Each is the eigenvector of the covariance, of length 1, times its eigenvalue
/// in units where 8-bit pixels are 0 to 1; times the scale, 255 or 1, which turns it into a change of pixels as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ColorAxes(pub [[f64; 3]; 3]);

impl ColorAxes {
    /// Those of 8-bit pixels whose channels are independent and uniform: each has the variance 1 / 12.
    pub const UNIFORM: ColorAxes =
        ColorAxes([[255.0 / 12.0, 0.0, 0.0], [0.0, 255.0 / 12.0, 0.0], [0.0, 0.0, 255.0 / 12.0]]);
}
