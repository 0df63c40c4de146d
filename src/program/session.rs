//! Runs the programs of a plan, and reads and writes what outlives a step.

use super::exec::{Batch, Executable};
use super::{Plan, arena};
use crate::device::{Args, Clock, Memory, Operand, Path, Pool, Queues, Script};
use crate::error::{Error, Result};
use crate::placement::{Region, Variant};
use crate::tensor::{Axis, Layout, Place, Precision, Real, Shape, Strided, Window};
use std::sync::{Arc, RwLock};

/// The loss and counts of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Metrics {
    /// Mean loss over the samples of the global batch.
    pub loss: f64,
    /// Samples whose class has the largest logit.
    pub top1: f64,
    /// Samples whose class is among the five largest logits.
    pub top5: f64,
    /// Samples.
    pub rows: f64,
}

/// A tensor that outlives a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// A parameter.
    Parameter(usize),
    /// The gradient of a parameter.
    Gradient(usize),
    /// A parameter's part of a state slot of the optimiser: (slot, parameter).
    Slot(usize, usize),
    /// A running statistic.
    State(usize),
}

/// The devices of a plan, with their memory and queues.
#[derive(Debug)]
pub struct Session {
    plan: Plan,
    memories: Vec<Arc<Memory>>,
    queues: Queues,
    scripts: Vec<Arc<dyn Script>>,
    batch: Arc<RwLock<Batch>>,
    /// For the host's own reads and writes.
    host: Pool,
    /// Where device 0 leaves the loss and counts of a batch.
    metrics: Option<Operand>,
}

impl std::fmt::Debug for dyn Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl Session {
    /// Allocates the arenas of a plan and starts its queues. All values are zero.
    pub fn new(plan: Plan) -> Self {
        let precision = plan.options.precision;
        let allocate = |&elements: &usize| Arc::new(Memory::new(elements * precision.bytes()));
        let memories: Vec<Arc<Memory>> = plan.arena.iter().map(allocate).collect();
        let batch = Arc::new(RwLock::new(Batch::default()));
        let script =
            |program| -> Arc<dyn Script> { Arc::new(Executable::new(&plan, program, &memories, Arc::clone(&batch))) };
        let scripts = plan.programs.iter().map(script).collect();
        let queues = Queues::new(plan.options.mesh.devices(), plan.options.threads);
        debug_assert!(Memory::ALIGN <= arena::ALIGN * precision.bytes());
        let (offset, elements) = region(&plan, Region::Metrics);
        let window = Window { start: vec![0], len: vec![elements] };
        let metrics = Operand::new(&memories[0], offset * precision.bytes(), [elements].into(), window, precision);
        Session { plan, memories, queues, scripts, batch, host: Pool::new(1), metrics: Some(metrics) }
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs one step on a batch: `images` are the (N, H, W, C) values of the whole batch, `targets` its (N, width)
    /// targets. Both come back as they were.
    ///
    /// # Errors
    /// When a step fails on a device, or the plan has no such variant.
    pub fn run(
        &mut self,
        variant: Variant,
        images: &mut Vec<f32>,
        targets: &mut Vec<f32>,
        clock: Clock,
    ) -> Result<Metrics> {
        let Some(number) = self.plan.programs.iter().position(|p| p.variant == variant) else {
            return Err(Error::Run(format!("no program was planned for {variant:?}")));
        };
        let exchange = |batch: &RwLock<Batch>, images: &mut Vec<f32>, targets: &mut Vec<f32>| {
            let mut batch = batch.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            std::mem::swap(&mut batch.images, images);
            std::mem::swap(&mut batch.targets, targets);
        };
        exchange(&self.batch, images, targets);
        let result = self.queues.run(&self.scripts[number], clock);
        exchange(&self.batch, images, targets);
        result.map(|()| self.metrics())
    }

    fn metrics(&self) -> Metrics {
        let values = match self.plan.options.precision {
            Precision::F32 => self.fixed::<f32>(),
            Precision::F64 => self.fixed::<f64>(),
            Precision::Dual => self.fixed::<crate::tensor::Dual>(),
        };
        let [loss, top1, top5, rows] = values;
        Metrics { loss, top1, top5, rows }
    }

    fn fixed<T: Real>(&self) -> [f64; 4] {
        let args = self.args(std::slice::from_ref(&self.metrics));
        let mut values = [0.0; 4];
        values.iter_mut().zip(args.read::<T>(0)).for_each(|(to, from)| *to = from.to_f64());
        values
    }

    fn args<'a>(&'a self, operands: &'a [Option<Operand>]) -> Args<'a> {
        Args {
            operands,
            pool: &self.host,
            precision: self.plan.options.precision,
            path: Path::default(),
            clock: Clock::default(),
            seed: 0,
            layer: 0,
            rows: 0,
        }
    }

    /// Calls `f` with elements of a device's memory. No step runs meanwhile: `self.queues` is idle between runs.
    fn with<T: Real>(&self, device: usize, offset: usize, shape: Shape, window: Window, f: impl FnOnce(&mut [T])) {
        let precision = self.plan.options.precision;
        let operand = Operand::new(&self.memories[device], offset * precision.bytes(), shape, window, precision);
        f(self.args(&[Some(operand)]).write::<T>(0));
    }

    /// Returns the layout, shape and first element of a tensor in every device's arena.
    fn find(&self, which: Which) -> (Layout, Shape, usize) {
        let plan = &self.plan;
        let param = |i: usize, wanted| {
            let part = plan.flat.parts[i];
            let shape = plan.network.parameters[i].param.shape.clone();
            (part.layout, shape, region(plan, wanted).0 + part.offset)
        };
        match which {
            Which::Parameter(i) => param(i, Region::Weights),
            Which::Gradient(i) => param(i, Region::Gradients),
            Which::Slot(slot, i) => param(i, Region::Slot(slot)),
            Which::State(i) => {
                let (layout, offset) = plan.statistics[i];
                let shape = plan.network.states[i].param.shape.clone();
                (layout, shape, region(plan, Region::Statistics).0 + offset)
            }
        }
    }

    /// Returns all elements of a tensor, put together from the devices that hold them.
    ///
    /// # Panics
    /// When `T` is not the plan's precision.
    pub fn read<T: Real>(&self, which: Which) -> Vec<T> {
        let (layout, shape, offset) = self.find(which);
        let mesh = self.plan.options.mesh;
        let whole = Window { start: vec![0; shape.rank()], len: shape.0.clone() };
        let mut all = vec![T::ZERO; shape.elements()];
        for device in 0..mesh.devices() {
            let at = mesh.position(device);
            let copy = |axis: Axis| layout.on(axis) == Place::Replicate && at.on(axis) > 0;
            if Axis::INNER_FIRST.into_iter().any(copy) {
                continue;
            }
            let window = layout.window(&shape, mesh, at);
            let part = Strided::of(&window, &whole);
            self.with::<T>(device, offset, shape.clone(), window, |from| {
                for (row, from) in from.chunks_exact(part.len.max(1)).enumerate() {
                    all[part.offset + row * part.stride..][..part.len].copy_from_slice(from);
                }
            });
        }
        all
    }

    /// Gives every device its part of a tensor.
    ///
    /// # Panics
    /// When `T` is not the plan's precision, or the number of elements is not the tensor's.
    pub fn write<T: Real>(&mut self, which: Which, all: &[T]) {
        let (layout, shape, offset) = self.find(which);
        assert_eq!(all.len(), shape.elements());
        let mesh = self.plan.options.mesh;
        let whole = Window { start: vec![0; shape.rank()], len: shape.0.clone() };
        for device in 0..mesh.devices() {
            let window = layout.window(&shape, mesh, mesh.position(device));
            let part = Strided::of(&window, &whole);
            self.with::<T>(device, offset, shape.clone(), window, |to| {
                for (row, to) in to.chunks_exact_mut(part.len.max(1)).enumerate() {
                    to.copy_from_slice(&all[part.offset + row * part.stride..][..part.len]);
                }
            });
        }
    }
}

/// Returns the first element of a region in every device's arena, and the number of its elements.
fn region(plan: &Plan, wanted: Region) -> (usize, usize) {
    let found = plan.regions.iter().find(|(region, ..)| *region == wanted);
    found.map(|&(_, elements, offset)| (offset, elements)).expect("every region is laid out")
}
