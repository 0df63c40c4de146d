//! Files of named tensors in the safetensors format (<https://github.com/huggingface/safetensors>), as read and written
//! by PyTorch. Formats that can contain code are not read. Files are read and written piece by piece, because a tensor
//! may be a large part of the memory of a machine.

use crate::error::{Error, Result};
use crate::storage::{Fs, InputFile};
use crate::tensor::Shape;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The most values that are in memory at a time while a file is read or written, unless one row has more.
const PIECE: usize = 1 << 20;
/// The largest header that is read, as in the reference implementation.
const LARGEST_HEADER: u64 = 100_000_000;

/// The values of a tensor or of some of its rows, row-major.
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
    /// Returns true if all values are finite.
    pub fn is_finite(&self) -> bool {
        match self {
            TensorData::F32(values) => values.iter().all(|x| x.is_finite()),
            TensorData::F64(values) => values.iter().all(|x| x.is_finite()),
        }
    }
    /// Returns the bytes of the values, as in a file.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            TensorData::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            TensorData::F64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
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

/// The description of a tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name: `conv1.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// The type of its values.
    pub dtype: Dtype,
}

impl TensorSpec {
    /// Returns the number of bytes in a file.
    fn bytes(&self) -> usize {
        self.shape.elements() * self.dtype.bitsize() / 8
    }
}

/// Returns the rows (indices of dimension 0) of a tensor in pieces of at most a million values, or of one row.
pub fn pieces(shape: &Shape) -> impl Iterator<Item = Range<usize>> + use<> {
    let rows = num_rows(shape);
    let step = (PIECE / (shape.elements() / rows.max(1)).max(1)).max(1);
    (0..rows).step_by(step).map(move |start| start..rows.min(start + step))
}

/// Returns the number of indices of dimension 0; a scalar has one.
fn num_rows(shape: &Shape) -> usize {
    shape.0.first().copied().unwrap_or(1)
}

/// Receives the next bytes of a file.
pub type ByteSink<'s> = &'s mut dyn FnMut(&[u8]) -> Result<()>;

/// Tensors that are to be written to a file.
pub trait TensorSource {
    /// Returns the tensors; no two have the same name.
    fn specs(&self) -> Vec<TensorSpec>;

    /// Passes the bytes of a tensor to `sink`, in order.
    ///
    /// # Errors
    /// Those of the sink, and of a device that cannot be read.
    fn stream(&self, index: usize, sink: ByteSink) -> Result<()>;
}

impl TensorSource for [NamedTensor] {
    fn specs(&self) -> Vec<TensorSpec> {
        let dtype = |data: &TensorData| match data {
            TensorData::F32(_) => Dtype::F32,
            TensorData::F64(_) => Dtype::F64,
        };
        let spec = |t: &NamedTensor| TensorSpec { name: t.name.clone(), shape: t.shape.clone(), dtype: dtype(&t.data) };
        self.iter().map(spec).collect()
    }

    fn stream(&self, index: usize, sink: ByteSink) -> Result<()> {
        sink(&self[index].data.bytes())
    }
}

impl TensorSource for Vec<NamedTensor> {
    fn specs(&self) -> Vec<TensorSpec> {
        self.as_slice().specs()
    }

    fn stream(&self, index: usize, sink: ByteSink) -> Result<()> {
        self.as_slice().stream(index, sink)
    }
}

/// Returns the order of tensors in a file, as indices.
pub(super) fn order(specs: &[TensorSpec]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by(|&a, &b| specs[b].dtype.cmp(&specs[a].dtype).then(specs[a].name.cmp(&specs[b].name)));
    order
}

/// Passes the bytes of a file of tensors to `sink`: the header, then the tensors by type and name, as the reference
/// implementation orders them.
///
/// # Errors
/// Those of the sink and of the source.
pub fn write(source: &(impl TensorSource + ?Sized), sink: ByteSink) -> Result<()> {
    let specs = source.specs();
    let order = order(&specs);
    let mut infos = Vec::new();
    let mut offset = 0;
    for &index in &order {
        let TensorSpec { name, shape, dtype } = &specs[index];
        let end = offset + specs[index].bytes();
        infos.push((name.clone(), TensorInfo { dtype: *dtype, shape: shape.0.clone(), data_offsets: (offset, end) }));
        offset = end;
    }
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(format), infos).expect("the offsets are consecutive");
    let mut header = serde_json::to_vec(&metadata).expect("a header holds text and numbers");
    header.resize(header.len().next_multiple_of(8), b' ');
    sink(&(header.len() as u64).to_le_bytes())?;
    sink(&header)?;
    order.into_iter().try_for_each(|index| source.stream(index, sink))
}

/// Returns the bytes of a file of tensors that are in memory anyway.
pub fn encode(tensors: &[NamedTensor]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let all = write(tensors, &mut |more| {
        bytes.extend_from_slice(more);
        Ok(())
    });
    all.expect("memory can be read and written");
    bytes
}

/// A file of tensors that is open for reading.
#[derive(Debug)]
pub struct TensorFile {
    /// Its path, for messages.
    pub path: PathBuf,
    /// The tensors of floats, in the order of the file.
    pub tensors: Vec<TensorSpec>,
    /// The tensors of other types, whose values are not read.
    pub others: Vec<TensorSpec>,
    file: InputFile,
    /// The position of each tensor's first byte.
    starts: Vec<u64>,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be read or is not a safetensors file.
    pub fn open(fs: &Fs, path: &Path) -> Result<Self> {
        let unreadable = |e| Error::io(path, "read", e);
        let wrong = |what: String| Error::file(path, format!("not a safetensors file: {what}"));
        // Before it is opened, because opening a pipe waits for a writer.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(wrong("it is not a regular file".to_string()));
        }
        let file = fs.open(path).map_err(unreadable)?;
        let length = file.length().map_err(unreadable)?;
        let mut start = [0; 8];
        if length < 8 {
            return Err(wrong(format!("it has {length} bytes")));
        }
        file.read_exact_at(&mut start, 0).map_err(unreadable)?;
        let len = u64::from_le_bytes(start);
        if len > LARGEST_HEADER || len > length - 8 {
            return Err(wrong(format!("a header of {len} bytes in a file of {length}")));
        }
        let mut header = vec![0; len as usize];
        file.read_exact_at(&mut header, 8).map_err(unreadable)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| wrong(format!("its header: {e}")))?;
        let found = length - 8 - len;
        if metadata.data_len() as u64 != found {
            return Err(wrong(format!("{} bytes of tensors are declared, {found} follow", metadata.data_len())));
        }
        let (mut tensors, mut starts, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            let spec = TensorSpec { name, shape: Shape(info.shape.clone()), dtype: info.dtype };
            if !matches!(info.dtype, Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16) {
                others.push(spec);
                continue;
            }
            starts.push(8 + len + info.data_offsets.0 as u64);
            tensors.push(spec);
        }
        Ok(TensorFile { path: path.to_path_buf(), tensors, others, file, starts })
    }

    /// Returns the index of a tensor.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.tensors.iter().position(|tensor| tensor.name == name)
    }

    /// Reads some rows (indices of dimension 0) of a tensor. Half precision is widened to single.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rows(&self, index: usize, rows: Range<usize>) -> Result<TensorData> {
        let spec = &self.tensors[index];
        let row = spec.bytes() / num_rows(&spec.shape).max(1);
        let mut bytes = vec![0; rows.len() * row];
        let read = self.file.read_exact_at(&mut bytes, self.starts[index] + (rows.start * row) as u64);
        read.map_err(|e| Error::io(&self.path, "read", e))?;
        let halves = || bytes.as_chunks().0.iter();
        Ok(match spec.dtype {
            Dtype::F64 => TensorData::F64(bytes.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x)).collect()),
            Dtype::F16 => TensorData::F32(halves().map(|&x| half::f16::from_le_bytes(x).to_f32()).collect()),
            Dtype::BF16 => TensorData::F32(halves().map(|&x| half::bf16::from_le_bytes(x).to_f32()).collect()),
            _ => TensorData::F32(bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()),
        })
    }

    /// Returns the name of the first tensor that has a value that is not finite.
    ///
    /// # Errors
    /// As [`TensorFile::rows`].
    pub fn first_nonfinite(&self) -> Result<Option<&str>> {
        for (index, spec) in self.tensors.iter().enumerate() {
            for rows in pieces(&spec.shape) {
                if !self.rows(index, rows)?.is_finite() {
                    return Ok(Some(&spec.name));
                }
            }
        }
        Ok(None)
    }

    /// Reads a whole tensor.
    ///
    /// # Errors
    /// As [`TensorFile::rows`].
    pub fn tensor(&self, index: usize) -> Result<NamedTensor> {
        let TensorSpec { name, shape, .. } = self.tensors[index].clone();
        let rows = num_rows(&shape);
        Ok(NamedTensor { name, shape, data: self.rows(index, 0..rows)? })
    }
}

/// Opens a file of weights, such as the one that `[model] from` names.
///
/// # Errors
/// When the file cannot be read or is not a safetensors file.
pub fn open_model(path: &Path) -> Result<TensorFile> {
    TensorFile::open(&Fs::default(), path).map_err(|error| match error {
        Error::File { path, message } => Error::file(
            &path,
            format!(
                "{message}; expected weights in the format of PyTorch's safetensors package (.pt and .pth files are \
                 not read)"
            ),
        ),
        other => other,
    })
}
