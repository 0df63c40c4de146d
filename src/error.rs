//! The one error type of the library: what went wrong, where, and whose move it is.

use std::path::{Path, PathBuf};

/// One thing wrong with a configuration, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, or `--set KEY`, or the file alone.
    pub location: String,
    /// The whole sentence: what is wrong, what was expected, what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}

/// What is wrong with a setting: the key inside its table, and the sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key at fault; none means the table as a whole.
    pub key: Option<&'static str>,
    /// What is wrong, what was expected, what to do.
    pub message: String,
}

impl Fault {
    /// A fault of one key.
    pub fn at(key: &'static str, message: impl Into<String>) -> Self {
        Fault { key: Some(key), message: message.into() }
    }
    /// A fault of the table as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Fault { key: None, message: message.into() }
    }
}

/// The place of a table in the file and of each key in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locations {
    /// Location of the table as a whole.
    pub whole: String,
    /// Location of each key that the file gives.
    pub keys: Vec<(String, String)>,
}

impl Locations {
    /// Returns the problem that a fault is, at the key's place where the file gives the key.
    pub fn problem(&self, subject: &str, fault: &Fault) -> Problem {
        let given = fault.key.and_then(|key| self.keys.iter().find(|(k, _)| k == key));
        let location = given.map_or(&self.whole, |(_, location)| location).clone();
        Problem { location, message: format!("{subject}: {}", fault.message) }
    }
}

/// Everything that can go wrong in peristyle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong; every problem found in it.
    #[error("{}", join(.0))]
    Config(Vec<Problem>),
    /// A file could not be read or written.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: `read`, `write`, `create`.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file was read but its contents are not what they should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected, what to do.
        message: String,
    },
    /// The command line asks for something that cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The run started and then failed.
    #[error("{0}")]
    Run(String),
    /// The check ran and its goal was not met.
    #[error("{0}")]
    Goal(String),
}

impl Error {
    /// Wraps an operating system error with the file and the action.
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), action, source }
    }

    /// Says what is wrong with the contents of a file.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Error::File { path: path.to_path_buf(), message: message.into() }
    }

    /// Returns the sentence with its causes.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            text += &format!(": {source}");
            cause = source.source();
        }
        text
    }

    /// Returns the process exit code: 1 = ran but failed, 2 = the user's mistake.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Run(_) | Error::Goal(_) => 1,
            _ => 2,
        }
    }
}

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn join(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Returns ` (did you mean "x"?)` for the known name nearest to `name`, or nothing when none is near. A name that
/// begins with the other is near.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let begins = |long: &str, short: &str| short.len() >= 3 && long.starts_with(short);
    let apart = |k: &str| match distance(name, k) {
        d if d > 1 && (begins(name, k) || begins(k, name)) => 1,
        d => d,
    };
    let near = known.into_iter().map(|k| (apart(k), distance(name, k), k)).min();
    match near {
        Some((d, _, k)) if d <= 1 + name.len() / 4 => format!(" (did you mean \"{k}\"?)"),
        _ => String::new(),
    }
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let substitute = diagonal + usize::from(x != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_suggested() {
        assert_eq!(suggest("paddding", ["pad", "padding", "stride"]), " (did you mean \"padding\"?)");
        assert_eq!(suggest("paddding", ["pad", "stride"]), " (did you mean \"pad\"?)");
        assert_eq!(suggest("xyz", ["kernel"]), "");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
