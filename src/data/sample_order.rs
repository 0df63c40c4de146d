//! The order in which an epoch takes the training samples, as the file chooses it.

use super::HardExamples;
use crate::settings::{Setting, Settings};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, de};
use std::fmt;

/// The order in which an epoch takes the training samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum SampleOrder {
    /// The order of the data set.
    Sequential,
    /// A new random order in every epoch, a pure function of the seed and the epoch.
    #[default]
    Shuffle,
    /// The same, but successive samples share no class unless one class has more samples than all others (LeCun et al. 1998, "Efficient
    /// BackProp").
    ClassAlternating,
    /// The same, but samples with large losses come more often.
    HardExamples(HardExamples),
}

const NAMES: &[&str] = &["sequential", "shuffle", "class_alternating", HARD_EXAMPLES];
const HARD_EXAMPLES: &str = "hard_examples";

impl SampleOrder {
    /// Returns the key of the order in the file.
    pub fn key(&self) -> &'static str {
        match self {
            SampleOrder::Sequential => "sequential",
            SampleOrder::Shuffle => "shuffle",
            SampleOrder::ClassAlternating => "class_alternating",
            SampleOrder::HardExamples(_) => HARD_EXAMPLES,
        }
    }

    /// Returns the key, the documentation and the settings of every order that has settings.
    pub fn all_settings() -> Vec<(&'static str, String, Vec<Setting>)> {
        vec![(HARD_EXAMPLES, HardExamples::about(), HardExamples::settings())]
    }
}

impl<'de> Deserialize<'de> for SampleOrder {
    fn deserialize<D: Deserializer<'de>>(order: D) -> Result<Self, D::Error> {
        order.deserialize_any(NameOrTable)
    }
}

/// Reads `"name"`, or `{ name = settings }`.
struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = SampleOrder;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an order, such as \"shuffle\" or { hard_examples = { share = 0.5 } }")
    }
    fn visit_str<E: Error>(self, name: &str) -> Result<SampleOrder, E> {
        match name {
            "sequential" => Ok(SampleOrder::Sequential),
            "shuffle" => Ok(SampleOrder::Shuffle),
            "class_alternating" => Ok(SampleOrder::ClassAlternating),
            HARD_EXAMPLES => Ok(SampleOrder::HardExamples(HardExamples::default())),
            _ => Err(E::unknown_variant(name, NAMES)),
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SampleOrder, A::Error> {
        let unsuitable = || A::Error::invalid_type(de::Unexpected::Map, &NameOrTable);
        let order = map.next_key_seed(Name)?.ok_or_else(unsuitable)?;
        let order = match order {
            SampleOrder::HardExamples(_) => SampleOrder::HardExamples(map.next_value()?),
            plain => {
                let name = plain.key();
                map.next_value_seed(Nothing(name))?;
                plain
            }
        };
        match map.next_key::<String>()? {
            None => Ok(order),
            Some(other) => {
                let name = order.key();
                Err(A::Error::custom(format_args!(
                    "\"{other}\" beside \"{name}\", expected one order; remove one of them"
                )))
            }
        }
    }
}

/// Reads the key of an order; an unknown one fails while it is read, so that the error has its location.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = SampleOrder;
    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<SampleOrder, D::Error> {
        NameOrTable.visit_str(&String::deserialize(key)?)
    }
}

/// Reads the empty table of an order without settings.
struct Nothing(&'static str);

impl<'de> DeserializeSeed<'de> for Nothing {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, settings: D) -> Result<(), D::Error> {
        settings.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Nothing {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "no settings of \"{}\"", self.0)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match map.next_key::<String>()? {
            None => Ok(()),
            Some(key) => Err(A::Error::unknown_field(&key, &[])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SampleOrder, String> {
        let table: toml::Table = format!("x = {text}").parse().unwrap();
        table["x"].clone().try_into().map_err(|error: toml::de::Error| error.message().to_string())
    }

    #[test]
    fn an_order_is_a_name_or_a_table_of_its_settings() {
        for (text, expected) in [
            ("\"sequential\"", SampleOrder::Sequential),
            ("{ shuffle = {} }", SampleOrder::Shuffle),
            ("\"class_alternating\"", SampleOrder::ClassAlternating),
            ("\"hard_examples\"", SampleOrder::HardExamples(HardExamples { share: 0.5, cap: 4.0, outliers: 0.02 })),
            (
                "{ hard_examples = { cap = 2, outliers = 0 } }",
                SampleOrder::HardExamples(HardExamples { share: 0.5, cap: 2.0, outliers: 0.0 }),
            ),
        ] {
            assert_eq!(read(text), Ok(expected));
            assert!(text.contains(expected.key()));
        }
        for (text, message) in [
            ("\"hard\"", "unknown variant `hard`, expected one of `sequential`, `shuffle`"),
            ("{ shufle = {} }", "unknown variant `shufle`"),
            ("{ shuffle = { share = 1 } }", "unknown field `share`, there are no fields"),
            ("{ shuffle = {}, sequential = {} }", "\"shuffle\" beside \"sequential\", expected one order"),
            (
                "{ hard_examples = { shares = 1 } }",
                "unknown field `shares`, expected one of `share`, `cap`, `outliers`",
            ),
            ("{}", "invalid type: map, expected an order, such as \"shuffle\""),
            ("7", "invalid type: integer `7`, expected an order, such as \"shuffle\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
