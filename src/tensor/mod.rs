//! Tensors: their element type, their shape, and the slice that each device of a mesh holds. Does not depend on memory,
//! devices or layers.

mod dual;
mod layout;
mod real;
mod strided;

pub use dual::Dual;
pub use layout::{Axis, Dim, Layout, LocalSlice, Mesh, Placement, Position, Shape, cut};
pub use real::{Element, MatmulPrecision, Precision, Real};
pub use strided::Strided;
