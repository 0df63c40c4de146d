//! `metrics.jsonl`: one JSON object per line, each written whole.

use super::{RunEvent, Sink};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The sink that writes events as JSON lines.
///
/// Floats are written with enough digits to be read back exactly; values that are not finite become `null`.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    line: Vec<u8>,
}

impl JsonLines {
    /// Opens a file for appending; creates it if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn append(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| Error::io(path, "open", e))?;
        Ok(JsonLines { path: path.to_path_buf(), file, line: Vec::new() })
    }
}

impl Sink for JsonLines {
    /// Writes a line with one call, so that readers see whole lines and a kill can truncate only the last one.
    fn emit(&mut self, event: &RunEvent) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event).expect("events hold text and numbers");
        self.line.push(b'\n');
        self.file.write_all(&self.line).map_err(|e| Error::io(&self.path, "write", e))
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, "write", e))
    }
}

/// The fields of a line that show when it was written.
#[derive(Deserialize)]
struct Line {
    event: String,
    step: Option<u64>,
}

impl Line {
    /// Returns true if this line was written after the checkpoint of `step`.
    fn after(&self, step: u64) -> bool {
        match self.event.as_str() {
            "end" => true,
            "start" => self.step >= Some(step),
            _ => self.step > Some(step),
        }
    }
}

/// Truncates a file of JSON lines to what had been written at the checkpoint of `step`, or to nothing.
///
/// It is truncated at the first line of a later step, of the end of the run or of another resume from the same
/// checkpoint, and before a last line that a kill truncated.
///
/// # Errors
/// When the file exists and cannot be read or truncated.
pub fn cut_back(path: &Path, step: Option<u64>) -> Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|e| Error::io(path, "open", e))?,
    };
    let mut keep = 0;
    if let Some(step) = step {
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(|e| Error::io(path, "read", e))?;
            let after = serde_json::from_slice(&line).is_ok_and(|line: Line| line.after(step));
            if after || !line.ends_with(b"\n") {
                break;
            }
            keep += bytes as u64;
        }
    }
    file.set_len(keep).map_err(|e| Error::io(path, "truncate", e))
}

#[cfg(test)]
mod tests {
    use super::super::reporter::tests::{Folder, eval, start, step};
    use super::*;
    use std::fs;

    #[test]
    fn lines_have_the_promised_fields() {
        let folder = Folder::new("fields");
        let path = folder.0.join("metrics.jsonl");
        let mut sink = JsonLines::append(&path).unwrap();
        let step = RunEvent::Step {
            step: 1,
            epoch: 0,
            loss: 0.1 + 0.2,
            lr: 0.01,
            images_per_second: f64::INFINITY,
            seconds: 1e-9,
        };
        sink.emit(&step).unwrap();
        sink.emit(&eval(1)).unwrap();
        sink.emit(&start(0)).unwrap();
        sink.emit(&RunEvent::Checkpoint { step: 5, path: "checkpoints/\"5\"\n".into() }).unwrap();
        sink.emit(&RunEvent::End { steps: 5, seconds: f64::NAN, reason: "finished".into(), error: None }).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        let expected = [
            r#"{"event":"step","step":1,"epoch":0,"loss":0.30000000000000004,"lr":0.01,"images_per_second":null,"seconds":1e-9}"#,
            r#"{"event":"eval","step":1,"split":"test","loss":0.125,"top1":0.975,"top5":1.0,"images":360}"#,
            r#"{"event":"start","name":"digits","step":0,"devices":["cpu","cpu"],"mesh":"2x1","parameters":1234,"precision":"f32","threads":2,"version":"0.1.0"}"#,
            r#"{"event":"checkpoint","step":5,"path":"checkpoints/\"5\"\n"}"#,
            r#"{"event":"end","steps":5,"seconds":null,"reason":"finished"}"#,
        ];
        assert_eq!(written.lines().collect::<Vec<_>>(), expected);
        assert!(written.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn a_resumed_file_is_cut_back_to_the_checkpoint() {
        let folder = Folder::new("cut");
        let path = folder.0.join("metrics.jsonl");
        let write = |events: &[RunEvent], torn: &str| {
            let mut sink = JsonLines::append(&path).unwrap();
            events.iter().for_each(|event| sink.emit(event).unwrap());
            sink.file.write_all(torn.as_bytes()).unwrap();
        };
        let left = |at| {
            cut_back(&path, Some(at)).unwrap();
            fs::read_to_string(&path).unwrap().lines().count()
        };
        let checkpoint = RunEvent::Checkpoint { step: 2, path: "checkpoints/step-00000002".into() };
        let end = RunEvent::End { steps: 3, seconds: 1.0, reason: "interrupted".into(), error: None };
        write(&[start(0), step(1), step(2), eval(2), checkpoint, step(3), end], "{\"event\":\"st");
        assert_eq!(left(100), 6, "the end event and the truncated line are removed");
        assert_eq!(left(2), 5);
        write(&[start(2), step(3)], "");
        assert_eq!(left(2), 5, "a resume from the same checkpoint leaves no trace");
        write(&[start(2), step(3), step(4)], "");
        assert_eq!(left(3), 7);
        assert_eq!(left(1), 2);
        cut_back(&path, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        cut_back(&folder.0.join("none"), Some(1)).unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_files_name() {
        let path = Path::new("/dev/full");
        if path.exists() {
            let error = JsonLines::append(path).unwrap().emit(&step(1)).unwrap_err();
            assert_eq!(error.to_string(), "/dev/full: cannot write");
        }
    }
}
