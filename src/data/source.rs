//! The sources of data, and how a source is written in the file.

use super::{DataFormat, KEYS, read};
use crate::error::suggest;
use crate::settings::holder;
use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::sync::Arc;

holder! {
    /// The source of a data set; the kind is the key: `{ digits = "train" }`.
    DataSource of DataFormat
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

/// Reads the settings of a kind.
struct Of<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Of<'_> {
    type Value = DataSource;
    fn deserialize<D: Deserializer<'de>>(self, settings: D) -> Result<DataSource, D::Error> {
        read(self.0, settings).ok_or_else(|| unknown(self.0))?.map(|format| DataSource(Arc::from(format)))
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
            _ if !KEYS.contains(&kind) => Err(unknown(kind)),
            // A format of which every setting has a default.
            _ => Of(kind)
                .deserialize(MapDeserializer::<_, E>::new(std::iter::empty::<(&str, &str)>()))
                .map_err(|_| E::custom(format_args!("\"{kind}\" needs settings; write {{ {kind} = ... }}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DataSource, A::Error> {
        let Some(Kind(kind)) = map.next_key()? else {
            return Err(A::Error::custom(format_args!("expected one of the keys {}", KEYS.join(", "))));
        };
        let source = map.next_value_seed(Of(kind))?;
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
    use super::super::{Cifar, Digits, Files, Idx, Subset, Synthetic, Tensors};
    use super::*;
    use std::path::PathBuf;

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
        assert_eq!(read("\"digits\"").unwrap(), Digits { part: None }.into());
        assert_eq!(read("{ digits = \"test\" }").unwrap(), Digits { part: Some(Subset::Test) }.into());
        let (one, two) = (PathBuf::from("a.bin"), PathBuf::from("b.bin"));
        assert_eq!(read("{ cifar = \"a.bin\" }").unwrap(), Cifar { files: Files::One(one.clone()) }.into());
        assert_eq!(
            read("{ cifar = [\"a.bin\", \"b.bin\"] }").unwrap(),
            Cifar { files: Files::Many(vec![one.clone(), two.clone()]) }.into()
        );
        assert_eq!(read("{ tensors = \"a.bin\" }").unwrap(), Tensors { file: one.clone() }.into());
        assert_eq!(
            read("{ idx = { images = \"a.bin\", labels = \"b.bin\" } }").unwrap(),
            Idx { images: one, labels: two }.into()
        );
        assert_eq!(
            read("{ synthetic = { images = 5, classes = 2, shape = [4, 5, 3] } }").unwrap(),
            Synthetic { images: 5, classes: 2, shape: [4, 5, 3], seed: 1 }.into()
        );
    }

    #[test]
    fn mistakes_are_reported_at_their_location() {
        for (value, column, message) in [
            ("\"digit\"", 9, "unknown kind of data \"digit\" (did you mean \"digits\"?); expected one of: cifar"),
            ("\"cifar\"", 9, "\"cifar\" needs settings; write { cifar = ... }"),
            ("{ digit = \"train\" }", 11, "unknown kind of data \"digit\" (did you mean \"digits\"?)"),
            ("{ digits = \"validation\" }", 20, "unknown variant `validation`, expected `train` or `test`"),
            ("{ idx = { images = \"a\" } }", 17, "missing field `labels`"),
            ("{ digits = \"train\", idx = 1 }", 9, "\"idx\" and \"digits\" in one source, expected one kind of data"),
            ("{}", 9, "expected one of the keys cifar"),
            ("{ cifar = 7 }", 19, "expected a file name or a list of file names"),
            ("7", 9, "a kind of data with its settings"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.message().contains(message), "{value}: {error}");
            assert_eq!(error.span().map(|span| span.start + 1), Some(column), "{value}: {error}");
        }
    }
}
