//! The macro that defines a table of settings.

use super::table::Settings;
use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};

/// Reads a key, which must be one of these.
pub(crate) struct KnownKey(pub &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KnownKey {
    type Value = &'static str;
    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<&'static str, D::Error> {
        key.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KnownKey {
    type Value = &'static str;
    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "one of {}", self.0.join(", "))
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<&'static str, E> {
        self.0.iter().find(|known| **known == key).copied().ok_or_else(|| E::unknown_field(key, self.0))
    }
}

/// Defines a struct of settings, one per field:
///
/// ```text
/// settings! {
///     /// The `rmsprop` transform.
///     pub struct Rmsprop {
///         /// The fraction of the average that is kept from step to step.
///         pub decay: f64 = 0.99, in FRACTION;
///         /// Updates or epochs from one decay to the next.
///         pub every: Interval, unit "steps or epochs", example "\"30 epochs\"";
///     }
/// }
/// ```
///
/// A setting without a default is required. `pub struct Momentum from mu` also accepts the value of `mu` alone in place of
/// the table, if that is a number, a text or a list. Unknown keys are errors.
macro_rules! settings {
    // With defaults for all settings, the struct has a default, too.
    (
        $(#[$meta:meta])*
        pub struct $Name:ident $(from $short:ident)? {
            $(
                $(#[doc = $doc:literal])*
                pub $field:ident: $type:ty = $default:expr $(, in $range:expr)? $(, unit $unit:literal)?
                    $(, default $described:literal)? $(, example $example:literal)?;
            )*
        }
    ) => {
        impl Default for $Name {
            fn default() -> Self {
                $Name { $($field: $default),* }
            }
        }
        $crate::settings::define::settings! {
            @define
            $(#[$meta])*
            pub struct $Name $(from $short)? {
                $(
                    $(#[doc = $doc])*
                    pub $field: $type = $default $(, in $range)? $(, unit $unit)? $(, default $described)?
                        $(, example $example)?;
                )*
            }
        }
    };
    ($(#[$meta:meta])* pub struct $($rest:tt)*) => {
        $crate::settings::define::settings! { @define $(#[$meta])* pub struct $($rest)* }
    };
    (
        @define
        $(#[$meta:meta])*
        pub struct $Name:ident $(from $short:ident)? {
            $(
                $(#[doc = $doc:literal])*
                pub $field:ident: $type:ty $(= $default:expr)? $(, in $range:expr)? $(, unit $unit:literal)?
                    $(, default $described:literal)? $(, example $example:literal)?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $crate::settings::table::Settings for $Name {
            fn settings() -> Vec<$crate::settings::table::Setting> {
                let all: Vec<$crate::settings::table::Setting> = vec![$({
                    #[allow(unused_mut, unused_assignments, reason = "not every setting has all of these")]
                    let (mut range, mut unit, mut default, mut example) = (None, None, None::<String>, None);
                    $(range = Some($range.text());)?
                    $(unit = Some($unit);)?
                    $(default = $crate::settings::value::Value::toml(&{ let value: $type = $default; value }).or(Some("none".into()));)?
                    $(default = default.and(Some($described.to_string()));)?
                    $(example = Some($example);)?
                    $crate::settings::table::Setting {
                        key: stringify!($field),
                        doc: [$($doc),*].map(str::trim).join(" "),
                        kind: <$type as $crate::settings::value::Value>::KIND,
                        range,
                        unit,
                        default,
                        example,
                    }
                }),*];
                all
            }

            fn kind_of(keys: &[&str]) -> Option<String> {
                let kinds: &[(&str, &str)] =
                    &[$((stringify!($field), <$type as $crate::settings::value::Value>::KIND)),*];
                let (_, kind) = kinds.iter().find(|(key, _)| keys.contains(key))?;
                let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
                Some(format!("{article} {kind}"))
            }

            fn values(&self) -> Vec<(&'static str, String)> {
                let all: Vec<(&'static str, Option<String>)> =
                    vec![$((stringify!($field), $crate::settings::value::Value::toml(&self.$field))),*];
                all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
            }

            fn check_ranges(&self) -> Result<(), $crate::error::Fault> {
                $($($range.check(stringify!($field), &self.$field)?;)?)*
                Ok(())
            }
        }

        impl<'de> serde::Deserialize<'de> for $Name {
            fn deserialize<D: serde::Deserializer<'de>>(settings: D) -> Result<Self, D::Error> {
                struct Table;
                impl<'de> serde::de::Visitor<'de> for Table {
                    type Value = $Name;
                    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                        // Messages list the known keys after "a map".
                        let short: &[&str] = &[$(stringify!($short))?];
                        match <$Name as $crate::settings::table::Settings>::kind_of(short) {
                            None => f.write_str("a map"),
                            Some(kind) => write!(f, "{kind}, or a table with {}", KEYS.join(" and ")),
                        }
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$Name, A::Error> {
                        $(let mut $field: Option<$type> = None;)*
                        while let Some(key) = map.next_key_seed($crate::settings::define::KnownKey(KEYS))? {
                            match key {
                                $(stringify!($field) => $field = Some(map.next_value()?),)*
                                _ => unreachable!("the key is a known one"),
                            }
                        }
                        Ok($Name { $($field: match $field {
                            Some(value) => value,
                            None => $crate::settings::define::or_default!($field $(, $default)?),
                        },)* })
                    }
                    $($crate::settings::define::shorthand!($Name, $short);)?
                }
                const KEYS: &[&str] = &[$(stringify!($field)),*];
                settings.deserialize_struct(stringify!($Name), KEYS, Table)
            }
        }
    };
}
pub(crate) use settings;

/// The default of a setting, or an error that it is missing.
macro_rules! or_default {
    ($field:ident) => {
        return Err(serde::de::Error::missing_field(stringify!($field)))
    };
    ($field:ident, $default:expr) => {
        $default
    };
}
pub(crate) use or_default;

/// Returns true if the values of a setting are numbers.
pub(crate) fn is_number<S: Settings>(key: &str) -> bool {
    S::kind_of(&[key]).is_some_and(|kind| kind.ends_with(" number") || kind.ends_with(" integer"))
}

/// Reads the value of one setting in place of a table.
macro_rules! shorthand {
    ($Name:ident, $short:ident) => {
        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<$Name, E> {
            $crate::settings::define::shorthand!(@read $short, value)
        }
        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<$Name, E> {
            $crate::settings::define::shorthand!(@read $short, value)
        }
        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<$Name, E> {
            $crate::settings::define::shorthand!(@read $short, value)
        }
        fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<$Name, E> {
            if $crate::settings::define::is_number::<$Name>(stringify!($short)) {
                return Err(E::invalid_type(serde::de::Unexpected::Str(value), &self));
            }
            $crate::settings::define::shorthand!(@read $short, value)
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, values: A) -> Result<$Name, A::Error> {
            if $crate::settings::define::is_number::<$Name>(stringify!($short)) {
                return Err(serde::de::Error::invalid_type(serde::de::Unexpected::Seq, &self));
            }
            let value = serde::de::value::SeqAccessDeserializer::new(values);
            $crate::settings::define::shorthand!(@read $short, value)
        }
    };
    (@read $short:ident, $value:expr) => {{
        let one = std::iter::once((stringify!($short), $value));
        serde::Deserialize::deserialize(serde::de::value::MapDeserializer::new(one))
    }};
}
pub(crate) use shorthand;
