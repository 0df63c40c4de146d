//! The mathematics: one file per layer holds its configuration, shapes, cost, phases with their layouts, and its
//! forward and backward passes. Knows neither the network around a layer nor the devices that it runs on.
//!
//! To add a layer: write `layers/x.rs` with a struct that implements [`Layer`], write `kernels/x.cu`, and add one
//! line to the list in `layers!` below. The shared suite then takes its `examples()`.

mod add;
mod avg_pool;
mod batch_norm;
mod conv;
mod dense;
mod dropout;
mod elementwise;
mod flatten;
mod global_avg_pool;
mod init;
mod lrn;
mod max_pool;
mod phase;
mod relu;
mod sigmoid;
mod single_layer;
mod softmax_cross_entropy;
mod split_k;
mod tanh;
mod window;

pub use init::Init;
pub use phase::{Access, Phase, PhaseOperand, Role};
pub use single_layer::{Setup, SingleLayer};
pub use softmax_cross_entropy::{METRICS, SoftmaxCrossEntropy};

use crate::device::{Epilogue, Target};
pub use crate::error::Fault;
use crate::error::Result;
use crate::tensor::{Layout, Mesh, Placement, Shape};
use serde::Deserialize;
use std::fmt::Debug;

/// The operands of a phase by their roles.
pub type Operands = crate::device::Operands<Role>;
/// What a phase sees on a CPU device.
pub type Args<'a> = crate::cpu::Args<'a, Role>;
/// What a phase sees on a GPU.
pub type Launch<'a> = crate::gpu::Launch<'a, Role>;

/// What flows between layers, for one sample: (H, W, C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// True after `flatten`: the values are one vector of H * W * C features. They keep their order in memory, and
    /// a shard of them is still a shard of the channels.
    pub flat: bool,
}

impl Activation {
    /// An image-like activation.
    pub fn new(h: usize, w: usize, c: usize) -> Self {
        Activation { h, w, c, flat: false }
    }
    /// Returns the number of values per sample.
    pub fn features(self) -> usize {
        self.h * self.w * self.c
    }
    /// Returns the shape of a batch: (N, H, W, C).
    pub fn batch(self, rows: usize) -> Shape {
        Shape::from([rows, self.h, self.w, self.c])
    }
}

impl std::fmt::Display for Activation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.flat || (self.h == 1 && self.w == 1) {
            write!(f, "{}", self.features())
        } else {
            write!(f, "{}x{}x{}", self.h, self.w, self.c)
        }
    }
}

/// How a layer is cut over the columns axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Output channels are sharded.
    Columns,
    /// Input channels are sharded; outputs are partial sums.
    Rows,
    /// The batch is sharded over the columns too.
    Batch,
    /// Every column does everything.
    None,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Split::Columns => "columns",
            Split::Rows => "rows",
            Split::Batch => "batch",
            Split::None => "none",
        })
    }
}

/// What a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Forward, backward and update.
    #[default]
    Train,
    /// Forward alone, with the layers in evaluation mode.
    Eval,
}

/// A parameter or a running statistic of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Last part of its name, as PyTorch calls it: `weight`, `bias`, `running_mean`.
    pub name: &'static str,
    /// Shape in memory.
    pub shape: Shape,
    /// Shape in files.
    pub file_shape: Shape,
    /// The dimension of memory that each dimension of the file runs over, before dimensions are joined.
    pub file_order: Vec<usize>,
    /// Inputs of one output; what initial values scale by.
    pub fan_in: usize,
    /// Outputs of one input.
    pub fan_out: usize,
    /// Its initial value, when the layer fixes it; else the model's `init` decides.
    pub init: Option<Init>,
}

impl Param {
    /// A vector over channels, in the same order in memory and in files, with a fixed initial value.
    pub fn vector(name: &'static str, len: usize, value: f64) -> Self {
        Param {
            name,
            shape: Shape::from([len]),
            file_shape: Shape::from([len]),
            file_order: vec![0],
            fan_in: len,
            fan_out: len,
            init: Some(Init::Constant(value)),
        }
    }
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

/// What a layer is lowered for.
#[derive(Debug, Clone, Copy)]
pub struct LayerContext<'a> {
    /// The inputs, for one sample.
    pub inputs: &'a [Activation],
    /// The output, for one sample.
    pub output: Activation,
    /// Where the inputs are over the columns axis: what [`Layer::wanted`] asked for. Never partial.
    pub place: Placement,
    /// The split in force: the file's, or the default.
    pub split: Split,
    /// The mesh.
    pub mesh: Mesh,
    /// Training or evaluation.
    pub mode: Mode,
    /// Samples in the global batch.
    pub batch: usize,
}

impl LayerContext<'_> {
    /// Returns the layout of an activation whose batch is cut over the data axis and which is `columns` over the
    /// columns axis.
    pub fn batch_layout(&self, columns: Placement) -> Layout {
        Layout::new(Placement::Shard(0), columns)
    }
    /// Returns the layout of the inputs.
    pub fn x(&self) -> Layout {
        self.batch_layout(self.place)
    }
    /// Returns true in training.
    pub fn training(&self) -> bool {
        self.mode == Mode::Train
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

/// A layer: configuration, shapes, cost, phases and their implementation.
pub trait Layer: Debug + Send + Sync {
    /// Returns the key that names it in the file.
    fn key(&self) -> &'static str;

    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Returns how many inputs it takes, at least and at most.
    fn num_inputs(&self) -> std::ops::RangeInclusive<usize> {
        1..=1
    }

    /// Returns the output for one sample.
    ///
    /// # Errors
    /// When the inputs do not fit the layer.
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault>;

    /// Returns its parameters.
    fn params(&self, _inputs: &[Activation]) -> Vec<Param> {
        Vec::new()
    }

    /// Returns its running statistics.
    fn statistics(&self, _inputs: &[Activation]) -> Vec<Param> {
        Vec::new()
    }

    /// Returns the floating-point operations of one sample's forward pass.
    fn cost(&self, inputs: &[Activation]) -> u64 {
        inputs.iter().map(|x| x.features() as u64).sum()
    }

    /// Returns the splits that it can be given.
    fn splits(&self) -> &'static [Split] {
        &[Split::Columns, Split::Batch, Split::None]
    }

    /// Returns where it wants its inputs over the columns axis; none means wherever they are. `incoming` is where
    /// the first input is, `split` what the file says.
    fn wanted(&self, _input: Activation, _incoming: Placement, split: Option<Split>, _mesh: Mesh) -> Option<Placement> {
        split.map(|split| match split {
            Split::Columns | Split::Rows => Placement::Shard(3),
            Split::Batch => Placement::Shard(0),
            Split::None => Placement::Replicate,
        })
    }

    /// Declares its phases. A layer that declares none is a view: its output is its input.
    ///
    /// # Errors
    /// When the split does not fit the layer's sizes.
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault>;

    /// Returns how many elements of scratch memory a phase needs on a target; `shapes` are its operands, without memory.
    fn scratch(&self, _phase: &str, _shapes: &Operands, _target: Target) -> usize {
        0
    }

    /// Runs a phase on one CPU device.
    ///
    /// # Panics
    /// When the layer has no phase of this name.
    fn run(&self, phase: &str, args: &Args);

    /// Returns the epilogue that has the same effect as this layer, if there is one: a phase before it may apply that.
    fn as_epilogue(&self) -> Option<Epilogue> {
        None
    }

    /// Launches a phase on a GPU.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Panics
    /// When the layer has no phase of this name.
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()>;

    /// Returns small layers of this kind with inputs, for the shared test suite.
    fn examples() -> Vec<(Self, Vec<Activation>)>
    where
        Self: Sized;
}

/// Ends a match on the name of a phase.
fn unknown_phase(phase: &str) -> ! {
    panic!("the layer has no phase \"{phase}\"")
}

/// Calls a function generic over the element type with the type that the step computes in.
macro_rules! by_precision {
    ($args:expr, $T:ident => $call:expr) => {
        match $args.precision {
            $crate::tensor::Precision::F32 => {
                type $T = f32;
                $call
            }
            $crate::tensor::Precision::F64 => {
                type $T = f64;
                $call
            }
            $crate::tensor::Precision::Dual => {
                type $T = $crate::tensor::Dual;
                $call
            }
        }
    };
}
pub(crate) use by_precision;

/// The list of layers: key in the file, type.
macro_rules! layers {
    ($($kind:literal => $type:ty),* $(,)?) => {
        /// The keys of all layers.
        pub const KEYS: &[&str] = &[$($kind),*];

        /// Reads the settings of the layer named `kind`; none when there is no such layer.
        pub fn read<'de, D: serde::Deserializer<'de>>(
            kind: &str,
            settings: D,
        ) -> Option<Result<Box<dyn Layer>, D::Error>> {
            match kind {
                $($kind => Some(<$type>::deserialize(settings).map(|layer| Box::new(layer) as Box<dyn Layer>)),)*
                _ => None,
            }
        }

        /// Returns the examples of all layers.
        pub fn all_examples() -> Vec<(Box<dyn Layer>, Vec<Activation>)> {
            let mut all: Vec<(Box<dyn Layer>, Vec<Activation>)> = Vec::new();
            $(all.extend(<$type>::examples().into_iter().map(|(layer, x)| (Box::new(layer) as Box<dyn Layer>, x)));)*
            all
        }
    };
}

layers! {
    "add" => add::Add,
    "avg_pool" => avg_pool::AvgPool,
    "batch_norm" => batch_norm::BatchNorm,
    "conv" => conv::Conv,
    "dense" => dense::Dense,
    "dropout" => dropout::Dropout,
    "flatten" => flatten::Flatten,
    "global_avg_pool" => global_avg_pool::GlobalAvgPool,
    "lrn" => lrn::Lrn,
    "max_pool" => max_pool::MaxPool,
    "relu" => relu::Relu,
    "sigmoid" => sigmoid::Sigmoid,
    "softmax_cross_entropy" => SoftmaxCrossEntropy,
    "tanh" => tanh::Tanh,
}
