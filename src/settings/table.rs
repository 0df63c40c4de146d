//! A table of settings.

use crate::error::Fault;

/// A setting of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its documentation: one sentence or more.
    pub doc: String,
    /// The type of its values.
    pub kind: &'static str,
    /// The range of its values, if not all are accepted.
    pub range: Option<&'static str>,
    /// The unit of its values, if they have one.
    pub unit: Option<&'static str>,
    /// The value that it has by default, or how that is chosen; `None` if the setting is required.
    pub default: Option<String>,
    /// An example of a value.
    pub example: Option<&'static str>,
}

/// A table of settings, as the `settings!` macro defines it.
pub trait Settings {
    /// Returns the documentation of the table.
    fn about() -> String
    where
        Self: Sized,
    {
        String::new()
    }

    /// Returns all settings of the table.
    fn settings() -> Vec<Setting>
    where
        Self: Sized;

    /// Returns the name of the type of the first setting with one of these keys, with its article.
    fn kind_of(_keys: &[&str]) -> Option<String>
    where
        Self: Sized,
    {
        None
    }

    /// Returns the key and value of every setting that has one.
    fn values(&self) -> Vec<(&'static str, String)>;

    /// Checks the range of each setting on its own.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check_ranges(&self) -> Result<(), Fault>;
}
