//! The target column of a CSV file: classes by number or by text, or numbers.

use super::file::{at_line, quoted};
use super::tensor_targets::LARGEST_CLASSES;
use super::{ClassNames, Labels, Subset};
use crate::error::{Result, suggest};
use crate::settings::values;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// What the target column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CsvTargets {
    /// Classes if all cells are text, or all are whole numbers of at least 0; otherwise numbers.
    Auto,
    /// Classes.
    Classes,
    /// Numbers to be predicted.
    Numbers,
}

values! {
    CsvTargets, "`auto`, `classes` or `numbers`", targets => format!("{:?}", format!("{targets:?}").to_lowercase());
}

/// The cells of the target column.
#[derive(Debug, Default)]
pub(super) struct TargetColumn {
    /// The target of each row, by its place in `texts`.
    targets: Vec<u32>,
    /// Each text in the column, with the first line that has it.
    texts: Vec<(String, u64)>,
    places: HashMap<String, u32>,
}

impl TargetColumn {
    /// Appends the cell of a row.
    pub fn add(&mut self, target: String, line: u64) {
        let place = *self.places.entry(target).or_insert_with_key(|text| {
            self.texts.push((text.clone(), line));
            self.texts.len() as u32 - 1
        });
        self.targets.push(place);
    }

    /// Returns the targets, the number of classes, and their names if they have names: those given, or all texts in order.
    pub fn labels(
        &self,
        name: &str,
        kind: CsvTargets,
        path: &Path,
        (subset, given): (Subset, Option<&[String]>),
    ) -> Result<(Labels, usize, Option<ClassNames>)> {
        let wrong = |line: u64, message: String| at_line(path, line, format!("column {}: {message}", quoted(name)));
        let first = |fits: &dyn Fn(&str) -> bool| self.texts.iter().find(|(text, _)| fits(text));
        let (text, digits) = (first(&|text| number(text).is_none()), first(&|text| number(text).is_some()));
        let by_number =
            given.is_none() && self.texts.iter().all(|(text, _)| text.bytes().all(|byte| byte.is_ascii_digit()));
        match (kind, text, digits) {
            (CsvTargets::Numbers, Some((text, line)), _) => {
                let message = "expected a finite number; correct it, or write targets = \"classes\"";
                return Err(wrong(*line, format!("{}, {message}", quoted(text))));
            }
            (CsvTargets::Auto, Some((text, line)), Some((number, other))) if given.is_none() => {
                let (text, message) = (quoted(text), "correct one of them, or write targets = \"classes\"");
                let found = format!("{text} is not a finite number, but line {other} has {number}");
                return Err(wrong(*line, format!("{found}; {message}")));
            }
            (CsvTargets::Auto, None, _) if by_number || given.is_some() => {}
            (CsvTargets::Numbers | CsvTargets::Auto, None, _) => {
                let values: Vec<f32> = self.texts.iter().filter_map(|(text, _)| number(text)).collect();
                return Ok((Labels::Values(1, self.each(&values)), 0, None));
            }
            _ => {}
        }
        let names = if by_number { None } else { Some(given.map_or_else(|| self.class_names(), ClassNames::from)) };
        let classes = match &names {
            None => self.numbered_classes().map_err(|(line, message)| wrong(line, message))?,
            Some(names) => self.named_classes(names).map_err(|(line, message)| wrong(line, message))?,
        };
        if classes.iter().all(|class| *class == classes[0])
            && (subset == Subset::Train || names.is_some() && given.is_none())
        {
            let (text, line) = &self.texts[0];
            let found = format!("all rows have the class {}, expected at least 2 classes", quoted(text));
            return Err(wrong(*line, format!("{found}; add rows of another")));
        }
        let largest = classes.iter().fold(0, |most, &class| most.max(class as usize + 1));
        let count = names.as_ref().map_or(largest, |names| names.len());
        Ok((Labels::Index(self.each(&classes)), count, names))
    }

    /// Returns the value of each row, given that of each text.
    fn each<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.targets.iter().map(|&place| values[place as usize]).collect()
    }

    /// Returns the class of each text, a number in digits; or the line of one that is too large, and what is wrong.
    fn numbered_classes(&self) -> Result<Vec<u32>, (u64, String)> {
        let class = |(text, line): &(String, u64)| {
            let class = text.parse::<u32>().ok().filter(|class| i64::from(*class) < LARGEST_CLASSES);
            class.ok_or_else(|| {
                let expected = format!("{}, expected a class number from 0 to {}", quoted(text), LARGEST_CLASSES - 1);
                (*line, format!("{expected}; correct it, or write targets = \"numbers\" to predict values"))
            })
        };
        self.texts.iter().map(class).collect()
    }

    /// Returns the class of each text, its place among the names; or the line of one that is not among them, and what is wrong.
    fn named_classes(&self, names: &[String]) -> Result<Vec<u32>, (u64, String)> {
        let places: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
        let class = |(text, line): &(String, u64)| {
            places.get(text.as_str()).copied().ok_or_else(|| {
                let (near, count) = (suggest(text, names.iter().map(String::as_str)), names.len());
                (
                    *line,
                    format!("{} is not one of the {count} classes of the training set{near}; correct it", quoted(text)),
                )
            })
        };
        self.texts.iter().map(class).collect()
    }

    /// Returns the texts of the target column, sorted: the names of the classes 0, 1, and so on.
    fn class_names(&self) -> ClassNames {
        let mut names: Vec<String> = self.texts.iter().map(|(text, _)| text.clone()).collect();
        names.sort_unstable();
        names.into()
    }
}

fn number(text: &str) -> Option<f32> {
    text.parse().ok().filter(|value: &f32| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: &[&str]) -> TargetColumn {
        let mut column = TargetColumn::default();
        cells.iter().zip(2..).for_each(|(cell, line)| column.add(cell.to_string(), line));
        column
    }

    fn targets(kind: CsvTargets, cells: &[&str]) -> Result<(Labels, usize), String> {
        let labels = column(cells).labels("y", kind, Path::new("t.csv"), (Subset::Train, None));
        labels.map(|(labels, classes, _)| (labels, classes)).map_err(|error| error.to_string())
    }

    #[test]
    fn targets_are_classes_or_numbers() {
        use CsvTargets::{Auto, Classes, Numbers};
        let index = |labels: &[u32], classes| Ok((Labels::Index(labels.to_vec()), classes));
        let values = |values: &[f32]| Ok((Labels::Values(1, values.to_vec()), 0));
        assert_eq!(targets(Auto, &["b", "c", "a", "b"]), index(&[1, 2, 0, 1], 3));
        assert_eq!(targets(Auto, &["10", "2", "2"]), index(&[10, 2, 2], 11));
        assert_eq!(targets(Auto, &["1", "-1", "1"]), values(&[1.0, -1.0, 1.0]));
        assert_eq!(targets(Auto, &["1", "2.5"]), values(&[1.0, 2.5]));
        assert_eq!(targets(Classes, &["1", "-1", "1"]), index(&[1, 0, 1], 2));
        assert_eq!(targets(Classes, &["x", "7"]), index(&[1, 0], 2));
        assert_eq!(targets(Numbers, &["3", "1", "3"]), values(&[3.0, 1.0, 3.0]));
        assert_eq!(targets(Numbers, &["3"]), values(&[3.0]));
        for (kind, cells, message) in [
            (
                Auto,
                &["1", "2.5", "abc"][..],
                "t.csv:4: column \"y\": \"abc\" is not a finite number, but line 2 has 1; correct one of them, or write \
                 targets = \"classes\"",
            ),
            (
                Numbers,
                &["1", "nan"],
                "t.csv:3: column \"y\": \"nan\", expected a finite number; correct it, or write targets = \"classes\"",
            ),
            (
                Auto,
                &["1", "65536"],
                "t.csv:3: column \"y\": \"65536\", expected a class number from 0 to 65535; correct it, or write targets = \
                 \"numbers\" to predict values",
            ),
            (
                Auto,
                &["a", "a"],
                "t.csv:2: column \"y\": all rows have the class \"a\", expected at least 2 classes; add rows of another",
            ),
        ] {
            assert_eq!(targets(kind, cells), Err(message.to_string()));
        }
        // A test set may hold one class if the classes have numbers.
        assert_eq!(
            column(&["3"]).labels("y", Auto, Path::new("t.csv"), (Subset::Test, None)).unwrap(),
            (Labels::Index(vec![3]), 4, None)
        );
    }

    #[test]
    fn a_test_set_has_the_classes_of_the_training_set() {
        let names = ["a", "b", "7"].map(String::from);
        let read = |cells: &[&str]| {
            let set = (Subset::Test, Some(&names[..]));
            column(cells).labels("y", CsvTargets::Auto, Path::new("t.csv"), set).map_err(|error| error.to_string())
        };
        assert_eq!(read(&["b", "7"]).unwrap(), (Labels::Index(vec![1, 2]), 3, Some(names[..].into())));
        assert_eq!(read(&["7"]).unwrap().0, Labels::Index(vec![2]));
        let message = "t.csv:3: column \"y\": \"c\" is not one of the 3 classes of the training set";
        assert!(read(&["a", "c"]).unwrap_err().starts_with(message), "{:?}", read(&["a", "c"]));
    }
}
