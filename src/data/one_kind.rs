//! Entries of lists in the file that are named by their only key: `{ kind = settings }`.

use crate::error::suggest;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// A type that is read from `{ kind = settings }`.
pub(super) trait OneKind: Sized {
    /// What messages call it.
    const NOUN: &'static str;
    /// An entry, for messages.
    const EXAMPLE: &'static str;
    /// The names of all kinds.
    const KINDS: &'static [&'static str];

    /// Reads the settings of a kind. Returns `None` if there is no kind of this name.
    fn read_kind<'de, D: Deserializer<'de>>(kind: &str, settings: D) -> Option<Result<Self, D::Error>>;
}

/// Reads an entry.
///
/// # Errors
/// If it is not one table with one known kind and its settings.
pub(super) fn deserialize<'de, T: OneKind, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(Entry(PhantomData))
}

fn unknown<T: OneKind, E: Error>(kind: &str) -> E {
    let (noun, near, known) = (T::NOUN, suggest(kind, T::KINDS.iter().copied()), T::KINDS.join(", "));
    E::custom(format_args!("unknown {noun} \"{kind}\"{near}; expected one of: {known}"))
}

struct Entry<T>(PhantomData<T>);

impl<'de, T: OneKind> Visitor<'de> for Entry<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "one {} with its settings, such as {}", T::NOUN, T::EXAMPLE)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let kind: String = map.next_key()?.ok_or_else(|| unknown::<T, _>(""))?;
        let read = map.next_value_seed(Of(&kind, PhantomData))?;
        match map.next_key::<String>()? {
            None => Ok(read),
            Some(other) => {
                Err(A::Error::custom(format_args!("\"{other}\" and \"{kind}\" in one entry; make two entries")))
            }
        }
    }
}

/// Reads the settings of a kind.
struct Of<'k, T>(&'k str, PhantomData<T>);

impl<'de, T: OneKind> DeserializeSeed<'de> for Of<'_, T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, settings: D) -> Result<T, D::Error> {
        T::read_kind(self.0, settings).ok_or_else(|| unknown::<T, _>(self.0))?
    }
}
