//! A data set, and its description.

use super::classes::ClassCounts;
use super::frames::{Framed, Frames, TEN};
use super::pictures::{Changing, PictureMemory, Sizing};
use super::samples::{ImageView, LoadedImages, PixelType, Pixels, Sample, Samples, StoredImage};
use crate::error::{Result, quantity};
use crate::gpu::bytes_of;
use crate::settings::values;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The subset of a data set that a source provides: `train` or `test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subset {
    /// The samples for training.
    Train,
    /// The samples for evaluation only.
    Test,
}

values! {
    Subset, "`train` or `test`", subset => format!("{:?}", format!("{subset:?}").to_lowercase());
}

/// The targets of all images.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// A class number for each image.
    Index(Vec<u32>),
    /// A distribution over the classes for each image: (N, classes).
    Dense(Vec<f32>),
    /// Values to be predicted for each image: their number D, and the values, (N, D).
    Values(usize, Vec<f32>),
}

impl Labels {
    /// Returns the number of images of a data set with so many classes.
    fn images(&self, classes: usize) -> usize {
        match self {
            Labels::Index(labels) => labels.len(),
            Labels::Dense(labels) => labels.len() / classes,
            Labels::Values(width, values) => values.len() / width,
        }
    }

    /// Appends the target of an image, which has so many values: with more than one, a class number becomes a distribution.
    pub(super) fn append(&self, width: usize, image: usize, to: &mut Vec<f32>) {
        match self {
            Labels::Index(labels) if width == 1 => to.push(labels[image] as f32),
            Labels::Index(labels) => {
                let start = to.len();
                to.resize(start + width, 0.0);
                to[start + labels[image] as usize] = 1.0;
            }
            Labels::Dense(values) | Labels::Values(_, values) => {
                to.extend_from_slice(&values[image * width..][..width]);
            }
        }
    }
}

/// What the targets of a data set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// Class numbers below this.
    Classes(usize),
    /// Distributions over so many classes.
    Distributions(usize),
    /// So many values for each image.
    Values(usize),
}

impl Targets {
    /// Returns the number of values in the target of one image.
    pub fn width(self) -> usize {
        match self {
            Targets::Classes(_) => 1,
            Targets::Distributions(width) | Targets::Values(width) => width,
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Targets::Classes(classes) => f.write_str(&quantity(classes as u64, "class")),
            Targets::Distributions(classes) => write!(f, "distributions over {}", quantity(classes as u64, "class")),
            Targets::Values(width) => f.write_str(&quantity(width as u64, "target value")),
        }
    }
}

/// The description of a data set, available without reading its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Number of images N.
    pub images: usize,
    /// Height H, width W and channels C of each image.
    pub shape: [usize; 3],
    /// Number of classes: one more than the largest label, or the width of dense labels; 0 if the targets are values.
    pub classes: usize,
    /// Type of the pixels.
    pub pixels: PixelType,
    /// Number of values in the target of one image: 1 for a class number, `classes` for a distribution.
    pub target_width: usize,
}

impl Header {
    /// Returns what the targets are.
    pub fn targets(&self) -> Targets {
        match (self.classes, self.target_width) {
            (0, width) => Targets::Values(width),
            (classes, 1) => Targets::Classes(classes),
            (classes, _) => Targets::Distributions(classes),
        }
    }

    /// Returns the number of values in one image.
    pub fn features(&self) -> u64 {
        self.shape.iter().fold(1, |product: u64, &extent| product.saturating_mul(extent as u64))
    }

    /// Returns the bytes of the data set in memory.
    pub fn bytes(&self) -> u64 {
        let image = self.features().saturating_mul(self.pixels.bytes() as u64);
        (self.images as u64).saturating_mul(image.saturating_add(4 * self.target_width as u64))
    }
}

/// What is known of a data set before its images are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its header.
    pub header: Header,
    /// How often each class occurs, if the labels are class numbers that can be read without the images, and the name
    /// of their file.
    pub classes: Option<(PathBuf, ClassCounts)>,
    /// The names of the classes, if they have names.
    pub names: Option<ClassNames>,
    /// What is to be said of its files.
    pub notes: Vec<String>,
}

/// The names of the classes of a data set, by class number.
pub type ClassNames = Arc<[String]>;

impl Description {
    /// Returns the description of a data set with so many samples of each class, whose labels are in a file.
    pub(super) fn of_classes(header: Header, labels: PathBuf, counts: ClassCounts) -> Self {
        Description { classes: Some((labels, counts)), ..Description::from(header) }
    }
}

impl From<Header> for Description {
    fn from(header: Header) -> Self {
        Description { header, classes: None, names: None, notes: Vec::new() }
    }
}

/// A data set: its images, in memory or read one by one, and its targets.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its images.
    pub samples: Arc<dyn Samples>,
    /// The type of their pixels.
    pub pixels: PixelType,
    /// Its targets, one for each image.
    pub labels: Labels,
    /// Height H, width W and channels C of each image.
    pub shape: [usize; 3],
    /// Number of classes; 0 if the targets are values.
    pub classes: usize,
    /// The names of the classes, if they have names.
    pub names: Option<ClassNames>,
    /// How pictures are brought to one size while they are read.
    pub sizing: Option<Sizing>,
    /// How images are cut and resized after that.
    pub frames: Option<Frames>,
    /// A fingerprint that does not need the images to be read, if there is one.
    pub fingerprint: Option<String>,
    /// Whether each ten samples are the ten crops of one picture.
    pub ten_crops: bool,
    /// A fingerprint of the contents of all files that are read one by one, if these are known.
    pub contents: Option<String>,
}

/// Memory for reading images one by one.
#[derive(Debug, Default)]
pub struct ImageMemory {
    sample: Sample,
    pictures: PictureMemory,
}

/// An image that was read.
enum Read<'m> {
    /// As it is stored.
    Stored(ImageView<'m>),
    /// Cut and resized.
    Changed(Changing<'m>),
}

impl PartialEq for Dataset {
    /// Compares the contents; data that cannot be read equal none.
    fn eq(&self, other: &Self) -> bool {
        let same = self.header() == other.header() && self.labels == other.labels;
        same && self.all_pixels().is_ok_and(|pixels| other.all_pixels().is_ok_and(|others| others == pixels))
    }
}

impl Dataset {
    /// Returns a data set in memory, with the pixels of all images: (N, H, W, C).
    pub fn loaded(pixels: Pixels, labels: Labels, shape: [usize; 3], classes: usize) -> Self {
        let kind = match pixels {
            Pixels::U8(_) => PixelType::U8,
            Pixels::F32(_) => PixelType::F32,
        };
        let count = labels.images(classes);
        Dataset::stream(Arc::new(LoadedImages { pixels, shape, count }), kind, labels, shape, classes)
    }

    /// Returns a data set whose images are read one by one.
    pub fn stream(
        samples: Arc<dyn Samples>,
        pixels: PixelType,
        labels: Labels,
        shape: [usize; 3],
        classes: usize,
    ) -> Self {
        Dataset {
            samples,
            pixels,
            labels,
            shape,
            classes,
            names: None,
            sizing: None,
            frames: None,
            fingerprint: None,
            ten_crops: false,
            contents: None,
        }
    }

    /// Reads an image, cut and resized.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read<'m>(
        &'m self,
        index: usize,
        framed: Framed,
        memory: &'m mut ImageMemory,
    ) -> Result<ImageView<'m>> {
        let image = match self.changed(index, framed, memory)? {
            Read::Stored(image) => image,
            Read::Changed(picture) => ImageView::U8(picture.pixels()),
        };
        image.expect(index, self.pixels, self.features())
    }

    /// Reads an image, cut and resized, into memory of its size.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read_to(&self, index: usize, framed: Framed, memory: &mut ImageMemory, to: &mut [u8]) -> Result<()> {
        let image = match self.changed(index, framed, memory)? {
            Read::Changed(picture) if picture.bytes() == to.len() => {
                picture.write(to);
                return Ok(());
            }
            Read::Changed(picture) => ImageView::U8(picture.pixels()),
            Read::Stored(image) => image,
        };
        match image.expect(index, self.pixels, self.features())? {
            ImageView::U8(x) => to.copy_from_slice(x),
            ImageView::F32(x) => to.copy_from_slice(bytes_of(x)),
        }
        Ok(())
    }

    fn changed<'m>(&'m self, index: usize, framed: Framed, memory: &'m mut ImageMemory) -> Result<Read<'m>> {
        let StoredImage { pixels, shape: [h, w, c] } = self.samples.read(index, &mut memory.sample)?;
        let ImageView::U8(x) = pixels else { return Ok(Read::Stored(pixels)) };
        if self.sizing.is_none() && self.frames.is_none() {
            return Ok(Read::Stored(pixels));
        }
        let mut picture = Changing::new(x, [h, w], c, &mut memory.pictures);
        if let Some(sizing) = self.sizing {
            picture.make(sizing.changes(picture.size));
        }
        if let Some(frames) = &self.frames {
            let ten = matches!(framed, Framed::Middle) && self.ten_crops;
            frames.apply(&mut picture, if ten { Framed::OfTen(index % TEN) } else { framed });
        }
        Ok(Read::Changed(picture))
    }

    /// Returns the name of a sample: that of its file, if it has one of its own, or its number.
    pub fn name(&self, index: usize) -> String {
        self.samples.name(index).unwrap_or_else(|| format!("image {index}"))
    }

    /// Returns the number of images.
    pub fn images(&self) -> usize {
        self.labels.images(self.classes)
    }

    /// Returns the number of values in one image.
    pub fn features(&self) -> usize {
        self.shape.iter().product()
    }

    /// Calls `visit` with the images of some samples, in order, as an evaluation cuts and resizes them.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn each(&self, samples: impl IntoIterator<Item = usize>, mut visit: impl FnMut(ImageView)) -> Result<()> {
        let mut memory = ImageMemory::default();
        for index in samples {
            visit(self.read(index, Framed::Middle, &mut memory)?);
        }
        Ok(())
    }

    /// Visits the images of some samples on all cores, each of which has a state of its own; returns all states.
    ///
    /// # Errors
    /// If an image cannot be read: one of those that cannot.
    pub(super) fn fold<T: Send>(
        &self,
        samples: &[u32],
        new: impl Fn() -> T + Sync,
        visit: impl Fn(&mut T, ImageView) + Sync,
    ) -> Result<Vec<T>> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        self.fold_on(cores, samples, new, visit)
    }

    fn fold_on<T: Send>(
        &self,
        cores: usize,
        samples: &[u32],
        new: impl Fn() -> T + Sync,
        visit: impl Fn(&mut T, ImageView) + Sync,
    ) -> Result<Vec<T>> {
        let work = |part: &[u32]| {
            let mut state = new();
            self.each(part.iter().map(|&sample| sample as usize), |image| visit(&mut state, image))?;
            Ok(state)
        };
        let mut parts = samples.chunks(samples.len().div_ceil(cores).max(1));
        let own = parts.next().unwrap_or_default();
        std::thread::scope(|scope| {
            let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
            let own = work(own);
            let others = others.into_iter().map(|other| match other.join() {
                Ok(state) => state,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            std::iter::once(own).chain(others).collect()
        })
    }

    /// Returns the pixels of all images: (N, H, W, C).
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn all_pixels(&self) -> Result<Pixels> {
        let (mut bytes, mut floats) = (Vec::new(), Vec::new());
        self.each(0..self.images(), |image| match image {
            ImageView::U8(x) => bytes.extend_from_slice(x),
            ImageView::F32(x) => floats.extend_from_slice(x),
        })?;
        Ok(match self.pixels {
            PixelType::U8 => Pixels::U8(bytes),
            PixelType::F32 => Pixels::F32(floats),
        })
    }

    /// Returns the description of the data set.
    pub fn header(&self) -> Header {
        let target_width = match self.labels {
            Labels::Index(_) => 1,
            Labels::Dense(_) => self.classes,
            Labels::Values(width, _) => width,
        };
        let Dataset { pixels, shape, classes, .. } = *self;
        Header { images: self.images(), shape, classes, pixels, target_width }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_visited_once_in_order_by_any_number_of_cores() {
        let pixels = Pixels::U8((0..10).collect());
        let data = Dataset::loaded(pixels, Labels::Index(vec![0; 10]), [1, 1, 1], 2);
        let all = [7, 0, 3, 3, 9, 1, 2];
        for count in 0..=all.len() {
            for cores in 1..9 {
                let visit = |seen: &mut Vec<u8>, image: ImageView| match image {
                    ImageView::U8(x) => seen.extend(x),
                    ImageView::F32(_) => unreachable!("the pixels are bytes"),
                };
                let states = data.fold_on(cores, &all[..count], Vec::new, visit).unwrap();
                assert!(states.len() <= cores.max(1), "{} states of {cores} cores", states.len());
                assert_eq!(states.concat(), all[..count].iter().map(|&sample| sample as u8).collect::<Vec<_>>());
            }
        }
    }
}
