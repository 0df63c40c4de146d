//! How classes are called.

/// Returns the name of a class: its number if it has no other.
pub fn class_name(names: Option<&[String]>, class: usize) -> String {
    names.and_then(|names| names.get(class)).map_or_else(|| class.to_string(), String::clone)
}
