//! Layer definitions: one file or folder per layer holds its settings, shapes, cost, phases with their layouts, and
//! its forward and backward passes. Layers depend neither on the surrounding network nor on the devices of the run.
//!
//! To add a layer, write `layers/x.rs` with a struct that implements [`Layer`], write `kernels/x.cu`, and add one
//! line to the list in `registry!` below. The shared test suite then runs its `examples()`.

mod activation;
mod add;
mod avg_pool;
mod batch_norm;
mod conv;
mod dense;
mod dropout;
mod elementwise;
mod flatten;
mod global_avg_pool;
pub mod init;
mod layer;
mod leaky_relu;
mod loss;
mod lrn;
mod max_pool;
mod mean_squared_error;
mod phase;
mod relu;
mod sigmoid;
mod single_layer;
mod softmax_cross_entropy;
mod split_k;
mod surface;
mod tanh;
mod vector_math;
mod window;

pub use activation::Activation;
pub use init::Init;
pub(crate) use layer::by_precision;
pub use layer::{Layer, LayerContext, LossTargets, Metric, MetricKind, Mode, Param, Split};
pub use phase::{Access, Args, Launch, LayerPhases, Operands, Pass, Phase, PhaseOperand, ReluMask, Role};
pub use single_layer::{Setup, SingleLayer};
pub use softmax_cross_entropy::SoftmaxCrossEntropy;

use crate::settings::registry;

registry! {
    Layer: (Box<dyn Layer>, Vec<Activation>), (layer, inputs) => (Box::new(layer), inputs);
    "add" => add::Add,
    "avg_pool" => avg_pool::AvgPool,
    "batch_norm" => batch_norm::BatchNorm,
    "conv" => conv::Conv,
    "dense" => dense::Dense,
    "dropout" => dropout::Dropout,
    "flatten" => flatten::Flatten,
    "global_avg_pool" => global_avg_pool::GlobalAvgPool,
    "leaky_relu" => leaky_relu::LeakyRelu,
    "lrn" => lrn::Lrn,
    "max_pool" => max_pool::MaxPool,
    "mean_squared_error" => mean_squared_error::MeanSquaredError,
    "relu" => relu::Relu,
    "sigmoid" => sigmoid::Sigmoid,
    "softmax_cross_entropy" => SoftmaxCrossEntropy,
    "surface" => surface::Surface,
    "tanh" => tanh::Tanh,
}
