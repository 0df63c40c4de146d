//! The phases of a layer: the parts that run on every device without communication, and the operands they access.

use crate::device::Epilogue;
use crate::tensor::{Layout, Shape};

/// The operands of a phase, by role.
pub type Operands = crate::device::Operands<Role>;
/// The operands of a phase on a CPU device, and everything else it needs to run.
pub type Args<'a> = crate::cpu::Args<'a, Role>;
/// The operands of a phase on a GPU, and everything else it needs to launch kernels.
pub type Launch<'a> = crate::gpu::Launch<'a, Role>;

/// The role of an operand in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Input i: (N, H, W, C).
    X(usize),
    /// The output: (N, H, W, C).
    Y,
    /// The gradient of the output.
    Dy,
    /// The gradient of input i; absent if it is not needed.
    Dx(usize),
    /// Parameter i.
    Param(usize),
    /// The gradient of parameter i.
    DParam(usize),
    /// Running statistic i.
    Statistic(usize),
    /// Tensor i that the layer saves, alive from its first write to its last read.
    Saved(usize),
    /// The targets: (N, 1) class indices, (N, C) distributions, or (N, D) values.
    Target,
    /// The metrics of this batch, as [`Layer::metrics`](super::Layer::metrics) lists them.
    Metrics,
}

impl Role {
    /// The weight of a layer with weights.
    pub const WEIGHT: Role = Role::Param(0);
    /// The bias of such a layer.
    pub const BIAS: Role = Role::Param(1);
    /// The gradient of the weight.
    pub const D_WEIGHT: Role = Role::DParam(0);
    /// The gradient of the bias.
    pub const D_BIAS: Role = Role::DParam(1);
}

/// How a phase accesses an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes every element of it.
    Write,
    /// Reads and writes it.
    Update,
    /// Uses it as scratch memory, whose contents are undefined before and after.
    Scratch,
}

impl Access {
    /// Returns true if the previous contents are read.
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::Update)
    }
    /// Returns true if the contents are changed.
    pub fn writes(self) -> bool {
        self != Access::Read
    }
}

/// One operand of a phase, in the layout that the phase requires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhaseOperand {
    /// The tensor that it is.
    pub role: Role,
    /// The role by which the phase's implementation knows it; the same, unless the phase declares another.
    pub name: Role,
    /// How the phase accesses it.
    pub access: Access,
    /// The layout in which the phase reads it, or in which the phase writes it.
    pub layout: Layout,
    /// Whether its elements have the type of activations (bf16 in mixed precision). This is always true of inputs,
    /// outputs and their gradients, and of other operands if the phase declares it.
    pub low_precision: bool,
}

/// How a backward phase can take in the backward pass of a relu next to its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReluMask {
    /// Of the relu whose output is the layer's only input: the phase writes dx where x > 0, otherwise 0.
    Before,
    /// Of the relu that the layer's forward pass applied: the phase reads dy where y > 0, otherwise 0.
    After,
}

/// A part of a layer that runs on every device without communication.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Its name, unique within the layer: `forward`, `statistics`.
    pub name: &'static str,
    /// Its operands.
    pub operands: Vec<PhaseOperand>,
    /// The epilogues that it can apply to its output on a GPU, in place of the next layer.
    pub epilogues: Vec<Epilogue>,
    /// The backward pass of a relu that it can take in on a GPU, and the operands that it then reads as well.
    pub mask: Option<(ReluMask, Vec<PhaseOperand>)>,
}

impl PhaseOperand {
    fn new(role: Role, access: Access, layout: Layout) -> Self {
        let low_precision = matches!(role, Role::X(_) | Role::Y | Role::Dy | Role::Dx(_));
        PhaseOperand { role, name: role, access, layout, low_precision }
    }
}

impl Phase {
    /// Creates a phase without operands.
    pub fn new(name: &'static str) -> Self {
        Phase { name, operands: Vec::new(), epilogues: Vec::new(), mask: None }
    }
    fn with(mut self, role: Role, access: Access, layout: Layout) -> Self {
        self.operands.push(PhaseOperand::new(role, access, layout));
        self
    }
    /// Gives the last operand the type of activations. A parameter is then read from its low-precision copy; a saved
    /// tensor is stored in this type, and every phase that uses it must declare this.
    pub fn low_precision(mut self) -> Self {
        if let Some(last) = self.operands.last_mut() {
            last.low_precision = true;
        }
        self
    }
    /// Declares that the phase's implementation knows the last operand by another role.
    pub fn known_as(mut self, name: Role) -> Self {
        if let Some(last) = self.operands.last_mut() {
            last.name = name;
        }
        self
    }
    /// Declares that the phase can apply an epilogue: its kernels must honour [`crate::gpu::Launch::epilogue`].
    pub fn accepts(mut self, epilogue: Epilogue) -> Self {
        self.epilogues.push(epilogue);
        self
    }
    /// Declares that the phase can take in the backward pass of a relu, if it reads more operands: its kernels must
    /// honour [`crate::gpu::Launch::relu`].
    pub fn masks(mut self, mask: ReluMask, operands: impl IntoIterator<Item = (Role, Layout)>) -> Self {
        let operands = operands.into_iter().map(|(role, layout)| PhaseOperand::new(role, Access::Read, layout));
        self.mask = Some((mask, operands.collect()));
        self
    }
    /// Returns the operands of the phase, with those that it needs to take in a relu if it does.
    pub fn all_operands(&self, masks: bool) -> impl Iterator<Item = &PhaseOperand> {
        let more = self.mask.iter().filter(move |_| masks).flat_map(|(_, operands)| operands);
        self.operands.iter().chain(more)
    }
    /// Adds an operand that is read.
    pub fn read(self, role: Role, layout: Layout) -> Self {
        self.with(role, Access::Read, layout)
    }
    /// Adds an operand of which every element is written.
    pub fn write(self, role: Role, layout: Layout) -> Self {
        self.with(role, Access::Write, layout)
    }
    /// Adds an operand that is read and written.
    pub fn update(self, role: Role, layout: Layout) -> Self {
        self.with(role, Access::Update, layout)
    }
}

/// Forward or backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pass {
    /// From inputs to outputs.
    Forward,
    /// From gradients of outputs to gradients of inputs and parameters.
    Backward,
}

/// A layer lowered for one mesh, mode and number of rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LayerPhases {
    /// Layout of each parameter.
    pub params: Vec<Layout>,
    /// Layout of each running statistic.
    pub statistics: Vec<Layout>,
    /// Shape of each saved tensor.
    pub saved: Vec<Shape>,
    /// The forward phases, in order.
    pub forward: Vec<Phase>,
    /// The backward phases, in order; empty in evaluation, and if the gradient of the output is also that of every
    /// input.
    pub backward: Vec<Phase>,
}

impl LayerPhases {
    /// Creates the phases of a layer with one forward and one backward phase and no parameters.
    pub fn simple(forward: Phase, backward: Phase) -> Self {
        LayerPhases { forward: vec![forward], backward: vec![backward], ..LayerPhases::default() }
    }
    /// Creates the phases of a view, a layer whose output is its input: there are none.
    pub fn view() -> Self {
        LayerPhases::default()
    }
}
