//! A panic on one device ends the run with an error that names the layer, on every mesh, and nothing hangs.

mod common;

use common::{Training, on_mesh};
use peristyle::device::{Clock, Target};
use peristyle::error::Fault;
use peristyle::layers::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Operands, Param, Role, Split};
use peristyle::placement::Variant;
use peristyle::program::{Plan, Session};
use peristyle::settings::{Setting, Settings};
use peristyle::tensor::{Mesh, Placement};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// When and where a layer panics.
#[derive(Debug, Clone, Copy)]
struct When {
    phase: &'static str,
    step: u64,
    /// Only the device whose part of the batch begins at this row panics.
    first_row: usize,
    /// Whether it panics in a task that the device's threads share, instead of on the queue itself.
    in_task: bool,
}

/// A layer that works until it panics.
#[derive(Debug)]
struct Planted(Arc<dyn Layer>, When);

impl Settings for Planted {
    fn settings() -> Vec<Setting> {
        Vec::new()
    }
    fn values(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn check_ranges(&self) -> Result<(), peristyle::error::Fault> {
        Ok(())
    }
}

impl Layer for Planted {
    fn key(&self) -> &'static str {
        self.0.key()
    }
    fn num_inputs(&self) -> std::ops::RangeInclusive<usize> {
        self.0.num_inputs()
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        self.0.output(inputs)
    }
    fn params(&self, inputs: &[Activation]) -> Vec<Param> {
        self.0.params(inputs)
    }
    fn statistics(&self, inputs: &[Activation]) -> Vec<Param> {
        self.0.statistics(inputs)
    }
    fn cost(&self, inputs: &[Activation]) -> u64 {
        self.0.cost(inputs)
    }
    fn splits(&self) -> &'static [Split] {
        self.0.splits()
    }
    fn preferred_input(
        &self,
        input: Activation,
        incoming: Placement,
        split: Option<Split>,
        mesh: Mesh,
    ) -> Option<Placement> {
        self.0.preferred_input(input, incoming, split, mesh)
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        self.0.phases(cx)
    }
    fn scratch(&self, phase: &str, shapes: &Operands, target: Target) -> usize {
        self.0.scratch(phase, shapes, target)
    }
    fn run(&self, phase: &str, args: &Args) {
        let When { phase: planted, step, first_row, in_task } = self.1;
        let here = phase == planted && args.clock.step == step && args.operand(Role::X(0)).start(0) == first_row;
        if here && in_task {
            args.pool.run(8, |task, _| assert!(task != 5, "planted in a task"));
        }
        assert!(!here || in_task, "planted");
        self.0.run(phase, args);
    }
    fn launch(&self, phase: &str, launch: &Launch) -> peristyle::Result<()> {
        self.0.launch(phase, launch)
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        Vec::new()
    }
}

/// Trains until a layer panics; returns the failed step, the error, and a weak reference to the layer.
fn trained(mesh: (usize, usize), layer: &str, when: When, more: &[&str]) -> (u64, peristyle::Error, Weak<dyn Layer>) {
    let mut sets = on_mesh(mesh);
    sets.extend(more.iter().map(|set| set.to_string()));
    let mut training = Training::new("configs/columns_small.toml", &sets);
    let plan = training.session.plan().clone();
    let mut network = (*plan.network).clone();
    let node = network.nodes.iter_mut().find(|node| node.name == layer).unwrap();
    node.layer = Arc::new(Planted(Arc::clone(&node.layer), when));
    let held = Arc::downgrade(&node.layer);
    let plan = Plan::new(Arc::new(network), plan.chain, plan.spec).unwrap();
    training.session = Session::new(plan).unwrap();
    peristyle::train::exchange::initialise(&mut training.session, 1).unwrap();
    loop {
        training.batches.fill(0, training.step as usize, &mut training.batch).unwrap();
        training.step += 1;
        let clock = Clock { step: training.step, epoch: 0, lr: 0.01, row: 0 };
        let variant = Variant::train(training.batch.rows);
        let batch = &mut training.batch;
        if let Err(error) = training.session.run(variant, batch, clock) {
            let again = training.session.run(variant, batch, clock);
            assert!(again.is_err(), "a failed session runs nothing more");
            return (training.step, error, held);
        }
        assert!(training.step < 10, "the planted layer did not panic");
    }
}

/// Calls `work` on a separate thread and panics if it does not end.
fn ends(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    // A second is enough; the limit allows for a busy machine.
    if ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
        panic!("{what} hangs");
    }
    thread.join().unwrap();
}

#[test]
fn a_panic_on_one_of_four_devices_ends_the_run_with_the_step_named() {
    for (mesh, device) in [((2, 2), "device 2"), ((4, 1), "device 2"), ((1, 1), "device 0")] {
        for (phase, layer) in [("backward", "conv3"), ("forward", "conv4"), ("backward", "fc7")] {
            ends(&format!("{mesh:?} {phase} {layer}"), move || {
                let first_row = if mesh == (1, 1) { 0 } else { 16 };
                let when = When { phase, step: 3, first_row, in_task: false };
                let (step, error, held) = trained(mesh, layer, when, &["data.batch=32"]);
                let text = error.to_string();
                assert_eq!((step, error.exit_code()), (3, 1), "{text}");
                for part in [device, "compute queue, step 3", layer, "planted"] {
                    // With two columns, either device of the row may be the first to panic.
                    let found = text.contains(part) || (mesh == (2, 2) && text.contains("device 3"));
                    assert!(found, "{part} is not in: {text}");
                }
                assert!(held.upgrade().is_none(), "the session did not end its threads and release the plan");
            });
        }
    }
}

#[test]
fn a_panic_in_a_shared_task_ends_the_run_too() {
    ends("a shared task", || {
        let when = When { phase: "forward", step: 2, first_row: 0, in_task: true };
        let (step, error, _) = trained((1, 1), "conv2", when, &["devices.threads=3"]);
        assert_eq!(step, 2);
        assert!(error.to_string().contains("step 2 \"") && error.to_string().contains("conv2"), "{error}");
        assert!(error.to_string().contains("planted in a task"), "{error}");
    });
}

#[test]
fn a_panic_in_the_middle_of_a_ring_ends_the_run() {
    ends("a ring", || {
        let when = When { phase: "backward", step: 2, first_row: 8, in_task: false };
        let (_, error, _) = trained((4, 1), "fc8", when, &["devices.collectives=\"ring\""]);
        assert!(error.to_string().contains("device 1, compute queue, step 2"), "{error}");
    });
}
