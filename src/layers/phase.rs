//! The phases of a layer: parts that run on every device without communication, and what they do to which operand.

use crate::device::Epilogue;
use crate::tensor::{Layout, Shape};

/// The operands of a phase by their roles.
pub type Operands = crate::device::Operands<Role>;
/// The operands of a phase on a CPU device, with what it needs to run there.
pub type Args<'a> = crate::cpu::Args<'a, Role>;
/// The operands of a phase on a GPU, with what it needs to launch kernels there.
pub type Launch<'a> = crate::gpu::Launch<'a, Role>;

/// What an operand of a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Input i: (N, H, W, C).
    X(usize),
    /// The output: (N, H, W, C).
    Y,
    /// The gradient of the output.
    Dy,
    /// The gradient of input i; absent when nobody wants it.
    Dx(usize),
    /// Parameter i.
    Param(usize),
    /// The gradient of parameter i.
    DParam(usize),
    /// Running statistic i.
    Statistic(usize),
    /// The layer's own tensor i, kept from its first writer to its last reader.
    Saved(usize),
    /// The targets: (N, 1) class indices or (N, C).
    Target,
    /// The loss and counts of this batch: see [`METRICS`](super::METRICS).
    Metrics,
}

impl Role {
    /// The weight of a layer with weights.
    pub const WEIGHT: Role = Role::Param(0);
    /// Its bias.
    pub const BIAS: Role = Role::Param(1);
    /// The gradient of the weight.
    pub const D_WEIGHT: Role = Role::DParam(0);
    /// The gradient of the bias.
    pub const D_BIAS: Role = Role::DParam(1);
}

/// What a phase does to an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads it.
    Read,
    /// Writes every element of it.
    Write,
    /// Reads and writes it.
    Update,
    /// Uses it as scratch memory: its contents are undefined before and after.
    Scratch,
}

impl Access {
    /// Returns true when it depends on what was there before.
    pub fn reads(self) -> bool {
        matches!(self, Access::Read | Access::Update)
    }
    /// Returns true when it changes what is there.
    pub fn writes(self) -> bool {
        self != Access::Read
    }
}

/// One operand of a phase, in the layout that the phase works in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhaseOperand {
    /// What it is.
    pub role: Role,
    /// What is done to it.
    pub access: Access,
    /// Where it must be, or where it will be when it is written.
    pub layout: Layout,
    /// Whether its elements are of the activations' type (bf16 in mixed precision): inputs, outputs and their
    /// gradients always are, other operands when the phase says so.
    pub low_precision: bool,
}

/// A part of a layer that runs on every device without communication.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Its name, which no other phase of the layer has: `forward`, `statistics`.
    pub name: &'static str,
    /// Its operands.
    pub operands: Vec<PhaseOperand>,
    /// What it can do to its output in place of the next layer, on a GPU.
    pub epilogues: Vec<Epilogue>,
}

impl Phase {
    /// A phase without operands.
    pub fn new(name: &'static str) -> Self {
        Phase { name, operands: Vec::new(), epilogues: Vec::new() }
    }
    fn with(mut self, role: Role, access: Access, layout: Layout) -> Self {
        let low_precision = matches!(role, Role::X(_) | Role::Y | Role::Dy | Role::Dx(_));
        self.operands.push(PhaseOperand { role, access, layout, low_precision });
        self
    }
    /// Gives the last operand the activations' type: a parameter is read from its copy, a tensor of the layer's own
    /// is kept so. Every phase that uses such a tensor says so.
    pub fn low_precision(mut self) -> Self {
        if let Some(last) = self.operands.last_mut() {
            last.low_precision = true;
        }
        self
    }
    /// Lets the phase apply an epilogue: its kernels heed [`crate::gpu::Launch::epilogue`].
    pub fn accepts(mut self, epilogue: Epilogue) -> Self {
        self.epilogues.push(epilogue);
        self
    }
    /// Adds an operand that is read.
    pub fn read(self, role: Role, layout: Layout) -> Self {
        self.with(role, Access::Read, layout)
    }
    /// Adds an operand whose every element is written.
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
    /// Shape of each of the layer's own tensors.
    pub saved: Vec<Shape>,
    /// The forward phases, in order.
    pub forward: Vec<Phase>,
    /// The backward phases, in order; empty in evaluation.
    pub backward: Vec<Phase>,
}

impl LayerPhases {
    /// A layer of one forward and one backward phase, without parameters.
    pub fn simple(forward: Phase, backward: Phase) -> Self {
        LayerPhases { forward: vec![forward], backward: vec![backward], ..LayerPhases::default() }
    }
    /// A layer whose output is its input.
    pub fn view() -> Self {
        LayerPhases::default()
    }
}
