//! Launchers that start several processes, which do not work together yet: each would train a copy of its own.

use crate::error::{Error, Result};

/// The launchers, with the variables that hold the number of processes and the number of this process.
const LAUNCHERS: [(&str, &str, &str); 4] = [
    ("torchrun", "WORLD_SIZE", "RANK"),
    ("a Slurm step", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("MPICH", "PMI_SIZE", "PMI_RANK"),
];

/// Rejects a start by a launcher as one of several processes, unless `[cluster] processes = 1` allows independent copies.
///
/// # Errors
/// The launcher, and how many processes it started.
pub fn check(independent: bool, variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    let number = |name: &str| variable(name)?.trim().parse::<u64>().ok();
    for (launcher, size, rank) in LAUNCHERS {
        let (Some(size), Some(rank)) = (number(size), number(rank)) else { continue };
        if size > 1 && !independent {
            return Err(Error::Usage(format!(
                "started by {launcher} as process {rank} of {size}, but several processes cannot train together yet; \
                 start one process for all GPUs of a machine, or set [cluster] processes = 1 to train independent copies"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_processes_is_rejected_unless_copies_are_independent() {
        for (launcher, size, rank) in LAUNCHERS {
            let of = |n: &'static str| move |name: &str| (name == size).then_some(n).or((name == rank).then_some("0"));
            let check = |independent, n| check(independent, |name| of(n)(name).map(String::from));
            let error = check(false, "4").unwrap_err();
            assert!(error.to_string().starts_with(&format!("started by {launcher} as process 0 of 4")), "{error}");
            assert_eq!(error.exit_code(), 2);
            assert!(check(true, "4").is_ok() && check(false, "1").is_ok());
        }
        // An allocation of several tasks, in which one process was started directly.
        let allocation = |name: &str| (name == "SLURM_NTASKS").then(|| "4".to_string());
        assert!(super::check(false, allocation).is_ok());
    }
}
