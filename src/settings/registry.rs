//! The macro that lists the kinds of a room: layers, transforms, schedules.

/// Lists kinds, by their keys in the file, as boxes of a trait. Each type reads its settings with serde and has
/// `examples()`, which `example => boxed` puts into boxes:
///
/// ```text
/// registry! {
///     Transform: Box<dyn Transform>, one => Box::new(one);
///     "momentum" => Momentum,
/// }
/// ```
macro_rules! registry {
    ($Trait:ident: $Example:ty, $example:pat_param => $boxed:expr; $($kind:literal => $type:ty),* $(,)?) => {
        /// The keys of all kinds.
        pub const KEYS: &[&str] = &[$($kind),*];

        /// Reads the settings of a kind. Returns `None` if there is no kind of this name.
        pub fn read<'de, D: serde::Deserializer<'de>>(
            kind: &str,
            settings: D,
        ) -> Option<Result<Box<dyn $Trait>, D::Error>> {
            match kind {
                $($kind => {
                    let read = <$type as serde::Deserialize>::deserialize(settings);
                    Some(read.map(|read| Box::new(read) as Box<dyn $Trait>))
                })*
                _ => None,
            }
        }

        /// Returns the key, the documentation and the settings of every kind.
        pub fn all_settings() -> Vec<(&'static str, String, Vec<$crate::settings::Setting>)> {
            use $crate::settings::Settings;
            vec![$(($kind, <$type as Settings>::about(), <$type as Settings>::settings())),*]
        }

        /// Returns the examples of every kind.
        pub fn all_examples() -> Vec<$Example> {
            let mut all: Vec<$Example> = Vec::new();
            $(all.extend(<$type>::examples().into_iter().map(|$example| -> $Example { $boxed }));)*
            all
        }
    };
}
pub(crate) use registry;

/// Defines a type that holds one kind of a list, and is compared by its key and its settings.
macro_rules! holder {
    ($(#[$doc:meta])* $Name:ident of $Kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $Name(pub std::sync::Arc<dyn $Kind>);

        impl std::ops::Deref for $Name {
            type Target = dyn $Kind;
            fn deref(&self) -> &Self::Target {
                &*self.0
            }
        }

        impl<K: $Kind + 'static> From<K> for $Name {
            fn from(one: K) -> Self {
                $Name(std::sync::Arc::new(one))
            }
        }

        impl PartialEq for $Name {
            fn eq(&self, other: &Self) -> bool {
                (self.key(), self.values()) == (other.key(), other.values())
            }
        }
    };
}
pub(crate) use holder;
