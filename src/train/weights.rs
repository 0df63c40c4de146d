//! Files of named tensors in the safetensors format (<https://github.com/huggingface/safetensors>), as read and written
//! by PyTorch. Formats that can contain code are not read.

use crate::error::{Error, Result};
use crate::tensor::Shape;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// The values of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

impl TensorData {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match self {
            TensorData::F32(values) => values.len(),
            TensorData::F64(values) => values.len(),
        }
    }
    /// Returns true if there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor with its name, in the shape and order of files.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its name: `conv1.weight`.
    pub name: String,
    /// Its shape in files.
    pub shape: Shape,
    /// Its values.
    pub data: TensorData,
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        match self.data {
            TensorData::F32(_) => Dtype::F32,
            TensorData::F64(_) => Dtype::F64,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape.0
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = vec![0; self.data_len()];
        match &self.data {
            TensorData::F32(values) => {
                bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(b, x)| *b = x.to_le_bytes());
            }
            TensorData::F64(values) => {
                bytes.as_chunks_mut().0.iter_mut().zip(values).for_each(|(b, x)| *b = x.to_le_bytes());
            }
        }
        bytes.into()
    }
    fn data_len(&self) -> usize {
        self.data.len() * self.dtype().bitsize() / 8
    }
}

/// The contents of a file of tensors.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Weights {
    /// The tensors of floats, in the order of the file. Half precision is widened to single.
    pub tensors: Vec<NamedTensor>,
    /// The tensors of other types, which are not used, as `name (type)`.
    pub others: Vec<String>,
}

/// Returns the bytes of a file that holds the tensors.
///
/// # Panics
/// When two tensors have the same name, or a shape does not fit its data.
pub fn encode(tensors: &[NamedTensor]) -> Vec<u8> {
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    for tensor in tensors {
        assert_eq!(tensor.shape.elements(), tensor.data.len(), "{}: the shape fits the data", tensor.name);
    }
    safetensors::serialize(tensors.iter().map(|tensor| (&tensor.name, tensor)), Some(format))
        .expect("tensor names are unique")
}

/// Reads the bytes of a file of tensors.
///
/// # Errors
/// Why the bytes are not a valid file.
pub fn decode(bytes: &[u8]) -> std::result::Result<Weights, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not a safetensors file: {e}"))?;
    let mut views = file.tensors();
    views.sort_by_key(|(_, view)| view.data().as_ptr());
    let mut weights = Weights::default();
    for (name, view) in views {
        match values(&view) {
            Some(data) => weights.tensors.push(NamedTensor { name, shape: Shape(view.shape().to_vec()), data }),
            None => weights.others.push(format!("{name} ({:?})", view.dtype())),
        }
    }
    Ok(weights)
}

fn values(view: &TensorView) -> Option<TensorData> {
    let bytes = view.data();
    let halves = || bytes.as_chunks().0.iter();
    Some(match view.dtype() {
        Dtype::F32 => TensorData::F32(bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()),
        Dtype::F64 => TensorData::F64(bytes.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect()),
        Dtype::F16 => TensorData::F32(halves().map(|&x| half::f16::from_le_bytes(x).to_f32()).collect()),
        Dtype::BF16 => TensorData::F32(halves().map(|&x| half::bf16::from_le_bytes(x).to_f32()).collect()),
        _ => return None,
    })
}

/// Reads the file of weights that `[model] from` names.
///
/// # Errors
/// When the file cannot be read or is not a safetensors file.
pub fn load_model(path: &Path) -> Result<Weights> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let what = "expected weights in the format of PyTorch's safetensors package (.pt and .pth files are not read)";
    decode(&bytes).map_err(|wrong| Error::file(path, format!("{wrong}; {what}")))
}
