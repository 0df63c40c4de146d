//! The handwritten digits embedded in the binary: 8,000 + 2,000 grey images of 28x28 in 10 classes; see
//! data/digits/README.md for their origin. Needs neither files nor a network connection.

use super::file::ByteStream;
use super::{DataFormat, Dataset, Description, SourceContext, Subset, idx};
use crate::error::Result;
use serde::Deserialize;

/// `"digits"`, `{ digits = "train" }` or `{ digits = "test" }`: the subset; by default the one of the key it is given
/// for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Digits(pub Option<Subset>);

macro_rules! digits {
    ($file:literal) => {
        (
            concat!("digits (built in): ", $file),
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits/", $file)).as_slice(),
        )
    };
}

impl Digits {
    fn pair(self, cx: SourceContext) -> Result<idx::Pair<'static>> {
        let files = match self.0.unwrap_or(cx.subset) {
            Subset::Train => [digits!("train-images-idx3-ubyte.gz"), digits!("train-labels-idx1-ubyte.gz")],
            Subset::Test => [digits!("t10k-images-idx3-ubyte.gz"), digits!("t10k-labels-idx1-ubyte.gz")],
        };
        let [images, labels] = files.map(|(name, bytes)| ByteStream::of(name, bytes));
        idx::Pair::new(images, labels)
    }
}

impl DataFormat for Digits {
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        self.pair(cx)?.describe()
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        self.pair(cx)?.load()
    }
}
