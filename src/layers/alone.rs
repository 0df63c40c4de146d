//! Runs one layer by itself, on one device or on a small mesh: what tests and `selftest` compare layers with.
//!
//! The logical tensors are kept whole. For each phase every device gets the windows that the phase declares, runs,
//! and its results are put together as the declared layouts say: shards are placed, partial sums added, copies
//! compared. So a layer can be proved right under every split before any program exists.

use super::{Access, Activation, Layer, Lowered, Lowering, METRICS, Mode, Pass, Phase, Role, Split};
use crate::device::{Args, Clock, Driver, Memory, Operand, Path, Pool, Scalar, Workspace};
use crate::error::{Error, Fault, Result};
use crate::tensor::{Axis, Element, Layout, Mesh, Place, Precision, Products, Shape, Window};
use std::sync::Arc;

/// How the layer runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The devices.
    pub mesh: Mesh,
    /// The split that the file would give.
    pub split: Option<Split>,
    /// Where the inputs are before the layer says what it wants.
    pub incoming: Place,
    /// Training or evaluation.
    pub mode: Mode,
    /// Samples in the global batch.
    pub rows: usize,
    /// Fast or plain.
    pub path: Path,
    /// What a GPU rounds factors of products, and activations, to.
    pub products: Products,
    /// Whether a GPU writes max(y, 0) in place of the output y, in layers that can.
    pub relu: bool,
    /// Threads per device.
    pub threads: usize,
    /// Whether the gradients of the inputs are wanted.
    pub wants_dx: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            mesh: Mesh::ONE,
            split: None,
            incoming: Place::Replicate,
            mode: Mode::Train,
            rows: 3,
            path: Path::Fast,
            products: Products::Full,
            relu: false,
            threads: 1,
            wants_dx: true,
        }
    }
}

impl Setting {
    /// A batch of `rows` samples on one device.
    pub fn of_rows(rows: usize) -> Self {
        Setting { rows, ..Setting::default() }
    }
}

/// A tensor of the layer, whole.
#[derive(Debug, Clone)]
struct Tensor<T> {
    role: Role,
    shape: Shape,
    values: Vec<T>,
}

/// A lowered layer with its tensors.
#[derive(Debug)]
pub struct Alone<'a, T> {
    layer: &'a dyn Layer,
    setting: Setting,
    lowered: Lowered,
    pool: Pool,
    /// The GPU that stands in for every device of the mesh; none for CPU devices.
    driver: Option<&'a Driver>,
    tensors: Vec<Tensor<T>>,
}

/// When every phase runs.
const CLOCK: Clock = Clock { step: 1, epoch: 0, lr: 0.0 };

impl<'a, T: Scalar> Alone<'a, T> {
    /// Lowers a layer; its tensors are zero, its statistics as the layer starts them.
    ///
    /// # Errors
    /// When the layer does not fit the inputs or the split.
    pub fn new(layer: &'a dyn Layer, inputs: &[Activation], setting: &Setting) -> std::result::Result<Self, Fault> {
        let (mesh, rows) = (setting.mesh, setting.rows);
        let output = layer.output(inputs)?;
        let default = if mesh.columns > 1 { Split::Columns } else { Split::None };
        let cx = Lowering {
            inputs,
            output,
            place: layer.wanted(inputs[0], setting.incoming, setting.split, mesh).unwrap_or(setting.incoming),
            split: setting.split.unwrap_or(default),
            mesh,
            mode: setting.mode,
            rows,
        };
        let lowered = layer.lower(&cx)?;
        let mut shapes = vec![(Role::Y, output.batch(rows)), (Role::Dy, output.batch(rows))];
        shapes.extend([(Role::Target, Shape::from([rows, 1])), (Role::Metrics, Shape::from([METRICS]))]);
        for (i, x) in inputs.iter().enumerate() {
            shapes.extend([(Role::X(i), x.batch(rows)), (Role::Dx(i), x.batch(rows))]);
        }
        for (i, param) in layer.params(inputs).into_iter().enumerate() {
            shapes.extend([(Role::Param(i), param.shape.clone()), (Role::DParam(i), param.shape)]);
        }
        shapes.extend(lowered.locals.iter().enumerate().map(|(i, shape)| (Role::Local(i), shape.clone())));
        let tensors = shapes.into_iter().map(|(role, shape)| Tensor::filled(role, shape, 0.0));
        let states = layer.states(inputs).into_iter().enumerate().map(|(i, state)| {
            let start = match state.init {
                Some(super::Init::Constant(value)) => value,
                _ => 0.0,
            };
            Tensor::filled(Role::State(i), state.shape, start)
        });
        let tensors = tensors.chain(states).collect();
        let pool = Pool::new(setting.threads).map_err(|error| Fault::whole(error.to_string()))?;
        Ok(Alone { layer, setting: setting.clone(), lowered, pool, driver: None, tensors })
    }

    /// Runs the layer on a GPU, in f32: all devices of the mesh on the same one.
    pub fn on(mut self, driver: &'a Driver) -> Self {
        self.driver = Some(driver);
        self
    }

    /// Returns what the layer lowered to.
    pub fn lowered(&self) -> &Lowered {
        &self.lowered
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

    /// Returns a whole tensor, to change.
    pub fn values_mut(&mut self, role: Role) -> &mut [T] {
        let index = self.index(role);
        &mut self.tensors[index].values
    }

    fn index(&self, role: Role) -> usize {
        self.tensors.iter().position(|t| t.role == role).expect("the layer has a tensor of this role")
    }

    /// Runs the forward phases; a view passes its input on.
    ///
    /// # Errors
    /// When the GPU refuses or a kernel faults, or copies on several devices differ.
    pub fn forward(&mut self) -> Result<()> {
        if self.lowered.forward.is_empty() {
            let x = self.values(Role::X(0)).to_vec();
            self.values_mut(Role::Y).copy_from_slice(&x);
        }
        for (i, phase) in self.lowered.forward.clone().iter().enumerate() {
            self.run(Pass::Forward, i, phase)?;
        }
        Ok(())
    }

    /// Runs the backward phases; a view passes its output's gradient on.
    ///
    /// # Errors
    /// As [`Alone::forward`].
    pub fn backward(&mut self) -> Result<()> {
        if self.lowered.backward.is_empty() {
            let dy = self.values(Role::Dy).to_vec();
            self.values_mut(Role::Dx(0)).copy_from_slice(&dy);
        }
        for (i, phase) in self.lowered.backward.clone().iter().enumerate() {
            self.run(Pass::Backward, i, phase)?;
        }
        Ok(())
    }

    fn run(&mut self, pass: Pass, number: usize, phase: &Phase) -> Result<()> {
        let mesh = self.setting.mesh;
        let results: Vec<Vec<Vec<T>>> =
            (0..mesh.devices()).map(|device| self.run_on(device, pass, number, phase)).collect::<Result<_>>()?;
        for (i, wanted) in phase.operands.iter().enumerate() {
            if wanted.access == Access::Read || !self.is_wanted(wanted.role) {
                continue;
            }
            let layout = wanted.layout.on_mesh(mesh);
            let whole = &mut self.tensors.iter_mut().find(|t| t.role == wanted.role).expect("it was read above");
            whole.values.fill(T::from_f64(f64::NAN));
            for (device, parts) in results.iter().enumerate() {
                whole.put(layout, mesh, device, &parts[i], |twin| &results[twin][i])?;
            }
        }
        Ok(())
    }

    /// Returns how elements lie in memory: on a GPU f32, or as activations do.
    fn element(&self, narrow: bool) -> Element {
        match self.driver {
            None => Element::Real(T::PRECISION),
            Some(_) if narrow => self.setting.products.activations(Precision::F32),
            Some(_) => Element::F32,
        }
    }

    fn is_wanted(&self, role: Role) -> bool {
        self.setting.wants_dx || !matches!(role, Role::Dx(_))
    }

    /// Runs a phase on one device and returns all its operands as they are afterwards.
    fn run_on(&self, device: usize, pass: Pass, number: usize, phase: &Phase) -> Result<Vec<Vec<T>>> {
        let mesh = self.setting.mesh;
        let windows: Vec<Option<(&Tensor<T>, Window)>> = phase
            .operands
            .iter()
            .map(|wanted| {
                let tensor = &self.tensors[self.index(wanted.role)];
                let window = wanted.layout.on_mesh(mesh).window(&tensor.shape, mesh, mesh.position(device));
                self.is_wanted(wanted.role).then_some((tensor, window))
            })
            .collect();
        let described: Vec<Option<Operand>> = windows
            .iter()
            .zip(&phase.operands)
            .map(|(w, wanted)| {
                let (tensor, window) = w.as_ref()?;
                Some(Operand::described(self.element(wanted.narrow), tensor.shape.clone(), window.clone()))
            })
            .collect();
        let scratch = match self.driver {
            None => self.layer.scratch(pass, number, &described, self.pool.threads()),
            Some(driver) => {
                let library = if driver.has_libraries() { self.layer.library_scratch(pass, number) } else { 0 };
                self.layer.device_scratch(pass, number, &described).max(library)
            }
        };
        let scratch = (scratch > 0).then(|| {
            let shape = Shape::from([scratch]);
            Some(Operand::described(self.element(false), shape.clone(), Window { start: vec![0], len: shape.0 }))
        });
        let described: Vec<Option<Operand>> = described.into_iter().chain(scratch).collect();
        let given = |i: usize, operand: &Operand| -> Vec<T> {
            // Whoever reads what nobody wrote shall see it.
            let mut values = vec![T::from_f64(f64::NAN); operand.elements()];
            if let Some(Access::Read | Access::Update) = phase.operands.get(i).map(|wanted| wanted.access) {
                let (tensor, window) = windows[i].as_ref().expect("it is present");
                each(&tensor.shape, window, |local, index| values[local] = tensor.values[index]);
            }
            values
        };
        let given: Vec<Option<Vec<T>>> =
            described.iter().enumerate().map(|(i, o)| o.as_ref().map(|operand| given(i, operand))).collect();
        let mut results = match self.driver {
            None => self.run_on_cpu(pass, number, described, &given)?,
            Some(driver) => self.run_on_gpu(driver, (pass, number), described, &given, phase.operands.len())?,
        };
        results.truncate(phase.operands.len());
        Ok(results)
    }

    fn run_on_cpu(
        &self,
        pass: Pass,
        number: usize,
        described: Vec<Option<Operand>>,
        given: &[Option<Vec<T>>],
    ) -> Result<Vec<Vec<T>>> {
        let room = |operand: &Operand| (operand.elements() * T::PRECISION.bytes()).next_multiple_of(Memory::ALIGN);
        let memory = Arc::new(Memory::new(described.iter().flatten().map(room).sum())?);
        let mut end = 0;
        let mut place = |operand: Operand| {
            end += room(&operand);
            let start = end - room(&operand);
            Operand::new(&memory, start, operand.shape, operand.window, T::PRECISION)
        };
        let operands: Vec<Option<Operand>> = described.into_iter().map(|o| o.map(&mut place)).collect();
        let args = Args {
            operands: &operands,
            pool: &self.pool,
            precision: T::PRECISION,
            path: self.setting.path,
            clock: CLOCK,
            seed: 1,
            layer: 0,
            rows: self.setting.rows,
        };
        for (i, values) in given.iter().enumerate() {
            if let Some(values) = values {
                args.write::<T>(i).copy_from_slice(values);
            }
        }
        self.layer.run(pass, number, &args);
        Ok((0..operands.len()).map(|i| if args.has(i) { args.read::<T>(i).to_vec() } else { vec![] }).collect())
    }

    fn run_on_gpu(
        &self,
        driver: &Driver,
        (pass, number): (Pass, usize),
        described: Vec<Option<Operand>>,
        given: &[Option<Vec<T>>],
        kept: usize,
    ) -> Result<Vec<Vec<T>>> {
        let mut work = Workspace::new(driver)?;
        let mut operands = Vec::with_capacity(described.len());
        for (operand, values) in described.into_iter().zip(given) {
            let (Some(operand), Some(values)) = (operand, values) else {
                operands.push(None);
                continue;
            };
            let values: Vec<f32> = values.iter().map(|v| v.to_f64() as f32).collect();
            operands.push(Some(work.put(&values, operand.element, operand.shape, operand.window)?));
        }
        let tf32 = self.setting.products == Products::Tf32;
        let writes = pass == Pass::Forward && self.lowered.forward[number].operands.iter().any(|o| o.role == Role::Y);
        let relu = self.setting.relu && writes;
        work.launch(&operands, CLOCK, (self.setting.rows, tf32, relu), |launch| {
            self.layer.launch(pass, number, launch)
        })?;
        let take = |operand: &Option<Operand>| match operand {
            Some(operand) => Ok(work.take(operand)?.into_iter().map(|v| T::from_f64(f64::from(v))).collect()),
            None => Ok(vec![]),
        };
        operands.iter().take(kept).map(take).collect()
    }
}

impl<T: Scalar> Tensor<T> {
    fn filled(role: Role, shape: Shape, value: f64) -> Self {
        let values = vec![T::from_f64(value); shape.elements()];
        Tensor { role, shape, values }
    }

    /// Puts one device's part into the whole.
    ///
    /// # Errors
    /// When copies on two devices differ.
    fn put<'r>(
        &mut self,
        layout: Layout,
        mesh: Mesh,
        device: usize,
        part: &[T],
        result: impl Fn(usize) -> &'r Vec<T>,
    ) -> Result<()> {
        let at = mesh.position(device);
        let is_later = |place: Place| Axis::INNER_FIRST.iter().any(|&a| layout.on(a) == place && at.on(a) > 0);
        if is_later(Place::Replicate) {
            let mut first = at;
            if layout.data == Place::Replicate {
                first.data = 0;
            }
            if layout.columns == Place::Replicate {
                first.column = 0;
            }
            let same = |(a, b): (&T, &T)| a.to_f64().to_bits() == b.to_f64().to_bits();
            let twin = result(mesh.device(first));
            let differ = part.iter().zip(twin).position(|pair| !same(pair));
            return differ.map_or(Ok(()), |i| {
                let (role, a, b) = (self.role, part[i].to_f64(), twin[i].to_f64());
                Err(Error::Run(format!("{role:?}: element {i} is {a} on device {device}, but {b} in its first copy")))
            });
        }
        let add = is_later(Place::Partial);
        each(&self.shape, &layout.window(&self.shape, mesh, at), |local, index| {
            self.values[index] = if add { self.values[index] + part[local] } else { part[local] };
        });
        Ok(())
    }
}

/// Calls `visit(index in the window, index in the whole)` for every element of a window, in order.
fn each(shape: &Shape, window: &Window, mut visit: impl FnMut(usize, usize)) {
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
