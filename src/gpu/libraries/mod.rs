//! NVIDIA's libraries for products and convolutions, where they can be opened: cuBLASLt and cuDNN. What they refuse is
//! left to the caller's own kernels.
//!
//! The functions are declared here, not taken from cudarc: its loaders panic when a library or a function is missing,
//! look for names only, and its enums have no room for the statuses of newer libraries.
//!
//! An algorithm is chosen when a product or convolution is issued for the first time, outside of a capture, and kept in
//! [`Choices`]: among those that give the same bits every time and stay inside a workspace of fixed size, the one that
//! the library's heuristic puts first.

mod choices;
mod convolutions;
mod find;
mod on_gpu;
mod products;
mod raw;
mod workspace;

pub use choices::{Algorithm, Choices, Record, Table};
pub use convolutions::{CONVOLUTION_WORKSPACE, Convolution, Direction, Images};
pub use on_gpu::{Libraries, described, present};
pub use products::{Factors, PRODUCT_WORKSPACE, Product, ProductOf};
pub use workspace::{WORKSPACE_ALIGN, Workspace};
