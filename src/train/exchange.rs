//! Copies parameters between memory and files: files keep PyTorch's names and layouts, this code permutes.

use super::weights::{self, ByteSink, TensorData, TensorFile, TensorSource, TensorSpec, pieces};
use crate::error::{Error, Result};
use crate::layers::Param;
use crate::network::{self, Parameter};
use crate::program::{Persistent, Session};
use crate::tensor::{Precision, Real, Shape};
use safetensors::tensor::Dtype;
use std::cell::Cell;
use std::ops::Range;

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

/// Sets every parameter and running statistic to its initial value, piece by piece.
///
/// # Errors
/// When a GPU fails.
pub fn initialise(session: &mut Session, seed: u64) -> Result<()> {
    let network = std::sync::Arc::clone(&session.plan().network);
    for (parameter, Parameter { param, .. }) in network.parameters.iter().enumerate() {
        let row = row_elements(&param.shape);
        let initial = network::initial(&network, seed, parameter);
        for rows in pieces(&param.shape) {
            let values = initial.elements(rows.start * row..rows.end * row);
            write_rows(session, Persistent::Parameter(parameter), rows, &values)?;
        }
    }
    for (state, parameter) in network.statistics.iter().enumerate() {
        let start = parameter.init.0.constant().unwrap_or(0.0);
        let values = vec![start; parameter.param.shape.elements()];
        write_values(session, Persistent::Statistic(state), &values)?;
    }
    Ok(())
}

fn row_elements(shape: &Shape) -> usize {
    shape.0[1..].iter().product()
}

/// Writes doubles, rounded to the session's precision.
///
/// # Errors
/// When a GPU fails.
pub fn write_values(session: &mut Session, which: Persistent, values: &[f64]) -> Result<()> {
    match session.plan().spec.precision {
        Precision::F32 => session.write(which, &rounded::<f32>(values)),
        Precision::F64 => session.write(which, values),
        Precision::Dual => session.write(which, &rounded::<crate::tensor::Dual>(values)),
    }
}

fn write_rows(session: &mut Session, which: Persistent, rows: Range<usize>, values: &[f64]) -> Result<()> {
    match session.plan().spec.precision {
        Precision::F32 => session.write_rows(which, rows, &rounded::<f32>(values)),
        Precision::F64 => session.write_rows(which, rows, values),
        Precision::Dual => session.write_rows(which, rows, &rounded::<crate::tensor::Dual>(values)),
    }
}

fn rounded<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&v| T::from_f64(v)).collect()
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

/// Parameters, statistics or slots of a session, as they are written to a file.
#[derive(Debug)]
pub struct Export<'a> {
    session: &'a Session,
    /// Which tensors, their names, and the parameters whose form they have.
    tensors: Vec<(Persistent, String, &'a Param)>,
    /// The number of pieces that were gathered from all processes.
    gathered: Cell<usize>,
}

impl<'a> Export<'a> {
    /// Creates the source of a file. A value that is not finite is an error when it is read.
    pub fn new(session: &'a Session, tensors: Vec<(Persistent, String, &'a Param)>) -> Self {
        Export { session, tensors, gathered: Cell::new(0) }
    }

    /// Gathers the pieces that have not been gathered yet, and forgets them. All processes gather the same pieces, whatever becomes of
    /// the file in the first of them.
    ///
    /// # Errors
    /// When a GPU fails, or the processes cannot exchange data.
    pub fn finish(&self) -> Result<()> {
        let mut number = 0;
        for index in weights::order(&self.specs()) {
            let (which, _, param) = &self.tensors[index];
            for rows in row_pieces(param) {
                if number >= self.gathered.get() {
                    self.gather(*which, rows)?;
                }
                number += 1;
            }
        }
        Ok(())
    }

    fn gather(&self, which: Persistent, rows: Range<usize>) -> Result<()> {
        match self.session.plan().spec.precision {
            Precision::F32 => self.session.gather_rows::<f32>(which, rows).map(|_| ()),
            _ => self.session.gather_rows::<f64>(which, rows).map(|_| ()),
        }
    }

    /// Returns some rows of a tensor in the order of a file.
    fn finite<T: Real>(&self, index: usize, which: Persistent, rows: Range<usize>, part: &Param) -> Result<Vec<T>> {
        let values = self.session.gather_rows::<T>(which, rows)?.expect("the first process writes files");
        self.gathered.set(self.gathered.get() + 1);
        if values.iter().any(|value| !value.to_f64().is_finite()) {
            let message = "is not finite: nothing was saved; lower lr, then resume from the last checkpoint";
            return Err(Error::NotFinite(format!("\"{}\" {message}", self.tensors[index].1)));
        }
        Ok(to_file(part, &values))
    }
}

impl TensorSource for Export<'_> {
    fn specs(&self) -> Vec<TensorSpec> {
        let dtype = match self.session.plan().spec.precision {
            Precision::F32 => Dtype::F32,
            _ => Dtype::F64,
        };
        let spec = |(_, name, param): &(Persistent, String, &Param)| TensorSpec {
            name: name.clone(),
            shape: param.file_shape.clone(),
            dtype,
        };
        self.tensors.iter().map(spec).collect()
    }

    fn stream(&self, index: usize, sink: ByteSink) -> Result<()> {
        let (which, _, param) = &self.tensors[index];
        for rows in row_pieces(param) {
            let part = some_rows(param, rows.len());
            let data = match self.session.plan().spec.precision {
                Precision::F32 => TensorData::F32(self.finite::<f32>(index, *which, rows, &part)?),
                _ => TensorData::F64(self.finite::<f64>(index, *which, rows, &part)?),
            };
            sink(&data.bytes())?;
        }
        Ok(())
    }
}

/// Returns the pieces in which a parameter is copied: rows, if files have the same rows as memory, otherwise the whole.
fn row_pieces(param: &Param) -> Vec<Range<usize>> {
    let same_rows = param.file_order.first() == Some(&0) && param.file_shape.0.first() == param.shape.0.first();
    if same_rows { pieces(&param.shape).collect() } else { std::iter::once(0..param.shape.0[0]).collect() }
}

/// Returns the form of some rows of a parameter; of all of them if they are not the rows of a file.
fn some_rows(param: &Param, rows: usize) -> Param {
    let mut part = param.clone();
    part.shape.0[0] = rows;
    part
}

/// Copies a tensor of a file into the session, piece by piece.
///
/// # Errors
/// When its shape differs from the parameter's, the file cannot be read, or a GPU fails.
pub fn import(
    session: &mut Session,
    which: Persistent,
    parameter: &Parameter,
    file: &TensorFile,
    index: usize,
) -> Result<()> {
    let (param, tensor) = (&parameter.param, &file.tensors[index]);
    if tensor.shape != param.file_shape {
        let message = format!(
            "tensor \"{}\" has shape {}, expected {} as in the network; use a file of this network",
            tensor.name, tensor.shape, param.file_shape
        );
        return Err(Error::file(&file.path, message));
    }
    let all = row_pieces(param);
    let whole = all.len() == 1;
    for rows in all {
        let part = some_rows(param, rows.len());
        let data = if whole { file.tensor(index)?.data } else { file.rows(index, rows.clone())? };
        match (data, session.plan().spec.precision) {
            (TensorData::F32(values), Precision::F32) => session.write_rows(which, rows, &from_file(&part, &values))?,
            (TensorData::F64(values), Precision::F64) => session.write_rows(which, rows, &from_file(&part, &values))?,
            (TensorData::F32(values), _) => {
                let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
                write_rows(session, which, rows, &from_file(&part, &values))?;
            }
            (TensorData::F64(values), _) => write_rows(session, which, rows, &from_file(&part, &values))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
