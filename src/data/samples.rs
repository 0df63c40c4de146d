//! Where images come from: memory, or a stream that reads each one when it is needed.

use super::pictures::Bitmap;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// The pixels of all images, (N, H, W, C), as stored in the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 8-bit values, 0 to 255.
    U8(Vec<u8>),
    /// Finite floats.
    F32(Vec<f32>),
}

/// The type of the pixels of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelType {
    /// 8-bit values, 0 to 255.
    U8,
    /// Floats.
    F32,
}

impl PixelType {
    /// Returns the size of a value in bytes.
    pub fn bytes(self) -> usize {
        match self {
            PixelType::U8 => 1,
            PixelType::F32 => size_of::<f32>(),
        }
    }
}

/// The images of a data set, by index. Workers read several at once.
pub trait Samples: Debug + Send + Sync {
    /// Returns the number of images.
    fn len(&self) -> usize;

    /// Returns true if there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads an image, into `sample` unless it lies in memory. Every call returns the same values.
    ///
    /// # Errors
    /// If it cannot be read, or is not valid.
    fn read<'s>(&'s self, index: usize, sample: &'s mut Sample) -> Result<StoredImage<'s>>;

    /// Reads only the file of an image, and returns its bytes: 0 of images that lie in memory.
    ///
    /// # Errors
    /// If it cannot be read.
    fn fetch(&self, index: usize, sample: &mut Sample) -> Result<usize> {
        let _ = (index, sample);
        Ok(0)
    }

    /// Returns the name of the file of an image, if it has one of its own.
    fn name(&self, index: usize) -> Option<String> {
        let _ = index;
        None
    }
}

/// An image as it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoredImage<'a> {
    /// Its pixels, (H, W, C).
    pub pixels: ImageView<'a>,
    /// Height H, width W and channels C.
    pub shape: [usize; 3],
}

impl<'a> StoredImage<'a> {
    /// Returns a picture as it is.
    pub(super) fn of(picture: &'a Bitmap) -> Self {
        let &Bitmap { size: [h, w], channels, .. } = picture;
        StoredImage { pixels: ImageView::U8(&picture.pixels), shape: [h, w, channels] }
    }
}

/// Memory for one image, which a reader keeps from image to image.
#[derive(Debug, Default)]
pub struct Sample {
    /// The image as it is stored.
    pub stored: Vec<u8>,
    /// Its pixels, if they are bytes.
    pub bytes: Vec<u8>,
    /// Its pixels, if they are floats.
    pub floats: Vec<f32>,
    /// The picture, if images are pictures of any size.
    pub picture: Bitmap,
}

/// The pixels of one image: (H, W, C).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ImageView<'a> {
    /// 8-bit values, 0 to 255.
    U8(&'a [u8]),
    /// Finite floats.
    F32(&'a [f32]),
}

impl ImageView<'_> {
    /// Returns the type of the pixels.
    pub fn kind(self) -> PixelType {
        match self {
            ImageView::U8(_) => PixelType::U8,
            ImageView::F32(_) => PixelType::F32,
        }
    }

    fn len(self) -> usize {
        match self {
            ImageView::U8(x) => x.len(),
            ImageView::F32(x) => x.len(),
        }
    }

    /// Returns itself.
    ///
    /// # Errors
    /// Unless it has so many values of this type: the image is not as its data set was described.
    pub(super) fn expect(self, index: usize, kind: PixelType, values: usize) -> Result<Self> {
        if (self.kind(), self.len()) == (kind, values) {
            return Ok(self);
        }
        let found = format!("{} values of type {:?}", self.len(), self.kind());
        Err(Error::Run(format!("image {index} has {found}, expected {values} of type {kind:?}; its file has changed")))
    }
}

/// Images in memory.
#[derive(Debug)]
pub(super) struct LoadedImages {
    pub pixels: Pixels,
    /// Height, width and channels of each image.
    pub shape: [usize; 3],
    pub count: usize,
}

impl Samples for LoadedImages {
    fn len(&self) -> usize {
        self.count
    }
    fn read<'s>(&'s self, index: usize, _: &'s mut Sample) -> Result<StoredImage<'s>> {
        let features: usize = self.shape.iter().product();
        let values = index * features..(index + 1) * features;
        let pixels = match &self.pixels {
            Pixels::U8(x) => ImageView::U8(&x[values]),
            Pixels::F32(x) => ImageView::F32(&x[values]),
        };
        Ok(StoredImage { pixels, shape: self.shape })
    }
}
