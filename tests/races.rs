//! The checker rejects real programs that were broken on purpose.

mod common;

use common::{file, on_mesh};
use peristyle::device::Queue;
use peristyle::layers::Mode;
use peristyle::placement::Region;
use peristyle::program::check::check;
use peristyle::program::{Instruction, Program, Use, Work};
use peristyle::tensor::{Element, Strided};
use peristyle::train::{DataPolicy, Job};

/// A step in bf16 casts nothing: images are written in bf16, and the optimiser writes the bf16 weights that layers
/// read.
#[test]
fn only_the_last_stage_of_the_optimiser_writes_weights_in_bf16() {
    let mut sets = on_mesh((2, 2));
    sets[0] = "devices.use=\"emu*4\"".to_string();
    sets.push("devices.precision=\"bf16\"".to_string());
    sets.push("optimizer.chain=[{ clip_by_global_norm = 0.5 }, { momentum = 0.9 }]".to_string());
    let (_, plan) = Job::open(&file("configs/columns_small.toml"), &sets, DataPolicy::Required).unwrap();
    for program in &plan.programs {
        let bf16_weights = |u: &&Use| program.buffers[u.buffer].region == Some(Region::Bf16Weights);
        let steps = |used: &dyn Fn(&Use) -> bool| -> Vec<&Instruction> {
            program.instructions.iter().filter(|step| step.uses.iter().filter(bf16_weights).any(used)).collect()
        };
        let (writers, readers) = (steps(&|u| u.access.writes()), steps(&|u| u.access.reads()));
        let updates = program.variant.mode == Mode::Train && program.variant.update;
        assert_eq!(writers.len(), if updates { 4 } else { 0 }, "one per device: {writers:?}");
        assert!(writers.iter().all(|step| matches!(step.work, Work::Update { stage: 1, .. })), "{writers:?}");
        assert!(readers.len() > 8 && readers.iter().all(|step| matches!(step.work, Work::Phase { .. })), "{readers:?}");
        let images = program.instructions.iter().filter(|step| step.name == "load images");
        let elements: Vec<_> = images.map(|step| program.buffers[step.uses[0].buffer].element).collect();
        assert_eq!(elements, [Element::Bf16; 4], "images are written as bf16 at once");
    }
}

/// Returns the training program of a configuration on a mesh, and its number of queues.
fn program(config: &str, mesh: (usize, usize), form: &str) -> (Program, usize) {
    let mut sets = on_mesh(mesh);
    if form == "staged" {
        sets[0] = format!("devices.use=\"emu*{}\"", mesh.0 * mesh.1);
        sets.push("devices.peer_access=\"off\"".to_string());
    } else {
        sets.push(format!("devices.collectives=\"{form}\""));
    }
    let (_, plan) = Job::open(&file(config), &sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{e}"));
    let queues = plan.spec.mesh.devices() * Queue::COUNT;
    let program = plan.programs.into_iter().find(|p| p.variant.mode == Mode::Train && p.variant.batch == 32).unwrap();
    assert_eq!(check(&program, queues), Ok(()));
    (program, queues)
}

fn programs() -> Vec<(&'static str, Program, usize)> {
    let all = [
        ("configs/columns_small.toml", (2, 2), "one_pass"),
        ("configs/columns_small.toml", (2, 2), "ring"),
        ("configs/residual_small.toml", (4, 1), "one_pass"),
        ("configs/one_weird_trick_small.toml", (1, 4), "ring"),
        ("configs/columns_small.toml", (2, 2), "staged"),
        ("configs/residual_small.toml", (4, 1), "staged"),
    ];
    all.map(|(config, mesh, form)| {
        let (program, queues) = program(config, mesh, form);
        (config, program, queues)
    })
    .into()
}

#[test]
fn a_program_that_lacks_any_one_of_its_waits_is_rejected() {
    for (config, mut program, queues) in programs() {
        let mut waits = 0;
        for number in 0..program.instructions.len() {
            for wait in 0..program.instructions[number].waits.len() {
                let removed = program.instructions[number].waits.remove(wait);
                let step = &program.instructions[number];
                assert!(check(&program, queues).is_err(), "{config}: \"{}\" need not wait for {removed:?}", step.name);
                program.instructions[number].waits.insert(wait, removed);
                waits += 1;
            }
        }
        let steps = program.instructions.len();
        println!("{config}: {waits} waits of {steps} instructions, each needed");
        assert!(waits as usize > steps / 10);
    }
}

/// Returns the uses of an instruction that are not in a region, so their memory does not outlive the step.
fn own_uses(program: &Program, step: usize) -> Vec<Use> {
    program.instructions[step].uses.iter().filter(|u| program.buffers[u.buffer].region.is_none()).copied().collect()
}

#[test]
fn a_buffer_that_overlaps_a_live_one_is_rejected() {
    for (config, mut program, queues) in programs() {
        let mut moves = 0;
        for step in (0..program.instructions.len()).step_by(2) {
            for pair in own_uses(&program, step).windows(2) {
                let (a, b) = (pair[0].buffer, pair[1].buffer);
                // Move b so that the first elements that the instruction uses of both coincide.
                let at = program.buffers[a].bytes_of(pair[0].part).offset;
                let (offset, inside) =
                    (program.buffers[b].offset, pair[1].part.offset * program.buffers[b].element.bytes());
                if a == b || program.buffers[a].device != program.buffers[b].device || at < inside {
                    continue;
                }
                program.buffers[b].offset = at - inside;
                assert!(check(&program, queues).is_err(), "{config}: \"{}\"", program.instructions[step].name);
                program.buffers[b].offset = offset;
                moves += 1;
            }
        }
        println!("{config}: {moves} moves, all rejected");
        assert!(moves > 20);
    }
}

#[test]
fn a_read_of_elements_that_were_not_written_is_rejected() {
    for (config, mut program, queues) in programs() {
        let mut left = 0;
        for step in 0..program.instructions.len() {
            for number in 0..program.instructions[step].uses.len() {
                let kept = program.instructions[step].uses[number];
                let last = Strided::contiguous(kept.part.end() - 1, 1);
                let others = program
                    .instructions
                    .iter()
                    .flat_map(|s| &s.uses)
                    .filter(|u| u.buffer == kept.buffer && **u != kept);
                let touched: Vec<&Use> = others.filter(|u| u.part.overlaps(last)).collect();
                let only = kept.access.writes()
                    && !kept.access.reads()
                    && touched.iter().all(|u| !u.access.writes())
                    && !touched.is_empty();
                if !only || program.buffers[kept.buffer].region.is_some() {
                    continue;
                }
                let part = &mut program.instructions[step].uses[number].part;
                if part.rows == 1 {
                    part.len -= 1;
                } else {
                    part.rows -= 1;
                }
                assert!(check(&program, queues).is_err(), "{config}: \"{}\"", program.instructions[step].name);
                program.instructions[step].uses[number] = kept;
                left += 1;
            }
        }
        println!("{config}: {left} omissions, all rejected");
        assert!(left > 20);
    }
}
