//! Runs of the program itself, in temporary folders.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A small network with all layers that make resuming hard, on digits of 8x8 pixels: 1,293 training samples in 13
/// batches, the last one of 93.
pub const SMALL: &str = r#"name = "small"
seed = 3

[data]
train = { idx = { images = "data/train-images-idx3-ubyte.gz", labels = "data/train-labels-idx1-ubyte.gz" } }
test = { idx = { images = "data/t10k-images-idx3-ubyte.gz", labels = "data/t10k-labels-idx1-ubyte.gz" } }
validation = 0.1
batch = 100
normalize = "standardize"
augment = [{ shift = 1 }, { rotate = 10 }]

[model]
input = [8, 8, 1]
layers = [
  { name = "conv", conv = { filters = 8, kernel = 3, pad = 1, bias = false } },
  { name = "bn", batch_norm = {} },
  "relu",
  { max_pool = { kernel = 2, stride = 2 } },
  "flatten",
  { dropout = { rate = 0.3 } },
  { name = "fc1", dense = { units = 32 } },
  "relu",
  { name = "fc2", dense = { units = 10 } },
]

[optimizer]
chain = [{ clip_by_global_norm = 5.0 }, { weight_decay = 5e-4 }, { momentum = 0.9 }]
lr = 0.02
schedule = { step = { every = "15 steps", factor = 0.7 } }

[train]
steps = 20
evaluate = "10 steps"
checkpoint = { every = "7 steps", keep = 1000 }
"#;

/// A temporary folder, removed when it is dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Creates a folder with `small.toml` and the data in `data`.
    pub fn new(name: &str) -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("peristyle-{name}-{unique}"));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        let folder = Folder(path.canonicalize().unwrap());
        std::os::unix::fs::symlink(super::file("data/digits8"), folder.at("data")).unwrap();
        folder.write("small.toml", SMALL);
        folder
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    /// Runs the program in this folder.
    pub fn run(&self, arguments: &[&str]) -> CommandOutput {
        output_of(peristyle(&self.0).args(arguments))
    }

    /// Runs the program and asserts that it succeeds.
    pub fn good(&self, arguments: &[&str]) -> CommandOutput {
        let output = self.run(arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {}", output.err);
        output
    }

    /// Trains `small.toml` in a run directory, with more arguments.
    pub fn train(&self, dir: &str, more: &[&str]) -> CommandOutput {
        self.good(&[&["train", "small.toml", "--run-dir", dir], more].concat())
    }

    /// Returns the events that a run wrote to `metrics.jsonl`.
    pub fn metrics(&self, dir: &str) -> Vec<Value> {
        let text = self.read(&format!("{dir}/metrics.jsonl"));
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
    }

    /// Returns all files of a run directory with their bytes.
    pub fn files(&self, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.at(dir)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), std::fs::read(path).unwrap());
                }
            }
        }
        files
    }

    /// Returns the bytes of a checkpoint's weights and of its optimiser state.
    pub fn checkpoint(&self, dir: &str, step: u64) -> [Vec<u8>; 2] {
        let folder = self.at(dir).join(format!("checkpoints/step-{step:08}"));
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{folder:?} {name}: {e}"));
        ["model.safetensors", "state.safetensors"].map(read)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The exit code and the output of a command.
pub struct CommandOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Returns a command that runs the program in a folder.
pub fn peristyle(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peristyle"));
    command.current_dir(folder);
    command
}

pub fn output_of(command: &mut Command) -> CommandOutput {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CommandOutput { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Copies the first photographs of each sign, so many for training and so many for tests, to `signs/train` and `signs/test`.
pub fn copy_signs(folder: &Folder, [train, test]: [usize; 2]) {
    for (part, count) in [("train", train), ("test", test)] {
        for class in 0..10 {
            let from = super::file(&format!("data/signs-folder/{part}/sign_{class}"));
            let to = folder.at(&format!("signs/{part}/sign_{class}"));
            std::fs::create_dir_all(&to).unwrap();
            let mut names: Vec<_> = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names.iter().take(count).for_each(|path| drop(std::fs::copy(path, to.join(path.file_name().unwrap()))));
        }
    }
}

/// Returns the events of a kind, without their times.
pub fn events(metrics: &[Value], kind: &str) -> Vec<Value> {
    let mut events: Vec<Value> = metrics.iter().filter(|event| event["event"] == kind).cloned().collect();
    for event in &mut events {
        let fields = event.as_object_mut().unwrap();
        fields.remove("seconds");
        fields.remove("images_per_second");
        fields.remove("input_wait");
    }
    events
}

/// Returns the losses of all steps, each of which must be reported once, in order.
pub fn losses(metrics: &[Value]) -> Vec<f64> {
    let steps = events(metrics, "step");
    let numbers: Vec<u64> = steps.iter().map(|event| event["step"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=steps.len() as u64).collect::<Vec<_>>(), "each step is reported once");
    steps.iter().map(|event| event["loss"].as_f64().unwrap()).collect()
}

pub fn assert_code(output: &CommandOutput, code: i32, parts: &[&str]) {
    assert_eq!(output.code, Some(code), "{}", output.err);
    for part in parts {
        assert!(output.err.contains(part), "no {part:?} in {}", output.err);
    }
}
