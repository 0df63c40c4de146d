//! The macro that defines a table of settings.

use super::table::Settings;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, Visitor};

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

/// Returns names as in a sentence: `mu, nesterov and form`.
pub(crate) fn all_of(names: &[&str]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
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
        $(#[doc = $about:literal])*
        $(#[derive($more:ident)])?
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
            $(#[doc = $about])*
            $(#[derive($more)])?
            pub struct $Name $(from $short)? {
                $(
                    $(#[doc = $doc])*
                    pub $field: $type = $default $(, in $range)? $(, unit $unit)? $(, default $described)?
                        $(, example $example)?;
                )*
            }
        }
    };
    ($(#[doc = $about:literal])* $(#[derive($more:ident)])? pub struct $($rest:tt)*) => {
        $crate::settings::define::settings! { @define $(#[doc = $about])* $(#[derive($more)])? pub struct $($rest)* }
    };
    (
        @define
        $(#[doc = $about:literal])*
        $(#[derive($more:ident)])?
        pub struct $Name:ident $(from $short:ident)? {
            $(
                $(#[doc = $doc:literal])*
                pub $field:ident: $type:ty $(= $default:expr)? $(, in $range:expr)? $(, unit $unit:literal)?
                    $(, default $described:literal)? $(, example $example:literal)?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        $(#[derive($more)])?
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $crate::settings::table::Settings for $Name {
            fn about() -> String {
                [$($about),*].map(str::trim).join(" ")
            }

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
                            Some(kind) => write!(f, "{kind}, or a table with {}", $crate::settings::define::all_of(KEYS)),
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

/// The value of a setting in place of its table, which unlike those of serde may be that of an optional setting.
pub(crate) struct OneValue<D>(pub D);

impl<'de, D: Deserializer<'de>> IntoDeserializer<'de, D::Error> for OneValue<D> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OneValue<D> {
    type Error = D::Error;
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self.0)
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

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
        let value = serde::de::IntoDeserializer::into_deserializer($value);
        let one = std::iter::once((stringify!($short), $crate::settings::define::OneValue(value)));
        serde::Deserialize::deserialize(serde::de::value::MapDeserializer::new(one))
    }};
}
pub(crate) use shorthand;
