//! What a tensor is: its element type, its shape, and the part of it that each device of a mesh holds.
//! Knows no memory, no device and no layer.

mod dual;
mod layout;
mod real;
mod strided;

pub use dual::Dual;
pub use layout::{Axis, Layout, LocalSlice, Mesh, Placement, Position, Shape, cut};
pub use real::{Element, MatmulPrecision, Precision, Real};
pub use strided::Strided;
