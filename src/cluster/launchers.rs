//! What launchers say in the environment of the processes that they start.

use super::node_list::{first_node, tasks_of_node};
use super::process::{Address, Launcher, Local, Process};
use super::variables::Variables;
use crate::error::{Error, Result};

/// The first of the numbers that Slurm gives steps which it does not start by `srun`: of batch scripts, shells and others (slurm.h).
const SPECIAL_STEPS: usize = 0xffff_fff0;
/// The first port that is derived from the number of a job, and how many there are: below those that systems give out by themselves.
const PORTS: (usize, usize) = (20_000, 12_000);
/// How many ports after that of the launcher process 0 may listen at.
const TRIED_PORTS: u16 = 16;

/// torchrun and `peristyle launch` set RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; a PyTorchJob of Kubeflow, whose pods are processes, the first two.
pub(super) fn torch(variables: &Variables) -> Result<Option<Process>> {
    // Scripts for Slurm often set the one and start processes by srun.
    if variables.text("RANK").is_none() || variables.text("WORLD_SIZE").is_none() {
        return Ok(None);
    }
    let Some((rank, processes)) = variables.place("RANK", "WORLD_SIZE")? else { return Ok(None) };
    let local = variables.place("LOCAL_RANK", "LOCAL_WORLD_SIZE")?.map(|(rank, processes)| Local { rank, processes });
    if let Some(local) = local.filter(|local| local.rank > rank || local.processes > processes) {
        return Err(Error::Usage(format!(
            "LOCAL_RANK = {} of LOCAL_WORLD_SIZE = {}, but RANK = {rank} of WORLD_SIZE = {processes}; start with torchrun, which sets all four",
            local.rank, local.processes
        )));
    }
    let launched = variables.text("PERISTYLE_LAUNCHED_BY").is_some();
    let address = match (variables.text("MASTER_ADDR"), variables.number("MASTER_PORT")?) {
        (Some(host), Some(port)) => {
            let port = tcp_port("MASTER_PORT", port)?;
            // There the launcher itself listens, unless torchrun says otherwise.
            let taken = launched || variables.text("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text != "False");
            let ports = if taken { port.saturating_add(1)..=port.saturating_add(TRIED_PORTS) } else { port..=port };
            Some(Address { host, ports })
        }
        (None, None) => None,
        (Some(host), None) => {
            return Err(Error::Usage(format!(
                "MASTER_ADDR = {host:?} is set, but MASTER_PORT is not; set both, or neither"
            )));
        }
        (None, Some(port)) => {
            return Err(Error::Usage(format!(
                "MASTER_PORT = {port} is set, but MASTER_ADDR is not; set both, or neither"
            )));
        }
    };
    let launcher = match local {
        _ if launched => Launcher::Launch,
        Some(_) => Launcher::Torchrun,
        None => Launcher::PyTorchJob,
    };
    let node = variables.number("GROUP_RANK")?.or(variables.number("PET_NODE_RANK")?);
    let restarts = variables.number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0);
    let job = variables.text("TORCHELASTIC_RUN_ID").unwrap_or_default();
    Ok(Some(Process { rank, processes, local, node, address, job, restarts, launcher }))
}

/// `mpirun` of Open MPI.
pub(super) fn open_mpi(variables: &Variables) -> Result<Option<Process>> {
    let place = variables.place("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")?;
    let local = variables.place("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")?;
    Ok(place.map(|place| of_mpi(place, local, Launcher::OpenMpi)))
}

/// `mpiexec` of MPICH and its relatives, and `srun --mpi=pmi2`.
pub(super) fn mpich(variables: &Variables) -> Result<Option<Process>> {
    let place = variables.place("PMI_RANK", "PMI_SIZE")?;
    let local = variables.place("MPI_LOCALRANKID", "MPI_LOCALNRANKS")?;
    Ok(place.map(|place| of_mpi(place, local, Launcher::Mpich)))
}

fn of_mpi((rank, processes): (usize, usize), local: Option<(usize, usize)>, launcher: Launcher) -> Process {
    let local = local.map(|(rank, processes)| Local { rank, processes });
    Process { rank, processes, local, node: None, address: None, job: String::new(), restarts: 0, launcher }
}

/// A step of Slurm that `srun` started; not a batch script, nor the shell of an allocation.
pub(super) fn slurm(variables: &Variables) -> Result<Option<Process>> {
    let step = variables.number("SLURM_STEP_ID")?;
    let size = "SLURM_STEP_NUM_TASKS";
    match step {
        Some(step) if step >= SPECIAL_STEPS => return Ok(None),
        Some(_) => {}
        // A batch script has the number of tasks of its allocation, which it may start, and the rank 0.
        None if variables.text(size).is_none() => return Ok(None),
        None => {}
    }
    let size = if variables.text(size).is_some() { size } else { "SLURM_NTASKS" };
    let Some((rank, processes)) = variables.place("SLURM_PROCID", size)? else { return Ok(None) };
    let node = variables.number("SLURM_NODEID")?;
    let counts = variables.text("SLURM_STEP_TASKS_PER_NODE");
    let here = node.and_then(|node| tasks_of_node(&counts?, node));
    let local = variables.number("SLURM_LOCALID")?;
    let local = local.zip(here).map(|(rank, processes)| Local { rank, processes });
    let host = variables.text("SLURM_STEP_NODELIST").and_then(|list| first_node(&list));
    let job = variables.number("SLURM_JOB_ID")?.unwrap_or(0);
    let step = step.unwrap_or(0);
    let port = (PORTS.0 + (job.wrapping_mul(31).wrapping_add(step)) % PORTS.1) as u16;
    let restarts = variables.number("SLURM_RESTART_COUNT")?.unwrap_or(0);
    let address = host.map(|host| Address::of(host, port));
    let job = format!("{job}.{step}.{restarts}");
    Ok(Some(Process { rank, processes, local, node, address, job, restarts, launcher: Launcher::Slurm }))
}

/// Returns the number of a pod of a JobSet or an indexed Job of Kubernetes.
pub(super) fn pod(variables: &Variables) -> Result<Option<usize>> {
    variables.number("JOB_COMPLETION_INDEX")
}

/// Checks a port.
pub(super) fn tcp_port(name: &str, port: usize) -> Result<u16> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::Usage(format!("{name} = {port}, expected a port from 1 to 65535; correct it"))),
    }
}
