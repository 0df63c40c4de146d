//! A key of a section: what it means, its type, range, default and an example.

/// What a key stands for if the file does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDefault {
    /// The file must have it.
    Required,
    /// This value, as in the file.
    Value(&'static str),
    /// A value that depends on other things, or none.
    Chosen(&'static str),
}

/// A key of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionKey {
    /// Its path, as `--set` takes it; `*` stands for the name of a layer.
    pub path: &'static str,
    /// The type of its values.
    pub kind: &'static str,
    /// The range of its values, as messages name it, if not all are accepted.
    pub range: Option<&'static str>,
    /// What it stands for if the file does not have it.
    pub default: KeyDefault,
    /// An example: a value.
    pub example: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// Returns a key with any value of its type.
pub(super) const fn key(
    path: &'static str,
    kind: &'static str,
    default: KeyDefault,
    example: &'static str,
    doc: &'static str,
) -> SectionKey {
    SectionKey { path, kind, range: None, default, example, doc }
}

/// Returns the same key with a range.
pub(super) const fn within(range: &'static str, key: SectionKey) -> SectionKey {
    SectionKey { range: Some(range), ..key }
}
