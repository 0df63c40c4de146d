//! From files to batches: formats, normalisation, whitening, augmentation, order, prefetch. Does not depend on the network; a
//! batch is bit-identical on any device, with any number of threads, after any restart.
//!
//! To add a format: write `data/x.rs` with a `settings!` struct that implements [`DataFormat`], and add one line to the
//! list in `registry!` below. To add an augmentation, see [`augment`]; a kind of mixing, [`mix`]; a way to whiten, [`whiten`].

pub mod augment;
mod batches;
mod cifar;
mod cifar100;
mod classes;
mod colors;
mod contents;
mod csv;
mod csv_rows;
mod csv_targets;
mod dataset;
mod digits;
mod file;
pub mod files;
mod folder;
mod format;
mod frames;
mod gzip;
mod hard_examples;
mod idx;
mod idx_elements;
mod label_noise;
mod linear;
mod list;
mod loader;
pub mod mix;
mod normalization;
mod normalize;
mod one_kind;
mod order;
mod parquet;
mod picture_options;
mod picture_source;
pub mod pictures;
mod point;
mod prepare;
mod record;
mod sample_order;
mod sample_sets;
mod samples;
mod settings;
mod shards;
mod sizes;
mod source;
mod synthetic;
mod ten_crops;
mod tensor_targets;
mod tensors;
mod unlabelled;
pub mod whiten;
mod whitening;
mod workers;

pub use augment::Augment;
pub use batches::{Batch, BatchPart, Batches, EpochPlan, Place, Share};
pub use cifar::{Cifar, Files};
pub use classes::{Beyond, ClassCounts};
pub use contents::{Contents, SetSummary, inspect};
pub use csv::Csv;
pub use csv_targets::CsvTargets;
pub use dataset::{ClassNames, Dataset, Description, Header, Labels, Subset, Targets};
pub use digits::Digits;
pub use files::picture_files;
pub use folder::Folder;
pub use format::{Base, DataFormat, SourceContext};
pub use frames::{Framed, Frames, TEN};
pub use hard_examples::HardExamples;
pub use idx::Idx;
pub use linear::Linear;
pub use loader::{Destination, Loader};
pub use mix::Mix;
pub use normalization::Normalization;
pub use normalize::{GivenNormalization, Normalize, PerChannel};
pub use picture_options::{OnBad, PictureOptions};
pub use point::Point;
pub use prepare::{Arrived, Augmented, LoadRole, Preparation, Preparer, Raw, RawPixels};
pub use record::{DataRecord, FileStamp, SetRecord, host};
pub use sample_order::SampleOrder;
pub use sample_sets::{Known, SampleSet, SampleSets, open, open_known, open_test};
pub use samples::{ImageView, PixelType, Pixels, Sample, Samples, StoredImage};
pub use settings::DataSettings;
pub use sizes::AugmentSizes;
pub use source::DataSource;
pub use synthetic::Synthetic;
pub use ten_crops::TenCrops;
pub use tensors::Tensors;
pub use unlabelled::{Unlabelled, Unread};
pub use whiten::Whiten;
pub use whitening::Whitening;

use crate::settings::registry;

registry! {
    DataFormat: Box<dyn DataFormat>, one => Box::new(one);
    "cifar" => Cifar,
    "cifar100" => cifar100::Cifar100,
    "csv" => Csv,
    "digits" => Digits,
    "folder" => Folder,
    "idx" => Idx,
    "linear" => Linear,
    "list" => list::List,
    "parquet" => parquet::Parquet,
    "point" => Point,
    "shards" => shards::Shards,
    "synthetic" => Synthetic,
    "tensors" => Tensors,
}
