//! The handwritten digits embedded in the binary: 8,000 + 2,000 grey images of 28x28 in 10 classes; see
//! data/digits/README.md for their origin. Needs neither files nor a network connection.

use super::file::ByteStream;
use super::{DataFormat, Dataset, Description, SourceContext, Subset, idx};
use crate::error::Result;
use crate::settings::settings;

settings! {
    /// `"digits"`, `{ digits = "train" }` or `{ digits = "test" }`: the handwritten digits in the program, 28x28 in 10 classes.
    pub struct Digits from part {
        /// The part of the data set.
        pub part: Option<Subset> = None, default "that of the key: `train`, or `test` for `data.test`", example "\"test\"";
    }
}

macro_rules! digits {
    ($file:literal) => {
        (
            concat!("digits (built in): ", $file),
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/digits/", $file)).as_slice(),
        )
    };
}

impl Digits {
    fn pair(&self, cx: SourceContext) -> Result<idx::Pair<'static>> {
        let files = match self.part.unwrap_or(cx.subset) {
            Subset::Train => [digits!("train-images-idx3-ubyte.gz"), digits!("train-labels-idx1-ubyte.gz")],
            Subset::Test => [digits!("t10k-images-idx3-ubyte.gz"), digits!("t10k-labels-idx1-ubyte.gz")],
        };
        let [images, labels] = files.map(|(name, bytes)| ByteStream::of(name, bytes));
        idx::Pair::new(images, labels)
    }
}

impl DataFormat for Digits {
    fn key(&self) -> &'static str {
        "digits"
    }
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        self.pair(cx)?.describe()
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        self.pair(cx)?.load()
    }
    fn examples() -> Vec<Self> {
        vec![Digits { part: None }, Digits { part: Some(Subset::Test) }]
    }
}
