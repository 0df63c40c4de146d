//! Changes of settings and data between a checkpoint and the run that resumes from it. A change of what is learned, or
//! from which data, is refused unless the user allows it by its key; when, where and how fast may change freely.

use super::format_1;
use super::manifest::Info;
use crate::config::{LENGTH, learned_length, learned_settings};
use crate::data::DataRecord;
use crate::error::{Error, Result, suggest};
use std::collections::{BTreeMap, BTreeSet};

/// The keys of the sources of data. If a checkpoint knows the contents of the data, these are compared instead.
const SOURCES: [&str; 2] = ["data.train", "data.test"];

/// A setting or a data set that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key of the setting, or of the source of the data.
    pub key: String,
    /// What it was and what it is.
    pub text: String,
}

/// Returns whether a key is another one or below it.
pub fn covers(outer: &str, key: &str) -> bool {
    key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_source(key: &str) -> bool {
    SOURCES.iter().any(|source| covers(source, key))
}

/// Returns the settings in a configuration's text that affect what is learned, with the keys of a checkpoint's format. The
/// length of the run is one of them if `has_length`.
pub fn settings_like(info: &Info, text: &str, has_length: bool) -> BTreeMap<String, String> {
    let mut settings = if info.format == 1 { format_1::settings(text) } else { learned_settings(text) };
    if has_length && info.settings.keys().any(|key| LENGTH.contains(&key.as_str())) {
        settings.extend(learned_length(text));
    }
    settings
}

/// Returns every setting that affects what is learned and differs from `now`. Sources of data are left out if the
/// checkpoint knows the contents of the data.
pub fn of_settings(info: &Info, now: &BTreeMap<String, String>) -> Vec<Change> {
    let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_string();
    let keys: BTreeSet<&String> = info.settings.keys().chain(now.keys()).collect();
    let compared = keys.into_iter().filter(|key| info.data.is_none() || !is_source(key));
    // Nor is the length, unless a schedule depends on it.
    let has_length = now.keys().any(|key| LENGTH.contains(&key.as_str()));
    let compared = compared.filter(|key| has_length || !LENGTH.contains(&key.as_str()));
    // The weights that the run started from no longer matter.
    let compared = compared.filter(|key| !covers("model.from", key));
    let differ = compared.filter(|&key| info.settings.get(key) != now.get(key));
    let change = |key: &String| Change {
        key: key.clone(),
        text: format!("{} in the checkpoint, {} now", show(info.settings.get(key)), show(now.get(key))),
    };
    differ.map(change).collect()
}

/// Returns every data set whose contents differ from those that the checkpoint knows.
pub fn of_data(info: &Info, now: &DataRecord) -> Vec<Change> {
    let differences = info.data.as_ref().map_or(Vec::new(), |then| then.differences(now));
    differences.into_iter().map(|(key, text)| Change { key: key.to_string(), text }).collect()
}

/// Returns notes on changes that are allowed: by their own key, or by one that it is below.
///
/// # Errors
/// All changes that are not allowed.
pub fn allow(changes: &[Change], allowed: &[String]) -> Result<Vec<String>> {
    let (allowed, refused): (Vec<&Change>, Vec<&Change>) =
        changes.iter().partition(|change| allowed.iter().any(|key| covers(key, &change.key)));
    if refused.is_empty() {
        return Ok(allowed
            .iter()
            .map(|Change { key, text }| format!("resumed with a change: {key}: {text}"))
            .collect());
    }
    let lines: Vec<String> = refused.iter().map(|Change { key, text }| format!("\n  {key}: {text}")).collect();
    let covered = |key: &str| refused.iter().any(|other| other.key != key && covers(&other.key, key));
    let outermost = refused.iter().filter(|change| !covered(&change.key));
    // A shell takes the quotes of a layer's name away, unless they are quoted themselves.
    let word = |key: &str| if key.contains('"') { format!("'{key}'") } else { key.to_string() };
    let keys: Vec<String> = outermost.map(|change| format!(" --allow-change {}", word(&change.key))).collect();
    Err(Error::Usage(format!(
        "the checkpoint was trained with other settings or data:{}\n  to go on with the changes, add{}; to go on without \
         them, undo them; to start another run, omit --resume",
        lines.concat(),
        keys.concat()
    )))
}

/// Checks the keys that a user allows to change.
///
/// # Errors
/// A key that is not in the settings of the checkpoint nor in those of now, and covers none of them.
pub fn check_keys(allowed: &[String], info: &Info, now: &BTreeMap<String, String>) -> Result<()> {
    let known: BTreeSet<&str> = info.settings.keys().chain(now.keys()).map(String::as_str).chain(SOURCES).collect();
    for key in allowed {
        if !known.iter().any(|known| covers(key, known)) {
            let near = suggest(key, known.iter().copied());
            let message = "is not a setting that affects what is learned";
            return Err(Error::Usage(format!("--allow-change {key}: {key} {message}{near}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str) -> Change {
        Change { key: key.to_string(), text: "1 in the checkpoint, 2 now".to_string() }
    }

    #[test]
    fn a_key_covers_everything_below_it() {
        let changes = ["optimizer.lr", "optimizer.chain.momentum", "seed"].map(change);
        let keys = |keys: &[&str]| keys.iter().map(|key| key.to_string()).collect::<Vec<_>>();
        let notes = allow(&changes, &keys(&["optimizer", "seed"])).unwrap();
        assert_eq!(notes[0], "resumed with a change: optimizer.lr: 1 in the checkpoint, 2 now");
        let error = allow(&changes, &keys(&["optimizer.chain", "optimizer.l"])).unwrap_err().to_string();
        let expected = "the checkpoint was trained with other settings or data:\n  optimizer.lr: 1 in the checkpoint, 2 \
                        now\n  seed: 1 in the checkpoint, 2 now\n  to go on with the changes, add --allow-change \
                        optimizer.lr --allow-change seed; ";
        assert!(error.starts_with(expected), "{error}");
        assert!(allow(&[], &[]).unwrap().is_empty());
    }
}
