//! A process of a job.

use super::timeouts::Timeouts;
use crate::error::Fault;
use std::fmt;
use std::ops::RangeInclusive;

/// What started the processes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `[cluster]` says which process this is.
    Stated,
    /// `peristyle launch`.
    Launch,
    /// PyTorch's torchrun.
    Torchrun,
    /// A PyTorchJob of Kubeflow.
    PyTorchJob,
    /// A JobSet or an indexed Job of Kubernetes.
    JobSet,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH.
    Mpich,
    /// `srun` of Slurm.
    Slurm,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Launcher::Stated => "[cluster]",
            Launcher::Launch => "peristyle launch",
            Launcher::Torchrun => "torchrun",
            Launcher::PyTorchJob => "PyTorchJob",
            Launcher::JobSet => "JobSet",
            Launcher::OpenMpi => "Open MPI",
            Launcher::Mpich => "MPICH",
            Launcher::Slurm => "a Slurm step",
        })
    }
}

/// Where process 0 listens for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The name or the address of its host.
    pub host: String,
    /// The ports, of which it takes the first free one.
    pub ports: RangeInclusive<u16>,
}

impl Address {
    /// Returns the address of one port.
    pub fn of(host: String, port: u16) -> Self {
        Address { host, ports: port..=port }
    }
}

/// The place of a process among those of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// Its number, from 0.
    pub rank: usize,
    /// The processes of the node.
    pub processes: usize,
}

/// What `[cluster]` says of the processes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stated {
    /// The number of this process.
    pub rank: Option<usize>,
    /// The number of processes.
    pub processes: Option<usize>,
    /// The host and port at which process 0 listens: `node1:29500`.
    pub address: Option<String>,
    /// How long processes wait for each other.
    pub timeouts: Timeouts,
    /// Whether a job of Slurm is queued again after the checkpoint of a signal, or of the end of its time.
    pub requeue: bool,
}

/// A process of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number, from 0.
    pub rank: usize,
    /// The number of processes.
    pub processes: usize,
    /// Its place on its node, if that is known.
    pub local: Option<Local>,
    /// The number of its node, if that is known.
    pub node: Option<usize>,
    /// Where process 0 listens, if the launcher says so.
    pub address: Option<Address>,
    /// What tells the job from others of the same launcher, as far as it says so.
    pub job: String,
    /// How often the job has been started again.
    pub restarts: usize,
    /// What started it.
    pub launcher: Launcher,
}

impl Stated {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |key, message: String| Err(Fault::at(key, message));
        if self.processes == Some(0) {
            return wrong("processes", "processes = 0, expected at least 1".to_string());
        }
        if let Some(address) = &self.address
            && split(address).is_none()
        {
            return wrong(
                "address",
                format!("address = {address:?}, expected a host and a port, as in \"node1:29500\""),
            );
        }
        match (self.rank, self.processes, &self.address) {
            (Some(rank), Some(processes), _) if rank >= processes => wrong(
                "rank",
                format!("rank = {rank} of processes = {processes}, expected a rank below that; correct it"),
            ),
            (Some(rank), None, _) => {
                wrong("rank", format!("rank = {rank} without processes; add processes and address, or remove rank"))
            }
            (Some(rank), Some(2..), None) => wrong(
                "rank",
                format!("rank = {rank} without address; add the host and port of process 0, as in \"node1:29500\""),
            ),
            (None, None, Some(_)) => {
                wrong("address", "address without processes; add processes, or remove address".to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Splits an address into host and port.
pub(super) fn split(address: &str) -> Option<Address> {
    let (host, port) = address.rsplit_once(':')?;
    // An address of IPv6 is in brackets.
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| Address::of(host.to_string(), port))
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "process {} of {} of {}", self.rank, self.processes, self.launcher)?;
        if let Some(Local { rank, processes }) = self.local {
            write!(f, ", {rank} of {processes} on its node")?;
        }
        match &self.address {
            Some(Address { host, ports }) => write!(f, ", process 0 at {host}:{}", ports.start()),
            None => Ok(()),
        }
    }
}
