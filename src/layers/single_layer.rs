//! Runs one layer by itself, on one device or on a small mesh. Tests and `selftest` use it to check layers; `lsuv` and
//! `diagnose init` run networks with it, layer by layer.
//!
//! All tensors are stored whole. In each phase every device receives the windows that the phase declares and runs;
//! the results are then combined according to the declared layouts: shards are placed, partial sums are added, and
//! copies are compared. A layer can thus be verified under every split without a program.

use super::{Access, Activation, Args, Layer, LayerContext, LayerPhases, Mode, Operands, Phase, Role, Split};
use crate::cpu::{Implementation, Scalar};
use crate::device::{Clock, Epilogue, Memory, Operand, Pool, Target};
use crate::error::{Error, Fault, Result};
use crate::gpu::{Allocations, Driver, LaunchOptions};
use crate::tensor::{Axis, Element, Layout, LocalSlice, MatmulPrecision, Mesh, Placement, Precision, Shape};
use std::sync::Arc;

/// The conditions under which the layer runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// The devices.
    pub mesh: Mesh,
    /// The split that a configuration file would specify.
    pub split: Option<Split>,
    /// The placement of the inputs before the layer's own requirement applies.
    pub incoming: Placement,
    /// Training or evaluation.
    pub mode: Mode,
    /// Samples in the global batch.
    pub batch: usize,
    /// The fast or the reference implementation.
    pub implementation: Implementation,
    /// The precision to which a GPU rounds activations and the factors of products.
    pub products: MatmulPrecision,
    /// The epilogue that a GPU applies to the output, in phases that accept it.
    pub epilogue: Option<Epilogue>,
    /// Whether backward phases on a GPU take in the backward pass of a relu, if they can.
    pub masks: bool,
    /// Threads per device.
    pub threads: usize,
    /// Whether to compute the gradients of the inputs.
    pub requires_dx: bool,
    /// Width of the targets: 1 for class indices, otherwise the number of values of a sample.
    pub target_width: usize,
    /// The factor of a loss in the loss of the network.
    pub loss_weight: f64,
    /// The seed of random numbers.
    pub seed: u64,
    /// The stream of the layer's random numbers.
    pub stream: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            mesh: Mesh::ONE,
            split: None,
            incoming: Placement::Replicate,
            mode: Mode::Train,
            batch: 3,
            implementation: Implementation::Fast,
            products: MatmulPrecision::Full,
            epilogue: None,
            masks: false,
            threads: 1,
            requires_dx: true,
            target_width: 1,
            loss_weight: 1.0,
            seed: 1,
            stream: 0,
        }
    }
}

impl Setup {
    /// Creates a setup with a batch of `rows` samples on one device.
    pub fn of_rows(rows: usize) -> Self {
        Setup { batch: rows, ..Setup::default() }
    }
}

/// A whole tensor of the layer.
#[derive(Debug, Clone)]
struct Tensor<T> {
    role: Role,
    shape: Shape,
    values: Vec<T>,
}

/// A lowered layer with its tensors.
#[derive(Debug)]
pub struct SingleLayer<'a, T> {
    layer: &'a dyn Layer,
    setup: Setup,
    phases: LayerPhases,
    pool: Pool,
    /// The GPU that acts as every device of the mesh; none for CPU devices.
    driver: Option<&'a Driver>,
    tensors: Vec<Tensor<T>>,
}

/// The clock with which every phase runs.
const CLOCK: Clock = Clock { step: 1, epoch: 0, lr: 0.0, row: 0 };

impl<'a, T: Scalar> SingleLayer<'a, T> {
    /// Lowers a layer. Its tensors are zero, and its running statistics have their initial values.
    ///
    /// # Errors
    /// If the layer does not support the inputs or the split.
    pub fn new(layer: &'a dyn Layer, inputs: &[Activation], setup: &Setup) -> std::result::Result<Self, Fault> {
        let (mesh, rows) = (setup.mesh, setup.batch);
        let output = layer.output(inputs)?;
        let default = if mesh.columns > 1 { Split::Columns } else { Split::None };
        let cx = LayerContext {
            inputs,
            output,
            place: layer.preferred_input(inputs[0], setup.incoming, setup.split, mesh).unwrap_or(setup.incoming),
            split: setup.split.unwrap_or(default),
            mesh,
            mode: setup.mode,
            batch: rows,
            frozen: false,
        };
        let phases = layer.phases(&cx)?;
        let mut shapes = vec![(Role::Y, output.batch(rows)), (Role::Dy, output.batch(rows))];
        shapes.extend([(Role::Target, Shape::from([rows, setup.target_width]))]);
        shapes.push((Role::Metrics, Shape::from([layer.metrics().len()])));
        for (i, x) in inputs.iter().enumerate() {
            shapes.extend([(Role::X(i), x.batch(rows)), (Role::Dx(i), x.batch(rows))]);
        }
        for (i, param) in layer.params(inputs).into_iter().enumerate() {
            shapes.extend([(Role::Param(i), param.shape.clone()), (Role::DParam(i), param.shape)]);
        }
        shapes.extend(phases.saved.iter().enumerate().map(|(i, shape)| (Role::Saved(i), shape.clone())));
        let tensors = shapes.into_iter().map(|(role, shape)| Tensor::filled(role, shape, 0.0));
        let statistics = layer.statistics(inputs).into_iter().enumerate().map(|(i, statistic)| {
            let start = statistic.init.and_then(|init| init.0.constant()).unwrap_or(0.0);
            Tensor::filled(Role::Statistic(i), statistic.shape, start)
        });
        let tensors = tensors.chain(statistics).collect();
        let pool = Pool::new(setup.threads).map_err(|error| Fault::whole(error.to_string()))?;
        Ok(SingleLayer { layer, setup: setup.clone(), phases, pool, driver: None, tensors })
    }

    /// Runs the layer on a GPU, in f32. All devices of the mesh use the same GPU.
    pub fn on(mut self, driver: &'a Driver) -> Self {
        self.driver = Some(driver);
        self
    }

    /// Returns the phases of the lowered layer.
    pub fn phases(&self) -> &LayerPhases {
        &self.phases
    }

    /// Returns the roles of the layer's tensors.
    pub fn roles(&self) -> Vec<Role> {
        self.tensors.iter().map(|t| t.role).collect()
    }

    /// Returns the shape of a whole tensor.
    pub fn shape(&self, role: Role) -> &Shape {
        &self.tensors[self.index(role)].shape
    }

    /// Returns a whole tensor.
    pub fn values(&self, role: Role) -> &[T] {
        &self.tensors[self.index(role)].values
    }

    /// Returns a whole tensor for writing.
    pub fn values_mut(&mut self, role: Role) -> &mut [T] {
        let index = self.index(role);
        &mut self.tensors[index].values
    }

    fn index(&self, role: Role) -> usize {
        self.tensors.iter().position(|t| t.role == role).expect("the layer has a tensor with this role")
    }

    /// Runs the forward phases. A view copies its input to its output.
    ///
    /// # Errors
    /// If the GPU reports an error, a kernel faults, or copies on several devices differ.
    pub fn forward(&mut self) -> Result<()> {
        if self.phases.forward.is_empty() {
            let x = self.values(Role::X(0)).to_vec();
            self.values_mut(Role::Y).copy_from_slice(&x);
        }
        for phase in &self.phases.forward.clone() {
            self.run(phase)?;
        }
        Ok(())
    }

    /// Runs the backward phases. Without any, the gradient of the output is that of every input.
    ///
    /// # Errors
    /// The same as [`SingleLayer::forward`].
    pub fn backward(&mut self) -> Result<()> {
        if self.phases.backward.is_empty() {
            let dy = self.values(Role::Dy).to_vec();
            let inputs = self.tensors.iter_mut().filter(|t| matches!(t.role, Role::Dx(_)));
            inputs.for_each(|t| t.values.copy_from_slice(&dy));
        }
        for phase in &self.phases.backward.clone() {
            self.run(phase)?;
        }
        Ok(())
    }

    fn run(&mut self, phase: &Phase) -> Result<()> {
        let mesh = self.setup.mesh;
        let results: Vec<Vec<(Role, Vec<T>)>> =
            (0..mesh.devices()).map(|device| self.run_on(device, phase)).collect::<Result<_>>()?;
        for operand in phase.operands.iter().filter(|operand| operand.access != Access::Read) {
            if !self.is_required(operand.role) {
                continue;
            }
            let layout = operand.layout.on_mesh(mesh);
            let whole = &mut self.tensors.iter_mut().find(|t| t.role == operand.role).expect("it was looked up above");
            whole.values.fill(T::from_f64(f64::NAN));
            let of = |device: usize| {
                let found = results[device].iter().find(|(role, _)| *role == operand.name);
                &found.expect("every operand has a result").1
            };
            for device in 0..mesh.devices() {
                whole.put(layout, mesh, device, of(device), of)?;
            }
        }
        Ok(())
    }

    /// Returns the type of elements in memory: on a GPU f32, or the type of activations if `low_precision`.
    fn element(&self, low_precision: bool) -> Element {
        match self.driver {
            None => Element::Real(T::PRECISION),
            Some(_) if low_precision => self.setup.products.activations(Precision::F32),
            Some(_) => Element::F32,
        }
    }

    fn masks(&self, phase: &Phase) -> bool {
        self.setup.masks && self.driver.is_some() && phase.mask.is_some()
    }

    fn is_required(&self, role: Role) -> bool {
        self.setup.requires_dx || !matches!(role, Role::Dx(_))
    }

    /// Runs a phase on one device and returns the resulting values of all its operands.
    fn run_on(&self, device: usize, phase: &Phase) -> Result<Vec<(Role, Vec<T>)>> {
        let mesh = self.setup.mesh;
        let mut given = Vec::new();
        let mut described = Vec::new();
        for operand in phase.all_operands(self.masks(phase)).filter(|operand| self.is_required(operand.role)) {
            let tensor = &self.tensors[self.index(operand.role)];
            let window = operand.layout.on_mesh(mesh).window(&tensor.shape, mesh, mesh.position(device));
            // Poison the memory so that reads of uninitialised elements show.
            let mut values = vec![T::from_f64(f64::NAN); window.elements()];
            let at = mesh.position(device);
            let term = |axis: Axis| operand.layout.on_mesh(mesh).on(axis) == Placement::Partial;
            if operand.access == Access::Read
                && (term(Axis::Data) && at.data > 0 || term(Axis::Columns) && at.column > 0)
            {
                // A phase that reads terms of a sum is linear in them: one device has the sum.
                values.fill(T::ZERO);
            } else if operand.access != Access::Write {
                each(&tensor.shape, &window, |local, index| values[local] = tensor.values[index]);
            }
            // Kernels round this weight; parameters are given as kernels round them.
            let computed = operand.name == Role::WEIGHT && operand.role != operand.name;
            if computed && self.driver.is_none() && self.setup.products != MatmulPrecision::Full {
                values.iter_mut().for_each(|value| *value = T::from_f64(rounded(value.to_f64(), self.setup.products)));
            }
            given.push(values);
            described.push((
                operand.name,
                Operand::described(self.element(operand.low_precision), tensor.shape.clone(), window),
            ));
        }
        let shapes: Operands = described.iter().cloned().collect();
        let target = match self.driver {
            None => Target::Cpu { threads: self.pool.threads() },
            Some(driver) => Target::Gpu { libraries: driver.libraries(), threads: self.pool.threads() },
        };
        let scratch = self.layer.scratch(phase.name, &shapes, target);
        match self.driver {
            None => self.run_on_cpu(phase, described, scratch, &given),
            Some(driver) => self.run_on_gpu(driver, phase, described, scratch, &given),
        }
    }

    fn run_on_cpu(
        &self,
        phase: &Phase,
        described: Vec<(Role, Operand)>,
        scratch: usize,
        given: &[Vec<T>],
    ) -> Result<Vec<(Role, Vec<T>)>> {
        let scratch = (scratch > 0).then(|| {
            let shape = Shape::from([scratch]);
            Operand::described(self.element(false), shape.clone(), LocalSlice { start: vec![0], len: shape.0 })
        });
        let room = |operand: &Operand| (operand.elements() * T::PRECISION.bytes()).next_multiple_of(Memory::ALIGN);
        let all = described.iter().map(|(_, operand)| operand).chain(&scratch);
        let memory = Arc::new(Memory::new(all.map(room).sum())?);
        let mut end = 0;
        let mut place = |operand: Operand| {
            end += room(&operand);
            let start = end - room(&operand);
            Operand::new(&memory, start, operand.shape, operand.window, T::PRECISION)
        };
        let operands: Operands = described.into_iter().map(|(role, operand)| (role, place(operand))).collect();
        let operands = operands.with_scratch(scratch.map(place));
        let args = Args {
            implementation: self.setup.implementation,
            clock: CLOCK,
            seed: self.setup.seed,
            layer: self.setup.stream,
            divisor: self.setup.batch,
            loss_weight: self.setup.loss_weight,
            ..Args::new(&operands, &self.pool, T::PRECISION)
        };
        for (role, values) in operands.roles().zip(given) {
            args.write::<T>(role).copy_from_slice(values);
        }
        args.scratch::<T>().fill(T::from_f64(f64::NAN));
        self.layer.run(phase.name, &args);
        if args.gradient_is_finite() {
            let gradient = args.read::<T>(Role::DParam(0));
            assert!(gradient.iter().all(|g| g.to_f64().is_finite()), "a gradient that is known to be finite is not");
        }
        Ok(operands.roles().map(|role| (role, args.read::<T>(role).to_vec())).collect())
    }

    fn run_on_gpu(
        &self,
        driver: &Driver,
        phase: &Phase,
        described: Vec<(Role, Operand)>,
        scratch: usize,
        given: &[Vec<T>],
    ) -> Result<Vec<(Role, Vec<T>)>> {
        let mut work = Allocations::new(driver)?;
        let mut put = |operand: Operand, values: &[T]| {
            let values: Vec<f32> = values.iter().map(|v| v.to_f64() as f32).collect();
            work.put(&values, operand.element, operand.shape, operand.window)
        };
        let mut operands = Vec::with_capacity(described.len());
        for ((role, operand), values) in described.into_iter().zip(given) {
            operands.push((role, put(operand, values)?));
        }
        let scratch = (scratch > 0).then(|| work.scratch(scratch)).transpose()?;
        let operands = Operands::from_iter(operands).with_scratch(scratch);
        let how = LaunchOptions {
            clock: CLOCK,
            seed: self.setup.seed,
            layer: self.setup.stream,
            divisor: self.setup.batch,
            loss_weight: self.setup.loss_weight,
            tf32: self.setup.products == MatmulPrecision::Tf32,
            epilogue: match self.masks(phase) {
                true => Some(Epilogue::Relu),
                false => self.setup.epilogue.filter(|epilogue| phase.epilogues.contains(epilogue)),
            },
        };
        work.launch(&operands, how, |launch| self.layer.launch(phase.name, launch))?;
        let take = |role| {
            let values = work.take(&operands[role])?;
            Ok((role, values.into_iter().map(|v| T::from_f64(f64::from(v))).collect()))
        };
        operands.roles().map(take).collect()
    }
}

/// Returns a factor of a product as kernels round it.
fn rounded(value: f64, products: MatmulPrecision) -> f64 {
    match products {
        MatmulPrecision::Full => value,
        MatmulPrecision::Bf16 => half::bf16::from_f64(value).to_f64(),
        // 10 bits after the first, the nearest.
        MatmulPrecision::Tf32 => f64::from(f32::from_bits((value as f32).to_bits().wrapping_add(0x1000) & !0x1fff)),
    }
}

impl<T: Scalar> Tensor<T> {
    fn filled(role: Role, shape: Shape, value: f64) -> Self {
        let values = vec![T::from_f64(value); shape.elements()];
        Tensor { role, shape, values }
    }

    /// Stores one device's part in the whole tensor.
    ///
    /// # Errors
    /// If copies on two devices differ.
    fn put<'r>(
        &mut self,
        layout: Layout,
        mesh: Mesh,
        device: usize,
        part: &[T],
        result: impl Fn(usize) -> &'r Vec<T>,
    ) -> Result<()> {
        let at = mesh.position(device);
        let is_later = |place: Placement| Axis::INNER_FIRST.iter().any(|&a| layout.on(a) == place && at.on(a) > 0);
        if is_later(Placement::Replicate) {
            let mut first = at;
            if layout.on(Axis::Data) == Placement::Replicate {
                first.data = 0;
            }
            if layout.on(Axis::Columns) == Placement::Replicate {
                first.column = 0;
            }
            let same = |(a, b): (&T, &T)| a.to_f64().to_bits() == b.to_f64().to_bits();
            let other = result(mesh.device(first));
            let differ = part.iter().zip(other).position(|pair| !same(pair));
            return differ.map_or(Ok(()), |i| {
                let (role, a, b) = (self.role, part[i].to_f64(), other[i].to_f64());
                Err(Error::Run(format!("{role:?}: element {i} is {a} on device {device}, but {b} in its first copy")))
            });
        }
        let add = is_later(Placement::Partial);
        each(&self.shape, &layout.window(&self.shape, mesh, at), |local, index| {
            self.values[index] = if add { self.values[index] + part[local] } else { part[local] };
        });
        Ok(())
    }
}

/// Calls `visit(index in the window, index in the whole tensor)` for every element of a window, in order.
fn each(shape: &Shape, window: &LocalSlice, mut visit: impl FnMut(usize, usize)) {
    if window.len == shape.0 {
        return (0..shape.elements()).for_each(|index| visit(index, index));
    }
    for local in 0..window.elements() {
        let (mut rest, mut index, mut stride) = (local, 0, 1);
        for dim in (0..shape.rank()).rev() {
            index += (window.start[dim] + rest % window.len[dim]) * stride;
            rest /= window.len[dim];
            stride *= shape.0[dim];
        }
        visit(local, index);
    }
}
