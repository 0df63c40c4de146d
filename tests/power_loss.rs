//! Power loss at any moment of a run: what was flushed is on the disk, and of what was not, any part may be. Every state
//! that the disk can then have is built, and the run is resumed from it.
//!
//! The model is the weakest that POSIX allows: the contents of a file are safe after it was flushed; a name is safe after
//! its folder was flushed; before that, each change of a name and each write may be on the disk or not, in any order.

use peristyle::report::{JsonLines, Patience, Reporter, cut_back};
use peristyle::storage::{Fs, Interceptor, Operation};
use peristyle::train::{DataPolicy, Ended, Job, Records, ResumeOptions, Run, Stop, checkpoint, directory};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const CONFIG: &str = r#"
[data]
train = { synthetic = { images = 10, classes = 2, shape = [2, 2, 1] } }
batch = 4
[model]
input = [2, 2, 1]
layers = ["flatten", { name = "fc", dense = { units = 2 } }]
[optimizer]
chain = [{ momentum = 0.9 }]
lr = 0.1
[devices]
threads = 1
[train]
steps = 6
checkpoint = { every = "1 steps", keep = 2 }
"#;
const STEPS: u64 = 6;

/// An operation of the run, on paths relative to the run directory.
#[derive(Debug, Clone)]
enum Step {
    Create(PathBuf),
    CreateFolder(PathBuf),
    Write(PathBuf, Vec<u8>),
    Truncate(PathBuf, u64),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug)]
struct Recorder {
    dir: PathBuf,
    steps: Mutex<Vec<Step>>,
}

impl Interceptor for Recorder {
    fn before(&self, operation: Operation) -> std::io::Result<()> {
        let inside = |path: &Path| path.strip_prefix(&self.dir).ok().map(Path::to_path_buf);
        let step = match operation {
            Operation::Create(path) => inside(path).map(Step::Create),
            Operation::CreateFolder(path) => inside(path).map(Step::CreateFolder),
            Operation::Write(path, bytes) => inside(path).map(|path| Step::Write(path, bytes.to_vec())),
            Operation::Truncate(path, len) => inside(path).map(|path| Step::Truncate(path, len)),
            Operation::SyncFile(path) => inside(path).map(Step::SyncFile),
            Operation::SyncFolder(path) => inside(path).map(Step::SyncFolder),
            Operation::Rename(from, to) => inside(from).zip(inside(to)).map(|(from, to)| Step::Rename(from, to)),
            Operation::RemoveFile(path) | Operation::RemoveFolder(path) => inside(path).map(Step::Remove),
            Operation::Read(_) | Operation::List(_) => None,
        };
        self.steps.lock().unwrap().extend(step);
        Ok(())
    }
}

/// A file or folder by number; the run directory is 0.
type Inode = usize;
/// The place of a name: its folder, and the name.
type Entry = (Inode, String);
/// A change of names, all or nothing: each place and what is there afterwards.
type Change = Vec<(Entry, Option<Inode>)>;

#[derive(Debug, Clone, Default)]
struct File {
    folder: bool,
    /// What is on the disk for certain.
    safe: Vec<u8>,
    /// What the program sees.
    seen: Vec<u8>,
}

/// A disk and what may still be in memory.
#[derive(Debug, Clone, Default)]
struct Disk {
    files: Vec<File>,
    safe: BTreeMap<Entry, Inode>,
    seen: BTreeMap<Entry, Inode>,
    pending: Vec<Change>,
}

impl Disk {
    fn new() -> Disk {
        Disk { files: vec![File { folder: true, ..File::default() }], ..Disk::default() }
    }

    fn find(&self, path: &Path) -> Inode {
        path.iter().fold(0, |folder, name| self.seen[&(folder, name.to_str().unwrap().to_string())])
    }

    fn entry(&self, path: &Path) -> Entry {
        (self.find(path.parent().unwrap()), path.file_name().unwrap().to_str().unwrap().to_string())
    }

    fn change(&mut self, change: Change) {
        for (entry, to) in &change {
            match to {
                Some(inode) => drop(self.seen.insert(entry.clone(), *inode)),
                None => drop(self.seen.remove(entry)),
            }
        }
        self.pending.push(change);
    }

    fn create(&mut self, path: &Path, folder: bool) {
        let entry = self.entry(path);
        self.files.push(File { folder, ..File::default() });
        self.change(vec![(entry, Some(self.files.len() - 1))]);
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(path) => self.create(path, false),
            Step::CreateFolder(path) => self.create(path, true),
            Step::Write(path, bytes) => {
                let inode = self.find(path);
                self.files[inode].seen.extend(bytes);
            }
            Step::Truncate(path, len) => {
                let inode = self.find(path);
                self.files[inode].seen.truncate(*len as usize);
            }
            Step::SyncFile(path) => {
                let inode = self.find(path);
                self.files[inode].safe = self.files[inode].seen.clone();
            }
            Step::SyncFolder(path) => {
                let folder = self.find(path);
                let (now, later) = std::mem::take(&mut self.pending)
                    .into_iter()
                    .partition(|c: &Change| c.iter().any(|((f, _), _)| *f == folder));
                self.pending = later;
                let now: Vec<Change> = now;
                now.iter().for_each(|change| put(&mut self.safe, change));
            }
            Step::Rename(from, to) => {
                let inode = self.find(from);
                self.change(vec![(self.entry(from), None), (self.entry(to), Some(inode))]);
            }
            Step::Remove(path) => self.change(vec![(self.entry(path), None)]),
        }
    }

    /// Returns all states of the disk after a power loss now: files by path; folders have no contents.
    fn states(&self) -> Vec<BTreeMap<PathBuf, Option<Vec<u8>>>> {
        let mut all = Vec::new();
        // More pending changes than this are not combined in all ways.
        let pending = &self.pending[self.pending.len().saturating_sub(9)..];
        let earlier = &self.pending[..self.pending.len() - pending.len()];
        for chosen in 0..1usize << pending.len() {
            let mut names = self.safe.clone();
            earlier.iter().for_each(|change| put(&mut names, change));
            for (_, change) in pending.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1) {
                put(&mut names, change);
            }
            let unsafe_files: Vec<Inode> = (0..self.files.len())
                .filter(|&i| self.files[i].safe != self.files[i].seen && names.values().any(|&inode| inode == i))
                .collect();
            for variant in 0..3usize.pow(unsafe_files.len() as u32) {
                let contents = |inode: Inode| {
                    let File { safe, seen, .. } = &self.files[inode];
                    let Some(place) = unsafe_files.iter().position(|&i| i == inode) else { return safe.clone() };
                    match variant / 3usize.pow(place as u32) % 3 {
                        0 => safe.clone(),
                        1 => seen.clone(),
                        // A part of the last write; a file that was truncated is as before.
                        _ => seen.get(..(safe.len() + seen.len()) / 2).unwrap_or(safe).to_vec(),
                    }
                };
                let mut state = BTreeMap::new();
                self.collect(0, Path::new(""), &names, &contents, &mut state);
                all.push(state);
            }
        }
        all
    }

    fn collect(
        &self,
        folder: Inode,
        path: &Path,
        names: &BTreeMap<Entry, Inode>,
        contents: &dyn Fn(Inode) -> Vec<u8>,
        state: &mut BTreeMap<PathBuf, Option<Vec<u8>>>,
    ) {
        for ((_, name), &inode) in names.iter().filter(|((of, _), _)| *of == folder) {
            let path = path.join(name);
            if self.files[inode].folder {
                state.insert(path.clone(), None);
                self.collect(inode, &path, names, contents, state);
            } else {
                state.insert(path, Some(contents(inode)));
            }
        }
    }
}

fn put(names: &mut BTreeMap<Entry, Inode>, change: &Change) {
    for (entry, to) in change {
        match to {
            Some(inode) => drop(names.insert(entry.clone(), *inode)),
            None => drop(names.remove(entry)),
        }
    }
}

/// A folder in memory if there is one, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let path = parent.join(format!("peristyle-power-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Trains in a directory to the end, from its newest checkpoint if there is one; returns the step it started from.
fn train(config: &Path, dir: &Path, fs: Fs) -> u64 {
    let (job, plan) = Job::open(config, &[], DataPolicy::Required).unwrap();
    let records = Records { dir: dir.to_path_buf(), run: "a-run".to_string(), fs: fs.clone() };
    let metrics = dir.join("metrics.jsonl");
    let (resolved, base) = (job.config.resolved.clone(), job.config.base.clone());
    let continues = checkpoint::any(&fs, dir).unwrap();
    let mut run = if continues {
        Run::resume(job, plan, records, &ResumeOptions::default()).unwrap()
    } else {
        directory::write_config(&fs, dir, "a-run", &resolved, &base, 0).unwrap();
        Run::start(job, plan, records).unwrap()
    };
    let from = run.step();
    cut_back(&fs, &metrics, continues.then_some(from)).unwrap();
    let mut reporter = Reporter::default().with(JsonLines::append(&fs, &metrics, Patience::None).unwrap());
    assert_eq!(run.train(&mut reporter, &Stop::default(), Instant::now()).unwrap(), Ended::Finished);
    from
}

/// Returns the model and state of the last checkpoint, and the losses of all steps.
fn outcome(dir: &Path) -> (Vec<Vec<u8>>, Vec<String>) {
    let last = dir.join(format!("checkpoints/step-{STEPS:08}"));
    let files = ["model.safetensors", "state.safetensors"].map(|name| std::fs::read(last.join(name)).unwrap());
    let metrics = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let losses = metrics.lines().filter(|line| line.contains("\"event\":\"step\"")).map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {}", event["step"], event["loss"])
    });
    (files.to_vec(), losses.collect())
}

fn main_run(folder: &Path) -> (PathBuf, Vec<Step>) {
    let config = folder.join("tiny.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let dir = folder.join("run");
    std::fs::create_dir(&dir).unwrap();
    let recorder = Arc::new(Recorder { dir: dir.clone(), steps: Mutex::default() });
    assert_eq!(train(&config, &dir, Fs::intercepted(recorder.clone())), 0);
    let steps = recorder.steps.lock().unwrap().clone();
    (config, steps)
}

#[test]
fn a_run_resumes_from_every_state_that_a_power_loss_can_leave() {
    let folder = Temporary::new("states");
    let (config, steps) = main_run(&folder.0);
    let expected = outcome(&folder.0.join("run"));
    assert_eq!(expected.1.len() as u64, STEPS);
    let (mut disk, mut acknowledged, mut states, mut seen) = (Disk::new(), 0, 0, HashSet::new());
    let mut resumed = [0; STEPS as usize + 1];
    for step in &steps {
        disk.apply(step);
        if let Step::Write(path, bytes) = step
            && path == Path::new("metrics.jsonl")
        {
            let text = String::from_utf8_lossy(bytes);
            if let Some((_, rest)) = text.split_once("\"event\":\"checkpoint\",\"step\":") {
                acknowledged = rest.split(',').next().unwrap().parse().unwrap();
            }
        }
        for state in disk.states() {
            states += 1;
            if !seen.insert((acknowledged, state.clone())) {
                continue;
            }
            let dir = folder.0.join("crashed");
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir(&dir).unwrap();
            for (path, contents) in &state {
                match contents {
                    None => std::fs::create_dir(dir.join(path)).unwrap(),
                    Some(bytes) => std::fs::write(dir.join(path), bytes).unwrap(),
                }
            }
            let from = train(&config, &dir, Fs::default());
            assert!(from >= acknowledged, "went back to {from} from {acknowledged}: {:?}", state.keys());
            resumed[from as usize] += 1;
            assert!(outcome(&dir) == expected, "from {from}: {:?}", state.keys());
        }
    }
    assert!(states >= 10_000, "{states} states");
    assert!(resumed.iter().all(|&times| times > 0), "{resumed:?}");
    println!("{states} states, {} different ones, resumed from step 0 and so on: {resumed:?}", seen.len());
}
