//! Layer definitions: one file or folder per layer holds its settings, shapes, cost, phases with their layouts, and
//! its forward and backward passes. Layers depend neither on the surrounding network nor on the devices of the run.
//!
//! To add a layer, write `layers/x.rs` with a struct that implements [`Layer`], write `kernels/x.cu`, and add one
//! line to the list in `layers!` below. The shared test suite then runs its `examples()`.

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
mod init;
mod layer;
mod leaky_relu;
mod lrn;
mod max_pool;
mod phase;
mod relu;
mod sigmoid;
mod single_layer;
mod softmax_cross_entropy;
mod split_k;
mod tanh;
mod vector_math;
mod window;

pub use activation::Activation;
pub use init::Init;
pub(crate) use layer::by_precision;
pub use layer::{Layer, LayerContext, Mode, Param, Split};
pub use phase::{Access, Args, Launch, LayerPhases, Operands, Pass, Phase, PhaseOperand, ReluMask, Role};
pub use single_layer::{Setup, SingleLayer};
pub use softmax_cross_entropy::{METRICS, SoftmaxCrossEntropy};

use serde::Deserialize;

/// The list of layers: the key in the configuration file and the type.
macro_rules! layers {
    ($($kind:literal => $type:ty),* $(,)?) => {
        /// The keys of all layers.
        pub const KEYS: &[&str] = &[$($kind),*];

        /// Reads the settings of a layer of type `kind`, or returns none if there is no such layer.
        pub fn read<'de, D: serde::Deserializer<'de>>(
            kind: &str,
            settings: D,
        ) -> Option<Result<Box<dyn Layer>, D::Error>> {
            match kind {
                $($kind => Some(<$type>::deserialize(settings).map(|layer| Box::new(layer) as Box<dyn Layer>)),)*
                _ => None,
            }
        }

        /// Returns the key and the settings of all layers.
        pub fn all_settings() -> Vec<(&'static str, Vec<crate::settings::Setting>)> {
            vec![$(($kind, <$type as crate::settings::Settings>::settings())),*]
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
    "leaky_relu" => leaky_relu::LeakyRelu,
    "lrn" => lrn::Lrn,
    "max_pool" => max_pool::MaxPool,
    "relu" => relu::Relu,
    "sigmoid" => sigmoid::Sigmoid,
    "softmax_cross_entropy" => SoftmaxCrossEntropy,
    "tanh" => tanh::Tanh,
}
