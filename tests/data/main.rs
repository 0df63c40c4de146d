//! Data: sources, pictures, what is done to samples, and what is kept of them.

mod cifar100;
#[path = "../common/mod.rs"]
mod common;
mod csv;
mod hard_examples;
mod mix;
mod parquet;
mod pca_color;
mod photos;
mod picture_index;
mod picture_mistakes;
mod pictures;
mod prepared;
mod shards;
mod sources;
mod whitening;
