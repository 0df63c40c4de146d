//! Layer definitions: one file or folder per layer holds its settings, shapes, cost, phases with their layouts, and
//! its forward and backward passes. Layers depend neither on the surrounding network nor on the devices of the run.
//!
//! To add a layer, write `layers/x.rs` with a struct that implements [`Layer`], write `kernels/x.cu`, and add one
//! line to the list in `registry!` below. The shared test suite then runs its `examples()`.

mod activation;
mod adaptive_avg_pool;
mod add;
mod attention;
mod avg_pool;
mod batch_norm;
mod channel_shuffle;
mod class_token;
mod concat;
mod conv;
mod crop;
mod dense;
mod dropout;
mod elementwise;
mod elu;
mod flatten;
mod gelu;
mod global_avg_pool;
mod group_norm;
mod hard_sigmoid;
mod hard_swish;
pub mod init;
mod instance_norm;
mod layer;
mod layer_norm;
mod layer_scale;
mod leaky_relu;
mod locally_connected;
mod loss;
mod lrn;
mod lrn_within_channel;
mod max_pool;
mod maxout;
mod mean_squared_error;
mod multiply;
mod normalized_relu;
mod pad;
mod phase;
mod positional_embedding;
mod prelu;
mod rearrange;
mod relu;
mod relu6;
pub(crate) mod reparam;
mod row_sums;
mod selu;
mod shortcut;
mod sigmoid;
mod silu;
mod single_layer;
mod slice;
mod softmax_cross_entropy;
mod softplus;
mod space_to_depth;
mod split_k;
mod stochastic_pool;
mod surface;
mod tanh;
mod unit_norm;
mod upsample;
mod vector_math;
mod window;

pub use activation::Activation;
pub use init::Init;
pub(crate) use layer::by_precision;
pub use layer::{Layer, LayerContext, LossTargets, Metric, MetricKind, Mode, Param, Parts, Split};
pub use phase::{Access, Args, Launch, LayerPhases, Operands, Pass, Phase, PhaseOperand, ReluMask, Role};
pub use single_layer::{Setup, SingleLayer};
pub use softmax_cross_entropy::SoftmaxCrossEntropy;

use crate::settings::registry;

registry! {
    Layer: (Box<dyn Layer>, Vec<Activation>), (layer, inputs) => (Box::new(layer), inputs);
    "adaptive_avg_pool" => adaptive_avg_pool::AdaptiveAvgPool,
    "add" => add::Add,
    "attention" => attention::Attention,
    "avg_pool" => avg_pool::AvgPool,
    "batch_norm" => batch_norm::BatchNorm,
    "channel_shuffle" => channel_shuffle::ChannelShuffle,
    "class_token" => class_token::ClassToken,
    "concat" => concat::Concat,
    "conv" => conv::Conv,
    "crop" => crop::SpatialCrop,
    "dense" => dense::Dense,
    "dropout" => dropout::Dropout,
    "elu" => elu::Elu,
    "flatten" => flatten::Flatten,
    "gelu" => gelu::Gelu,
    "global_avg_pool" => global_avg_pool::GlobalAvgPool,
    "group_norm" => group_norm::GroupNorm,
    "hard_sigmoid" => hard_sigmoid::HardSigmoid,
    "hard_swish" => hard_swish::HardSwish,
    "instance_norm" => instance_norm::InstanceNorm,
    "layer_norm" => layer_norm::LayerNorm,
    "layer_scale" => layer_scale::LayerScale,
    "leaky_relu" => leaky_relu::LeakyRelu,
    "locally_connected" => locally_connected::LocallyConnected,
    "lrn" => lrn::Lrn,
    "lrn_within_channel" => lrn_within_channel::LrnWithinChannel,
    "max_pool" => max_pool::MaxPool,
    "maxout" => maxout::Maxout,
    "mean_squared_error" => mean_squared_error::MeanSquaredError,
    "multiply" => multiply::Multiply,
    "normalized_relu" => normalized_relu::NormalizedRelu,
    "pad" => pad::Pad,
    "positional_embedding" => positional_embedding::PositionalEmbedding,
    "prelu" => prelu::Prelu,
    "relu" => relu::Relu,
    "relu6" => relu6::Relu6,
    "selu" => selu::Selu,
    "shortcut" => shortcut::Shortcut,
    "sigmoid" => sigmoid::Sigmoid,
    "silu" => silu::Silu,
    "slice" => slice::ChannelSlice,
    "softmax_cross_entropy" => SoftmaxCrossEntropy,
    "softplus" => softplus::Softplus,
    "space_to_depth" => space_to_depth::SpaceToDepth,
    "stochastic_pool" => stochastic_pool::StochasticPool,
    "surface" => surface::Surface,
    "tanh" => tanh::Tanh,
    "upsample" => upsample::Upsample,
}
