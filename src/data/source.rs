//! The sources of data: the list of formats, and how a source is written in the file.

use super::{Cifar, DataFormat, Dataset, Description, Digits, Header, Idx, SourceContext, Synthetic, Tensors};
use crate::error::{Fault, Result, suggest};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::path::PathBuf;

/// The list of formats: key in the file, name of the settings type.
macro_rules! sources {
    ($($kind:literal => $format:ident),* $(,)?) => {
        /// The keys of all formats.
        pub const KEYS: &[&str] = &[$($kind),*];

        /// The source of a data set; the kind is the key: `{ digits = "train" }`.
        #[derive(Debug, Clone, PartialEq)]
        pub enum DataSource {
            $(
                #[doc = concat!("`", $kind, "`: see [`", stringify!($format), "`].")]
                $format($format),
            )*
        }

        impl DataSource {
            /// Returns its key and settings.
            fn format(&self) -> (&'static str, &dyn DataFormat) {
                match self {
                    $(DataSource::$format(settings) => ($kind, settings),)*
                }
            }
        }

        fn read<'de, A: MapAccess<'de>>(kind: &str, map: &mut A) -> Result<DataSource, A::Error> {
            match kind {
                $($kind => map.next_value().map(DataSource::$format),)*
                _ => Err(unknown(kind)),
            }
        }
    };
}

sources! {
    "digits" => Digits,
    "idx" => Idx,
    "cifar" => Cifar,
    "tensors" => Tensors,
    "synthetic" => Synthetic,
}

impl DataSource {
    /// Returns the key of its format in the file.
    pub fn key(&self) -> &'static str {
        self.format().0
    }

    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range; the fault's key is one of the format's.
    pub fn check(&self) -> Result<(), Fault> {
        self.format().1.check()
    }

    /// Returns the files that it reads, as written in the configuration.
    pub fn files(&self) -> Vec<PathBuf> {
        self.format().1.files()
    }

    /// Returns those of its files that hold images, as written in the configuration.
    pub fn image_files(&self) -> Vec<PathBuf> {
        self.format().1.image_files()
    }

    /// Returns true if its files hold images in the order (N, C, H, W).
    pub fn is_channels_first(&self) -> bool {
        matches!(self, DataSource::Tensors(_))
    }

    /// Reads the description of the data set without reading its images.
    ///
    /// # Errors
    /// Every file that is missing or not valid.
    pub fn describe(&self, cx: SourceContext) -> Result<Description> {
        self.format().1.describe(cx)
    }

    /// Reads the header of the data set.
    ///
    /// # Errors
    /// Every file that is missing or not valid.
    pub fn header(&self, cx: SourceContext) -> Result<Header> {
        self.describe(cx).map(|description| description.header)
    }

    /// Reads the data set into memory.
    ///
    /// # Errors
    /// Every file that is missing or not valid.
    pub fn load(&self, cx: SourceContext) -> Result<Dataset> {
        self.format().1.load(cx)
    }
}

fn unknown<E: Error>(kind: &str) -> E {
    E::custom(format_args!(
        "unknown kind of data \"{kind}\"{}; expected one of: {}",
        suggest(kind, KEYS.iter().copied()),
        KEYS.join(", ")
    ))
}

/// The key of a source; an unknown key fails while it is deserialised, so that the error has its location.
struct Kind(&'static str);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        KEYS.iter().find(|kind| **kind == key).map(|kind| Kind(kind)).ok_or_else(|| unknown(&key))
    }
}

impl<'de> Deserialize<'de> for DataSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = DataSource;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a kind of data with its settings, such as \"digits\" or {{ cifar = \"data_batch_1.bin\" }}")
    }

    fn visit_str<E: Error>(self, kind: &str) -> Result<DataSource, E> {
        match kind {
            "digits" => Ok(DataSource::Digits(Digits(None))),
            _ if KEYS.contains(&kind) => {
                Err(E::custom(format_args!("\"{kind}\" needs settings; write {{ {kind} = ... }}")))
            }
            _ => Err(unknown(kind)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DataSource, A::Error> {
        let Some(Kind(kind)) = map.next_key()? else {
            return Err(A::Error::custom(format_args!("expected one of the keys {}", KEYS.join(", "))));
        };
        let source = read(kind, &mut map)?;
        match map.next_key::<String>()? {
            None => Ok(source),
            Some(other) => Err(A::Error::custom(format_args!(
                "\"{other}\" and \"{kind}\" in one source, expected one kind of data; remove one of them"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Files, Subset};
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        train: DataSource,
    }

    fn read(value: &str) -> Result<DataSource, toml::de::Error> {
        toml::from_str::<Section>(&format!("train = {value}")).map(|section| section.train)
    }

    #[test]
    fn every_kind_is_read_by_its_key() {
        assert_eq!(read("\"digits\"").unwrap(), DataSource::Digits(Digits(None)));
        assert_eq!(read("{ digits = \"test\" }").unwrap(), DataSource::Digits(Digits(Some(Subset::Test))));
        let (one, two) = (PathBuf::from("a.bin"), PathBuf::from("b.bin"));
        assert_eq!(read("{ cifar = \"a.bin\" }").unwrap(), DataSource::Cifar(Cifar(Files::One(one.clone()))));
        assert_eq!(
            read("{ cifar = [\"a.bin\", \"b.bin\"] }").unwrap(),
            DataSource::Cifar(Cifar(Files::Many(vec![one.clone(), two.clone()])))
        );
        assert_eq!(read("{ tensors = \"a.bin\" }").unwrap(), DataSource::Tensors(Tensors(one.clone())));
        assert_eq!(
            read("{ idx = { images = \"a.bin\", labels = \"b.bin\" } }").unwrap(),
            DataSource::Idx(Idx { images: one, labels: two })
        );
        assert_eq!(
            read("{ synthetic = { images = 5, classes = 2, shape = [4, 5, 3] } }").unwrap(),
            DataSource::Synthetic(Synthetic { images: 5, classes: 2, shape: [4, 5, 3], seed: 1 })
        );
    }

    #[test]
    fn mistakes_are_reported_at_their_location() {
        for (value, column, message) in [
            ("\"digit\"", 9, "unknown kind of data \"digit\" (did you mean \"digits\"?); expected one of: digits, idx"),
            ("\"cifar\"", 9, "\"cifar\" needs settings; write { cifar = ... }"),
            ("{ digit = \"train\" }", 11, "unknown kind of data \"digit\" (did you mean \"digits\"?)"),
            ("{ digits = \"validation\" }", 20, "unknown variant `validation`, expected `train` or `test`"),
            ("{ idx = { images = \"a\" } }", 17, "missing field `labels`"),
            ("{ digits = \"train\", idx = 1 }", 9, "\"idx\" and \"digits\" in one source, expected one kind of data"),
            ("{}", 9, "expected one of the keys digits, idx, cifar"),
            ("{ cifar = 7 }", 19, "expected a file name or a list of file names"),
            ("7", 9, "a kind of data with its settings"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.message().contains(message), "{value}: {error}");
            assert_eq!(error.span().map(|span| span.start + 1), Some(column), "{value}: {error}");
        }
    }
}
