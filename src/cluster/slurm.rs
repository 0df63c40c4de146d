//! What a job asks of Slurm.

use crate::error::{Error, Result};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A variable of the environment.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Queues the job of an environment again, which ends it; returns its number, or none outside a job.
///
/// # Errors
/// If Slurm refuses.
pub fn requeue(variable: Variable) -> Result<Option<String>> {
    let Some(job) = variable("SLURM_JOB_ID") else { return Ok(None) };
    let failed = |why: String| Error::Run(format!("scontrol requeue {job}: {why}; submit the job again"));
    let output =
        Command::new("scontrol").args(["requeue", &job]).output().map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(Some(job)),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}

/// Returns the time that the job of an environment has left; none outside a job, without a limit, or if Slurm does not say it.
pub fn time_left(variable: Variable) -> Option<Duration> {
    let job = variable("SLURM_JOB_ID")?;
    // Since Slurm 23.02.
    if let Some(end) = variable("SLURM_JOB_END_TIME").and_then(|end| end.parse().ok()) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        return Some(Duration::from_secs(end).saturating_sub(now));
    }
    let output = Command::new("squeue").args(["--noheader", "--jobs", &job, "--format", "%L"]).output().ok()?;
    duration(String::from_utf8_lossy(&output.stdout).trim())
}

/// Returns a duration as Slurm writes it: `1-02:03:04`, `2:03:04`, `3:04`; none for `UNLIMITED` and the like.
fn duration(text: &str) -> Option<Duration> {
    let (days, rest) = text.split_once('-').unwrap_or(("0", text));
    let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let seconds = match *parts {
        [minutes, seconds] => 60 * minutes + seconds,
        [hours, minutes, seconds] => 3600 * hours + 60 * minutes + seconds,
        _ => return None,
    };
    Some(Duration::from_secs(86_400 * days.parse::<u64>().ok()? + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_slurm_writes_them() {
        let read = |text| duration(text).map(|duration| duration.as_secs());
        assert_eq!(["0:09", "3:04", "2:03:04"].map(read), [Some(9), Some(184), Some(7384)]);
        assert_eq!(read("1-02:03:04"), Some(93_784));
        assert_eq!(["UNLIMITED", "NOT_SET", "INVALID", "", "5"].map(read), [None; 5]);
    }

    #[test]
    fn newer_versions_say_when_the_job_ends() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let of = |end: u64| {
            let left = time_left(&|name| match name {
                "SLURM_JOB_ID" => Some("7".to_string()),
                "SLURM_JOB_END_TIME" => Some(end.to_string()),
                _ => None,
            });
            left.unwrap().as_secs()
        };
        assert!((998..=1000).contains(&of(now + 1000)) && of(now - 1000) == 0);
        assert!(time_left(&|_| None).is_none());
    }
}
