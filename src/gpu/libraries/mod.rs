//! NVIDIA's libraries for products and convolutions, cuBLASLt and cuDNN, if they can be opened. The caller computes
//! what a library declines with our own kernels.
//!
//! The functions are declared here instead of using cudarc, because its loaders panic if a library or function is
//! missing and find libraries only by name, and its enums cannot represent the statuses of newer libraries.
//!
//! An algorithm is chosen when a product or convolution is first issued, outside a capture, and recorded in
//! [`Choices`]: the one that the library's heuristic ranks first among those that give the same bits every time and
//! need no more than a workspace of fixed size.

mod choices;
mod convolutions;
pub(super) mod find;
mod on_gpu;
mod products;
mod raw;
mod workspace;

pub use choices::{Algorithm, Choices, Record, Table};
pub use convolutions::{CONVOLUTION_WORKSPACE, Convolution, Direction, Images};
pub use on_gpu::{Libraries, LibraryReport, described, present};
pub use products::{Factors, PRODUCT_WORKSPACE, Product, ProductOf};
pub use workspace::{WORKSPACE_ALIGN, Workspace};
