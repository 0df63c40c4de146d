//! The interface of a layer: what it declares about itself, and how it runs.

use super::activation::Activation;
use super::init::Init;
use super::phase::{Args, Launch, LayerPhases, Operands};
use crate::device::{Epilogue, Target};
use crate::error::{Fault, Result};
use crate::tensor::{Layout, Mesh, Placement, Shape};
use serde::Deserialize;
use std::fmt::Debug;

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
pub(super) fn unknown_phase(phase: &str) -> ! {
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
