//! The binary files of CIFAR-100: records of two label bytes (coarse, fine) and 32x32 red, green and blue bytes (Krizhevsky
//! 2009, <https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf>). Images are read from the files when they are
//! needed.

use super::classes::ClassCounts;
use super::file::both;
use super::tensor_targets::channels_last;
use super::{
    DataFormat, Dataset, Description, Files, Header, ImageView, Labels, PixelType, Sample, Samples, SourceContext,
    StoredImage,
};
use crate::error::{Error, Fault, Result};
use crate::settings::{settings, values};
use crate::storage::open_regular;
use serde::Deserialize;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

const SHAPE: [usize; 3] = [32, 32, 3];
const PIXELS: usize = 3072;
const RECORD: usize = 2 + PIXELS;

/// Which labels are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cifar100Labels {
    /// The 100 classes.
    Fine,
    /// The 20 superclasses.
    Coarse,
}

values! {
    Cifar100Labels, "`fine` or `coarse`", labels => format!("{:?}", format!("{labels:?}").to_lowercase());
}

settings! {
    /// `{ cifar100 = "train.bin" }`: 32x32 colour images, the binary files of CIFAR-100, which are read while training.
    pub struct Cifar100 from files {
        /// The file, or several, which are concatenated in the order given.
        pub files: Files, example "\"train.bin\"";
        /// The labels: the 100 classes, or the 20 superclasses.
        pub labels: Cifar100Labels = Cifar100Labels::Fine, example "\"coarse\"";
    }
}

impl DataFormat for Cifar100 {
    fn key(&self) -> &'static str {
        "cifar100"
    }
    fn check(&self) -> Result<(), Fault> {
        self.files.check()
    }
    fn files(&self) -> Vec<PathBuf> {
        self.files.paths().to_vec()
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        let records = Records::open(self, cx)?;
        let (images, classes) = (records.len(), self.classes());
        let counts = ClassCounts::new(records.labels(self)?, classes);
        let header = Header { images, shape: SHAPE, classes, pixels: PixelType::U8, target_width: 1 };
        Ok(Description::of_classes(header, records.files[0].path.clone(), counts))
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        let records = Records::open(self, cx)?;
        let (labels, classes) = (Labels::Index(records.labels(self)?), self.classes());
        Ok(Dataset::stream(Arc::new(records), PixelType::U8, labels, SHAPE, classes))
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}

impl Cifar100 {
    fn classes(&self) -> usize {
        match self.labels {
            Cifar100Labels::Fine => 100,
            Cifar100Labels::Coarse => 20,
        }
    }
}

/// An open file.
#[derive(Debug)]
struct RecordFile {
    path: PathBuf,
    file: File,
    /// The index of its first record among all.
    first: usize,
    records: usize,
}

/// The records of all files.
#[derive(Debug)]
struct Records {
    files: Vec<RecordFile>,
}

impl Records {
    fn open(settings: &Cifar100, cx: SourceContext) -> Result<Self> {
        let mut files: Result<Vec<RecordFile>> = Ok(Vec::new());
        for path in settings.files.paths() {
            files = both(files, cx.base.find(path).and_then(RecordFile::open)).map(|(mut files, mut file)| {
                file.first = files.last().map_or(0, |last: &RecordFile| last.first + last.records);
                files.push(file);
                files
            });
        }
        files.map(|files| Records { files })
    }

    /// Reads the labels of all records.
    fn labels(&self, settings: &Cifar100) -> Result<Vec<u32>> {
        let (classes, at) = (settings.classes(), u64::from(settings.labels == Cifar100Labels::Fine));
        let mut labels = Vec::with_capacity(self.len());
        for file in &self.files {
            let mut wrong = None;
            for record in 0..file.records {
                let mut label = [0];
                file.read((record * RECORD) as u64 + at, &mut label)?;
                if usize::from(label[0]) >= classes {
                    let (_, _, count) = wrong.get_or_insert((record, label[0], 0));
                    *count += 1;
                }
                labels.push(u32::from(label[0]));
            }
            if let Some((record, label, count)) = wrong {
                let (last, all) = (classes - 1, file.records);
                let message = format!(
                    "record {record} has label {label}, expected 0 to {last} (so in {count} of {all} records); the file is \
                     damaged or not a CIFAR-100 file"
                );
                return Err(Error::file(&file.path, message));
            }
        }
        Ok(labels)
    }
}

impl RecordFile {
    fn open(path: PathBuf) -> Result<Self> {
        let (file, len) = open_regular(&path)?;
        if len == 0 || !len.is_multiple_of(RECORD as u64) {
            let hint = match len {
                0 => "the file is empty, download it again",
                _ if len.is_multiple_of(PIXELS as u64 + 1) => "this looks like CIFAR-10: write { cifar = ... }",
                _ => "the file is truncated, packed or not a CIFAR-100 file",
            };
            let message =
                format!("has {len} bytes, expected a multiple of {RECORD} (two labels and 32x32x3 bytes); {hint}");
            return Err(Error::file(&path, message));
        }
        let records = (len / RECORD as u64) as usize;
        Ok(RecordFile { path, file, first: 0, records })
    }

    fn read(&self, at: u64, to: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(to, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                let record = at / RECORD as u64;
                Error::file(
                    &self.path,
                    format!("ends before record {record}; it was cut while it was in use, restore it"),
                )
            }
            _ => Error::io(&self.path, "read", error),
        })
    }
}

impl Samples for Records {
    fn len(&self) -> usize {
        self.files.last().map_or(0, |last| last.first + last.records)
    }
    fn read<'s>(&'s self, index: usize, sample: &'s mut Sample) -> Result<StoredImage<'s>> {
        let file = &self.files[self.files.partition_point(|file| file.first <= index) - 1];
        sample.stored.resize(PIXELS, 0);
        file.read(((index - file.first) * RECORD + 2) as u64, &mut sample.stored)?;
        sample.bytes.clear();
        channels_last(SHAPE, &sample.stored, &mut sample.bytes);
        Ok(StoredImage { pixels: ImageView::U8(&sample.bytes), shape: SHAPE })
    }
}
