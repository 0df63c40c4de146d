//! Patterns for the names of tensors and layers, which consist of parts between dots: `features.0.weight`.
//!
//! A pattern matches a name that it spells to the end or up to a dot, so that the name of a layer matches its tensors. A
//! `*` takes one or more characters of one part; several in a part take as few as possible, from the left.

/// A pattern: `conv1`, `conv1.weight`, `features.*`, `layer*.*.conv1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

/// How a pattern matches a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMatch<'n> {
    /// What each `*` takes.
    pub stars: Vec<&'n str>,
    /// What follows: nothing, or a dot and more.
    pub rest: &'n str,
}

impl NamePattern {
    /// Creates a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.split('.').any(str::is_empty) {
            return Err(format!("\"{text}\", expected a name or a pattern, without empty parts between dots"));
        }
        if text.contains("**") {
            return Err(format!(
                "\"{text}\", expected single stars: a * stands for a part of a name, and the rest follows"
            ));
        }
        Ok(NamePattern(text.to_string()))
    }

    /// Returns the text of the pattern.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the number of its stars.
    pub fn num_stars(&self) -> usize {
        self.0.matches('*').count()
    }

    /// Returns its place among patterns that match the same name, of which the smallest decides: that with the most characters
    /// besides stars, of equal ones that with the fewest stars.
    pub fn rank(&self) -> (isize, usize) {
        (self.num_stars() as isize - self.0.len() as isize, self.num_stars())
    }

    /// Matches a name.
    pub fn matches<'n>(&self, name: &'n str) -> Option<NameMatch<'n>> {
        let mut stars = Vec::new();
        let mut rest = name;
        for (i, part) in self.0.split('.').enumerate() {
            if i > 0 {
                rest = rest.strip_prefix('.')?;
            }
            let (own, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
            take(part, own, &mut stars)?;
            rest = after;
        }
        Some(NameMatch { stars, rest })
    }

    /// Returns this pattern with its stars replaced, followed by the rest of the name.
    fn expand(&self, found: &NameMatch) -> String {
        let mut stars = found.stars.iter();
        let parts = self.0.split_inclusive('*').map(|part| match part.strip_suffix('*') {
            Some(before) => format!("{before}{}", stars.next().copied().unwrap_or_default()),
            None => part.to_string(),
        });
        parts.chain([found.rest.to_string()]).collect()
    }
}

/// Matches one part of a name, and collects what its stars take.
fn take<'n>(pattern: &str, text: &'n str, stars: &mut Vec<&'n str>) -> Option<()> {
    let Some((first, pieces)) = pattern.split_once('*') else { return (pattern == text).then_some(()) };
    let mut rest = text.strip_prefix(first)?;
    let mut pieces = pieces.split('*').peekable();
    while let Some(piece) = pieces.next() {
        let least = rest.chars().next()?.len_utf8();
        let end = match pieces.peek() {
            Some(_) => least + rest[least..].find(piece)?,
            None => rest.strip_suffix(piece)?.len(),
        };
        if end < least {
            return None;
        }
        stars.push(&rest[..end]);
        rest = &rest[end + piece.len()..];
    }
    Some(())
}

/// Maps names in a file to names in the network. The key with the most characters besides stars decides, of equal ones that
/// with the fewest stars; a name without a key stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameMap(Vec<(NamePattern, NamePattern)>);

impl NameMap {
    /// Creates a map from pairs of a name in the file and a name in the network. The second has as many stars as the first,
    /// which take what those take, in order, or none.
    ///
    /// # Errors
    /// What is wrong with the first wrong pair.
    pub fn new(pairs: &[(String, String)]) -> Result<Self, String> {
        let pair = |(key, value): &(String, String)| {
            let (key, value) = (NamePattern::new(key)?, NamePattern::new(value)?);
            let stars = (key.num_stars(), value.num_stars());
            if stars.1 > 0 && stars.0 != stars.1 {
                return Err(format!(
                    "\"{}\" = \"{}\" has {} and {} stars, expected as many on both sides, or none on the right",
                    key.0, value.0, stars.0, stars.1
                ));
            }
            Ok((key, value))
        };
        Ok(NameMap(pairs.iter().map(pair).collect::<Result<_, _>>()?))
    }

    /// Returns the pairs.
    pub fn pairs(&self) -> &[(NamePattern, NamePattern)] {
        &self.0
    }

    /// Returns the name in the network, and the index of the pair that decides.
    ///
    /// # Errors
    /// The indices of two pairs of which neither precedes the other.
    pub fn apply(&self, name: &str) -> Result<(String, Option<usize>), [usize; 2]> {
        // The pairs that match: those that precede others first.
        let matching = self.0.iter().enumerate().filter(|(_, (key, _))| key.matches(name).is_some());
        let mut matching: Vec<_> = matching.map(|(i, (key, _))| (key.rank(), i)).collect();
        matching.sort_unstable();
        match matching.as_slice() {
            [] => Ok((name.to_string(), None)),
            [(first, i), (second, j), ..] if first == second => Err([*i, *j]),
            [(_, i), ..] => {
                let (key, value) = &self.0[*i];
                let found = key.matches(name).expect("the pair is one of those that match");
                Ok((value.expand(&found), Some(*i)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stars(pattern: &str, name: &str) -> Option<String> {
        let found = NamePattern::new(pattern).unwrap().matches(name)?;
        Some(format!("{} {}", found.stars.join(","), found.rest).trim().to_string())
    }

    #[test]
    fn a_pattern_matches_whole_parts_and_a_star_within_one() {
        for (pattern, name, expected) in [
            ("fc", "fc.weight", Some(".weight")),
            ("fc", "fc", Some("")),
            ("fc", "fc1.weight", None),
            ("fc1.weight", "fc1", None),
            ("fc.weight", "fc.weight", Some("")),
            ("fc*", "fc1.weight", Some("1 .weight")),
            ("fc*", "fc.weight", None),
            ("*.weight", "fc.weight", Some("fc")),
            ("*.weight", "head.0.weight", None),
            ("features.*", "features.10.bias", Some("10 .bias")),
            ("layer*.*.conv*", "layer1.0.conv2.weight", Some("1,0,2 .weight")),
            ("layer*.*.conv*", "layer1.conv2.weight", None),
            ("a*b*c", "a1b2b3c", Some("1,2b3")),
            ("a*b*", "abb1", Some("b,1")),
            ("*\u{e9}*", "\u{e9}\u{e9}\u{e9}", Some("\u{e9},\u{e9}")),
            ("*-*", "--", None),
        ] {
            assert_eq!(stars(pattern, name).as_deref(), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_most_specific_key_decides() {
        let pairs = [
            ("module.*", "*"),
            ("module.features.*", "conv*"),
            ("module.features.0", "stem"),
            ("module.features.0.bias", "shift.bias"),
            ("layer*.*.bn*", "b*_*_n*"),
        ];
        let map = NameMap::new(&pairs.map(|(a, b)| (a.to_string(), b.to_string()))).unwrap();
        for (name, expected, pair) in [
            ("module.fc.weight", "fc.weight", Some(0)),
            ("module.features.3.weight", "conv3.weight", Some(1)),
            ("module.features.0.weight", "stem.weight", Some(2)),
            ("module.features.0.bias", "shift.bias", Some(3)),
            ("layer1.2.bn3.running_var", "b1_2_n3.running_var", Some(4)),
            ("modules.fc.weight", "modules.fc.weight", None),
        ] {
            assert_eq!(map.apply(name).unwrap(), (expected.to_string(), pair));
        }
        let map = NameMap::new(&[("a.*", "x.*"), ("*.b", "y.*")].map(|(a, b)| (a.into(), b.into()))).unwrap();
        assert_eq!(map.apply("a.b"), Err([0, 1]));
    }

    #[test]
    fn stars_without_a_counterpart_are_rejected() {
        let map = |key: &str, value: &str| NameMap::new(&[(key.to_string(), value.to_string())]);
        assert!(map("*.features.0", "conv1").is_ok());
        assert!(map("features.0", "conv*").unwrap_err().contains("0 and 1 stars, expected as many"));
        assert!(map("*.*", "*").unwrap_err().contains("2 and 1 stars, expected as many"));
        for wrong in ["", ".", "a..b", "a.", "a**"] {
            assert!(
                map(wrong, "a").is_err() && map("a", wrong).is_err() && NamePattern::new(wrong).is_err(),
                "{wrong}"
            );
        }
    }
}
