//! The error type of the library: what went wrong, where, and whether the user can fix it.

use std::path::{Path, PathBuf};

/// The number of problems that are printed; the others are counted.
pub const MOST_LISTED: usize = 50;
/// The longest name that is compared with others, in bytes.
const LONGEST_NAME: usize = 256;

/// A problem in a configuration, with its location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, `--set KEY`, or the name of the file.
    pub location: String,
    /// The whole sentence: what is wrong, what was expected, what to do.
    pub message: String,
}

/// The problems of a configuration, and what could not be checked because of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// What is wrong, in the order of the file. The first [`MOST_LISTED`] are printed.
    pub found: Vec<Problem>,
    /// What was not checked yet; printed after them.
    pub unchecked: Vec<Problem>,
}

impl From<Vec<Problem>> for Problems {
    fn from(found: Vec<Problem>) -> Self {
        Problems { found, unchecked: Vec::new() }
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = self.found.len().saturating_sub(MOST_LISTED);
        let found = self.found.iter().take(MOST_LISTED).map(Problem::to_string);
        let more = (more > 0).then(|| format!("and {}", quantity(more as u64, "more problem")));
        let unchecked = self.unchecked.iter().map(Problem::to_string);
        f.write_str(&found.chain(more).chain(unchecked).collect::<Vec<_>>().join("\n"))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", printable(&self.location), printable(&self.message))
    }
}

/// A problem with a setting: its key and the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key at fault; `None` means the table as a whole.
    pub key: Option<&'static str>,
    /// What is wrong, what was expected, what to do.
    pub message: String,
}

impl Fault {
    /// Creates a fault of one key.
    pub fn at(key: &'static str, message: impl Into<String>) -> Self {
        Fault { key: Some(key), message: message.into() }
    }
    /// Returns the fault under another name of its key, with which the message begins.
    pub fn renamed(self, name: &str) -> Self {
        let rest = self.key.and_then(|key| self.message.strip_prefix(key));
        Fault { message: rest.map_or(self.message.clone(), |rest| format!("{name}{rest}")), key: self.key }
    }
    /// Checks a setting that must be finite and above 0.
    ///
    /// # Errors
    /// A fault of the setting if it is not.
    pub fn unless_positive(key: &'static str, value: f64) -> Result<(), Fault> {
        let message = || format!("{key} = {value}, expected a finite number above 0");
        if value > 0.0 && value.is_finite() { Ok(()) } else { Err(Fault::at(key, message())) }
    }
    /// Creates a fault of the table as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Fault { key: None, message: message.into() }
    }
}

/// The locations of a table and of its keys in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locations {
    /// Location of the table as a whole.
    pub whole: String,
    /// Location of each key that is in the file.
    pub keys: Vec<(String, String)>,
}

impl Locations {
    /// Turns a fault into a problem at the location of its key, or of the table if the key is not in the file.
    pub fn problem(&self, subject: &str, fault: &Fault) -> Problem {
        let given = fault.key.and_then(|key| self.keys.iter().find(|(k, _)| k == key));
        let location = given.map_or(&self.whole, |(_, location)| location).clone();
        Problem { location, message: format!("{subject}: {}", fault.message) }
    }
}

/// Everything that can go wrong in peristyle. Its text is [`printable`], whatever names, paths and values are in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong; all problems found in it.
    #[error("{0}")]
    Config(Problems),
    /// A file could not be read or written.
    #[error("{}: cannot {action}", printable(&path.display().to_string()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The action that failed, as a verb: `read`, `write`, `create`.
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file was read, but its contents are not valid.
    #[error("{}: {}", printable(&path.display().to_string()), printable(message))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected, what to do.
        message: String,
    },
    /// The command line asks for something impossible.
    #[error("{}", printable(.0))]
    Usage(String),
    /// The run started and then failed.
    #[error("{}", printable(.0))]
    Run(String),
    /// A loss, a gradient or a weight is NaN or infinite.
    #[error("{}", printable(.0))]
    NotFinite(String),
    /// A check ran, and its goal was not met.
    #[error("{}", printable(.0))]
    Goal(String),
}

impl Error {
    /// Wraps an operating system error with the file and the action.
    pub fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), action, source }
    }

    /// Creates an error about the contents of a file.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Error::File { path: path.to_path_buf(), message: message.into() }
    }

    /// Returns the message followed by its causes.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            text += &format!(": {}", printable(&source.to_string()));
            cause = source.source();
        }
        text
    }

    /// Returns both errors as one; only the one of the operating system, if there is one.
    pub fn and(self, other: Error) -> Error {
        match (self.exit_code(), other.exit_code()) {
            (1, _) => self,
            (_, 1) => other,
            _ => Error::Config([self.problems(), other.problems()].concat().into()),
        }
    }

    /// Returns what is wrong as a list: one problem, unless the error is of a configuration.
    pub fn problems(self) -> Vec<Problem> {
        let text = self.with_causes();
        match self {
            Error::Config(problems) => problems.found,
            Error::Io { path, .. } | Error::File { path, .. } => {
                let location = path.display().to_string();
                let message = text[printable(&location).len()..].trim_start_matches(": ").to_string();
                vec![Problem { location, message }]
            }
            _ => vec![Problem { location: "the data".to_string(), message: text }],
        }
    }

    /// Returns the process exit code: 1 = ran but failed, 2 = a user mistake. An error of the operating system is a failure
    /// unless the path is wrong.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Run(_) | Error::NotFinite(_) | Error::Goal(_) => 1,
            Error::Io { source, .. } if !Self::is_mistake(source) => 1,
            _ => 2,
        }
    }

    /// Returns whether an error of the operating system comes from a wrong path.
    pub fn is_mistake(error: &std::io::Error) -> bool {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        matches!(error.kind(), NotFound | IsADirectory | NotADirectory)
    }
}

/// The result of any fallible function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Returns true for a control character, and for one that is invisible or reorders the text around it: Unicode's
/// categories Cc, Cf, Zl and Zp.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

/// Returns a message with every hidden character escaped, as in `\u{1b}`, so that no name, path or value in it can
/// control a terminal or look like another. A line feed stays only before an indented line, as in a list: text from
/// elsewhere cannot start a line of its own.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if is_hidden(c) && !text[at..].starts_with("\n  ") {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Writes a number as people do: `0.1`, `1000000`, `1e39`.
pub fn number(x: f64) -> String {
    let plain = x == 0.0 || !x.is_finite() || (1e-5..1e9).contains(&x.abs());
    if plain { x.to_string() } else { format!("{x:e}") }
}

/// Returns ` (did you mean "x"?)` for the known name [`nearest`] to `name`, or nothing if none is near.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or(String::new(), |near| format!(" (did you mean \"{near}\"?)"))
}

/// Returns the known name nearest to `name`, if one is near. Names that start with each other are near; nothing is near a
/// very long name.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let begins = |long: &str, short: &str| short.len() >= 3 && long.starts_with(short);
    let known = known.into_iter().filter(|k| k.len().max(name.len()) <= LONGEST_NAME);
    let apart = |k: &str| match distance(name, k) {
        d if d > 1 && (begins(name, k) || begins(k, name)) => 1,
        d => d,
    };
    let near = known.map(|k| (apart(k), distance(name, k), k.len().abs_diff(name.len()), k)).min();
    near.filter(|(d, ..)| *d <= 1 + name.len() / 4).map(|(.., k)| k)
}

/// Returns a count with its noun, in the plural unless the count is one: `1 thread`, `2 threads`.
pub fn quantity(count: u64, noun: &str) -> String {
    let plural = match noun {
        _ if count == 1 => "",
        _ if noun.ends_with("ch") || noun.ends_with("ss") => "es",
        _ => "s",
    };
    format!("{count} {noun}{plural}")
}

/// Returns the number of characters to insert, delete or replace, and of neighbours to swap, that make one text the other.
fn distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|text| text.chars().collect::<Vec<char>>());
    // Of the first i characters of a and the first j of b: the last row, and the two before it.
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect(), (0..=b.len()).collect()];
    for i in 1..=a.len() {
        rows.rotate_left(1);
        rows[2][0] = i;
        for j in 1..=b.len() {
            let replace = rows[1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[2][j] = replace.min(rows[1][j] + 1).min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[2][j] = rows[2][j].min(rows[0][j - 2] + 1);
            }
        }
    }
    rows[2][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_suggested() {
        assert_eq!(suggest("paddding", ["pad", "padding", "stride"]), " (did you mean \"padding\"?)");
        assert_eq!(suggest("paddding", ["pad", "stride"]), " (did you mean \"pad\"?)");
        assert_eq!(suggest("xyz", ["kernel"]), "");
        assert_eq!(suggest("rleu", ["elu", "relu"]), " (did you mean \"relu\"?)");
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(
            [distance("", "ab"), distance("ab", ""), distance("ab", "ba"), distance("abcd", "badc")],
            [2, 2, 1, 2]
        );
        assert_eq!(suggest(&"a".repeat(1 << 20), [&*"a".repeat(1 << 20)]), "");
    }

    #[test]
    fn hidden_characters_are_escaped_and_others_are_not() {
        for (text, shown) in [
            ("gr\u{f6}\u{df}e \u{65e5}\u{672c} e\u{301} \"\\", "gr\u{f6}\u{df}e \u{65e5}\u{672c} e\u{301} \"\\"),
            ("\u{1b}[31m \u{9b}\u{7f}\t\r", "\\u{1b}[31m \\u{9b}\\u{7f}\\u{9}\\u{d}"),
            ("a\u{202e}b\u{200b}\u{2028}\u{feff}\u{e0041}", "a\\u{202e}b\\u{200b}\\u{2028}\\u{feff}\\u{e0041}"),
            ("list:\n  a\nb\n c\n", "list:\n  a\\u{a}b\\u{a} c\\u{a}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn an_error_is_printable_and_has_a_line_for_each_problem() {
        let problem = |key: &str| Problem { location: format!("{key}.toml:1:1"), message: format!("key \"{key}\"") };
        let error = Error::Config(vec![problem("a\n"), problem("\u{1b}")].into());
        assert_eq!(error.to_string(), "a\\u{a}.toml:1:1: key \"a\\u{a}\"\n\\u{1b}.toml:1:1: key \"\\u{1b}\"");
        let path = Path::new("a\r");
        assert_eq!(Error::file(path, "b\u{7}").to_string(), "a\\u{d}: b\\u{7}");
        let cause = std::io::Error::other("c\u{8}");
        assert_eq!(Error::io(path, "read", cause).with_causes(), "a\\u{d}: cannot read: c\\u{8}");
    }

    #[test]
    fn problems_beyond_the_first_fifty_are_counted() {
        let problem = |number: usize| Problem { location: format!("a:{number}"), message: "wrong".into() };
        let found = |count: usize| (0..count).map(problem).collect::<Vec<_>>();
        let lines = |count: usize| Error::Config(found(count).into()).to_string();
        assert_eq!(lines(50).lines().count(), 50);
        assert!(lines(51).ends_with("\na:49: wrong\nand 1 more problem"));
        assert!(lines(60_000).ends_with("\na:49: wrong\nand 59950 more problems"));
        let unchecked = vec![Problem { location: "a".into(), message: "not checked".into() }];
        let error = Error::Config(Problems { found: found(52), unchecked });
        assert!(error.to_string().ends_with("\na:49: wrong\nand 2 more problems\na: not checked"));
    }

    #[test]
    fn only_one_is_singular() {
        let counts = [(0, "batch"), (1, "batch"), (2, "thread"), (3, "class")];
        let quantities = counts.map(|(count, noun)| quantity(count, noun));
        assert_eq!(quantities, ["0 batches", "1 batch", "2 threads", "3 classes"]);
    }
}
