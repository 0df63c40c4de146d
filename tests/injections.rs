//! Faults in jobs of several processes, one after another: every job ends, says which process is to blame, and leaves no process behind.
//! `PERISTYLE_INJECTIONS` is their number, 10 unless it is set; PERISTYLE_MPIRUN is as in tests/mpi.rs.

mod common;

use common::launched::{END, PATIENCE, Running, launcher, ranks};
use common::runs::Folder;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROCESSES: usize = 3;

/// A fault of one process.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    Stopped,
    /// Its connection with process 0, or that of process 0 with another, is shut.
    Disconnected,
    /// The disk of process 0 is full.
    FullDisk,
    /// It is started with another setting.
    OtherConfig,
    /// It is another build of the program.
    OtherBinary,
    /// It reads other data.
    OtherData,
    /// It has no library of MPI.
    NoLibrary,
}

const FAULTS: [Fault; 8] = [
    Fault::Killed,
    Fault::Stopped,
    Fault::Disconnected,
    Fault::FullDisk,
    Fault::OtherConfig,
    Fault::OtherBinary,
    Fault::OtherData,
    Fault::NoLibrary,
];

/// Shuts the connections between two processes, whose ids are the arguments, by taking over a socket of the first.
const SHUT: &str = r#"
import ctypes, os, re, socket, sys
first, second = map(int, sys.argv[1:])
def inodes(pid):
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        match = re.fullmatch(r"socket:\[(\d+)\]", link)
        if match:
            found[match[1]] = int(fd)
    return found
ends = {}
for name in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
        words = line.split()
        if words[3] == "01":
            port = lambda end: int(end.rsplit(":")[1], 16)
            ends[words[9]] = (port(words[1]), port(words[2]))
mine = {ends[inode]: fd for inode, fd in inodes(first).items() if inode in ends}
theirs = {ends[inode] for inode in inodes(second) if inode in ends}
shut = 0
for (local, remote), fd in mine.items():
    if (remote, local) in theirs:
        libc = ctypes.CDLL(None, use_errno=True)
        own = libc.syscall(438, os.pidfd_open(first), fd, 0)
        assert own >= 0, os.strerror(ctypes.get_errno())
        socket.socket(fileno=own).shutdown(socket.SHUT_RDWR)
        shut += 1
assert shut, (mine, theirs)
"#;

/// The arguments of a run in a folder.
fn arguments(folder: &Folder, name: &str, more: &[&str]) -> Vec<String> {
    let path = folder.at(name).display().to_string();
    let fixed = ["--devices", "cpu", "--set", "cluster.start_timeout=\"8 s\"", "--set", "train.steps=1000000"];
    let words = [&["train", "small.toml", "--run-dir", &*path][..], &fixed, more].concat();
    words.into_iter().map(String::from).collect()
}

/// Runs a job of which one process differs to its end; returns its exit code and what it said.
fn differing(folder: &Folder, name: &str, process: usize, program: &[&str], more: &[&str]) -> (Option<i32>, String) {
    let words = launcher();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let usual = [env!("CARGO_BIN_EXE_peristyle")];
    let parts = [(process, &usual[..], &[][..]), (1, program, more), (PROCESSES - 1 - process, &usual, &[])];
    let mut first = true;
    for (count, program, more) in parts.into_iter().filter(|(count, ..)| *count > 0) {
        if !std::mem::take(&mut first) {
            command.arg(":");
        }
        command.args(["-n", &count.to_string()]).args(program).args(arguments(folder, name, more));
    }
    let log = std::fs::File::create(folder.at(&format!("{name}.txt"))).unwrap();
    command.current_dir(&folder.0).process_group(0).stdin(Stdio::null());
    let mut child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > PATIENCE {
            let said = folder.read(&format!("{name}.txt"));
            let _ = child.kill();
            panic!("{name} does not end: {said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    none_left(&folder.at(name));
    (status.code(), folder.read(&format!("{name}.txt")))
}

fn none_left(dir: &Path) {
    let begin = Instant::now();
    while !ranks(dir).is_empty() {
        assert!(begin.elapsed() < END, "processes are left: {:?}", ranks(dir));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Writes a copy of the program that counts as another build.
fn other_binary(folder: &Folder) -> String {
    let path = folder.at("bin/peristyle");
    if !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_peristyle"), &path).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"another").unwrap();
    }
    path.display().to_string()
}

/// Writes data as those of the folder, but with the labels of other images.
fn other_data(folder: &Folder) -> String {
    let images = "data/t10k-images-idx3-ubyte.gz";
    format!("data.train={{ idx = {{ images = \"{images}\", labels = \"data/t10k-labels-idx1-ubyte.gz\" }} }}")
        .replace("data/", &format!("{}/data/", folder.0.display()))
}

/// A small file system in memory, unmounted when it is dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=300k", "tmpfs"]).arg(at).status().unwrap();
        assert!(mount.success(), "a full disk needs root");
        SmallDisk(at.to_path_buf())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Injects a fault into a process of a job; returns the exit code, what was said, and what of it is expected.
fn inject(
    folder: &Folder,
    name: &str,
    fault: Fault,
    process: usize,
    pause: Duration,
) -> (Option<i32>, String, Vec<String>) {
    let blamed = |rank: usize, why: &str| vec![format!("process {rank} (host "), why.to_string()];
    let start = |dir: &str, more: &[&str]| {
        let running = Running::start(folder, dir, PROCESSES, &[&["--set", "cluster.timeout=\"4 s\""], more].concat());
        std::thread::sleep(pause);
        running
    };
    let usual = env!("CARGO_BIN_EXE_peristyle");
    // Others are compared with process 0.
    let differs = |what: &str| vec![what.to_string(), format!("in process {}", if process == 0 { 1 } else { process })];
    match fault {
        Fault::Killed | Fault::Stopped => {
            let running = start(name, &[]);
            let (signal, why) = match fault {
                Fault::Killed => ("KILL", "was lost: its connection"),
                _ => ("STOP", "heard nothing of it for"),
            };
            running.signal(process, signal);
            let (code, said) = running.ends(folder, name, END);
            (code, said, blamed(process, why))
        }
        Fault::Disconnected => {
            let running = start(name, &[]);
            let pids = ranks(&running.dir);
            // Process 0 and another see the end of their connection; each blames the other.
            let (first, second) = (pids[process].1, pids[if process == 0 { 1 } else { 0 }].1);
            let mut script = Command::new("python3");
            let output = script.args(["-c", SHUT]).args([first.to_string(), second.to_string()]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let (code, said) = running.ends(folder, name, END);
            let named: Vec<&str> =
                said.split("the job ends: process ").skip(1).filter_map(|text| text.split(' ').next()).collect();
            let ends = [process, if process == 0 { 1 } else { 0 }].map(|rank| rank.to_string());
            assert!(named.iter().all(|rank| ends.iter().any(|end| end == rank)), "{ends:?}: {said}");
            (code, said, vec!["was lost: its connection".to_string()])
        }
        Fault::FullDisk => {
            let disk = SmallDisk::new(&folder.at(&format!("{name}-disk")));
            let run = format!("{name}-disk/run");
            let often = "train.checkpoint={ every = \"5 steps\", keep = 1000, on_error = \"stop\" }";
            let running = start(&run, &["--set", often]);
            let (code, said) = running.ends(folder, &run, END);
            drop(disk);
            (code, said, vec![format!("{run}/"), "No space left".to_string()])
        }
        Fault::OtherConfig => {
            let (code, said) = differing(folder, name, process, &[usual], &["--set", "optimizer.lr=0.3"]);
            (code, said, differs("optimizer.lr: "))
        }
        Fault::OtherBinary => {
            let (code, said) = differing(folder, name, process, &[&*other_binary(folder)], &[]);
            (code, said, differs("the build of peristyle: "))
        }
        Fault::OtherData => {
            let data = other_data(folder);
            let (code, said) = differing(folder, name, process, &[usual], &["--set", &*data]);
            (code, said, differs("the training data: "))
        }
        Fault::NoLibrary => {
            let program = ["env", "PERISTYLE_MPI=/nowhere/libmpi.so", usual];
            let (code, said) = differing(folder, name, process, &program, &[]);
            (code, said, vec![format!("process {process}: PERISTYLE_MPI=/nowhere/libmpi.so cannot be used")])
        }
    }
}

#[test]
#[ignore = "needs a launcher of MPI and root; .ci/run has them"]
fn every_fault_ends_the_job_and_is_named() {
    let folder = Folder::new("injections");
    let count = std::env::var("PERISTYLE_INJECTIONS").map_or(10, |count| count.parse().unwrap());
    let (mut failures, mut state) = (String::new(), 1_u64);
    for number in 0..count {
        let (fault, process) = (FAULTS[number % FAULTS.len()], (number / FAULTS.len() + number) % PROCESSES);
        // Numbers that look random, the same in every run.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pause = Duration::from_millis((state >> 33) % 1500);
        let name = format!("{number}-{fault:?}-{process}");
        let begin = Instant::now();
        let (code, said, expected) = inject(&folder, &name, fault, process, pause);
        println!("{name} after {pause:?}: exit code {code:?} in {:.1} s", begin.elapsed().as_secs_f64());
        if code == Some(0) || !expected.iter().all(|part| said.contains(part)) {
            let _ = writeln!(failures, "{name}: exit code {code:?}, expected {expected:?}:\n{said}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
