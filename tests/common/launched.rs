//! Runs of several processes that a launcher of MPI starts: `PERISTYLE_MPIRUN` is its command, to which `-n`, a number and the program are
//! added.

use super::runs::Folder;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A launcher waits for processes whose start the machine delays.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What a loss may take until no process is left, beyond the timeout of the watch.
pub const END: Duration = Duration::from_secs(10);

pub fn launcher() -> Vec<String> {
    let text = std::env::var("PERISTYLE_MPIRUN").expect("PERISTYLE_MPIRUN is the command of a launcher");
    text.split_whitespace().map(String::from).collect()
}

/// Returns the command that trains in several processes, in a process group of its own.
pub fn train(folder: &Folder, processes: usize, arguments: &[&str]) -> Command {
    let words = launcher();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("-n").arg(processes.to_string()).arg(env!("CARGO_BIN_EXE_peristyle")).arg("train");
    command.args(arguments).current_dir(&folder.0).process_group(0).stdin(Stdio::null());
    command
}

/// Trains to the end, and returns what was said.
pub fn good(folder: &Folder, processes: usize, arguments: &[&str]) -> String {
    let output = train(folder, processes, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// Returns the file of a folder to which a run writes what it says.
fn log_of(name: &str) -> String {
    name.replace('/', "-") + ".txt"
}

/// A run of several processes.
pub struct Running {
    launcher: Child,
    /// The run directory.
    pub dir: PathBuf,
}

/// Returns the processes that train in a run directory, by rank.
pub fn ranks(dir: &Path) -> Vec<(usize, i32)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let texts = |bytes: Vec<u8>| {
            bytes.split(|b| *b == 0).map(|s| String::from_utf8_lossy(s).into_owned()).collect::<Vec<_>>()
        };
        let command = texts(read("cmdline"));
        let is_own = command.first().is_some_and(|name| name.ends_with("peristyle"))
            && command.iter().any(|word| Path::new(word) == dir);
        let rank = texts(read("environ")).iter().find_map(|variable| {
            let (name, value) = variable.split_once('=')?;
            ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", "RANK"].contains(&name).then(|| value.parse().ok())?
        });
        let zombie = String::from_utf8_lossy(&read("stat"))
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'));
        all.extend(rank.filter(|_| is_own && !zombie).map(|rank| (rank, pid)));
    }
    all.sort_unstable();
    all
}

impl Running {
    /// Starts a long run, and waits until it trains.
    pub fn start(folder: &Folder, name: &str, processes: usize, more: &[&str]) -> Running {
        let dir = folder.at(name);
        let path = dir.display().to_string();
        let words = [
            "small.toml",
            "--devices",
            "cpu",
            "--run-dir",
            &*path,
            "--set",
            "train.steps=1000000",
            "--set",
            "train.evaluate=never",
        ];
        let log = std::fs::File::create(folder.at(&log_of(name))).unwrap();
        let mut command = train(folder, processes, &[&words[..], more].concat());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut running = Running { launcher: command.spawn().unwrap(), dir };
        let begin = Instant::now();
        let trains =
            || std::fs::read_to_string(running.dir.join("metrics.jsonl")).is_ok_and(|text| text.lines().count() > 20);
        while !trains() {
            let ended = running.launcher.try_wait().unwrap();
            let said = || std::fs::read_to_string(folder.at(&log_of(name))).unwrap_or_default();
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "{ended:?}: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// Sends a signal to a process.
    pub fn signal(&self, rank: usize, signal: &str) {
        let all = ranks(&self.dir);
        let (_, pid) =
            all.iter().find(|(own, _)| *own == rank).unwrap_or_else(|| panic!("no process {rank} in {all:?}"));
        assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
    }

    /// Waits for the end, and returns what was said.
    pub fn ends(mut self, folder: &Folder, name: &str, within: Duration) -> (Option<i32>, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.launcher.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < within + PATIENCE, "the launcher does not end: {}", folder.read(&log_of(name)));
            std::thread::sleep(Duration::from_millis(50));
        };
        let begin = Instant::now();
        while !ranks(&self.dir).is_empty() {
            assert!(begin.elapsed() < END, "processes are left: {:?}", ranks(&self.dir));
            std::thread::sleep(Duration::from_millis(50));
        }
        (status.code(), folder.read(&log_of(name)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a test that has failed.
        for (_, pid) in ranks(&self.dir) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = self.launcher.kill();
    }
}
