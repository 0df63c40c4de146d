//! Copies parameters between memory and files: files keep PyTorch's names and layouts, this code permutes.

use super::weights::{NamedTensor, TensorData};
use crate::error::{Error, Result};
use crate::layers::Param;
use crate::network::{self, Parameter};
use crate::program::{Persistent, Session};
use crate::tensor::{Precision, Real};
use std::path::Path;

/// Returns the elements in file order.
pub fn to_file<T: Real>(param: &Param, memory: &[T]) -> Vec<T> {
    let mut file = Vec::with_capacity(memory.len());
    visit(param, |at| file.push(memory[at]));
    file
}

/// Returns the elements in memory order.
pub fn from_file<T: Real>(param: &Param, file: &[T]) -> Vec<T> {
    let mut memory = vec![T::ZERO; file.len()];
    let mut next = file.iter();
    visit(param, |at| memory[at] = next.next().copied().unwrap_or(T::ZERO));
    memory
}

/// Calls `f` with the memory index of each element, in file order.
fn visit(param: &Param, mut f: impl FnMut(usize)) {
    let dims = &param.shape.0;
    let stride = |dim: usize| dims[dim + 1..].iter().product::<usize>();
    let order: Vec<(usize, usize)> = param.file_order.iter().map(|&dim| (dims[dim], stride(dim))).collect();
    let mut index = vec![0; order.len()];
    for _ in 0..param.shape.elements() {
        f(index.iter().zip(&order).map(|(i, (_, stride))| i * stride).sum());
        for (i, (len, _)) in index.iter_mut().zip(&order).rev() {
            *i += 1;
            if *i < *len {
                break;
            }
            *i = 0;
        }
    }
}

/// Sets every parameter and running statistic to its initial value.
///
/// # Errors
/// When a GPU fails.
pub fn initialise(session: &mut Session, seed: u64) -> Result<()> {
    let network = std::sync::Arc::clone(&session.plan().network);
    for parameter in 0..network.parameters.len() {
        let values = network::initial(&network, seed, parameter);
        write_values(session, Persistent::Parameter(parameter), &values)?;
    }
    for (state, parameter) in network.statistics.iter().enumerate() {
        let start = match parameter.init {
            crate::layers::Init::Constant(value) => value,
            _ => 0.0,
        };
        let values = vec![start; parameter.param.shape.elements()];
        write_values(session, Persistent::Statistic(state), &values)?;
    }
    Ok(())
}

/// Writes doubles, rounded to the session's precision.
///
/// # Errors
/// When a GPU fails.
pub fn write_values(session: &mut Session, which: Persistent, values: &[f64]) -> Result<()> {
    match session.plan().spec.precision {
        Precision::F32 => write_as::<f32>(session, which, values),
        Precision::F64 => write_as::<f64>(session, which, values),
        Precision::Dual => write_as::<crate::tensor::Dual>(session, which, values),
    }
}

fn write_as<T: Real>(session: &mut Session, which: Persistent, values: &[f64]) -> Result<()> {
    let values: Vec<T> = values.iter().map(|&v| T::from_f64(v)).collect();
    session.write(which, &values)
}

/// Returns the values of a tensor as doubles.
///
/// # Errors
/// When a GPU fails.
pub fn read_values(session: &Session, which: Persistent) -> Result<Vec<f64>> {
    match session.plan().spec.precision {
        Precision::F32 => read_as::<f32>(session, which),
        Precision::F64 => read_as::<f64>(session, which),
        Precision::Dual => read_as::<crate::tensor::Dual>(session, which),
    }
}

fn read_as<T: Real>(session: &Session, which: Persistent) -> Result<Vec<f64>> {
    Ok(session.read::<T>(which)?.into_iter().map(Real::to_f64).collect())
}

/// Returns a tensor in the form of a file.
///
/// # Errors
/// When a GPU fails.
pub fn export(session: &Session, which: Persistent, name: String, param: &Param) -> Result<NamedTensor> {
    let data = match session.plan().spec.precision {
        Precision::F32 => TensorData::F32(to_file(param, &session.read::<f32>(which)?)),
        _ => TensorData::F64(to_file(param, &session.read::<f64>(which)?)),
    };
    Ok(NamedTensor { name, shape: param.file_shape.clone(), data })
}

/// Copies a tensor of a file into the session.
///
/// # Errors
/// When its shape differs from the parameter's, or a GPU fails.
pub fn import(
    session: &mut Session,
    which: Persistent,
    parameter: &Parameter,
    tensor: &NamedTensor,
    file: &Path,
) -> Result<()> {
    let param = &parameter.param;
    if tensor.shape != param.file_shape {
        let message = format!(
            "tensor \"{}\" has shape {}, expected {} as in the network; use a file of this network",
            tensor.name, tensor.shape, param.file_shape
        );
        return Err(Error::file(file, message));
    }
    match (&tensor.data, session.plan().spec.precision) {
        (TensorData::F32(values), Precision::F32) => session.write(which, &from_file(param, values)),
        (TensorData::F64(values), Precision::F64) => session.write(which, &from_file(param, values)),
        (TensorData::F32(values), _) => {
            let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            write_values(session, which, &from_file(param, &values))
        }
        (TensorData::F64(values), _) => write_values(session, which, &from_file(param, values)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    #[test]
    fn a_convolution_weight_goes_to_pytorch_order_and_back() {
        let param = Param {
            name: "weight",
            shape: Shape::from([2, 1, 3, 2]),
            file_shape: Shape::from([2, 2, 1, 3]),
            file_order: vec![0, 3, 1, 2],
            fan_in: 6,
            fan_out: 2,
            init: None,
        };
        let memory: Vec<f64> = (0..12).map(f64::from).collect();
        let file = to_file(&param, &memory);
        assert_eq!(file, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
        assert_eq!(from_file(&param, &file), memory);
    }
}
