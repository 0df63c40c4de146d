//! `peristyle predict RUN_OR_CHECKPOINT FILE.. | FOLDER | -`.

use super::output::{message, notes, print, print_json};
use crate::data::picture_files;
use crate::error::{Error, Result, printable};
use crate::train::EvaluatedWeights;
use crate::train::predictions::{Answer, Asked, ClassScores, OutputKind, Question, class_name};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Arguments of `predict`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run directory, whose newest valid checkpoint is used, or a checkpoint.
    run: PathBuf,
    /// Pictures, folders of pictures, or - to read the names of pictures from standard input, one a line.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The number of classes that are named for each picture.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Prints a JSON object for each picture, one a line.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Prints a table.
    #[arg(long)]
    csv: bool,
    /// Takes the mean over the four corners and the middle of each picture, and their mirror images.
    #[arg(long)]
    ten_crop: bool,
    /// The number of pictures that are computed at once instead of the run's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Sets a key of the run's configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Uses the weights themselves where the run also keeps their averages (train.ema).
    #[arg(long)]
    trained: bool,
    /// The devices to use instead of the run's.
    #[arg(long, value_name = "DEVICES")]
    devices: Option<String>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Csv,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let is_stream = arguments.files.iter().any(|file| file.as_os_str() == "-");
    if is_stream && arguments.files.len() > 1 {
        let message = "- reads the names of all pictures from standard input; give no other files beside it";
        return Err(Error::Usage(message.to_string()));
    }
    let files = if is_stream { Vec::new() } else { listed(&arguments.files)? };
    let mut sets = arguments.sets.clone();
    sets.extend(arguments.devices.iter().map(|devices| format!("devices.use={devices:?}")));
    sets.extend(arguments.batch.iter().map(|batch| format!("data.batch={batch}")));
    let weights = if arguments.trained { EvaluatedWeights::Trained } else { EvaluatedWeights::Averaged };
    let question = Question { sets, weights, ten_crops: arguments.ten_crop, files, is_stream };
    let mut asked = Asked::open(&arguments.run, question)?;
    notes(asked.notes());
    let form = match (arguments.json, arguments.csv) {
        (true, _) => Form::Json,
        (_, true) => Form::Csv,
        _ => Form::Text,
    };
    let mut printer = Printer { form, top: arguments.top as usize, names: asked.names(), unread: 0 };
    printer.head(asked.kind())?;
    if is_stream {
        let mut input = BufReader::new(std::io::stdin().lock());
        while let Some(names) = next_names(&mut input, asked.most())? {
            asked.answer_next(&names, &mut |path, answer| printer.print(path, &answer))?;
        }
    } else {
        asked.answer(&mut |path, answer| printer.print(path, &answer))?;
    }
    match printer.unread {
        0 => Ok(()),
        1 => Err(Error::Goal("1 picture could not be read".to_string())),
        unread => Err(Error::Goal(format!("{unread} pictures could not be read"))),
    }
}

/// Returns the given files, and the pictures in the given folders.
fn listed(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        picture_files(path, &mut files)?;
        if files.len() == before {
            return Err(Error::file(path, "has no pictures (jpg, jpeg, png); give pictures, or a folder of pictures"));
        }
    }
    Ok(files)
}

/// Returns the next names: one, and those that have arrived already, at most `most`; none at the end.
fn next_names(input: &mut BufReader<impl Read>, most: usize) -> Result<Option<Vec<PathBuf>>> {
    let mut names = Vec::new();
    while names.len() < most && (names.is_empty() || input.buffer().contains(&b'\n')) {
        let mut line = Vec::new();
        let read = input.read_until(b'\n', &mut line);
        if read.map_err(|error| Error::io(Path::new("standard input"), "read", error))? == 0 {
            break;
        }
        let name = line.strip_suffix(b"\n").unwrap_or(&line);
        let name = name.strip_suffix(b"\r").unwrap_or(name);
        if !name.is_empty() {
            names.push(PathBuf::from(OsStr::from_bytes(name)));
        }
    }
    Ok((!names.is_empty()).then_some(names))
}

/// Prints answers.
struct Printer {
    form: Form,
    top: usize,
    names: Option<Vec<String>>,
    /// The pictures that could not be read.
    unread: usize,
}

impl Printer {
    /// Prints the names of the columns of a table.
    fn head(&mut self, kind: OutputKind) -> Result<()> {
        let (prefix, count) = match kind {
            OutputKind::Classes(classes) => {
                self.top = self.top.min(classes);
                ("class", self.top)
            }
            OutputKind::Values(values) => ("output", values),
        };
        if self.form != Form::Csv {
            return Ok(());
        }
        let mut cells = vec!["file".to_string(), "error".to_string()];
        for i in 1..=count {
            match kind {
                OutputKind::Classes(_) => cells.extend([format!("{prefix}{i}"), format!("probability{i}")]),
                OutputKind::Values(_) => cells.push(format!("{prefix}{}", i - 1)),
            }
        }
        row(&cells)
    }

    fn print(&mut self, path: &Path, answer: &Answer) -> Result<()> {
        let file = path.display().to_string();
        if let Answer::Unread(reason) = answer {
            self.unread += 1;
            return match self.form {
                Form::Text => {
                    message(&format!("{file}: {reason}"));
                    Ok(())
                }
                Form::Json => print_json(&(json!({ "file": file, "error": reason }).to_string() + "\n")),
                Form::Csv => row(&[file, reason.clone()]),
            };
        }
        match (self.form, answer) {
            (Form::Text, Answer::Classes(scores)) => {
                let all =
                    self.best(scores).map(|(_, name, p)| format!("{name} {:.2} %", 100.0 * p)).collect::<Vec<_>>();
                print(&format!("{}: {}\n", printable(&file), all.join(", ")))
            }
            (Form::Json, Answer::Classes(scores)) => {
                let one = |(class, name, p): (usize, String, f32)| json!({ "class": name, "index": class, "probability": number(f64::from(p)) });
                let all: Vec<Value> = self.best(scores).map(one).collect();
                print_json(&(json!({ "file": file, "top": all }).to_string() + "\n"))
            }
            (Form::Csv, Answer::Classes(scores)) => {
                let cells = self.best(scores).flat_map(|(_, name, p)| [name, p.to_string()]);
                row(&[file, String::new()].into_iter().chain(cells).collect::<Vec<_>>())
            }
            (Form::Text, Answer::Values(values)) => {
                let all: Vec<String> = values.iter().map(|value| format!("{:.6}", *value as f32)).collect();
                print(&format!("{}: {}\n", printable(&file), all.join(", ")))
            }
            (Form::Json, Answer::Values(values)) => {
                let all: Vec<Value> = values.iter().map(|&value| number(value)).collect();
                print_json(&(json!({ "file": file, "outputs": all }).to_string() + "\n"))
            }
            (Form::Csv, Answer::Values(values)) => {
                let cells = values.iter().map(|value| (*value as f32).to_string());
                row(&[file, String::new()].into_iter().chain(cells).collect::<Vec<_>>())
            }
            (_, Answer::Unread(_)) => unreachable!("printed above"),
        }
    }

    /// Returns the best classes with their names and probabilities.
    fn best(&self, scores: &ClassScores) -> impl Iterator<Item = (usize, String, f32)> {
        let names = self.names.as_deref();
        scores
            .best(self.top)
            .into_iter()
            .map(move |class| (class, class_name(names, class), scores.probabilities()[class]))
    }
}

/// Returns a number; null if it is not finite. Floats keep the digits of f32.
fn number(value: f64) -> Value {
    (value as f32).to_string().parse::<f64>().ok().filter(|value| value.is_finite()).map_or(Value::Null, Value::from)
}

/// Prints a row of a table.
fn row(cells: &[String]) -> Result<()> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    writer.write_record(cells).expect("memory can be written");
    let bytes = writer.into_inner().expect("memory can be written");
    print_json(&String::from_utf8_lossy(&bytes))
}
