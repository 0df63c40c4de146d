//! Faults that `peristyle chaos` injects into a child process: one operation is logged, fails, or ends the process.

use super::fs::{Fs, Interceptor, Operation};
use signal_hook::low_level::raise;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that holds the fault.
pub const VARIABLE: &str = "PERISTYLE_FAULT";

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The process gets a signal; SIGKILL ends it before the operation.
    Signal(i32),
    /// The operation fails with an error of the operating system.
    Error(i32),
    /// This operation and all later ones that write fail, because the disk is full.
    Full,
}

/// A fault at one operation of a run, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InjectedFault {
    /// What happens.
    pub kind: FaultKind,
    /// The number of the operation.
    pub at: u64,
}

impl std::fmt::Display for InjectedFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            FaultKind::Signal(signal) => write!(f, "signal:{signal}@{}", self.at),
            FaultKind::Error(code) => write!(f, "error:{code}@{}", self.at),
            FaultKind::Full => write!(f, "full@{}", self.at),
        }
    }
}

impl InjectedFault {
    fn parse(text: &str) -> Option<InjectedFault> {
        let (kind, at) = text.split_once('@')?;
        let kind = match kind.split_once(':') {
            Some(("signal", number)) => FaultKind::Signal(number.parse().ok()?),
            Some(("error", code)) => FaultKind::Error(code.parse().ok()?),
            None if kind == "full" => FaultKind::Full,
            _ => return None,
        };
        Some(InjectedFault { kind, at: at.parse().ok()? })
    }
}

#[derive(Debug)]
enum Injector {
    /// Writes the name of every operation to a file.
    Log(File),
    At(InjectedFault, AtomicU64),
}

impl Interceptor for Injector {
    fn before(&self, operation: Operation) -> io::Result<()> {
        let (fault, count) = match self {
            Injector::Log(file) => return writeln!(&*file, "{}", name(&operation)),
            Injector::At(fault, count) => (fault, count.fetch_add(1, Ordering::SeqCst) + 1),
        };
        use Operation::{Create, CreateFolder, SyncFile, SyncFolder, Write};
        let writes = matches!(operation, Create(_) | CreateFolder(_) | Write(..) | SyncFile(_) | SyncFolder(_));
        match fault.kind {
            FaultKind::Full if count >= fault.at && writes => Err(io::Error::from_raw_os_error(28)),
            FaultKind::Signal(number) if count == fault.at => {
                let _ = raise(number);
                Ok(())
            }
            FaultKind::Error(code) if count == fault.at => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        }
    }
}

/// Returns the first word of an operation.
fn name(operation: &Operation) -> String {
    format!("{operation:?}").split('(').next().unwrap_or_default().to_string()
}

impl Fs {
    /// Returns the file system of this process, with the fault that its environment names.
    pub fn of_process() -> Fs {
        let Ok(text) = std::env::var(VARIABLE) else { return Fs::default() };
        let injector = match text.strip_prefix("log:") {
            Some(path) => OpenOptions::new().create(true).append(true).open(Path::new(path)).ok().map(Injector::Log),
            None => InjectedFault::parse(&text).map(|fault| Injector::At(fault, AtomicU64::new(0))),
        };
        injector.map_or_else(Fs::default, |injector| Fs::intercepted(Arc::new(injector)))
    }
}
