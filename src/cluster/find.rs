//! Which process of a job this one is.

use super::launchers::{mpich, open_mpi, pod, slurm, torch};
use super::process::{Launcher, Process, Stated, split};
use super::variables::Variables;
use crate::error::{Error, Result, quantity};

impl Process {
    /// Returns which process of a job this is, by `[cluster]` and the variables of its environment; none if it is alone. Of several launchers, the
    /// first of these counts: torchrun, Open MPI, MPICH, Slurm, which is the last because a process that `mpirun` starts in a batch script inherits
    /// its variables.
    ///
    /// # Errors
    /// Variables that contradict each other or `[cluster]`, or are incomplete.
    pub fn find(stated: &Stated, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Process>> {
        if stated.processes == Some(1) {
            return Ok(None);
        }
        let variables = Variables(variable);
        let pod = if stated.address.is_some() { pod(&variables)? } else { None };
        if let Some(process) = stated.process(pod)? {
            return Ok(Some(process));
        }
        for launcher in [torch, open_mpi, mpich, slurm] {
            let Some(process) = launcher(&variables)? else { continue };
            return match stated.processes {
                Some(processes) if processes != process.processes => Err(Error::Usage(format!(
                    "[cluster]: processes = {processes}, but {} started {}; remove processes",
                    process.launcher,
                    quantity(process.processes as u64, "process")
                ))),
                _ => Ok(Some(process).filter(|process| process.processes > 1)),
            };
        }
        // No other launcher explains that one of them is missing.
        variables.place("RANK", "WORLD_SIZE")?;
        match stated.processes {
            None => Ok(None),
            Some(processes) => Err(Error::Usage(format!(
                "[cluster]: processes = {processes}, but nothing says which of them this is; start with mpirun, srun or torchrun, or add \
                 rank and address"
            ))),
        }
    }
}

impl Stated {
    /// Returns the process that is described, or that a pod is; none if a launcher says so.
    fn process(&self, pod: Option<usize>) -> Result<Option<Process>> {
        let launcher = if self.rank.is_some() { Launcher::Stated } else { Launcher::JobSet };
        let (Some(rank), Some(processes)) = (self.rank.or(pod), self.processes) else { return Ok(None) };
        if rank >= processes {
            return Err(Error::Usage(format!(
                "JOB_COMPLETION_INDEX = {rank}, but [cluster] has processes = {processes}, expected a number below that; correct processes"
            )));
        }
        let address = self.address.as_deref().and_then(split);
        let job = String::new();
        Ok(Some(Process { rank, processes, local: None, node: None, address, job, restarts: 0, launcher }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the process of an environment, in which variables are written one behind the other.
    fn find_with(stated: &Stated, environment: &str) -> Result<Option<Process>, String> {
        let variable = |name: &str| {
            let mut all = environment.split_whitespace().filter_map(|variable| variable.split_once('='));
            all.find(|(own, _)| *own == name).map(|(_, value)| value.to_string())
        };
        stated.check().map_err(|fault| fault.message)?;
        Process::find(stated, &variable).map_err(|error| {
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        })
    }

    fn find(environment: &str) -> Result<Option<Process>, String> {
        find_with(&Stated::default(), environment)
    }

    // As torchrun 2.9, Open MPI 5.0.11, MPICH 5.0.2 and Slurm 22.05 set them.
    const TORCHRUN: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 GROUP_RANK=1 GROUP_WORLD_SIZE=2 ROLE_RANK=3 ROLE_WORLD_SIZE=4 \
                            MASTER_ADDR=node0 MASTER_PORT=42479 TORCHELASTIC_RESTART_COUNT=2 TORCHELASTIC_MAX_RESTARTS=3";
    const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=2 \
                            OMPI_COMM_WORLD_NODE_RANK=1 OMPI_UNIVERSE_SIZE=2 OMPI_WORLD_SIZE=2 PMIX_RANK=1";
    const MPICH: &str = "PMI_RANK=1 PMI_SIZE=3 PMI_FD=9 PMI_HOSTNAME=vm MPI_LOCALRANKID=1 MPI_LOCALNRANKS=3";
    const STEP: &str = "SLURM_JOB_ID=2 SLURM_STEP_ID=0 SLURM_STEPID=0 SLURM_PROCID=2 SLURM_NTASKS=3 SLURM_LOCALID=0 SLURM_NODEID=1 \
                        SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=3 SLURM_STEP_TASKS_PER_NODE=2,1";
    const BATCH: &str =
        "SLURM_JOB_ID=2 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=3 SLURM_PROCID=0 SLURM_TASKS_PER_NODE=2,1";
    // What Open MPI's own step of srun passes on to all processes of mpirun in a batch script.
    const MPIRUN_IN_BATCH: &str = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1 \
                                   SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_STEP_ID=1 SLURM_STEP_NUM_TASKS=2 \
                                   SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_TASKS_PER_NODE=1(x2)";

    fn described(environment: &str) -> String {
        find(environment).unwrap().map_or("alone".to_string(), |process| process.to_string())
    }

    #[test]
    fn every_launcher_is_recognised_by_what_it_sets() {
        let process = find(TORCHRUN).unwrap().unwrap();
        assert_eq!((process.node, process.restarts), (Some(1), 2));
        assert_eq!(process.to_string(), "process 3 of 4 of torchrun, 1 of 2 on its node, process 0 at node0:42479");
        assert_eq!(described(OPEN_MPI), "process 1 of 2 of Open MPI, 1 of 2 on its node");
        assert_eq!(described(MPICH), "process 1 of 3 of MPICH, 1 of 3 on its node");
        assert_eq!(described(STEP), "process 2 of 3 of a Slurm step, 0 of 1 on its node, process 0 at n1:20062");
        // What torchrun 2.9 sets besides: it listens at the port itself.
        let store = format!("{TORCHRUN} TORCHELASTIC_USE_AGENT_STORE=True TORCHELASTIC_RUN_ID=none");
        let process = find(&store).unwrap().unwrap();
        assert_eq!(process.address.map(|address| address.ports), Some(42480..=42495));
        assert_eq!(process.job, "none");
        let restarted = find(&format!("{STEP} SLURM_RESTART_COUNT=4")).unwrap().unwrap();
        assert_eq!((restarted.restarts, restarted.node), (4, Some(1)));
        assert_eq!(described(MPIRUN_IN_BATCH), "process 1 of 2 of Open MPI, 0 of 1 on its node");
        let pod = "RANK=2 WORLD_SIZE=4 MASTER_ADDR=job-master-0 MASTER_PORT=23456 PET_NODE_RANK=2 PET_NNODES=4";
        assert_eq!(described(pod), "process 2 of 4 of PyTorchJob, process 0 at job-master-0:23456");
        // Scripts for PyTorch in Slurm set these for all processes.
        let script = format!("{STEP} MASTER_ADDR=n1 MASTER_PORT=29500 WORLD_SIZE=3");
        assert_eq!(described(&script), described(STEP));
    }

    #[test]
    fn a_process_without_others_is_alone() {
        let interactive =
            "SLURM_JOB_ID=3 SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=4 SLURM_PROCID=0";
        let batch_of_newer = "SLURM_JOB_ID=3 SLURM_STEP_ID=4294967291 SLURM_NTASKS=4 SLURM_PROCID=0";
        let one = "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=localhost MASTER_PORT=29500";
        for environment in [
            "",
            BATCH,
            "SLURM_NTASKS=4",
            interactive,
            batch_of_newer,
            one,
            "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1",
        ] {
            assert_eq!(described(environment), "alone", "{environment}");
        }
        let copies = Stated { processes: Some(1), ..Stated::default() };
        assert_eq!(find_with(&copies, OPEN_MPI), Ok(None));
    }

    #[test]
    fn variables_that_contradict_each_other_are_named() {
        let both = "start with the launcher that sets both, or unset";
        for (environment, message) in [
            ("RANK=1", format!("RANK = 1 is set, but WORLD_SIZE is not; {both} RANK to train in one process")),
            ("WORLD_SIZE=4", format!("WORLD_SIZE = 4 is set, but RANK is not; {both} WORLD_SIZE to train in one process")),
            (
                "RANK=4 WORLD_SIZE=4",
                format!("RANK = 4 and WORLD_SIZE = 4, expected RANK below WORLD_SIZE; {both} both to train in one process"),
            ),
            (
                "RANK=one WORLD_SIZE=4",
                "RANK = \"one\", expected a whole number from 0; correct it, or unset it to train in one process".to_string(),
            ),
            (
                "RANK=1 WORLD_SIZE=4 LOCAL_RANK=0",
                format!("LOCAL_RANK = 0 is set, but LOCAL_WORLD_SIZE is not; {both} LOCAL_RANK to train in one process"),
            ),
            (
                "RANK=0 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4",
                "LOCAL_RANK = 1 of LOCAL_WORLD_SIZE = 4, but RANK = 0 of WORLD_SIZE = 2; start with torchrun, which sets all four".to_string(),
            ),
            (
                "RANK=0 WORLD_SIZE=2 MASTER_ADDR=a",
                "MASTER_ADDR = \"a\" is set, but MASTER_PORT is not; set both, or neither".to_string(),
            ),
            (
                "RANK=0 WORLD_SIZE=2 MASTER_PORT=70000 MASTER_ADDR=a",
                "MASTER_PORT = 70000, expected a port from 1 to 65535; correct it".to_string(),
            ),
            (
                "OMPI_COMM_WORLD_SIZE=2",
                format!("OMPI_COMM_WORLD_SIZE = 2 is set, but OMPI_COMM_WORLD_RANK is not; {both} OMPI_COMM_WORLD_SIZE to train in one process"),
            ),
            (
                "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2",
                format!("SLURM_STEP_NUM_TASKS = 2 is set, but SLURM_PROCID is not; {both} SLURM_STEP_NUM_TASKS to train in one process"),
            ),
        ] {
            assert_eq!(find(environment), Err(message), "{environment}");
        }
    }

    #[test]
    fn what_is_stated_comes_first_and_must_agree() {
        let stated = |rank, processes, address: &str| Stated {
            rank,
            processes,
            address: (!address.is_empty()).then(|| address.to_string()),
            ..Stated::default()
        };
        let told = |stated: &Stated, environment| {
            find_with(stated, environment).map(|process| process.map(|process| process.to_string()))
        };
        let third = stated(Some(2), Some(4), "node1:29500");
        let of_four = Ok(Some("process 2 of 4 of [cluster], process 0 at node1:29500".to_string()));
        assert_eq!(told(&third, ""), of_four);
        assert_eq!(told(&third, OPEN_MPI), of_four);
        let pods = stated(None, Some(4), "[fd00::1]:7000");
        assert_eq!(
            told(&pods, "JOB_COMPLETION_INDEX=3"),
            Ok(Some("process 3 of 4 of JobSet, process 0 at fd00::1:7000".to_string()))
        );
        for (stated, environment, message) in [
            (
                &pods,
                "JOB_COMPLETION_INDEX=4",
                "JOB_COMPLETION_INDEX = 4, but [cluster] has processes = 4, expected a number below that; correct processes",
            ),
            (
                &stated(None, Some(4), ""),
                OPEN_MPI,
                "[cluster]: processes = 4, but Open MPI started 2 processes; remove processes",
            ),
            (
                &stated(None, Some(4), ""),
                BATCH,
                "[cluster]: processes = 4, but nothing says which of them this is; start with mpirun, srun or torchrun, or add rank and address",
            ),
            (&stated(Some(4), Some(4), "a:1"), "", "rank = 4 of processes = 4, expected a rank below that; correct it"),
            (&stated(Some(1), None, ""), "", "rank = 1 without processes; add processes and address, or remove rank"),
            (
                &stated(Some(1), Some(2), ""),
                "",
                "rank = 1 without address; add the host and port of process 0, as in \"node1:29500\"",
            ),
            (&stated(None, None, "a:1"), "", "address without processes; add processes, or remove address"),
            (
                &stated(None, Some(2), "node1"),
                "",
                "address = \"node1\", expected a host and a port, as in \"node1:29500\"",
            ),
            (
                &stated(None, Some(2), "node1:0"),
                "",
                "address = \"node1:0\", expected a host and a port, as in \"node1:29500\"",
            ),
            (&stated(None, Some(0), ""), "", "processes = 0, expected at least 1"),
        ] {
            assert_eq!(told(stated, environment), Err(message.to_string()));
        }
    }
}
