//! Golden plans: the output of `peristyle plan` for ten small plans, in tests/plans/*.txt. A refactor leaves them
//! unchanged or changes only printed names: each file ends with a checksum per program of everything except names.
//!
//! `PERISTYLE_BLESS=1 cargo test --release --test commands plans` rewrites the files.

use crate::common::file;
use peristyle::program::hardware::HARDWARE;
use peristyle::program::print::Printer;
use peristyle::program::{Plan, Program};
use peristyle::train::{DataPolicy, Job};
use std::fmt::Write;

/// A plan: the name of its file, its configuration, the name of its devices, and its settings.
struct Golden {
    name: &'static str,
    config: &'static str,
    device: &'static str,
    sets: &'static [&'static str],
}

const GOLDEN: [Golden; 10] = [
    Golden { name: "one_cpu", config: "configs/digits.toml", device: "cpu", sets: &["devices.threads=2"] },
    Golden {
        name: "data_2_columns_2",
        config: "configs/digits.toml",
        device: "cpu",
        sets: &["devices.use=\"cpu*4\"", "devices.mesh={ data = 2, columns = 2 }", "devices.threads=1"],
    },
    Golden {
        name: "alexnet_columns",
        config: "configs/columns_small.toml",
        device: "cpu",
        sets: &["devices.use=\"cpu*2\"", "devices.mesh={ columns = 2 }", "devices.threads=1"],
    },
    Golden {
        name: "one_weird_trick",
        config: "configs/one_weird_trick_small.toml",
        device: "cpu",
        sets: &[
            "devices.use=\"cpu*2\"",
            "devices.mesh={ columns = 2 }",
            "devices.threads=1",
            "devices.collectives=ring",
        ],
    },
    Golden {
        name: "batch_norm_data_3",
        config: "configs/residual_small.toml",
        device: "cpu",
        sets: &["devices.use=\"cpu*3\"", "devices.threads=1"],
    },
    Golden { name: "splits", config: "tests/plans/splits.toml", device: "cpu", sets: &[] },
    Golden {
        name: "gpus_bf16",
        config: "configs/residual_small.toml",
        device: "cuda",
        sets: &["devices.use=\"cuda:0-1\"", "devices.precision=bf16"],
    },
    Golden {
        name: "gpus_check_buckets",
        config: "configs/mlp.toml",
        device: "cuda",
        sets: &["devices.use=\"cuda:0-1\""],
    },
    Golden {
        name: "gpus_host_staged",
        config: "tests/plans/splits.toml",
        device: "cuda",
        sets: &["devices.use=\"cuda:0-3\"", "devices.peer_access=off", "devices.libraries=off"],
    },
    Golden {
        name: "nccl_two_processes",
        config: "configs/one_weird_trick_small.toml",
        device: "cuda",
        sets: &[
            "devices.use=\"cuda:0-1\"",
            "cluster.processes=2",
            "devices.mesh={ data = 2, columns = 2 }",
            "devices.collectives=nccl",
            "devices.reduce_precision=bf16",
            "devices.libraries=off",
        ],
    },
];

/// Returns the FNV-1a hash of the numbers in a program.
fn checksum(program: &Program) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |numbers: &[usize]| {
        for byte in numbers.iter().flat_map(|n| n.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for buffer in &program.buffers {
        add(&[buffer.device, buffer.offset, buffer.bytes()]);
    }
    for step in &program.instructions {
        add(&[step.queue_index(), step.index, step.waits.len(), step.uses.len()]);
        step.waits.iter().for_each(|&(queue, count)| add(&[queue, count]));
        for u in &step.uses {
            let bytes = program.buffers[u.buffer].bytes_of(u.part);
            add(&[
                bytes.offset,
                bytes.rows,
                bytes.len,
                bytes.stride,
                usize::from(u.access.reads()),
                usize::from(u.access.writes()),
            ]);
        }
    }
    hash
}

fn printed(golden: &Golden, plan: &Plan, steps: u64) -> String {
    let text = plan.text(Printer { device: golden.device, steps, hardware: &HARDWARE[0] });
    // The estimate is left out: it comes from a model, which may improve.
    let mut out: String =
        text.lines().filter(|l| !l.starts_with("estimate")).map(|l| format!("{}\n", l.trim_end())).collect();
    for program in &plan.programs {
        let (mode, rows) = (program.variant.mode, program.variant.batch);
        let _ = writeln!(out, "checksum {:016x} {}", checksum(program), format!("{mode:?} of {rows}").to_lowercase());
    }
    out
}

#[test]
fn plans_are_the_stored_ones() {
    let bless = std::env::var_os("PERISTYLE_BLESS").is_some();
    let mut changed = Vec::new();
    for golden in &GOLDEN {
        let sets: Vec<String> = golden.sets.iter().map(|s| (*s).to_string()).collect();
        let (job, plan) =
            Job::open(&file(golden.config), &sets, DataPolicy::Optional).unwrap_or_else(|e| panic!("{e}"));
        let now = printed(golden, &plan, job.steps());
        let path = file(&format!("tests/plans/{}.txt", golden.name));
        if bless {
            std::fs::write(&path, now).unwrap();
            continue;
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some((line, (was, is))) =
            stored.lines().chain([""]).zip(now.lines().chain([""])).enumerate().find(|(_, (a, b))| a != b)
        {
            changed.push(format!("tests/plans/{}.txt:{}:\n  stored {was}\n  now    {is}", golden.name, line + 1));
        }
    }
    assert!(
        changed.is_empty(),
        "{}\nIf this is intended: PERISTYLE_BLESS=1 cargo test --release --test commands plans",
        changed.join("\n")
    );
}
