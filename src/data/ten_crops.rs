//! Ten crops of each picture in evaluations: the four corners, the middle, and their mirror images (Krizhevsky et al. 2012).

use super::frames::TEN;
use super::{
    DataFormat, DataSource, Dataset, Description, Labels, PictureOptions, Sample, Samples, SourceContext, StoredImage,
};
use crate::error::{Fault, Result};
use crate::settings::{Setting, Settings};
use std::path::PathBuf;
use std::sync::Arc;

/// A source each of whose samples comes ten times, one after another.
#[derive(Debug, Clone)]
pub struct TenCrops(pub DataSource);

impl Settings for TenCrops {
    fn settings() -> Vec<Setting> {
        Vec::new()
    }
    fn values(&self) -> Vec<(&'static str, String)> {
        self.0.values()
    }
    fn check_ranges(&self) -> Result<(), Fault> {
        self.0.check_ranges()
    }
}

impl DataFormat for TenCrops {
    fn key(&self) -> &'static str {
        self.0.key()
    }
    fn check(&self) -> Result<(), Fault> {
        self.0.check()
    }
    fn files(&self) -> Vec<PathBuf> {
        self.0.files()
    }
    fn is_stream(&self) -> bool {
        self.0.is_stream()
    }
    fn varies(&self) -> bool {
        self.0.varies()
    }
    fn pictures(&self) -> Option<PictureOptions> {
        self.0.pictures()
    }
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        let mut description = self.0.describe(cx)?;
        description.header.images *= TEN;
        Ok(description)
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        let data = self.0.load(cx)?;
        let labels = match &data.labels {
            Labels::Index(labels) => Labels::Index(labels.iter().flat_map(|&label| [label; TEN]).collect()),
            Labels::Dense(values) => Labels::Dense(repeated(values, data.classes)),
            Labels::Values(width, values) => Labels::Values(*width, repeated(values, *width)),
        };
        let samples = Arc::new(Repeated(Arc::clone(&data.samples)));
        Ok(Dataset { samples, labels, ten_crops: true, ..data })
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}

fn repeated(values: &[f32], width: usize) -> Vec<f32> {
    values.chunks_exact(width).flat_map(|row| row.repeat(TEN)).collect()
}

/// Images that each come ten times.
#[derive(Debug)]
struct Repeated(Arc<dyn Samples>);

impl Samples for Repeated {
    fn len(&self) -> usize {
        self.0.len() * TEN
    }
    fn read<'s>(&'s self, index: usize, sample: &'s mut Sample) -> Result<StoredImage<'s>> {
        self.0.read(index / TEN, sample)
    }
    fn name(&self, index: usize) -> Option<String> {
        self.0.name(index / TEN)
    }
}
