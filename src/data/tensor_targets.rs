//! The targets in a safetensors file: the tensor `labels` or the tensor `targets`.

use super::Labels;
use crate::error::{Error, Result};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::path::Path;

/// One more than the largest class number.
pub(super) const LARGEST_CLASSES: i64 = 1 << 16;
/// The most values in the target of one image.
const MOST_VALUES: usize = 1 << 30;
/// How far the sum of a distribution may be from 1: what rounding to 8 bits of precision leaves in a few large values.
const SUM_TOLERANCE: f64 = 1e-3;

/// What the tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Classes,
    Distributions,
    /// Values of shape (D) or (C, H, W) for each image, as (H, W, C) in the latter case.
    Values([usize; 3]),
}

/// The tensor of the targets, whose type and shape were checked.
#[derive(Debug)]
pub(super) struct TargetTensor {
    info: TensorInfo,
    kind: Kind,
}

impl TargetTensor {
    /// Finds the tensor for `count` images in a file's header.
    pub fn find(path: &Path, metadata: &Metadata, count: usize) -> Result<Self> {
        let wrong = |message: String| Error::file(path, message);
        let (labels, targets) = (metadata.info("labels"), metadata.info("targets"));
        let (name, info) = match (labels, targets) {
            (Some(labels), None) => ("labels", labels.clone()),
            (None, Some(targets)) => ("targets", targets.clone()),
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "has both \"labels\" and \"targets\", expected one of them; remove the other".into(),
                ));
            }
            (None, None) => {
                let (expected, found) = ("expected \"images\" and \"labels\" or \"targets\"", names(metadata));
                return Err(wrong(format!("has no tensor \"labels\", {expected}; it has {found}")));
            }
        };
        let kind = match (name, info.dtype, info.shape.as_slice()) {
            ("labels", Dtype::I64 | Dtype::I32 | Dtype::U8, &[_]) => Kind::Classes,
            ("labels", Dtype::F32, &[_, classes]) if classes > 1 => Kind::Distributions,
            ("targets", Dtype::F32, &[_]) => Kind::Values([1, 1, 1]),
            ("targets", Dtype::F32, &[_, width]) if (1..=MOST_VALUES).contains(&width) => Kind::Values([1, 1, width]),
            ("targets", Dtype::F32, &[_, c, h, w]) if values([c, h, w]).is_some() => Kind::Values([h, w, c]),
            ("labels", dtype, shape) => {
                return Err(wrong(format!(
                    "\"labels\" is {dtype:?} {shape:?}, expected class numbers I64, I32 or U8 [N], or F32 [N, classes] \
                     with at least 2 classes; write other targets as \"targets\""
                )));
            }
            (_, dtype, shape) => {
                return Err(wrong(format!(
                    "\"targets\" is {dtype:?} {shape:?}, expected F32 [N], [N, D] or [N, C, H, W] with 1 to {MOST_VALUES} \
                     values for each image"
                )));
            }
        };
        let rows = info.shape[0];
        if rows != count {
            let found = format!("\"{name}\" has {rows} rows, but \"images\" has {count} images");
            return Err(wrong(format!("{found}; write both again together")));
        }
        Ok(TargetTensor { info, kind })
    }

    /// Returns the first and the last byte of the tensor among those of all tensors.
    pub fn data_offsets(&self) -> (usize, usize) {
        self.info.data_offsets
    }

    /// Reads the targets from the bytes of the tensor, and counts the classes.
    pub fn read(&self, path: &Path, bytes: &[u8]) -> Result<(Labels, usize)> {
        match self.kind {
            Kind::Classes => self.classes(path, bytes),
            Kind::Distributions => {
                let (classes, values) = (self.info.shape[1], floats(bytes).collect::<Vec<_>>());
                check_distributions(path, &values, classes)?;
                Ok((Labels::Dense(values), classes))
            }
            Kind::Values(shape) => {
                let (width, values) = (shape.iter().product::<usize>(), floats(bytes).collect::<Vec<_>>());
                check_values(path, &values, width)?;
                let mut ordered = Vec::with_capacity(values.len());
                values.chunks_exact(width).for_each(|target| channels_last(shape, target, &mut ordered));
                Ok((Labels::Values(width, ordered), 0))
            }
        }
    }

    fn classes(&self, path: &Path, bytes: &[u8]) -> Result<(Labels, usize)> {
        let labels = || integers(self.info.dtype, bytes);
        let mut wrong = labels().enumerate().filter(|(_, label)| !(0..LARGEST_CLASSES).contains(label));
        if let Some((i, label)) = wrong.next() {
            let message = format!(
                "label {i} is {label}, expected a class number from 0 to {} (so in {} of {} labels); correct it",
                LARGEST_CLASSES - 1,
                1 + wrong.count(),
                self.info.shape[0]
            );
            return Err(Error::file(path, message));
        }
        let labels: Vec<u32> = labels().map(|label| label as u32).collect();
        let classes = labels.iter().fold(0, |most, &label| most.max(label as usize + 1));
        Ok((Labels::Index(labels), classes))
    }
}

/// Returns the names of a file's tensors, for messages.
pub(super) fn names(metadata: &Metadata) -> String {
    let names = metadata.offset_keys();
    let shown = names.iter().take(8).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
    shown + if names.len() > 8 { ", ..." } else { "" }
}

/// Returns the number of values of a shape, if it is allowed.
fn values(shape: [usize; 3]) -> Option<usize> {
    let values = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    values.filter(|values| (1..=MOST_VALUES).contains(values))
}

/// Checks that all values are finite.
fn check_values(path: &Path, values: &[f32], width: usize) -> Result<()> {
    let mut wrong = values.chunks_exact(width).enumerate().filter(|(_, row)| !row.iter().all(|x| x.is_finite()));
    let Some((i, row)) = wrong.next() else { return Ok(()) };
    let value = row.iter().find(|x| !x.is_finite()).copied().unwrap_or(f32::NAN);
    let (rows, all) = (1 + wrong.count(), values.len() / width);
    let message =
        format!("target {i} contains {value}, expected finite numbers (so in {rows} of {all} rows); correct it");
    Err(Error::file(path, message))
}

/// Checks that every row of dense labels is a distribution over the classes.
fn check_distributions(path: &Path, values: &[f32], classes: usize) -> Result<()> {
    let sum = |row: &[f32]| row.iter().map(|&value| f64::from(value)).sum::<f64>();
    // A NaN or an infinite value makes the sum one.
    let fits = |row: &[f32]| row.iter().all(|&value| value >= 0.0) && (sum(row) - 1.0).abs() <= SUM_TOLERANCE;
    let mut wrong = values.chunks_exact(classes).enumerate().filter(|(_, row)| !fits(row));
    let Some((i, row)) = wrong.next() else { return Ok(()) };
    let contains = row.iter().find(|value| !(value.is_finite() && **value >= 0.0));
    let contains = contains.map_or(String::new(), |value| format!("contains {value} and "));
    Err(Error::file(
        path,
        format!(
            "label {i} {contains}sums to {}, expected a distribution over the classes: values of at least 0 that sum to 1 \
             within {SUM_TOLERANCE} (so in {} of {} rows); correct it, or write the values as \"targets\"",
            sum(row) as f32,
            1 + wrong.count(),
            values.len() / classes
        ),
    ))
}

/// Appends an image (C, H, W) in the order (H, W, C).
pub(super) fn channels_last<T: Copy>([h, w, c]: [usize; 3], image: &[T], pixels: &mut Vec<T>) {
    for position in 0..h * w {
        pixels.extend((0..c).map(|channel| image[channel * h * w + position]));
    }
}

pub(super) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn integers(dtype: Dtype, bytes: &[u8]) -> impl Iterator<Item = i64> {
    let width = dtype.bitsize() / 8;
    bytes.chunks_exact(width).map(move |bytes| {
        let bits = bytes.iter().rev().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
        match dtype {
            Dtype::I32 => i64::from(bits as u32 as i32),
            _ => bits as i64,
        }
    })
}
