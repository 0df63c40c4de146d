//! Tables in text: CSV files, plain or gzip, whose first line names the columns. One column is the target; the others are
//! numbers, the features of a sample, in the order of the columns: images of shape (1, 1, D).

use super::classes::ClassCounts;
use super::csv_rows::Rows;
use super::csv_targets::TargetColumn;
use super::file::{ByteStream, at_line, quoted};
use super::{CsvTargets, DataFormat, Dataset, Description, Labels, Pixels, SourceContext, Subset};
use crate::error::{Error, Fault, Result, quantity, suggest};
use crate::settings::settings;
use std::collections::HashMap;
use std::path::PathBuf;

/// The names that a message lists.
const MOST_NAMED: usize = 8;

settings! {
    /// `{ csv = "train.csv", target = "species" }`: a table whose first line names the columns, plain or gzip. All
    /// columns but the target are numbers: images of shape [1, 1, D], in the order of the columns.
    pub struct Csv from file {
        /// The file.
        pub file: PathBuf, example "\"train.csv\"";
        /// The name of the column that is to be predicted.
        pub target: String, example "\"species\"";
        /// What the target column holds: classes, or numbers to be predicted. Whole numbers from 0 are classes by their
        /// numbers, and texts by their place in the sorted list of all texts. By default, a column of one of these holds
        /// classes, and any other column of numbers holds numbers.
        pub targets: CsvTargets = CsvTargets::Auto, example "\"numbers\"";
        /// The names of columns that are left out.
        pub ignore: Vec<String> = Vec::new(), example "[\"id\", \"comment\"]";
        /// The character between two cells.
        pub separator: String = ",".to_string(), example "\";\"";
    }
}

impl DataFormat for Csv {
    fn key(&self) -> &'static str {
        "csv"
    }
    fn check(&self) -> Result<(), Fault> {
        if self.file.as_os_str().is_empty() {
            return Err(Fault::at("file", "file = \"\", expected a file name"));
        }
        if self.separator().is_none() {
            let message =
                "expected one ASCII character that is no letter, digit, quote or line feed, such as \";\" or \"\\t\"";
            return Err(Fault::at("separator", format!("separator = {:?}, {message}", self.separator)));
        }
        for (index, name) in self.ignore.iter().enumerate() {
            let wrong = |message: &str| Err(Fault::at("ignore", format!("ignore has \"{name}\"{message}")));
            if *name == self.target {
                return wrong(", which is the target; remove it");
            }
            if self.ignore[..index].contains(name) {
                return wrong(" twice; remove one");
            }
        }
        Ok(())
    }
    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        let path = cx.base.find(&self.file)?;
        let dataset = self.read(ByteStream::open(&path)?, (cx.subset, cx.names))?;
        let classes = match &dataset.labels {
            Labels::Index(labels) => Some((path, ClassCounts::new(labels.iter().copied(), dataset.classes))),
            Labels::Dense(_) | Labels::Values(..) => None,
        };
        Ok(Description { classes, names: dataset.names.clone(), ..Description::from(dataset.header()) })
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        self.read(ByteStream::open(&cx.base.find(&self.file)?)?, (cx.subset, cx.names))
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}

impl Csv {
    fn separator(&self) -> Option<u8> {
        let &[separator] = self.separator.as_bytes() else { return None };
        let separates = separator == b'\t' || separator == b' ' || separator.is_ascii_punctuation();
        (separates && separator != b'"').then_some(separator)
    }

    fn read(&self, stream: ByteStream, set: (Subset, Option<&[String]>)) -> Result<Dataset> {
        let mut rows = Rows::new(stream, self.separator().unwrap_or(b','));
        let columns = Columns::new(self, &mut rows)?;
        let table = columns.table(&mut rows)?;
        let (labels, classes, names) = table.targets.labels(&self.target, self.targets, &rows.path, set)?;
        let data = Dataset::loaded(Pixels::F32(table.features), labels, [1, 1, columns.features.len()], classes);
        Ok(Dataset { names, ..data })
    }
}

/// The columns of a file by their places in a row.
#[derive(Debug)]
struct Columns {
    names: Vec<String>,
    target: usize,
    features: Vec<usize>,
}

impl Columns {
    fn new(settings: &Csv, rows: &mut Rows) -> Result<Self> {
        let Some(names) = rows.next()? else {
            return Err(Error::file(&rows.path, "is empty, expected a line with the names of the columns, and rows"));
        };
        let names: Vec<String> = names.into_iter().map(String::from).collect();
        let wrong = |message: String| Err(at_line(&rows.path, rows.line, message));
        let mut places = HashMap::new();
        for (place, name) in names.iter().enumerate() {
            if let Some(first) = places.insert(name.as_str(), place) {
                let (first, second) = (first + 1, place + 1);
                return wrong(format!("columns {first} and {second} are both named {}; rename one", quoted(name)));
            }
        }
        for (name, key) in settings.ignore.iter().map(|name| (name, "ignore")).chain([(&settings.target, "target")]) {
            if places.contains_key(name.as_str()) {
                continue;
            }
            let known: Vec<String> = names.iter().take(MOST_NAMED).map(|name| quoted(name)).collect();
            let more = if names.len() > known.len() { ", ..." } else { "" };
            let near = suggest(name, names.iter().map(String::as_str));
            let hint = match (names.len(), [';', '\t', ',', '|'].iter().find(|c| names[0].contains(**c))) {
                (1, Some(separator)) => format!(
                    "; its cells may be separated by another character: separator = {:?}",
                    separator.to_string()
                ),
                _ => String::new(),
            };
            let known = known.join(", ");
            return wrong(format!("{key} names {}{near}, but the columns are {known}{more}{hint}", quoted(name)));
        }
        let target = places[settings.target.as_str()];
        let is_feature = |&place: &usize| place != target && !settings.ignore.contains(&names[place]);
        let features: Vec<usize> = (0..names.len()).filter(is_feature).collect();
        if features.is_empty() {
            return wrong(
                "has no columns but the target and those in ignore, expected at least one feature".to_string(),
            );
        }
        if let Some(place) = features.iter().find(|place| names[**place].is_empty()) {
            let column = place + 1;
            return wrong(format!("column {column} has no name; name it, or leave it out with \"\" in ignore"));
        }
        Ok(Columns { names, target, features })
    }

    /// Reads all rows.
    fn table(&self, rows: &mut Rows) -> Result<Table> {
        let (mut table, mut count, mut wrong) = (Table::default(), 0, None::<Wrong>);
        let path = rows.path.clone();
        while let Some(cells) = rows.next()? {
            count += 1;
            if table.features.try_reserve(self.features.len()).is_err() {
                return Err(Error::file(
                    &path,
                    format!("needs more memory than there is after {count} rows; use fewer rows"),
                ));
            }
            let faults = self.faults(&cells, &mut table.features);
            let target = cells.get(self.target).map(|target| target.to_string());
            let line = rows.line;
            for (mistake, column, shown) in faults {
                let first = wrong.get_or_insert(Wrong { mistake, column, shown, line, rows: 0 });
                first.rows += u64::from((first.mistake, first.column) == (mistake, column));
            }
            match target {
                Some(target) if wrong.is_none() => table.targets.add(target, line),
                // The features are not used any more.
                _ => table.features.clear(),
            }
        }
        match wrong {
            Some(wrong) => Err(at_line(&path, wrong.line, self.sentence(&wrong, count))),
            None if count == 0 => {
                Err(Error::file(&path, "has the names of columns but no rows, expected at least one; add data"))
            }
            None => Ok(table),
        }
    }

    /// Appends the features of a row; returns what is wrong with it: the kind of mistake, the column, and what was found.
    fn faults(&self, cells: &[&str], features: &mut Vec<f32>) -> Vec<(Mistake, usize, String)> {
        if cells.len() != self.names.len() {
            return vec![(Mistake::Length, 0, quantity(cells.len() as u64, "cell"))];
        }
        let mut faults = Vec::new();
        for &column in &self.features {
            let value = cells[column].parse::<f32>();
            features.push(value.as_ref().copied().unwrap_or_default());
            match value {
                Ok(value) if value.is_finite() => {}
                _ if cells[column].is_empty() => faults.push((Mistake::Empty, column, String::new())),
                Ok(_) => faults.push((Mistake::NotFinite, column, quoted(cells[column]))),
                Err(_) => faults.push((Mistake::NotNumber, column, quoted(cells[column]))),
            }
        }
        if cells[self.target].is_empty() {
            faults.push((Mistake::Empty, self.target, String::new()));
        }
        faults
    }

    fn sentence(&self, wrong: &Wrong, count: u64) -> String {
        let Wrong { mistake, column, shown, rows, .. } = wrong;
        let name = quoted(&self.names[*column]);
        let (expected, so) = (self.names.len(), format!("(so in {rows} of {count} rows)"));
        match mistake {
            Mistake::Length => {
                format!("has {shown}, but the first line has {expected} {so}; correct it, or close a quote before it")
            }
            Mistake::Empty => format!("column {name} is empty {so}; fill in the cell, or remove the row"),
            Mistake::NotFinite => {
                format!("column {name}: {shown}, expected a finite number {so}; correct it, or remove the row")
            }
            Mistake::NotNumber => {
                format!(
                    "column {name}: {shown} is not a number {so}; correct it, or leave the column out: ignore = [{name}]"
                )
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    Length,
    Empty,
    NotNumber,
    NotFinite,
}

/// The first mistake in a file, and the number of rows that have the same one in the same column.
#[derive(Debug)]
struct Wrong {
    mistake: Mistake,
    column: usize,
    shown: String,
    line: u64,
    rows: u64,
}

/// The rows of a file.
#[derive(Debug, Default)]
struct Table {
    features: Vec<f32>,
    targets: TargetColumn,
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn settings() -> Csv {
        let (file, target, separator) = (PathBuf::from("t.csv"), "y".to_string(), ",".to_string());
        Csv { file, target, targets: CsvTargets::Auto, ignore: Vec::new(), separator }
    }

    fn read(settings: &Csv, bytes: &[u8]) -> Result<Dataset> {
        settings.check().unwrap();
        settings.read(ByteStream::of("t.csv", bytes)?, (Subset::Train, None))
    }

    #[test]
    fn features_are_the_other_columns_in_their_order() {
        let expected = Pixels::F32(vec![1.5, -2.0, 3e-7, 4.0]);
        let texts: [&[u8]; 5] = [
            b"a,y,b\n1.5,cat,-2\n3e-7,ant,4\n",
            b"\xef\xbb\xbfa,y,b\r\n1.5,cat,-2\r\n\r\n3e-7,ant,4",
            b"a,y,b\r1.5, cat ,-2\r3e-7,\"ant\",\"4\"\r",
            b"\n\na , y,b\n\"1.5\",cat,-2.0\n +3e-7,ant,4.\n\n",
            b"a,y,b\n1.5,cat,-2\n3e-7,ant,4\n\n\n",
        ];
        for text in texts {
            let data = read(&settings(), text).unwrap();
            assert_eq!((data.shape, data.classes, &data.labels), ([1, 1, 2], 2, &Labels::Index(vec![1, 0])));
            assert_eq!(data.all_pixels().unwrap(), expected);
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(texts[0]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(read(&settings(), &packed).unwrap(), read(&settings(), texts[0]).unwrap());
        let error = read(&settings(), &packed[..packed.len() - 9]).unwrap_err().to_string();
        assert!(error.starts_with("t.csv: damaged gzip file"), "{error}");

        let other = Csv { separator: "\t".into(), ignore: vec!["b".into(), String::new()], ..settings() };
        let data = read(&other, b"\tb\ty\ta\n1\tx, z\t0\t5\n2\t\"\n\"\t1\t6\n").unwrap();
        assert_eq!(data.all_pixels().unwrap(), Pixels::F32(vec![5.0, 6.0]));
    }

    #[test]
    fn mistakes_are_named_with_line_and_column() {
        let long = format!("width,y\n{},1\n", "z".repeat(50));
        for (text, message) in [
            (
                &b"width,y\n1,a\n\n\n\"2\",b\nabc,b\n3,a\nx,a\n,a\n"[..],
                "t.csv:6: column \"width\": \"abc\" is not a number (so in 2 of 6 rows); correct it, or leave the column out: \
                 ignore = [\"width\"]",
            ),
            (
                b"width,y\r\n1,a\r\n\r\n-inf,a\r\n",
                "t.csv:4: column \"width\": \"-inf\", expected a finite number (so in 1 of 2 rows); correct it, or remove the row",
            ),
            (
                b"width,y\n1e39,a\n",
                "t.csv:2: column \"width\": \"1e39\", expected a finite number (so in 1 of 1 rows); correct it, or remove the row",
            ),
            (
                b"width,y\n1,a\n ,a\n,b",
                "t.csv:3: column \"width\" is empty (so in 2 of 3 rows); fill in the cell, or remove the row",
            ),
            (
                b"width,y\n1,\n2,b",
                "t.csv:2: column \"y\" is empty (so in 1 of 2 rows); fill in the cell, or remove the row",
            ),
            (
                b"width,y\n1,a\n2\n3,b,c\n",
                "t.csv:3: has 1 cell, but the first line has 2 (so in 2 of 3 rows); correct it, or close a quote before it",
            ),
            (
                b"width,y\n\"1,a\n2,b\n",
                "t.csv:2: has 1 cell, but the first line has 2 (so in 1 of 1 rows); correct it, or close a quote before it",
            ),
            (
                b"width,y\n\"1\n2\",b\n\n1,\"\n\"\n",
                "t.csv:2: column \"width\": \"1\\u{a}2\" is not a number (so in 1 of 2 rows); correct it, or leave the column out: ignore = [\"width\"]",
            ),
            (
                b"width,z\n1,2\n",
                "t.csv:1: target names \"y\" (did you mean \"z\"?), but the columns are \"width\", \"z\"",
            ),
            (
                b"width;y\n1;2\n",
                "t.csv:1: target names \"y\", but the columns are \"width;y\"; its cells may be separated by another character: separator = \";\"",
            ),
            (b"a,y,a\n1,2,3\n", "t.csv:1: columns 1 and 3 are both named \"a\"; rename one"),
            (b",y\n1,2\n", "t.csv:1: column 1 has no name; name it, or leave it out with \"\" in ignore"),
            (b"y\n1\n", "t.csv:1: has no columns but the target and those in ignore, expected at least one feature"),
            (b"a,y\n", "t.csv: has the names of columns but no rows, expected at least one; add data"),
            (b"\n", "t.csv: is empty, expected a line with the names of the columns, and rows"),
            (b"a,y\n1,b\xff\n", "t.csv:2: is not UTF-8 text; save the file as UTF-8, or give a CSV file"),
            (
                long.as_bytes(),
                "t.csv:2: column \"width\": \"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz...\" is not a number (so in 1 of 1 rows); correct it, or leave the column out: ignore = [\"width\"]",
            ),
        ] {
            assert_eq!(read(&settings(), text).unwrap_err().to_string(), message);
        }
        let other = Csv { ignore: vec!["widht".into()], ..settings() };
        let error = read(&other, b"width,y\n1,2\n").unwrap_err().to_string();
        let expected =
            "t.csv:1: ignore names \"widht\" (did you mean \"width\"?), but the columns are \"width\", \"y\"";
        assert_eq!(error, expected);
    }

    #[test]
    fn settings_without_effect_are_refused() {
        let wrong = |csv: Csv| csv.check().unwrap_err().message;
        let ignore = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        assert_eq!(
            wrong(Csv { ignore: ignore(&["y"]), ..settings() }),
            "ignore has \"y\", which is the target; remove it"
        );
        assert_eq!(wrong(Csv { ignore: ignore(&["a", "a"]), ..settings() }), "ignore has \"a\" twice; remove one");
        for separator in ["", ";;", "a", "\"", "\n", "\u{b7}"] {
            assert!(wrong(Csv { separator: separator.into(), ..settings() }).contains("expected one ASCII character"));
        }
    }
}
