//! The interface of a layer: its declarations and its implementation.

use super::activation::Activation;
use super::init::Init;
use super::phase::{Args, Launch, LayerPhases, Operands};
use crate::device::{Epilogue, Target};
use crate::error::{Fault, Result};
use crate::settings::Settings;
use crate::tensor::{Dim, Layout, Mesh, Placement, Shape};
use serde::Deserialize;
use std::fmt::Debug;

/// How a layer is divided along the columns axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Output channels are sharded.
    Columns,
    /// Input channels are sharded; outputs are partial sums.
    Rows,
    /// The batch is also sharded along the columns axis.
    Batch,
    /// Every column computes everything.
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

/// How a metric is combined over devices, parts of a batch and batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// A sum over the samples, divided by [`Args::divisor`]: the mean of an error. Lower is better.
    Mean,
    /// The number of samples that pass a test, reported as their fraction. Higher is better.
    Hits,
}

/// A number that a layer computes for every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, unique within the layer: `loss`, `top1`.
    pub name: &'static str,
    /// How it is combined.
    pub kind: MetricKind,
}

/// The targets that a loss learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossTargets {
    /// The number of classes that it can tell apart, if it learns class numbers.
    pub classes: Option<usize>,
    /// The number of classes of the distributions that it learns.
    pub distributions: Option<usize>,
    /// The number of values that it learns for each sample.
    pub values: Option<usize>,
}

/// The purpose of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Forward, backward and update.
    #[default]
    Train,
    /// Forward only, with the layers in evaluation mode.
    Eval,
}

/// A parameter or a running statistic of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Last part of its name, following PyTorch: `weight`, `bias`, `running_mean`.
    pub name: &'static str,
    /// Shape in memory.
    pub shape: Shape,
    /// Shape in files.
    pub file_shape: Shape,
    /// For each dim in files, the corresponding dim in memory, before dims are merged.
    pub file_order: Vec<usize>,
    /// Number of inputs of one output, by which initial values are scaled.
    pub fan_in: usize,
    /// Number of outputs of one input.
    pub fan_out: usize,
    /// Its initial value if the layer fixes it; otherwise the model's `init` applies.
    pub init: Option<Init>,
}

impl Param {
    /// Creates a vector over channels, in the same order in memory and in files, with a fixed initial value.
    pub fn vector(name: &'static str, len: usize, value: f64) -> Self {
        Param {
            name,
            shape: Shape::from([len]),
            file_shape: Shape::from([len]),
            file_order: vec![0],
            fan_in: len,
            fan_out: len,
            init: Some(Init::constant(value)),
        }
    }
}

/// The context that a layer is lowered for.
#[derive(Debug, Clone, Copy)]
pub struct LayerContext<'a> {
    /// The inputs, for one sample.
    pub inputs: &'a [Activation],
    /// The output, for one sample.
    pub output: Activation,
    /// The placement of the inputs along the columns axis, which satisfies [`Layer::preferred_input`]. Never partial.
    pub place: Placement,
    /// The split from the configuration file, or the default.
    pub split: Split,
    /// The mesh.
    pub mesh: Mesh,
    /// Training or evaluation.
    pub mode: Mode,
    /// Samples in the global batch.
    pub batch: usize,
    /// Whether all its parameters are frozen; then its running statistics do not change either.
    pub frozen: bool,
}

impl<'a> LayerContext<'a> {
    /// Returns the context of a training step on one device.
    pub fn on_one_device(inputs: &'a [Activation], output: Activation) -> Self {
        LayerContext {
            inputs,
            output,
            place: Placement::Replicate,
            split: Split::None,
            mesh: Mesh::ONE,
            mode: Mode::Train,
            batch: 2,
            frozen: false,
        }
    }
    /// Returns the layout of an activation whose batch is sharded along the data axis and whose placement along the
    /// columns axis is `columns`.
    pub fn batch_layout(&self, columns: Placement) -> Layout {
        Layout::new(Placement::Shard(Dim::BATCH), columns)
    }
    /// Returns the layout of the inputs.
    pub fn x(&self) -> Layout {
        self.batch_layout(self.place)
    }
    /// Returns the layouts of a parameter and of its gradient, whose dim `channels` divides as the channels of the inputs do. Without
    /// one, every device has the whole parameter. The gradient is a term of a sum where devices share the batch or the values.
    pub fn param_layouts(&self, channels: Option<Dim>) -> (Layout, Layout) {
        use Placement::{Partial, Replicate, Shard};
        let (place, term) = match (self.place, channels) {
            (Shard(Dim::CHANNELS), Some(dim)) => (Shard(dim), Shard(dim)),
            (Shard(_), _) => (Replicate, Partial),
            (place, _) => (place, place),
        };
        (Layout::new(Replicate, place), Layout::new(Partial, term))
    }
    /// Returns true if the mode is training.
    pub fn training(&self) -> bool {
        self.mode == Mode::Train
    }
}

/// What a layer makes of a training batch that is divided into parts (`train.accumulate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// The sum over the parts is that of the whole batch.
    Alike,
    /// It computes statistics of each part on its own.
    Apart,
    /// It needs whole batches: why, and what to do.
    Refused(&'static str),
}

/// A layer: settings, shapes, cost, phases and their implementation.
pub trait Layer: Settings + Debug + Send + Sync {
    /// Returns the key that selects this layer in the configuration file.
    fn key(&self) -> &'static str;

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// If a setting is out of range; reports the first one.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the minimum and maximum number of inputs.
    fn num_inputs(&self) -> std::ops::RangeInclusive<usize> {
        1..=1
    }

    /// Returns the output for one sample.
    ///
    /// # Errors
    /// If the layer does not support these inputs.
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault>;

    /// Returns what it makes of a batch that is divided into parts.
    fn parts(&self) -> Parts {
        Parts::Alike
    }

    /// Returns the parameters.
    fn params(&self, _inputs: &[Activation]) -> Vec<Param> {
        Vec::new()
    }

    /// Returns the running statistics.
    fn statistics(&self, _inputs: &[Activation]) -> Vec<Param> {
        Vec::new()
    }

    /// Returns the number of floating-point operations in the forward pass of one sample.
    fn cost(&self, inputs: &[Activation]) -> u64 {
        inputs.iter().map(|x| x.features() as u64).sum()
    }

    /// Returns the splits that the layer supports.
    fn splits(&self) -> &'static [Split] {
        &[Split::Columns, Split::Batch, Split::None]
    }

    /// Returns true if the gradients of all inputs are computed as soon as one is needed.
    fn needs_every_dx(&self) -> bool {
        false
    }

    /// Returns the placement along the columns axis that the layer requires for its inputs, or none if it accepts
    /// any. `incoming` is the placement of the first input, `split` the split given in the configuration file.
    fn preferred_input(
        &self,
        _input: Activation,
        _incoming: Placement,
        split: Option<Split>,
        _mesh: Mesh,
    ) -> Option<Placement> {
        split.map(|split| match split {
            Split::Columns | Split::Rows => Placement::Shard(Dim::CHANNELS),
            Split::Batch => Placement::Shard(Dim::BATCH),
            Split::None => Placement::Replicate,
        })
    }

    /// Returns the metrics, in the order in which the forward pass writes them. That of a loss begins with `loss`, its
    /// mean over the samples.
    fn metrics(&self) -> &'static [Metric] {
        &[]
    }

    /// Returns the targets that the layer learns if its input has this shape; `None` if it is not a loss.
    fn targets(&self, _x: Activation) -> Option<LossTargets> {
        None
    }

    /// Declares the phases. A layer without phases is a view: its output is its input.
    ///
    /// # Errors
    /// If the layer's sizes do not allow the split.
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault>;

    /// Returns the number of elements of scratch memory that a phase needs on a target. `shapes` describes its
    /// operands, without memory.
    fn scratch(&self, _phase: &str, _shapes: &Operands, _target: Target) -> usize {
        0
    }

    /// Runs a phase on one CPU device.
    ///
    /// # Panics
    /// If the layer has no phase of this name.
    fn run(&self, phase: &str, args: &Args);

    /// Returns the epilogue equivalent to this layer, if there is one. A preceding phase may apply it instead.
    fn as_epilogue(&self) -> Option<Epilogue> {
        None
    }

    /// Launches a phase on a GPU.
    ///
    /// # Errors
    /// If the device reports an error.
    ///
    /// # Panics
    /// If the layer has no phase of this name.
    fn launch(&self, phase: &str, launch: &Launch) -> Result<()>;

    /// Returns small layers of this type with their inputs, for the shared test suite.
    fn examples() -> Vec<(Self, Vec<Activation>)>
    where
        Self: Sized;
}

/// Panics; the last arm of a match on the name of a phase.
pub(super) fn unknown_phase(phase: &str) -> ! {
    panic!("the layer has no phase \"{phase}\"")
}

/// Calls a function that is generic over the element type with the type in which the step computes.
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
