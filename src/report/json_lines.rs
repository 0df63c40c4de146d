//! `metrics.jsonl`: one JSON object per line, each written whole.

use super::{RunEvent, Sink};
use crate::error::{Error, Result};
use crate::storage::{Fs, OutputFile};
use serde::Deserialize;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// The most bytes of lines that wait for room on the disk.
const MOST_PENDING: usize = 64 << 20;

/// What follows when a line cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It is an error.
    None,
    /// The line waits in memory, and is written with a later one.
    Retry,
}

/// The sink that writes events as JSON lines.
///
/// Floats are written with enough digits to be read back exactly; values that are not finite become `null`.
#[derive(Debug)]
pub struct JsonLines {
    file: OutputFile,
    /// The length of the file: whole lines.
    length: u64,
    /// Lines that are not in the file yet.
    pending: Vec<u8>,
    patience: Patience,
    /// Whether lines have been waiting since the last one that was written.
    waits: bool,
}

impl JsonLines {
    /// Opens a file for appending; creates it if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn append(fs: &Fs, path: &Path, patience: Patience) -> Result<Self> {
        let file = fs.append(path)?;
        let length = file.length()?;
        Ok(JsonLines { file, length, pending: Vec::new(), patience, waits: false })
    }

    /// Writes all pending lines with one call, so that readers see whole lines and a kill can truncate only the last one.
    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&self.pending) {
            // A part of the lines may have been written. If this fails, the next resume cuts the partial line off.
            let _ = self.file.truncate(self.length);
            return Err(error);
        }
        self.length += self.pending.len() as u64;
        self.pending.clear();
        self.waits = false;
        Ok(())
    }
}

impl Sink for JsonLines {
    fn emit(&mut self, event: &RunEvent) -> Result<()> {
        serde_json::to_writer(&mut self.pending, event).expect("events hold text and numbers");
        self.pending.push(b'\n');
        match self.flush() {
            Err(error) if self.patience == Patience::Retry && self.pending.len() < MOST_PENDING => {
                if !std::mem::replace(&mut self.waits, true) {
                    tracing::warn!("{}; lines are kept in memory until it can be written", error.with_causes());
                }
                Ok(())
            }
            written => written,
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync()
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

/// What is left of a file of JSON lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// The number of the first line that is not JSON, from 1, if there is one.
    pub damaged: Option<u64>,
    /// Whether it has the line of the checkpoint to which it was truncated.
    pub checkpoint: bool,
}

/// Truncates a file of JSON lines to what had been written at the checkpoint of `step`, or to nothing.
///
/// It is truncated at the first line of a later step, of the end of the run or of another resume from the same
/// checkpoint, and before a last line that a kill truncated. Lines that are not JSON are kept.
///
/// # Errors
/// When the file exists and cannot be read or truncated.
pub fn cut_back(fs: &Fs, path: &Path, step: Option<u64>) -> Result<Left> {
    let file = match fs.open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Left::default()),
        opened => opened.map_err(|e| Error::io(path, "open", e))?,
    };
    let (mut keep, mut left) = (0, Left::default());
    if let Some(step) = step {
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(|e| Error::io(path, "read", e))?;
            let read: Option<Line> = serde_json::from_slice(&line).ok();
            if !line.ends_with(b"\n") || read.as_ref().is_some_and(|line| line.after(step)) {
                break;
            }
            if read.is_none() {
                left.damaged = left.damaged.or(Some(number));
            }
            left.checkpoint |= read.is_some_and(|line| line.event == "checkpoint" && line.step == Some(step));
            keep += bytes as u64;
        }
    }
    let mut file = fs.append(path)?;
    if file.length()? != keep {
        file.truncate(keep)?;
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::super::reporter::tests::{Folder, eval, start, step};
    use super::*;
    use crate::layers::MetricKind;
    use crate::report::{MetricValue, RunSummary, SlowestProcess};
    use crate::storage::{Interceptor, Operation};
    use std::fs;
    use std::sync::{Arc, Mutex};

    #[test]
    fn lines_have_the_promised_fields() {
        let folder = Folder::new("fields");
        let path = folder.0.join("metrics.jsonl");
        let mut sink = JsonLines::append(&Fs::default(), &path, Patience::None).unwrap();
        let step = RunEvent::Step {
            step: 1,
            epoch: 0,
            loss: 0.1 + 0.2,
            metrics: vec![MetricValue { name: "top1".into(), value: 0.5, kind: MetricKind::Hits }],
            lr: 0.01,
            images_per_second: f64::INFINITY,
            seconds: 1e-9,
            input_wait: 0.25,
            skipped: false,
        };
        sink.emit(&step).unwrap();
        sink.emit(&eval(1)).unwrap();
        sink.emit(&start(0)).unwrap();
        sink.emit(&RunEvent::Checkpoint { step: 5, path: "checkpoints/\"5\"\n".into() }).unwrap();
        sink.emit(&RunEvent::End {
            steps: 5,
            seconds: f64::NAN,
            input_wait: 1.5,
            summary: RunSummary {
                restarts: 1,
                training_seconds: 20.5,
                total_seconds: 30.0,
                exposed_communication: Some(0.125),
                slowest: Some(SlowestProcess { process: 3, host: "node7".into(), behind: 0.125 }),
            },
            reason: "finished".into(),
            error: None,
        })
        .unwrap();
        let written = fs::read_to_string(&path).unwrap();
        let expected = [
            r#"{"event":"step","step":1,"epoch":0,"loss":0.30000000000000004,"top1":0.5,"lr":0.01,"images_per_second":null,"seconds":1e-9,"input_wait":0.25}"#,
            r#"{"event":"eval","step":1,"split":"test","loss":0.125,"top1":0.975,"top5":1.0,"images":360}"#,
            r#"{"event":"start","name":"digits","step":0,"devices":["cpu","cpu"],"mesh":"2x1","parameters":1234,"steps":10,"samples":1437,"classes":10,"seed":3,"host":"node7","processes":1,"precision":"f32","threads":2,"version":"0.1.0"}"#,
            r#"{"event":"checkpoint","step":5,"path":"checkpoints/\"5\"\n"}"#,
            r#"{"event":"end","steps":5,"seconds":null,"input_wait":1.5,"restarts":1,"training_seconds":20.5,"total_seconds":30.0,"exposed_communication":0.125,"slowest":{"process":3,"host":"node7","behind":0.125},"reason":"finished"}"#,
        ];
        assert_eq!(written.lines().collect::<Vec<_>>(), expected);
        assert!(written.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    #[test]
    fn a_resumed_file_is_cut_back_to_the_checkpoint() {
        let folder = Folder::new("cut");
        let path = folder.0.join("metrics.jsonl");
        let write = |events: &[RunEvent], torn: &str| {
            let mut sink = JsonLines::append(&Fs::default(), &path, Patience::None).unwrap();
            events.iter().for_each(|event| sink.emit(event).unwrap());
            sink.pending.extend(torn.as_bytes());
            sink.flush().unwrap();
        };
        let left = |at| {
            let left = cut_back(&Fs::default(), &path, Some(at)).unwrap();
            assert_eq!((left.checkpoint, left.damaged), (at == 2, None));
            fs::read_to_string(&path).unwrap().lines().count()
        };
        let checkpoint = RunEvent::Checkpoint { step: 2, path: "checkpoints/step-00000002".into() };
        let end = RunEvent::End {
            steps: 3,
            seconds: 1.0,
            input_wait: 0.0,
            summary: RunSummary::default(),
            reason: "interrupted".into(),
            error: None,
        };
        write(&[start(0), step(1), step(2), eval(2), checkpoint, step(3), end], "{\"event\":\"st");
        assert_eq!(left(100), 6, "the end event and the truncated line are removed");
        assert_eq!(left(2), 5);
        write(&[start(2), step(3)], "");
        assert_eq!(left(2), 5, "a resume from the same checkpoint leaves no trace");
        write(&[start(2), step(3), step(4)], "");
        assert_eq!(left(3), 7);
        assert_eq!(left(1), 2);
        write(&[], "{\"event\":\"st\0ep\"}\n{}\n");
        assert_eq!(cut_back(&Fs::default(), &path, Some(9)).unwrap(), Left { damaged: Some(3), checkpoint: false });
        cut_back(&Fs::default(), &path, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        cut_back(&Fs::default(), &folder.0.join("none"), Some(1)).unwrap();
    }

    /// Fails a number of writes, after half of the bytes of the first.
    #[derive(Debug)]
    struct Full(Mutex<usize>);

    impl Interceptor for Full {
        fn before(&self, operation: Operation) -> std::io::Result<()> {
            let mut left = self.0.lock().unwrap();
            if let Operation::Write(path, bytes) = operation
                && *left > 0
            {
                *left -= 1;
                let mut file = fs::OpenOptions::new().append(true).open(path)?;
                std::io::Write::write_all(&mut file, &bytes[..bytes.len() / 2])?;
                return Err(std::io::Error::from_raw_os_error(28));
            }
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_room_on_the_disk_and_are_written_whole() {
        let folder = Folder::new("full");
        let path = folder.0.join("metrics.jsonl");
        let full = || Fs::intercepted(Arc::new(Full(Mutex::new(2))));
        let mut sink = JsonLines::append(&full(), &path, Patience::Retry).unwrap();
        (1..=3).for_each(|i| sink.emit(&step(i)).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
        let mut sink = JsonLines::append(&full(), &path, Patience::None).unwrap();
        let error = sink.emit(&step(1)).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: cannot write", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "half a line is removed");
        assert!(sink.sync().is_err());
        sink.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
    }
}
