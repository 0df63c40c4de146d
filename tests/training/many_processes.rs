//! Programs of several processes: each process has the instructions of its own devices, and collectives alone connect it with others.

use crate::common::file;
use peristyle::device::Queue;
use peristyle::placement::Processes;
use peristyle::program::check::{check, check_processes};
use peristyle::program::{Instruction, Plan, Program, Work};
use peristyle::train::{DataPolicy, Job};
use std::sync::Arc;

/// A configuration, its processes, the devices of each, and the mesh of all.
const CASES: [(&str, usize, usize, (usize, usize)); 6] = [
    ("configs/columns_small.toml", 2, 2, (2, 2)),
    ("configs/columns_small.toml", 4, 1, (2, 2)),
    ("configs/one_weird_trick_small.toml", 2, 1, (1, 2)),
    ("configs/residual_small.toml", 4, 1, (4, 1)),
    ("configs/residual_small.toml", 2, 2, (4, 1)),
    ("configs/digits.toml", 3, 2, (6, 1)),
];

fn plan(config: &str, processes: usize, each: usize, (data, columns): (usize, usize)) -> Plan {
    let sets = [
        format!("cluster.processes={processes}"),
        format!("devices.use=\"cpu*{each}\""),
        format!("devices.mesh={{ data = {data}, columns = {columns} }}"),
        "devices.threads=1".to_string(),
    ];
    Job::open(&file(config), &sets, DataPolicy::Optional).unwrap_or_else(|error| panic!("{error}")).1
}

/// Returns the collectives of a program as the first device of each that takes part, in order.
fn whole(program: &Program) -> Vec<(usize, &[peristyle::program::Peer], &str)> {
    let steps = program.instructions.iter();
    let parts = steps.filter_map(|step| match &step.work {
        Work::Collective { peers, .. } => Some((step.device, &**peers, &*step.name)),
        _ => None,
    });
    parts.collect()
}

#[test]
fn each_process_has_its_own_instructions_and_meets_others_in_one_order() {
    for (config, count, each, mesh) in CASES {
        let (several, one) = (plan(config, count, each, mesh), plan(config, 1, count * each, mesh));
        let processes = Processes::with(count, each);
        assert_eq!(several.spec.processes, processes);
        // A collective crosses the same bytes, whoever carries it out.
        assert_eq!(several.wire_bytes_per_step(), one.wire_bytes_per_step(), "{config}");
        assert_eq!(one.bytes_between_processes_per_step(), 0);
        assert!(several.bytes_between_processes_per_step() > 0, "{config}");
        for (program, alone) in several.programs.iter().zip(&one.programs) {
            let devices = count * each;
            assert_eq!(check(program, devices * Queue::COUNT), Ok(()));
            assert_eq!(check_processes(program, &processes, devices), Ok(()));
            assert!(whole(alone).is_empty(), "one process has no whole collectives");
            for (_, peers, name) in whole(program) {
                let devices: Vec<usize> = peers.iter().map(|peer| peer.device).collect();
                assert!(!processes.is_one(&devices), "{config}: {name} is left whole within a process");
            }
            // What a process computes by itself is what the devices do in one process.
            let computed = |program: &Program, device| {
                let own = program.instructions.iter().filter(|step| step.device == device);
                let own = own
                    .filter(|step| matches!(step.work, Work::Load { .. } | Work::Phase { .. } | Work::Update { .. }));
                own.map(|step| step.name.clone()).collect::<Vec<_>>()
            };
            (0..devices).for_each(|device| assert_eq!(computed(program, device), computed(alone, device)));
            let own = |process| processes.devices(process, devices);
            let parts: Vec<Program> =
                (0..count).map(|process| program.of_process(own(process), devices + process)).collect();
            assert_eq!(parts.iter().map(|part| part.instructions.len()).sum::<usize>(), program.instructions.len());
            for (process, part) in parts.iter().enumerate() {
                // Its devices count from 0.
                let all: Vec<usize> = part.instructions.iter().map(|step| step.device).collect();
                assert!((0..each).all(|device| all.contains(&device)) && all.iter().all(|device| *device < each));
                let far = |step: &Instruction| step.uses.iter().any(|u| part.buffers[u.buffer].device >= each);
                assert!(!part.instructions.iter().any(far), "a process uses its own memory alone");
                assert!(part.instructions.iter().flat_map(|step| &step.waits).all(|wait| wait.0 < each * Queue::COUNT));
                let with = |other: usize, own: usize| {
                    let own_first = own * each;
                    let both = whole(&parts[own]).into_iter().filter(|(device, peers, _)| {
                        // The first device of a process speaks for it.
                        let first = peers.iter().find(|peer| processes.of(peer.device) == own);
                        let met = peers.iter().any(|peer| processes.of(peer.device) == other);
                        met && first.is_some_and(|first| first.device == own_first + *device)
                    });
                    both.map(|(_, peers, name)| (peers[0].device, name.to_string())).collect::<Vec<_>>()
                };
                for other in (0..count).filter(|other| *other != process) {
                    assert_eq!(with(other, process), with(process, other), "{config}: {process} and {other}");
                }
            }
        }
    }
}

#[test]
fn columns_stay_in_a_process_where_they_can() {
    let crossing = |plan: &Plan| {
        let all = plan.programs.iter().flat_map(|program| &program.instructions);
        let mut axes: Vec<String> = all
            .filter_map(|step| match &step.work {
                Work::Collective { axis, .. } => Some(format!("{axis:?}")),
                _ => None,
            })
            .collect();
        axes.sort();
        axes.dedup();
        axes
    };
    assert_eq!(crossing(&plan("configs/columns_small.toml", 2, 2, (2, 2))), ["Data"]);
    assert_eq!(crossing(&plan("configs/columns_small.toml", 4, 1, (2, 2))), ["Columns", "Data"]);
}

#[test]
fn programs_in_which_processes_would_wait_for_ever_are_rejected() {
    let plan = plan("configs/columns_small.toml", 4, 1, (2, 2));
    let program = plan.programs.iter().max_by_key(|program| program.instructions.len()).unwrap();
    let (queues, processes) = (4 * Queue::COUNT, Processes::with(4, 1));
    let parts: Vec<usize> = (0..program.instructions.len())
        .filter(|&step| matches!(program.instructions[step].work, Work::Collective { .. }))
        .collect();
    assert!(parts.len() > 20, "{}", parts.len());
    let mut rejected = 0;
    for &part in &parts {
        // A part of another collective among the same peers, who would wait for it.
        let mut broken = program.clone();
        let Work::Collective { peers, .. } = &mut broken.instructions[part].work else { unreachable!() };
        *peers = Arc::from(peers.to_vec());
        rejected +=
            usize::from(check(&broken, queues).is_err_and(|race| race.to_string().contains("is not next to it")));
        // A peer that is not told of another one.
        let mut broken = program.clone();
        let Work::Collective { peers, .. } = &mut broken.instructions[part].work else { unreachable!() };
        *peers = Arc::from(&peers[..1]);
        assert!(check(&broken, queues).is_err(), "{}", broken.instructions[part].name);
    }
    assert_eq!(rejected, parts.len());
    // What needs the memory of another process, or its queues.
    let mut broken = program.clone();
    let far = broken.instructions.iter().position(|step| step.device == 1).unwrap();
    let mut foreign = broken.instructions[parts[0]].uses[0];
    foreign.buffer = broken.buffers.iter().position(|buffer| buffer.device == 3).unwrap();
    broken.instructions[far].uses.push(foreign);
    assert!(check_processes(&broken, &processes, 4).is_err());
    let mut broken = program.clone();
    broken.instructions[far].waits.push((3 * Queue::COUNT, 0));
    assert!(check_processes(&broken, &processes, 4).is_err());
}
