//! The `[data]` section of the file, and its checks.

use super::augment::Extent;
use super::whiten::MOST_WHITENED;
use super::{
    Augment, AugmentSizes, DataSource, Dataset, Description, Frames, Header, Mix, Normalize, PixelType, SampleOrder,
    SourceContext, Targets, TenCrops, Whiten,
};
use crate::error::{Error, Fault, Result, quantity};
use crate::settings::Settings;
use serde::Deserialize;
use std::sync::Arc;

/// The `[data]` section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSettings {
    /// The training set.
    pub train: DataSource,
    /// The test set; none by default.
    #[serde(default)]
    pub test: Option<DataSource>,
    /// Share of the training set that is held out for validation, 0 <= v < 1; 0 by default.
    #[serde(default)]
    pub validation: f64,
    /// Share of the training samples whose class is replaced by another one, 0 <= v < 1; 0 by default.
    #[serde(default)]
    pub label_noise: f64,
    /// Samples in the global batch, at least 1.
    pub batch: usize,
    /// Normalisation of pixels; by default `unit` for 8-bit images and `none` for floats.
    #[serde(default)]
    pub normalize: Option<Normalize>,
    /// Whitening of normalised images; none by default.
    #[serde(default)]
    pub whiten: Option<Whiten>,
    /// Augmentation of training samples, in order; none by default.
    #[serde(default)]
    pub augment: Vec<Augment>,
    /// How pairs of training samples are mixed; each sample takes one of them. None by default.
    #[serde(default)]
    pub mix: Vec<Mix>,
    /// Order of the training samples in an epoch; `shuffle` by default.
    #[serde(default)]
    pub order: SampleOrder,
    /// The threads that read, augment and normalise images, 1 to 256; by default, as many as suit the devices.
    #[serde(default)]
    pub workers: Option<usize>,
}

impl DataSettings {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// The first of [`DataSettings::faults`].
    pub fn check(&self) -> Result<(), Fault> {
        self.faults().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns every setting that is out of range, one fault for each key.
    pub fn faults(&self) -> Vec<Fault> {
        let source = |key, source: &DataSource| {
            source.check().map_err(|fault| Fault::at(key, format!("{}: {}", source.key(), fault.message)))
        };
        let batch = match self.batch {
            0 => Err(Fault::at("batch", "batch = 0, expected at least 1")),
            _ => Ok(()),
        };
        let validation = match self.validation {
            share if (0.0..1.0).contains(&share) => Ok(()),
            share => Err(Fault::at("validation", format!("validation = {share}, expected 0 <= share < 1"))),
        };
        let label_noise = match self.label_noise {
            share if (0.0..1.0).contains(&share) => Ok(()),
            share => Err(Fault::at("label_noise", format!("label_noise = {share}, expected 0 <= share < 1"))),
        };
        let order = match &self.order {
            SampleOrder::HardExamples(hard) => hard
                .check_ranges()
                .map_err(|fault| Fault::at("order", format!("{}: {}", self.order.key(), fault.message))),
            _ => Ok(()),
        };
        let workers = match self.workers {
            Some(workers) if !(1..=256).contains(&workers) => {
                Err(Fault::at("workers", format!("workers = {workers}, expected 1 to 256")))
            }
            _ => Ok(()),
        };
        let test = self.test.as_ref().map_or(Ok(()), |test| source("test", test));
        let checked =
            |one: &Augment| one.check().map_err(|f| Fault::at("augment", format!("{}: {}", one.key(), f.message)));
        let augment = self.augment.iter().try_for_each(checked);
        let whiten = self.whiten.as_ref().map_or(Ok(()), |whiten| {
            whiten.check().map_err(|fault| Fault::at("whiten", format!("{}: {}", whiten.key(), fault.message)))
        });
        let checked = |one: &Mix| one.check().map_err(|f| Fault::at("mix", format!("{}: {}", one.key(), f.message)));
        let mix = self.mix.iter().try_for_each(checked);
        let sizes = match self.train.varies() {
            true => self.frames().size(Extent::AtLeast([1, 1])).map(drop),
            false => Ok(()),
        };
        let normalize = self.normalize.as_ref().map_or(Ok(()), Normalize::check);
        let (train, noise) = (source("train", &self.train), label_noise);
        let all = [train, test, validation, noise, batch, normalize, whiten, augment, sizes, mix, order, workers];
        all.into_iter().filter_map(Result::err).collect()
    }

    /// Returns the normalisation to use for images of this type.
    pub fn normalize_for(&self, pixels: PixelType) -> Normalize {
        self.normalize.clone().unwrap_or(match pixels {
            PixelType::U8 => Normalize::Unit,
            PixelType::F32 => Normalize::None,
        })
    }

    /// Returns how pictures are cut and resized while they are read.
    pub fn frames(&self) -> Frames {
        Frames::new(&self.augment, self.num_frames())
    }

    fn num_frames(&self) -> usize {
        Frames::count(&self.augment, self.train.varies())
    }

    /// Returns the augmentations of images that have been read: all but those that cut and resize pictures.
    pub fn augmentations(&self) -> &[Augment] {
        &self.augment[self.num_frames()..]
    }

    /// Returns the shape (H, W, C) of the images that the network gets, if those that are read have a shape that suits
    /// the augmentations.
    pub fn shape(&self, read: [usize; 3]) -> Option<[usize; 3]> {
        Augment::shapes(self.augmentations(), read).ok()?.pop()
    }

    /// Returns the sizes that a GPU needs to prepare images that are read in a shape.
    pub fn sizes(&self, read: [usize; 3]) -> AugmentSizes {
        AugmentSizes::of((self.augmentations(), &self.mix, self.whiten.is_some()), read)
    }

    /// Replaces the test set by ten crops of each of its pictures; there is no validation set then.
    ///
    /// # Errors
    /// If pictures are not cut while they are read, or there is no test set.
    pub fn take_ten_crops(&mut self) -> Result<(), Fault> {
        if !self.frames().cuts() {
            let message =
                "augment has no crop by which pictures are cut while they are read, as after { resize = 256 }; omit it";
            return Err(Fault::at("augment", message));
        }
        let Some(test) = &self.test else {
            return Err(Fault::at("test", "there is no test set; give one with --data"));
        };
        self.test = Some(DataSource(Arc::new(TenCrops(test.clone()))));
        self.validation = 0.0;
        Ok(())
    }

    /// Returns the description of one of the sets, whose pictures are cut and resized.
    ///
    /// # Errors
    /// Every file that is missing or not valid, and images that cannot be brought to one size.
    pub fn describe(&self, source: &DataSource, cx: SourceContext) -> Result<Description> {
        let mut description = source.describe(cx)?;
        let header = &mut description.header;
        header.shape = self.framed(source, header.shape, header.pixels)?;
        Ok(description)
    }

    /// Reads one of the sets, whose pictures are cut and resized.
    ///
    /// # Errors
    /// As [`DataSettings::describe`].
    pub fn load(&self, source: &DataSource, cx: SourceContext) -> Result<Dataset> {
        let mut data = source.load(cx)?;
        data.shape = self.framed(source, data.shape, data.pixels)?;
        data.frames = Some(self.frames()).filter(|frames| !frames.is_empty());
        Ok(data)
    }

    /// Returns the shape of the images of a source after they have been cut and resized.
    fn framed(&self, source: &DataSource, [h, w, c]: [usize; 3], pixels: PixelType) -> Result<[usize; 3]> {
        let frames = self.frames();
        if frames.is_empty() && !source.varies() {
            return Ok([h, w, c]);
        }
        if pixels == PixelType::F32 {
            let message =
                "resize and random_resized_crop need 8-bit images, but these are floats; resize them in the file";
            return Err(Error::Usage(message.to_string()));
        }
        let extent = if source.varies() { Extent::AtLeast([h, w]) } else { Extent::Exact([h, w]) };
        let [h, w] = frames.size(extent).map_err(|fault| Error::Usage(fault.message))?;
        Ok([h, w, c])
    }

    /// Returns what the network learns from data sets with these headers: with `mix`, class numbers become distributions over
    /// the classes of all sets.
    pub fn targets(&self, train: &Header, test: Option<&Header>) -> Targets {
        match train.targets() {
            Targets::Classes(classes) if !self.mix.is_empty() && classes > 1 => {
                Targets::Distributions(classes.max(test.map_or(0, |test| test.classes)))
            }
            targets => targets,
        }
    }

    /// Returns the bytes of the data sets in memory, of those whose headers are known: of a stream, only the targets.
    pub fn bytes(&self, train: Option<&Header>, test: Option<&Header>) -> u64 {
        let sets = [Some(&self.train).zip(train), self.test.as_ref().zip(test)].into_iter().flatten();
        let bytes = |(source, header): (&DataSource, &Header)| match source.is_stream() {
            true => Header { shape: [0; 3], ..*header }.bytes(),
            false => header.bytes(),
        };
        sets.map(bytes).fold(0, u64::saturating_add)
    }

    /// Returns how many of `images` training images are held out for validation: their share, rounded.
    pub fn num_validation(&self, images: usize) -> usize {
        (self.validation * images as f64).round() as usize
    }

    /// Returns how many of `samples` training samples get another class: their share, rounded.
    pub fn num_wrong_labels(&self, samples: usize) -> usize {
        (self.label_noise * samples as f64).round() as usize
    }

    /// Returns what is wrong with the noise of the labels of a training set, of which `kept` samples are trained on.
    fn fault_of_noise(&self, train: &Header, kept: usize) -> Option<Fault> {
        let message = match train.targets() {
            _ if self.label_noise == 0.0 => return None,
            Targets::Classes(classes) if classes < 2 => {
                "label_noise replaces classes by others, but there is only one; remove it".to_string()
            }
            Targets::Classes(_) if self.num_wrong_labels(kept) == 0 => format!(
                "label_noise = {} of {} is none; give a larger share, or remove it",
                self.label_noise,
                quantity(kept as u64, "training sample")
            ),
            Targets::Classes(_) => return None,
            targets => format!("label_noise replaces class numbers, but the targets are {targets}; remove it"),
        };
        Some(Fault::at("label_noise", message))
    }

    /// Returns every setting that does not fit the data sets.
    pub fn faults_with(&self, train: &Header, test: Option<&Header>) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (key, header) in [("train", Some(train)), ("test", test)] {
            if let Some(images) = header.map(|header| header.images).filter(|&images| images > u32::MAX as usize) {
                faults.push(Fault::at(key, format!("has {images} images, expected at most {}", u32::MAX)));
            }
        }
        let apart = self.num_validation(train.images);
        if self.validation > 0.0 && (apart == 0 || apart >= train.images) {
            let message = format!(
                "validation = {} of {} images is {apart}, expected at least 1 and not all; change the share",
                self.validation, train.images
            );
            faults.push(Fault::at("validation", message));
        }
        faults.extend(self.fault_of_noise(train, train.images.saturating_sub(apart)));
        faults.extend(self.normalize.as_ref().and_then(|how| how.fault_with(train.shape[2], train.pixels)));
        if self.order == SampleOrder::ClassAlternating && !matches!(train.targets(), Targets::Classes(_)) {
            let message = format!(
                "order = \"class_alternating\" needs class numbers, but the targets are {}; use \"shuffle\"",
                train.targets()
            );
            faults.push(Fault::at("order", message));
        }
        if !self.mix.is_empty() && train.images.saturating_sub(apart) < 2 {
            let message = "mix needs at least 2 training samples; remove it, or give more data";
            faults.push(Fault::at("mix", message));
        }
        faults.extend(self.faults_with_shape(train.shape));
        faults.extend(test.and_then(|test| mismatch(train, test)).map(|message| Fault::at("test", message)));
        faults
    }

    /// Returns every setting that does not fit images of the shape in which they are stored.
    pub fn faults_with_shape(&self, stored: [usize; 3]) -> Vec<Fault> {
        let mut faults = Vec::new();
        match Augment::shapes(self.augmentations(), stored).map(|shapes| shapes[shapes.len() - 1]) {
            Ok(shape) => {
                let changes = shape != stored;
                if changes && self.normalize == Some(Normalize::StandardizeFeatures) {
                    let message = "normalize = \"standardize_features\" measures every pixel, but an augmentation changes the shape of \
                                   images; use \"standardize\"";
                    faults.push(Fault::at("normalize", message));
                }
                if changes && self.whiten.is_some() {
                    let message = "whiten is fitted to images as they are stored, but an augmentation changes their shape; remove one of \
                                   the two";
                    faults.push(Fault::at("whiten", message));
                }
                faults.extend(self.mix.iter().find_map(|one| one.suits(shape).err()));
            }
            Err(fault) => faults.push(fault),
        }
        let features = stored.iter().fold(1, |product: usize, &extent| product.saturating_mul(extent));
        if self.whiten.is_some() && features > MOST_WHITENED {
            let [h, w, c] = stored;
            let message = format!(
                "whiten multiplies by a matrix of all pairs of features, of which images of {h}x{w}x{c} have {features}, expected at most \
                 {MOST_WHITENED}; use normalize = \"standardize_features\""
            );
            faults.push(Fault::at("whiten", message));
        }
        faults
    }
}

/// Returns how a test set differs from the training set, if it does.
fn mismatch(train: &Header, test: &Header) -> Option<String> {
    let name = |pixels| match pixels {
        PixelType::U8 => "8-bit",
        PixelType::F32 => "float",
    };
    let dense = |header: &Header| match header.targets() {
        Targets::Classes(_) => "class numbers".to_string(),
        Targets::Distributions(width) => format!("rows of {width}"),
        Targets::Values(width) => quantity(width as u64, "value"),
    };
    let (what, found, expected) = if test.shape != train.shape {
        ("images of shape", format!("{:?}", test.shape), format!("{:?}", train.shape))
    } else if test.pixels != train.pixels {
        ("pixels that are", name(test.pixels).to_string(), name(train.pixels).to_string())
    } else if test.target_width != train.target_width || (test.classes == 0) != (train.classes == 0) {
        ("labels that are", dense(test), dense(train))
    } else {
        return None;
    };
    Some(format!("the test set has {what} {found}, the training set {expected}; give a test set of the same kind"))
}

#[cfg(test)]
mod tests {
    use super::super::augment::{Rotate, Shift};
    use super::super::whiten::{Decorrelate, Pca, Zca};
    use super::*;

    const DIGITS: Header =
        Header { images: 100, shape: [28, 28, 1], classes: 10, pixels: PixelType::U8, target_width: 1 };

    fn read(text: &str) -> DataSettings {
        toml::from_str(text).unwrap()
    }

    fn messages(faults: Vec<Fault>) -> Vec<(Option<&'static str>, String)> {
        faults.into_iter().map(|fault| (fault.key, fault.message)).collect()
    }

    #[test]
    fn defaults_are_as_documented() {
        let settings = read("train = \"digits\"\nbatch = 32");
        assert_eq!((settings.validation, settings.order), (0.0, SampleOrder::Shuffle));
        assert!(settings.test.is_none() && settings.augment.is_empty() && settings.check().is_ok());
        assert_eq!(settings.normalize_for(PixelType::U8), Normalize::Unit);
        assert_eq!(settings.normalize_for(PixelType::F32), Normalize::None);
        let settings = read("train = \"digits\"\nbatch = 32\naugment = [{ shift = 2 }, { rotate = 15 }]");
        assert_eq!(settings.augment, [Augment::from(Shift { pixels: 2 }), Rotate { degrees: 15.0 }.into()]);
        assert!(toml::from_str::<DataSettings>("train = \"digits\"\nbatch = 1\nshuffle = true").is_err());
    }

    #[test]
    fn every_setting_out_of_range_is_reported_with_its_key() {
        let settings = read(
            "train = { synthetic = { images = 4, classes = 1, shape = [1, 1, 1] } }\ntest = { cifar = [] }\n\
             validation = 1.0\nbatch = 0\naugment = [{ rotate = 0 }]",
        );
        let expected = [
            ("train", "synthetic: classes = 1, expected 2 to 65536"),
            ("test", "cifar: an empty list of files, expected at least one file"),
            ("validation", "validation = 1, expected 0 <= share < 1"),
            ("batch", "batch = 0, expected at least 1"),
            ("augment", "rotate: degrees = 0, expected a number above 0, at most 180"),
        ];
        assert_eq!(messages(settings.faults()), expected.map(|(key, text)| (Some(key), text.to_string())));
        assert_eq!(settings.check().unwrap_err().key, Some("train"));
    }

    #[test]
    fn settings_that_do_not_fit_the_data_are_reported() {
        let settings =
            read("train = \"digits\"\nbatch = 1\nvalidation = 0.001\nnormalize = \"unit\"\naugment = [{ shift = 28 }]");
        let floats = Header { pixels: PixelType::F32, ..DIGITS };
        let expected = [
            ("validation", "validation = 0.001 of 100 images is 0, expected at least 1 and not all; change the share"),
            (
                "normalize",
                "normalize = \"unit\" divides 8-bit pixels by 255, but these images are floats; use \"none\" or \
                 \"standardize\"",
            ),
            ("augment", "shift = 28 can move images of 28x28 out of the frame, expected less than 28"),
            (
                "test",
                "the test set has pixels that are 8-bit, the training set float; give a test set of the same kind",
            ),
        ];
        let found = messages(settings.faults_with(&floats, Some(&DIGITS)));
        assert_eq!(found, expected.map(|(key, text)| (Some(key), text.to_string())));
        for (test, text) in [
            (Header { shape: [8, 8, 1], ..DIGITS }, "images of shape [8, 8, 1], the training set [28, 28, 1]"),
            (Header { target_width: 10, ..DIGITS }, "labels that are rows of 10, the training set class numbers"),
        ] {
            assert!(mismatch(&DIGITS, &test).unwrap().contains(text));
        }
        for classes in [9, 11] {
            assert_eq!(mismatch(&DIGITS, &Header { classes, images: 5, ..DIGITS }), None);
        }
    }

    #[test]
    fn whitening_is_read_by_its_key_and_needs_images_that_it_can_take() {
        let whiten =
            |value: &str| toml::from_str::<DataSettings>(&format!("train = \"digits\"\nbatch = 1\nwhiten = {value}"));
        for (value, expected) in [
            ("\"decorrelate\"", Whiten::from(Decorrelate {})),
            ("{ pca = { epsilon = 0.5 } }", Pca { epsilon: 0.5 }.into()),
            ("{ zca = 0.25 }", Zca { epsilon: 0.25 }.into()),
            ("\"zca\"", Zca { epsilon: 0.01 }.into()),
        ] {
            assert_eq!(whiten(value).unwrap().whiten, Some(expected));
        }
        for (value, message) in [
            (
                "\"zac\"",
                "unknown way to whiten \"zac\" (did you mean \"zca\"?); expected one of: decorrelate, pca, zca",
            ),
            ("{ zca = { eps = 1 } }", "unknown field `eps`, expected `epsilon`"),
            ("{ pca = 1, zca = 1 }", "\"zca\" beside \"pca\", expected one way to whiten; remove one of them"),
            ("7", "a way to whiten, such as \"decorrelate\" or { zca = 0.01 }"),
        ] {
            let error = whiten(value).unwrap_err();
            assert!(error.message().contains(message), "{value}: {error}");
        }
        let faults = |value: &str, more: &str, shape| {
            let text = format!("train = \"digits\"\nbatch = 1\nwhiten = {value}\n{more}");
            let settings = read(&text);
            messages([settings.faults(), settings.faults_with(&Header { shape, ..DIGITS }, None)].concat())
        };
        let epsilon = "pca: epsilon = 0, expected a number above 0 within single precision";
        assert_eq!(faults("{ pca = 0 }", "", [28, 28, 1]), [(Some("whiten"), epsilon.to_string())]);
        let shape = "whiten is fitted to images as they are stored, but an augmentation changes their shape; remove one of the two";
        assert_eq!(faults("\"zca\"", "augment = [{ crop = 24 }]", [28, 28, 1]), [(Some("whiten"), shape.to_string())]);
        let many = "whiten multiplies by a matrix of all pairs of features, of which images of 37x37x3 have 4107, expected at most \
                    4096; use normalize = \"standardize_features\"";
        assert_eq!(faults("\"zca\"", "", [37, 37, 3]), [(Some("whiten"), many.to_string())]);
        assert_eq!(faults("\"zca\"", "augment = [{ shift = 2 }]", [64, 64, 1]), []);
    }
}
