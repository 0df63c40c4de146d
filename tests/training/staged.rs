//! Devices that cannot read each other's memory exchange data through host memory and give the same bits.

use crate::common::runs::{Folder, losses, output_of, peristyle};
use crate::common::{Training, file};
use peristyle::device::Queue;
use peristyle::gpu::{Driver, DriverKind};
use peristyle::placement::Peers;
use peristyle::program::check::check;
use peristyle::program::{Persistent, Plan, Session, Use, Work};
use peristyle::train::{DataPolicy, Job, exchange};

const CONFIGS: [&str; 3] =
    ["configs/columns_small.toml", "configs/residual_small.toml", "configs/one_weird_trick_small.toml"];
const MESHES: [(usize, usize); 4] = [(2, 1), (1, 2), (2, 2), (4, 1)];

/// Returns the settings for a mesh of emulated devices, each on a separate GPU.
fn sets((data, columns): (usize, usize), access: &str, precision: &str) -> Vec<String> {
    if let Err(error) = Driver::count(DriverKind::Emu) {
        panic!("these tests need the emulated device: {error}");
    }
    vec![
        format!("devices.use=\"emu*{}\"", data * columns),
        format!("devices.mesh={{ data = {data}, columns = {columns} }}"),
        format!("devices.peer_access=\"{access}\""),
        format!("devices.precision=\"{precision}\""),
        "data.batch=4".to_string(),
    ]
}

fn open(config: &str, sets: &[String]) -> (Job, Plan) {
    Job::open(&file(config), sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{e}"))
}

/// Makes two updates; returns the losses and all weights.
fn trained(mut training: Training) -> (Vec<f64>, Vec<Vec<f64>>) {
    let losses = training.losses(2);
    let parameters = 0..training.job.network.parameters.len();
    let values =
        |p| exchange::read_values(&training.session, Persistent::Parameter(p)).unwrap_or_else(|e| panic!("{e}"));
    (losses, parameters.map(values).collect())
}

fn same_bits(precision: &str, meshes: &[(usize, usize)]) {
    for config in CONFIGS {
        for &mesh in meshes {
            let with = |access| trained(Training::new(config, &sets(mesh, access, precision)));
            let ((losses, weights), (direct, expected)) = (with("off"), with("auto"));
            assert_eq!(losses, direct, "{config} on {mesh:?} in {precision}");
            assert!(losses.iter().all(|loss| loss.is_finite()) && losses[0] != losses[1]);
            assert!(weights == expected, "{config} on {mesh:?} in {precision}: different weights");
        }
    }
}

#[test]
fn staged_networks_have_the_bits_of_direct_ones_in_f32() {
    same_bits("f32", &MESHES);
}

#[test]
fn staged_networks_have_the_bits_of_direct_ones_in_bf16() {
    same_bits("bf16", &[(2, 2)]);
}

#[test]
fn a_graph_changes_no_bit_of_a_staged_run() {
    let folder = Folder::new("staged-graph");
    let mut all = Vec::new();
    for (dir, access, graph) in [("graph", "off", true), ("none", "off", false), ("direct", "auto", false)] {
        let mut command = peristyle(&folder.0);
        if !graph {
            command.env("PERISTYLE_NO_GRAPH", "1");
        }
        command.arg("train").arg(file("configs/columns_small.toml")).args(["--run-dir", dir]);
        for set in sets((2, 2), access, "f32").iter().map(String::as_str).chain(["train={ steps = 4 }"]) {
            command.args(["--set", set]);
        }
        let output = output_of(&mut command);
        assert_eq!(output.code, Some(0), "{}", output.err);
        all.push(losses(&folder.metrics(dir)));
    }
    assert_eq!(all[0].len(), 4);
    assert!(all[0] == all[1] && all[0] == all[2], "{all:?}");
}

#[test]
fn a_staged_instruction_uses_only_the_memory_of_its_own_gpu_and_of_the_host() {
    for config in CONFIGS {
        for mesh in MESHES {
            let (job, direct) = open(config, &sets(mesh, "auto", "f32"));
            let (_, plan) = open(config, &sets(mesh, "off", "f32"));
            let devices = mesh.0 * mesh.1;
            for program in &plan.programs {
                let mut crossings = 0;
                for step in &program.instructions {
                    let device = |buffer: usize| program.buffers[buffer].device;
                    let own = |u: &&Use| device(u.buffer) == step.device;
                    let (near, far): (Vec<&Use>, Vec<&Use>) = step.uses.iter().partition(own);
                    assert!(far.iter().all(|u| device(u.buffer) == devices), "\"{}\" uses another GPU", step.name);
                    if let [host] = far[..] {
                        let copy = matches!(&step.work, Work::Sum { sources, .. } if sources.len() == 1);
                        assert!(copy && near.len() == 1 && step.queue == Queue::Communication, "{}", step.name);
                        assert!(host.part.rows == 1 && host.part.end() <= program.buffers[host.buffer].elements);
                        crossings += 1;
                    } else {
                        assert!(far.is_empty(), "{}", step.name);
                    }
                }
                assert!(crossings > 0 && crossings % 2 == 0, "each copy out has a copy in: {crossings}");
            }
            assert_eq!(plan.wire_bytes_per_step(), direct.wire_bytes_per_step(), "hops through the host count once");
            assert_eq!((direct.hosts[0], direct.spec.peers.clone()), (0, Peers::All));
            assert!(plan.hosts[0] > 0 && !job.notes.iter().any(|note| note.contains("peer")), "{:?}", job.notes);
        }
    }
}

#[test]
fn only_data_between_gpus_goes_through_the_host() {
    let config = "configs/columns_small.toml";
    let run = |gpus: Option<[usize; 4]>| {
        let sets = sets((2, 2), "auto", "f32");
        let mut training = Training::new(config, &sets);
        let (job, mut plan) = open(config, &sets);
        if let Some(gpus) = gpus {
            let mut options = plan.spec.clone();
            options.peers = Peers::SameGpu(gpus.to_vec());
            plan = Plan::new(job.network.clone(), plan.chain.clone(), options).unwrap_or_else(|p| panic!("{p:?}"));
        }
        let of_host = |u: &Use| plan.programs[0].buffers[u.buffer].device == 4;
        let crossings = plan.programs[0].instructions.iter().filter(|s| s.uses.iter().any(of_host)).count();
        training.session = Session::on_gpus(plan, DriverKind::Emu, &gpus.unwrap_or([0, 1, 2, 3])).unwrap();
        training.session.prepare(training.preparation.clone()).unwrap();
        exchange::initialise(&mut training.session, training.job.config.seed).unwrap();
        (crossings, trained(training))
    };
    let (direct, pairs, apart) = (run(None), run(Some([0, 0, 1, 1])), run(Some([0, 1, 2, 3])));
    assert!(direct.0 == 0 && 0 < pairs.0 && pairs.0 < apart.0, "{} {} {}", direct.0, pairs.0, apart.0);
    assert!(direct.1 == pairs.1 && direct.1 == apart.1);
    assert_eq!(run(Some([5; 4])).0, 0, "data within one GPU does not go through the host");
}

/// The checker detects data that is copied in before it was copied out.
#[test]
fn a_copy_in_that_does_not_wait_for_its_copy_out_is_rejected() {
    let (_, mut plan) = open("configs/columns_small.toml", &sets((2, 2), "off", "f32"));
    let queues = plan.spec.mesh.devices() * Queue::COUNT;
    let program = &mut plan.programs[0];
    let mut refused = 0;
    for number in 0..program.instructions.len() {
        if program.instructions[number].name.ends_with(" from the host") {
            let waits = std::mem::take(&mut program.instructions[number].waits);
            let error = check(program, queues).expect_err(&program.instructions[number].name).to_string();
            assert!(error.starts_with("device 4: ") && error.contains(" the host\""), "{error}");
            program.instructions[number].waits = waits;
            refused += 1;
        }
    }
    println!("{refused} copies, all rejected");
    assert!(refused > 10 && check(program, queues) == Ok(()));
}

#[test]
fn a_plan_shows_the_copies_through_the_host() {
    let folder = Folder::new("staged-plan");
    let plan = |sets: &[&str]| {
        let mut command = peristyle(&folder.0);
        command.arg("plan").arg(file("configs/columns_small.toml"));
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        let output = output_of(&mut command);
        assert_eq!(output.code, Some(0), "{}", output.err);
        output
    };
    let staged = ["devices.use=\"emu*2\"", "devices.peer_access=\"off\""];
    let text = plan(&staged).out;
    for line in ["host memory ", "all-reduce gradients", " to the host: ", " from the host: "] {
        assert!(text.contains(line), "no \"{line}\" in {text}");
    }
    for (sets, note) in [
        (&["devices.use=\"cpu*2\"", staged[1]][..], "peer_access has no effect on cpu devices"),
        (&["devices.use=\"emu\"", staged[1]], "peer_access has no effect with one GPU"),
        (&["devices.use=\"cuda:3*2\"", staged[1]], "peer_access has no effect with one GPU"),
    ] {
        let output = plan(sets);
        assert!(output.err.contains(note) && !output.out.contains("host memory"), "{}", output.err);
    }
}
