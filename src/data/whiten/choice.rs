//! The way to whiten that the file chooses.

use super::whitener::Whitener;
use super::{KEYS, read};
use crate::error::suggest;
use crate::settings::holder;
use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::sync::Arc;

holder! {
    /// A way to whiten; the kind is the key: `{ zca = 0.01 }`.
    Whiten of Whitener
}

impl<'de> Deserialize<'de> for Whiten {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneKind)
    }
}

/// The key of a kind; an unknown key fails while it is deserialised, so that the error has its location.
struct Kind(&'static str);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        KEYS.iter().find(|kind| **kind == key).map(|kind| Kind(kind)).ok_or_else(|| unknown(&key))
    }
}

fn unknown<E: Error>(kind: &str) -> E {
    let (near, known) = (suggest(kind, KEYS.iter().copied()), KEYS.join(", "));
    E::custom(format_args!("unknown way to whiten \"{kind}\"{near}; expected one of: {known}"))
}

/// Reads a kind, or `{ kind = settings }`.
struct OneKind;

impl<'de> Visitor<'de> for OneKind {
    type Value = Whiten;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a way to whiten, such as \"decorrelate\" or { zca = 0.01 }")
    }
    fn visit_str<E: Error>(self, kind: &str) -> Result<Whiten, E> {
        Of(kind).deserialize(MapDeserializer::<_, E>::new(std::iter::empty::<(&str, &str)>()))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Whiten, A::Error> {
        let Some(Kind(kind)) = map.next_key()? else { return Err(unknown("")) };
        let read = map.next_value_seed(Of(kind))?;
        match map.next_key::<String>()? {
            None => Ok(read),
            Some(other) => Err(A::Error::custom(format_args!(
                "\"{other}\" beside \"{kind}\", expected one way to whiten; remove one of them"
            ))),
        }
    }
}

/// Reads the settings of a kind.
struct Of<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Of<'_> {
    type Value = Whiten;
    fn deserialize<D: Deserializer<'de>>(self, settings: D) -> Result<Whiten, D::Error> {
        read(self.0, settings).ok_or_else(|| unknown(self.0))?.map(|one| Whiten(Arc::from(one)))
    }
}
