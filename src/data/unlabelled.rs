//! Pictures whose classes are not known, of which a network is asked.

use super::picture_options::{OnBad, PictureOptions};
use super::pictures::{Filter, Fit, decode};
use super::{
    ClassNames, DataFormat, Dataset, Description, Header, ImageView, Labels, PixelType, Sample, Samples, SourceContext,
    StoredImage, Targets,
};
use crate::error::{Error, Fault, Result};
use crate::settings::{Setting, Settings};
use crate::storage::open_regular;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 30;

/// Why files could not be read, by their numbers.
#[derive(Debug, Clone, Default)]
pub struct Unread(Arc<Mutex<BTreeMap<usize, String>>>);

impl Unread {
    /// Returns why a file could not be read, if it has been read in vain.
    pub fn reason(&self, file: usize) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&file).cloned()
    }

    fn add(&self, file: usize, reason: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(file, reason);
    }
}

/// Pictures of which a network is asked. One that cannot be read is black, and listed.
#[derive(Debug, Clone)]
pub struct Unlabelled {
    /// The files.
    pub files: Arc<[PathBuf]>,
    /// Those that could not be read.
    pub unread: Unread,
    options: PictureOptions,
    /// The height and width that pictures must have, if they are not brought to it.
    exact: Option<[usize; 2]>,
    header: Header,
    names: Option<ClassNames>,
}

impl Unlabelled {
    /// Creates files that are brought to the size of images as those of a training set are, given its header and the names of its classes.
    ///
    /// # Errors
    /// If the training set does not have 8-bit images of 1 or 3 channels.
    pub fn new(
        files: Vec<PathBuf>,
        trained_on: &dyn DataFormat,
        has_frames: bool,
        (header, names): (Header, Option<ClassNames>),
    ) -> Result<Self> {
        let [h, w, channels] = header.shape;
        if header.pixels == PixelType::F32 || ![1, 3].contains(&channels) {
            let message = format!("the run was trained on images of {h}x{w}x{channels}");
            let kind = if header.pixels == PixelType::F32 { " with floats" } else { "" };
            return Err(Error::Usage(format!("{message}{kind}, which are not pictures; use eval --data")));
        }
        let given = trained_on.pictures();
        let exact = (given.is_none() && !has_frames).then_some([h, w]);
        let default = PictureOptions {
            size: None,
            fit: Fit::Stretch,
            filter: Filter::Bilinear,
            channels,
            classes: None,
            on_bad: OnBad::Fail,
            most_bad: 0.0,
        };
        let (files, unread) = (files.into(), Unread::default());
        Ok(Unlabelled { files, unread, options: given.unwrap_or(default), exact, header, names })
    }

    /// Returns the same of other files.
    pub fn with_files(&self, files: Vec<PathBuf>) -> Self {
        Unlabelled { files: files.into(), unread: Unread::default(), ..self.clone() }
    }

    fn header(&self) -> Header {
        let [h, w] = match (self.exact, self.options.size) {
            (Some(exact), _) => exact,
            (None, Some(size)) => size.both(),
            (None, None) => [1, 1],
        };
        Header { images: self.files.len(), shape: [h, w, self.options.channels], ..self.header }
    }
}

impl Settings for Unlabelled {
    fn settings() -> Vec<Setting> {
        Vec::new()
    }
    fn values(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn check_ranges(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl DataFormat for Unlabelled {
    fn key(&self) -> &'static str {
        "files"
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn varies(&self) -> bool {
        self.exact.is_none() && self.options.size.is_none()
    }
    fn pictures(&self) -> Option<PictureOptions> {
        Some(self.options.clone())
    }
    fn describe(&self, _: SourceContext) -> Result<Description> {
        Ok(Description { names: self.names.clone(), ..Description::from(self.header()) })
    }
    fn load(&self, _: SourceContext) -> Result<Dataset> {
        let (header, count) = (self.header(), self.files.len());
        let labels = match header.targets() {
            Targets::Classes(_) => Labels::Index(vec![0; count]),
            Targets::Distributions(width) => {
                Labels::Dense((0..count * width).map(|i| f32::from(u8::from(i % width == 0))).collect())
            }
            Targets::Values(width) => Labels::Values(width, vec![0.0; count * width]),
        };
        let data = Dataset::stream(Arc::new(self.clone()), PixelType::U8, labels, header.shape, header.classes);
        // Fingerprints are of no use here, and would read all files.
        Ok(Dataset {
            names: self.names.clone(),
            fingerprint: Some(String::new()),
            sizing: self.options.sizing(),
            ..data
        })
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}

impl Samples for Unlabelled {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn read<'s>(&'s self, index: usize, sample: &'s mut Sample) -> Result<StoredImage<'s>> {
        let read = file(&self.files[index], &mut sample.stored)
            .and_then(|()| decode(&sample.stored, self.options.channels, &mut sample.picture))
            .and_then(|()| match (self.exact, sample.picture.size) {
                (Some([h, w]), found) if [h, w] != found => {
                    let [rows, columns] = found;
                    Err(format!("is {columns} pixels wide and {rows} high, but the run was trained on images of {w}x{h}; resize it"))
                }
                _ => Ok(()),
            });
        if let Err(reason) = read {
            self.unread.add(index, reason);
            let Header { shape: [h, w, c], .. } = self.header();
            sample.bytes.clear();
            sample.bytes.resize(h * w * c, 0);
            return Ok(StoredImage { pixels: ImageView::U8(&sample.bytes), shape: [h, w, c] });
        }
        Ok(StoredImage::of(&sample.picture))
    }

    fn name(&self, index: usize) -> Option<String> {
        Some(self.files[index].display().to_string())
    }
}

/// Reads a file; fails with the reason.
fn file(path: &Path, to: &mut Vec<u8>) -> std::result::Result<(), String> {
    let (file, len) = open_regular(path).map_err(|error| match &error {
        Error::Io { source, .. } => format!("cannot be read: {source}"),
        Error::File { message, .. } => message.clone(),
        error => error.to_string(),
    })?;
    if len > LARGEST {
        return Err(format!("has {len} bytes, expected at most {LARGEST}; is it a picture?"));
    }
    to.clear();
    file.take(len).read_to_end(to).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(())
}
