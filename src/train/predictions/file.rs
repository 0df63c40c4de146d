//! The file of predictions: CSV, or JSON Lines if its name ends with `.jsonl`.

use super::names::class_name;
use super::scores::ClassScores;
use crate::error::{Error, Result};
use crate::storage::{Fs, Replacement};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The most classes of which all probabilities are written.
const MOST_CLASSES: usize = 100;

/// A class in the file: its number, or its name where classes have names.
#[derive(Serialize)]
#[serde(untagged)]
enum ClassCell {
    Number(usize),
    Name(String),
}

impl ClassCell {
    fn new(names: Option<&[String]>, class: usize) -> Self {
        match names {
            None => ClassCell::Number(class),
            Some(_) => ClassCell::Name(class_name(names, class)),
        }
    }
}

/// The row of a sample that belongs to a class. In CSV, each probability has a column.
#[derive(Serialize)]
struct ClassRow<'a> {
    set: &'a str,
    sample: u32,
    name: String,
    label: ClassCell,
    predicted: Option<ClassCell>,
    probability: f32,
    correct: bool,
    #[serde(skip_serializing_if = "<[f32]>::is_empty")]
    probabilities: &'a [f32],
}

/// The row of a sample whose target are values. In CSV, each value has a column.
#[derive(Serialize)]
struct ValueRow<'a> {
    set: &'a str,
    sample: u32,
    name: String,
    outputs: Vec<f32>,
    targets: &'a [f32],
}

/// A file of predictions that is being written, and replaces an earlier one once it is complete.
#[derive(Debug)]
pub struct PredictionFile {
    path: PathBuf,
    file: Replacement,
    rows: Rows,
}

/// Rows that are not in the file yet.
#[derive(Debug)]
enum Rows {
    Csv { writer: Box<csv::Writer<Vec<u8>>>, has_header: bool },
    JsonLines(Vec<u8>),
}

fn writer() -> csv::Writer<Vec<u8>> {
    // Columns of numbers have no names in a row.
    csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new())
}

impl PredictionFile {
    /// Creates the file, under another name until it is complete.
    ///
    /// # Errors
    /// If its folder is missing, it is not a file, or it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let refuse = |message: String| Error::Usage(format!("{}: {message}", path.display()));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(refuse(format!(
                "there is no folder {folder}; create it, or name another file for predictions"
            )));
        }
        if path.file_name().is_none() || (path.exists() && !path.is_file()) {
            return Err(refuse("not a file, expected one for predictions; name another".to_string()));
        }
        let file = Fs::default().begin_replacement(path)?;
        let rows = match path.extension().is_some_and(|extension| extension == "jsonl") {
            true => Rows::JsonLines(Vec::new()),
            false => Rows::Csv { writer: Box::new(writer()), has_header: false },
        };
        Ok(PredictionFile { path: path.to_path_buf(), file, rows })
    }

    /// Adds the prediction of a classifier for a sample of a set, by its index in the data set.
    ///
    /// # Errors
    /// If it cannot be formatted.
    pub(super) fn add_class(
        &mut self,
        (set, sample, name): (&str, u32, String),
        scores: &ClassScores,
        label: usize,
        names: Option<&[String]>,
    ) -> Result<()> {
        let all = scores.probabilities();
        let row = ClassRow {
            set,
            sample,
            name,
            label: ClassCell::new(names, label),
            predicted: scores.class().map(|class| ClassCell::new(names, class)),
            probability: scores.confidence(),
            correct: scores.class() == Some(label),
            probabilities: if all.len() > MOST_CLASSES { &[] } else { all },
        };
        let own = ["label", "predicted", "probability", "correct"].map(String::from);
        self.add(&row, || own.into_iter().chain(numbered("p", row.probabilities.len())))
    }

    /// Adds the outputs for a sample of a set whose target are values, by its index in the data set.
    ///
    /// # Errors
    /// If it cannot be formatted.
    pub(super) fn add_values(
        &mut self,
        (set, sample, name): (&str, u32, String),
        outputs: &[f64],
        targets: &[f32],
    ) -> Result<()> {
        let outputs: Vec<f32> = outputs.iter().map(|&output| output as f32).collect();
        let widths = (outputs.len(), targets.len());
        let row = ValueRow { set, sample, name, outputs, targets };
        self.add(&row, || numbered("output", widths.0).chain(numbered("target", widths.1)))
    }

    fn add<H: Iterator<Item = String>>(&mut self, row: &impl Serialize, header: impl FnOnce() -> H) -> Result<()> {
        let added = match &mut self.rows {
            Rows::JsonLines(bytes) => {
                serde_json::to_writer(&mut *bytes, row).map(|()| bytes.push(b'\n')).map_err(|e| e.to_string())
            }
            Rows::Csv { writer, has_header } => {
                let names = ["set", "sample", "name"].map(String::from).into_iter().chain(header());
                let header = if std::mem::replace(has_header, true) { Ok(()) } else { writer.write_record(names) };
                header.and_then(|()| writer.serialize(row)).map_err(|e| e.to_string())
            }
        };
        added.map_err(|message| {
            Error::Run(format!("{}: a prediction cannot be written: {message}", self.path.display()))
        })
    }

    /// Writes the rows that have been added.
    ///
    /// # Errors
    /// If the operating system reports one.
    pub(super) fn flush(&mut self) -> Result<()> {
        let bytes = match &mut self.rows {
            Rows::JsonLines(bytes) => std::mem::take(bytes),
            Rows::Csv { writer: rows, .. } => {
                std::mem::replace(&mut **rows, writer()).into_inner().expect("a vector takes all rows")
            }
        };
        self.file.write_all(&bytes)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If the operating system reports one.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.file.finish()
    }
}

/// Returns `p0`, `p1`, ...
fn numbered(name: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |index| format!("{name}{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what a file contains after some rows; `name` is also that of the folder.
    fn written(name: &str, add: impl FnOnce(&mut PredictionFile)) -> String {
        let folder = std::env::temp_dir().join(format!("peristyle-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        let mut file = PredictionFile::create(&path).unwrap();
        add(&mut file);
        file.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        text
    }

    fn two_classes(file: &mut PredictionFile) {
        let mut scores = ClassScores::default();
        scores.read(&[0.0, 0.0]);
        file.add_class(("test", 7, "image 7".to_string()), &scores, 0, None).unwrap();
        file.flush().unwrap();
        let names = ["a, b".to_string(), "c".to_string()];
        scores.read(&[1.0, 0.0]);
        file.add_class(("test", 8, "image 8".to_string()), &scores, 1, Some(&names)).unwrap();
        scores.read(&[f64::NAN, 0.0]);
        file.add_class(("test", 9, "image 9".to_string()), &scores, 0, None).unwrap();
    }

    #[test]
    fn classes_are_rows_of_csv() {
        let expected = "set,sample,name,label,predicted,probability,correct,p0,p1\n\
                        test,7,image 7,0,0,0.5,true,0.5,0.5\n\
                        test,8,image 8,c,\"a, b\",0.7310586,false,0.7310586,0.26894143\n\
                        test,9,image 9,0,,NaN,false,NaN,NaN\n";
        assert_eq!(written("classes.csv", two_classes), expected);
    }

    #[test]
    fn classes_are_lines_of_json() {
        let text = written("classes.jsonl", two_classes);
        let expected = "{\"set\":\"test\",\"sample\":8,\"name\":\"image 8\",\"label\":\"c\",\"predicted\":\"a, b\",\
                        \"probability\":0.7310586,\"correct\":false,\"probabilities\":[0.7310586,0.26894143]}";
        assert_eq!(text.lines().nth(1), Some(expected));
        let last: serde_json::Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
        assert!(last["predicted"].is_null() && last["probability"].is_null() && last["probabilities"][0].is_null());
    }

    #[test]
    fn values_and_their_bits_survive() {
        let values = [1e-30f64, 0.1, -16_777_216.0, 3.402_823_5e38];
        let text = written("values.csv", |file| {
            file.add_values(("validation", 0, "image 0".to_string()), &values, &[0.25, 1e-45]).unwrap()
        });
        let (header, row) = text.split_once('\n').unwrap();
        assert_eq!(header, "set,sample,name,output0,output1,output2,output3,target0,target1");
        let read: Vec<u32> = row.trim().split(',').skip(3).map(|cell| cell.parse::<f32>().unwrap().to_bits()).collect();
        let bits = values.map(|value| (value as f32).to_bits());
        assert_eq!(read, [&bits[..], &[0.25f32.to_bits(), 1e-45f32.to_bits()]].concat());
        assert!(row.contains(",0.1,"), "{row}");
    }

    #[test]
    fn probabilities_of_more_than_100_classes_are_left_out() {
        let text = written("many.csv", |file| {
            let mut scores = ClassScores::default();
            scores.read(&[0.0; 101]);
            file.add_class(("test", 0, "image 0".to_string()), &scores, 0, None).unwrap();
        });
        assert!(
            text.starts_with("set,sample,name,label,predicted,probability,correct\ntest,0,image 0,0,0,0.00990"),
            "{text}"
        );
    }
}
