//! A job of Slurm that is queued again goes on where it was. Needs a running Slurm, such as that of scripts/slurm-loopback.sh, whose
//! configuration SLURM_CONF names.

mod common;

use common::runs::{Folder, events, losses};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long Slurm may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

fn slurm(folder: &Folder, words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(&folder.0).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}

#[test]
#[ignore = "needs Slurm; .ci/run starts one"]
fn a_preempted_job_is_queued_again_and_has_the_bits_of_one_that_ran_through() {
    let folder = Folder::new("slurm-requeue");
    let program = env!("CARGO_BIN_EXE_peristyle");
    let fixed = "--devices cpu --set devices.deterministic=true --set devices.threads=1 --set train.steps=3000 \
                 --set train.evaluate=never --set 'train.checkpoint={ every = \"1000 steps\" }'";
    folder.write(
        "job.sh",
        &format!(
            "#!/bin/bash\n#SBATCH --ntasks=2 --nodes=1 --overcommit --requeue --open-mode=append --output=job.txt\n\
             srun --overcommit --mpi=pmix {program} train small.toml {fixed} --set cluster.requeue=true --run-dir run --resume auto\n"
        ),
    );
    let id = slurm(&folder, &["sbatch", "--parsable", "job.sh"]);
    let wait = |what: &str, ready: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !ready() {
            let said = std::fs::read_to_string(folder.at("job.txt")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "no {what}: {said}{}", slurm(&folder, &["squeue"]));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let lines = || std::fs::read_to_string(folder.at("run/metrics.jsonl")).map_or(0, |text| text.lines().count());
    wait("update", &|| lines() > 50);
    slurm(&folder, &["scancel", "--signal=USR1", &id]);
    let said = || std::fs::read_to_string(folder.at("job.txt")).unwrap_or_default();
    wait("requeue", &|| said().contains("is queued again"));
    wait("end", &|| said().contains("finished after 3000 steps"));
    let metrics = folder.metrics("run");
    let end = events(&metrics, "end");
    assert_eq!((&end[0]["restarts"], losses(&metrics).len()), (&1.into(), 3000), "{}", said());
    let words = format!("'{program}' train small.toml {}", fixed.replace("--devices cpu ", "--devices 'cpu*2' "));
    let whole = Command::new("bash").args(["-c", &format!("{words} --run-dir whole")]).current_dir(&folder.0).output();
    assert!(whole.unwrap().status.success());
    assert_eq!(losses(&metrics), losses(&folder.metrics("whole")));
    assert!(folder.checkpoint("run", 3000) == folder.checkpoint("whole", 3000));
}
