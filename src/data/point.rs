//! One sample, the number 1: for networks whose weights are the variables of a function (the loss `surface`).

use super::{DataFormat, Dataset, Description, Header, Labels, PixelType, Pixels, SourceContext};
use crate::error::Result;
use crate::settings::settings;

settings! {
    /// `{ point = {} }`: one sample of shape [1, 1, 1], whose only value is 1, with the target 0.
    pub struct Point {}
}

impl DataFormat for Point {
    fn key(&self) -> &'static str {
        "point"
    }
    fn describe(&self, _: SourceContext) -> Result<Description> {
        let header = Header { images: 1, shape: [1, 1, 1], classes: 0, pixels: PixelType::F32, target_width: 1 };
        Ok(header.into())
    }
    fn load(&self, _: SourceContext) -> Result<Dataset> {
        Ok(Dataset::loaded(Pixels::F32(vec![1.0]), Labels::Values(1, vec![0.0]), [1, 1, 1], 0))
    }
    fn examples() -> Vec<Self> {
        vec![Point {}]
    }
}
