//! The names of variants: how others refer to them, and which are trained first.

use super::experiment::ExperimentVariant;
use crate::error::{Fault, is_hidden, suggest};

/// The names of all variants, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Names(pub Vec<String>);

impl Names {
    /// Checks a name: it has letters that can be seen, and no other variant has it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, index: usize) -> Result<(), Fault> {
        let name = &self.0[index];
        let wrong = |message: String| Err(Fault::at("name", message));
        if name.trim().is_empty() || name.contains(['{', '}']) || name.chars().any(is_hidden) {
            return wrong(format!("name = {name:?}, expected a name for the legend, without braces"));
        }
        match self.0[..index].iter().position(|other| other == name) {
            Some(first) => wrong(format!("name = {name:?} is that of variant {} too, expected another one", first + 1)),
            None => Ok(()),
        }
    }

    /// Finds a name that a key gives.
    ///
    /// # Errors
    /// If there is no such variant.
    pub fn find(&self, key: &'static str, name: &str) -> Result<usize, Fault> {
        self.0
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| Fault::at(key, format!("{key}: {}", self.unknown(name))))
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.0.iter().map(String::as_str).filter(|known| !known.is_empty()).collect();
        let near = suggest(name, known.iter().copied());
        format!("there is no variant \"{name}\"{near}, expected one of: {}", known.join(", "))
    }
}

/// Returns the parts of a text in braces without braces inside, with the places of the opening braces. Tables (`{ a = 1 }`) and empty ones are left out.
fn braced(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut open = None;
    for (at, c) in text.char_indices() {
        match (c, open) {
            ('{', _) => open = Some(at),
            ('}', Some(from)) => {
                found.push((from, &text[from + 1..at]));
                open = None;
            }
            _ => {}
        }
    }
    found.retain(|(_, inside)| !inside.trim().is_empty() && !inside.contains('='));
    found
}

/// Returns the indices of the variants that overrides refer to as `{NAME}`.
///
/// # Errors
/// If there is no such variant, or it is the variant itself.
pub fn references(sets: &[String], names: &Names, own: usize) -> Result<Vec<usize>, Fault> {
    let mut needs = Vec::new();
    for (_, name) in sets.iter().flat_map(|set| braced(set)) {
        let index = names.find("set", name)?;
        if index == own {
            return Err(Fault::at("set", format!("set: {{{name}}} is this variant itself, expected another one")));
        }
        if !needs.contains(&index) {
            needs.push(index);
        }
    }
    Ok(needs)
}

/// Returns an override in which each `{NAME}` is replaced, as part of a TOML string in double quotes.
pub fn filled(set: &str, replacement: impl Fn(&str) -> String) -> String {
    let mut text = set.to_string();
    for (at, name) in braced(set).into_iter().rev() {
        let path = replacement(name).replace('\\', "\\\\").replace('"', "\\\"");
        text.replace_range(at..at + name.len() + 2, &path);
    }
    text
}

/// Returns the order in which variants are trained: that of the file, but each after those that it needs. None if some of the file have mistakes.
///
/// # Errors
/// The names of variants that need each other.
pub fn order(variants: &[ExperimentVariant], count: usize) -> Result<Vec<usize>, String> {
    let mut order: Vec<usize> = Vec::new();
    if variants.len() < count {
        return Ok(order);
    }
    while order.len() < variants.len() {
        let ready = |index: &usize| {
            !order.contains(index) && variants[*index].needs.iter().all(|needed| order.contains(needed))
        };
        match (0..variants.len()).find(ready) {
            Some(next) => order.push(next),
            None => {
                let left = (0..variants.len()).filter(|index| !order.contains(index));
                let names: Vec<String> = left.map(|index| format!("\"{}\"", variants[index].name)).collect();
                return Err(names.join(", "));
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Names {
        Names(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_in_braces_are_told_from_tables() {
        let sets = ["optimizer.chain=[{ momentum = 0.9 }, { adam = {} }]", "model.from=\"{a b}/checkpoints\""];
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        assert_eq!(references(&sets, &names(&["a b", "c"]), 1).unwrap(), [0]);
        assert_eq!(filled(&sets[0], |_| unreachable!()), sets[0]);
        assert_eq!(filled(&sets[1], |name| format!("/x\"{name}")), "model.from=\"/x\\\"a b/checkpoints\"");
        assert!(references(&sets, &names(&["ab", "c"]), 1).unwrap_err().message.contains("(did you mean \"ab\"?)"));
        assert!(references(&sets, &names(&["a b", "c"]), 0).unwrap_err().message.contains("itself"));
    }
}
