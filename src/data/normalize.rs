//! How pixels are normalised, as the file says it.

use super::PixelType;
use crate::error::{Fault, quantity};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::fmt;

/// The normalisation of pixels: y = (x / scale - mean) / std, in f32.
#[derive(Debug, Clone, PartialEq)]
pub enum Normalize {
    /// None: 8-bit pixels are 0 to 255, floats are as stored in the file.
    None,
    /// 8-bit pixels are divided by 255. Not for floats.
    Unit,
    /// 8-bit pixels are divided by 255; then each channel is scaled to mean 0 and standard deviation 1, measured in f64
    /// on the training set (without its validation share); all sample sets use the same numbers.
    Standardize,
    /// The same for every feature, a channel of a pixel, on its own; one that is the same in all samples is only shifted to 0.
    StandardizeFeatures,
    /// 8-bit pixels are divided by 255; then each channel is scaled by given numbers.
    Given(GivenNormalization),
}

/// The mean and the standard deviation of each channel, of 8-bit pixels after their division by 255.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenNormalization {
    /// The means.
    pub mean: PerChannel,
    /// The standard deviations.
    pub std: PerChannel,
}

/// A number for each channel, or one for all.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a list with a number for each channel")]
pub enum PerChannel {
    /// For all.
    All(f64),
    /// For each.
    Each(Vec<f64>),
}

impl Normalize {
    /// Returns true if its constants are measured on images.
    pub fn is_measured(&self) -> bool {
        matches!(self, Normalize::Standardize | Normalize::StandardizeFeatures)
    }
}

impl PerChannel {
    fn numbers(&self) -> &[f64] {
        match self {
            PerChannel::All(number) => std::slice::from_ref(number),
            PerChannel::Each(numbers) => numbers,
        }
    }

    /// Returns the numbers of so many channels.
    pub(super) fn of(&self, channels: usize) -> Vec<f32> {
        match self {
            PerChannel::All(number) => vec![*number as f32; channels],
            PerChannel::Each(numbers) => numbers.iter().map(|&number| number as f32).collect(),
        }
    }
}

/// The words that stand for a normalisation.
const WORDS: [&str; 5] = ["none", "unit", "standardize", "standardize_features", "imagenet"];

impl Normalize {
    /// Returns the numbers that are used for pictures of ImageNet.
    pub fn imagenet() -> Self {
        let each = |numbers: [f64; 3]| PerChannel::Each(numbers.to_vec());
        Normalize::Given(GivenNormalization { mean: each([0.485, 0.456, 0.406]), std: each([0.229, 0.224, 0.225]) })
    }

    /// Checks the numbers that are given.
    ///
    /// # Errors
    /// If one is out of range.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let Normalize::Given(GivenNormalization { mean, std }) = self else { return Ok(()) };
        let finite = |number: &f64| (*number as f32).is_finite();
        if let Some(wrong) = mean.numbers().iter().find(|number| !finite(number)) {
            return Err(Fault::at("normalize", format!("normalize: mean = {wrong}, expected a finite number")));
        }
        let positive = |number: &f64| finite(number) && *number as f32 > 0.0;
        match std.numbers().iter().find(|number| !positive(number)) {
            Some(wrong) => {
                Err(Fault::at("normalize", format!("normalize: std = {wrong}, expected a finite number above 0")))
            }
            None => Ok(()),
        }
    }

    /// Returns what does not suit images of so many channels.
    pub(super) fn fault_with(&self, channels: usize, pixels: PixelType) -> Option<Fault> {
        if *self == Normalize::Unit && pixels == PixelType::F32 {
            let message = "normalize = \"unit\" divides 8-bit pixels by 255, but these images are floats; use \"none\" or \"standardize\"";
            return Some(Fault::at("normalize", message));
        }
        let Normalize::Given(GivenNormalization { mean, std }) = self else { return None };
        for (name, numbers) in [("mean", mean), ("std", std)] {
            if let PerChannel::Each(numbers) = numbers
                && numbers.len() != channels
            {
                let (count, channels) =
                    (quantity(numbers.len() as u64, "number"), quantity(channels as u64, "channel"));
                let message =
                    format!("normalize: {name} has {count}, but the images have {channels}; give one for each");
                return Some(Fault::at("normalize", message));
            }
        }
        None
    }
}

impl<'de> Deserialize<'de> for Normalize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NormalizeVisitor)
    }
}

struct NormalizeVisitor;

impl<'de> Visitor<'de> for NormalizeVisitor {
    type Value = Normalize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "one of {}, or {{ mean = [..], std = [..] }}", WORDS.map(|word| format!("\"{word}\"")).join(", "))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Normalize, E> {
        Ok(match word {
            "none" => Normalize::None,
            "unit" => Normalize::Unit,
            "standardize" => Normalize::Standardize,
            "standardize_features" => Normalize::StandardizeFeatures,
            "imagenet" => Normalize::imagenet(),
            _ => return Err(E::unknown_variant(word, &WORDS)),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Normalize, A::Error> {
        GivenNormalization::deserialize(MapAccessDeserializer::new(map)).map(Normalize::Given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Section {
        normalize: Normalize,
    }

    fn read(value: &str) -> Result<Normalize, String> {
        let section = toml::from_str::<Section>(&format!("normalize = {value}"));
        section.map(|section| section.normalize).map_err(|error| error.message().to_string())
    }

    #[test]
    fn words_and_numbers_are_read() {
        assert_eq!(read("\"standardize\"").unwrap(), Normalize::Standardize);
        let imagenet = "{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }";
        assert_eq!(read(imagenet), read("\"imagenet\""));
        let Normalize::Given(given) = read("{ mean = 0.5, std = [0.25] }").unwrap() else { panic!() };
        assert_eq!((given.mean.of(2), given.std.of(1)), (vec![0.5, 0.5], vec![0.25]));
        for (value, words) in [
            ("\"imagenets\"", "unknown variant `imagenets`, expected one of `none`"),
            ("{ mean = 1 }", "missing field `std`"),
            ("{ mean = \"a\", std = 1 }", "expected a number, or a list with a number for each channel"),
            ("{ mean = 1, std = 1, scale = 2 }", "unknown field `scale`"),
            ("7", "expected one of \"none\", \"unit\""),
        ] {
            assert!(read(value).unwrap_err().contains(words), "{value}: {:?}", read(value));
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let fault = |value: &str| read(value).unwrap().check().unwrap_err().message;
        assert_eq!(fault("{ mean = [0.5, nan], std = 1.0 }"), "normalize: mean = NaN, expected a finite number");
        assert_eq!(fault("{ mean = 0.5, std = [1, 0] }"), "normalize: std = 0, expected a finite number above 0");
        let imagenet = Normalize::imagenet();
        assert_eq!(
            imagenet.fault_with(1, PixelType::U8).unwrap().message,
            "normalize: mean has 3 numbers, but the images have 1 channel; give one for each"
        );
        assert!(imagenet.fault_with(3, PixelType::U8).is_none() && imagenet.check().is_ok());
        assert!(Normalize::Unit.fault_with(3, PixelType::F32).is_some());
    }
}
