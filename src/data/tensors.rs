//! safetensors files with two tensors in PyTorch's layout: `images` (N, C, H, W), and `labels` or `targets`.
//!
//! Images are F32 (finite) or U8. `labels` are class numbers, I64, I32 or U8 (N), or dense labels, finite F32 (N,
//! classes) with at least 2 classes, whose rows are distributions: no value is negative, and they sum to 1 within 0.001.
//! `targets` are values to be predicted, finite F32 (N), (N, D) or (N, C, H, W). Images, and targets of four dimensions,
//! are converted to (N, H, W, C) when they are read. Other tensors in the file are ignored, which is logged.

use super::classes::ClassCounts;
use super::file::both;
use super::tensor_targets::{TargetTensor, channels_last, floats, names};
use super::{DataFormat, Dataset, Description, Header, Labels, PixelType, Pixels, SourceContext};
use crate::error::{Error, Fault, Result};
use crate::settings::settings;
use crate::storage::open_regular;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The longest header that is accepted, in bytes: two tensors need a few hundred.
const LARGEST_HEADER: u64 = 1 << 20;
settings! {
    /// `{ tensors = "file.safetensors" }`: images, and labels or values, written by another program.
    pub struct Tensors from file {
        /// The file.
        pub file: PathBuf, example "\"train.safetensors\"";
    }
}

impl DataFormat for Tensors {
    fn key(&self) -> &'static str {
        "tensors"
    }
    fn is_channels_first(&self) -> bool {
        true
    }
    fn check(&self) -> Result<(), Fault> {
        if self.file.as_os_str().is_empty() {
            return Err(Fault::whole("an empty file name, expected a .safetensors file"));
        }
        Ok(())
    }
    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.clone()]
    }
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        self.open(cx)?.describe()
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        self.open(cx)?.load()
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}

impl Tensors {
    fn open(&self, cx: SourceContext) -> Result<File<BufReader<std::fs::File>>> {
        let path = cx.base.find(&self.file)?;
        let (file, len) = open_regular(&path)?;
        File::new(&path, BufReader::with_capacity(1 << 16, file), len)
    }
}

/// An open file whose header was read and checked.
struct File<R> {
    path: PathBuf,
    reader: R,
    /// The offset of the first tensor.
    start: u64,
    /// Number of tensors that are neither images nor targets.
    unused: usize,
    images: TensorInfo,
    targets: TargetTensor,
    pixels: PixelType,
    count: usize,
    shape: [usize; 3],
}

impl<R: Read + Seek> File<R> {
    fn new(path: &Path, mut reader: R, len: u64) -> Result<Self> {
        let wrong = |message: String| Error::file(path, message);
        let failed = |error| Error::io(path, "read", error);
        let mut size = [0; 8];
        if len < 8 {
            return Err(wrong(format!("has {len} bytes, too few for a safetensors file; download it again")));
        }
        reader.read_exact(&mut size).map_err(failed)?;
        let size = u64::from_le_bytes(size);
        if size > LARGEST_HEADER || size > len - 8 {
            return Err(wrong(format!(
                "is not a safetensors file: declares a header of {size} bytes, expected at most {}; give a \
                 safetensors file",
                LARGEST_HEADER.min(len - 8)
            )));
        }
        let mut header = vec![0; size as usize];
        reader.read_exact(&mut header).map_err(failed)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| wrong(format!("is not a safetensors file, or is damaged: {error}; write it again")))?;
        let end = (metadata.data_len() as u64).checked_add(8 + size);
        if end != Some(len) {
            return Err(wrong(format!(
                "its header declares tensors of {} bytes, but {} bytes follow it; the file is truncated or damaged, \
                 write it again",
                metadata.data_len(),
                len - 8 - size
            )));
        }
        let Some(images) = metadata.info("images").cloned() else {
            let (expected, found) = ("expected \"images\" and \"labels\" or \"targets\"", names(&metadata));
            return Err(wrong(format!("has no tensor \"images\", {expected}; it has {found}")));
        };
        let (pixels, count, shape) = images_of(path, &images)?;
        let targets = TargetTensor::find(path, &metadata, count)?;
        let (path, unused) = (path.to_path_buf(), metadata.offset_keys().len() - 2);
        Ok(File { path, reader, start: 8 + size, unused, images, targets, pixels, count, shape })
    }

    fn describe(mut self) -> Result<Description> {
        let (labels, classes) = self.labels()?;
        let (target_width, counts) = match labels {
            Labels::Index(labels) => (1, Some(ClassCounts::new(labels, classes))),
            Labels::Dense(_) => (classes, None),
            Labels::Values(width, _) => (width, None),
        };
        let header = Header { images: self.count, shape: self.shape, classes, pixels: self.pixels, target_width };
        Ok(Description { classes: counts.map(|counts| (self.path, counts)), ..Description::from(header) })
    }

    fn seek(&mut self, offset: usize) -> Result<()> {
        let position = SeekFrom::Start(self.start + offset as u64);
        self.reader.seek(position).map(|_| ()).map_err(|error| Error::io(&self.path, "read", error))
    }

    fn bytes(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes).map_err(|error| Error::io(&self.path, "read", error))
    }

    /// Reads the targets and counts the classes.
    fn labels(&mut self) -> Result<(Labels, usize)> {
        let (start, end) = self.targets.data_offsets();
        self.seek(start)?;
        let mut bytes = vec![0; end - start];
        self.bytes(&mut bytes)?;
        self.targets.read(&self.path, &bytes)
    }

    fn load(mut self) -> Result<Dataset> {
        if self.unused > 0 {
            let path = self.path.display();
            tracing::warn!("{path}: tensors other than images and targets ({}) are ignored", self.unused);
        }
        let ((labels, classes), pixels) = both(self.labels(), self.pixels())?;
        Ok(Dataset::loaded(pixels, labels, self.shape, classes))
    }

    /// Reads the images.
    fn pixels(&mut self) -> Result<Pixels> {
        self.seek(self.images.data_offsets.0)?;
        let features: usize = self.shape.iter().product();
        if self.pixels == PixelType::U8 {
            let (mut bytes, mut pixels) = (vec![0; features], Vec::with_capacity(self.count * features));
            for _ in 0..self.count {
                self.bytes(&mut bytes)?;
                channels_last(self.shape, &bytes, &mut pixels);
            }
            return Ok(Pixels::U8(pixels));
        }
        let (mut bytes, mut pixels) = (vec![0; features * 4], Vec::with_capacity(self.count * features));
        let mut values = Vec::with_capacity(features);
        let (mut wrong, mut first) = (0, None);
        for i in 0..self.count {
            self.bytes(&mut bytes)?;
            values.clear();
            values.extend(floats(&bytes));
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                wrong += 1;
                first = first.or(Some((i, *value)));
            }
            channels_last(self.shape, &values, &mut pixels);
        }
        match first {
            None => Ok(Pixels::F32(pixels)),
            Some((i, value)) => Err(Error::file(
                &self.path,
                format!(
                    "image {i} contains {value}, expected finite numbers (so in {wrong} of {} images); correct it",
                    self.count
                ),
            )),
        }
    }
}

/// Returns the type of the pixels, the number of images and their shape (H, W, C).
fn images_of(path: &Path, images: &TensorInfo) -> Result<(PixelType, usize, [usize; 3])> {
    let pixels = match images.dtype {
        Dtype::U8 => PixelType::U8,
        Dtype::F32 => PixelType::F32,
        other => {
            return Err(Error::file(path, format!("\"images\" is {other:?}, expected F32 or U8; convert it")));
        }
    };
    match *images.shape {
        [n, c, h, w] if n > 0 && c > 0 && h > 0 && w > 0 => Ok((pixels, n, [h, w, c])),
        _ => Err(Error::file(
            path,
            format!("\"images\" has shape {:?}, expected [N, C, H, W] with every extent at least 1", images.shape),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Targets;
    use proptest::prelude::*;
    use safetensors::tensor::TensorView;
    use std::io::Cursor;

    type Tensor<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

    fn written(tensors: &[Tensor]) -> Vec<u8> {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Dataset> {
        let file = || File::new(Path::new("a.safetensors"), Cursor::new(bytes), bytes.len() as u64);
        let dataset = file()?.load()?;
        assert_eq!(file()?.describe()?.header, dataset.header());
        Ok(dataset)
    }

    fn complaint(tensors: &[Tensor]) -> String {
        let error = read(&written(tensors)).unwrap_err().to_string();
        error.strip_prefix("a.safetensors: ").unwrap().to_string()
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn i64s(values: &[i64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn images(dtype: Dtype, shape: [usize; 4], data: Vec<u8>) -> Tensor<'static> {
        ("images", dtype, shape.to_vec(), data)
    }

    fn labels(dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Tensor<'static> {
        ("labels", dtype, shape.to_vec(), data)
    }

    fn targets(shape: &[usize], values: &[f32]) -> Tensor<'static> {
        ("targets", Dtype::F32, shape.to_vec(), f32s(values))
    }

    #[test]
    fn targets_are_values_in_the_order_of_outputs() {
        let pair = || images(Dtype::U8, [2, 1, 1, 1], vec![1, 2]);
        let dataset = read(&written(&[pair(), targets(&[2], &[-1.5, 3.0])])).unwrap();
        assert_eq!((dataset.labels, dataset.classes), (Labels::Values(1, vec![-1.5, 3.0]), 0));
        let dataset = read(&written(&[pair(), targets(&[2, 2], &[1.0, 2.0, 3.0, 4.0])])).unwrap();
        assert_eq!(dataset.header().targets(), Targets::Values(2));
        // Two images of 2 channels and 1x3 pixels.
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let dataset = read(&written(&[pair(), targets(&[2, 2, 1, 3], &values)])).unwrap();
        let order = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0];
        assert_eq!((dataset.images(), dataset.labels), (2, Labels::Values(6, order.to_vec())));
    }

    #[test]
    fn floats_and_bytes_become_channels_last() {
        let values: Vec<f32> = (0..12).map(|i| i as f32 / 4.0).collect();
        let dataset =
            read(&written(&[images(Dtype::F32, [2, 3, 1, 2], f32s(&values)), labels(Dtype::I64, &[2], i64s(&[4, 0]))]))
                .unwrap();
        assert_eq!((dataset.shape, dataset.classes), ([1, 2, 3], 5));
        let order = [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11];
        assert_eq!(dataset.all_pixels().unwrap(), Pixels::F32(order.iter().map(|&i| values[i]).collect()));
        assert_eq!(dataset.labels, Labels::Index(vec![4, 0]));

        let dataset = read(&written(&[
            images(Dtype::U8, [2, 3, 1, 2], (0..12).collect()),
            labels(Dtype::F32, &[2, 3], f32s(&[0.0, 0.5, 0.5, 1.0, 0.0, 0.0])),
        ]))
        .unwrap();
        assert_eq!(dataset.all_pixels().unwrap(), Pixels::U8(order.iter().map(|&i| i as u8).collect()));
        assert_eq!(dataset.labels, Labels::Dense(vec![0.0, 0.5, 0.5, 1.0, 0.0, 0.0]));
        assert_eq!((dataset.classes, dataset.images()), (3, 2));

        let pair = images(Dtype::U8, [2, 1, 1, 1], vec![1, 2]);
        let bytes = [3i32, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
        let dataset = read(&written(&[pair.clone(), labels(Dtype::I32, &[2], bytes)])).unwrap();
        assert_eq!(dataset.labels, Labels::Index(vec![3, 1]));
        let dataset = read(&written(&[pair, labels(Dtype::U8, &[2], vec![0, 255])])).unwrap();
        assert_eq!(dataset.labels, Labels::Index(vec![0, 255]));
    }

    #[test]
    fn wrong_tensors_are_rejected_in_one_sentence() {
        let good = || images(Dtype::F32, [2, 1, 1, 1], f32s(&[0.0, 1.0]));
        let class = || labels(Dtype::I64, &[2], i64s(&[0, 1]));
        for (tensors, text) in [
            (
                vec![good(), ("label", Dtype::U8, vec![2], vec![0, 1])],
                "has no tensor \"labels\", expected \"images\" and \"labels\" or \"targets\"; it has \"images\", \"label\"",
            ),
            (
                vec![images(Dtype::F64, [2, 1, 1, 1], vec![0; 16]), class()],
                "\"images\" is F64, expected F32 or U8; convert it",
            ),
            (
                vec![("images", Dtype::U8, vec![2, 4, 4], vec![0; 32]), class()],
                "\"images\" has shape [2, 4, 4], expected [N, C, H, W] with every extent at least 1",
            ),
            (
                vec![images(Dtype::U8, [0, 1, 1, 1], vec![]), labels(Dtype::U8, &[0], vec![])],
                "\"images\" has shape [0, 1, 1, 1], expected [N, C, H, W] with every extent at least 1",
            ),
            (
                vec![good(), labels(Dtype::F32, &[2, 1], f32s(&[0.0, 1.0]))],
                "\"labels\" is F32 [2, 1], expected class numbers I64, I32 or U8 [N], or F32 [N, classes] with at least \
                 2 classes; write other targets as \"targets\"",
            ),
            (
                vec![good(), labels(Dtype::I64, &[3], i64s(&[0, 1, 2]))],
                "\"labels\" has 3 rows, but \"images\" has 2 images; write both again together",
            ),
            (
                vec![good(), labels(Dtype::I64, &[2], i64s(&[0, -1]))],
                "label 1 is -1, expected a class number from 0 to 65535 (so in 1 of 2 labels); correct it",
            ),
            (
                vec![good(), labels(Dtype::F32, &[2, 2], f32s(&[0.0, 1.0, f32::INFINITY, 0.0]))],
                "label 1 contains inf and sums to inf, expected a distribution over the classes: values of at least 0 that \
                 sum to 1 within 0.001 (so in 1 of 2 rows); correct it, or write the values as \"targets\"",
            ),
            (
                vec![good(), labels(Dtype::F32, &[2, 2], f32s(&[-0.5, 1.5, 0.5, 0.25]))],
                "label 0 contains -0.5 and sums to 1, expected a distribution over the classes: values of at least 0 that \
                 sum to 1 within 0.001 (so in 2 of 2 rows); correct it, or write the values as \"targets\"",
            ),
            (
                vec![good(), labels(Dtype::F32, &[2, 2], f32s(&[0.5, 0.5005, 0.5, 0.5015]))],
                "label 1 sums to 1.0015, expected a distribution over the classes: values of at least 0 that \
                 sum to 1 within 0.001 (so in 1 of 2 rows); correct it, or write the values as \"targets\"",
            ),
            (
                vec![good(), class(), targets(&[2], &[0.0, 1.0])],
                "has both \"labels\" and \"targets\", expected one of them; remove the other",
            ),
            (
                vec![good(), targets(&[2, 2], &[0.0, 1.0, f32::NAN, 5.0])],
                "target 1 contains NaN, expected finite numbers (so in 1 of 2 rows); correct it",
            ),
            (
                vec![good(), targets(&[2, 2, 1], &[0.0; 4])],
                "\"targets\" is F32 [2, 2, 1], expected F32 [N], [N, D] or [N, C, H, W] with 1 to 1073741824 values for each \
                 image",
            ),
            (
                vec![good(), targets(&[3], &[0.0; 3])],
                "\"targets\" has 3 rows, but \"images\" has 2 images; write both again together",
            ),
            (
                vec![images(Dtype::F32, [2, 1, 1, 1], f32s(&[0.0, f32::NAN])), class()],
                "image 1 contains NaN, expected finite numbers (so in 1 of 2 images); correct it",
            ),
            (
                vec![
                    images(Dtype::F32, [2, 1, 1, 1], f32s(&[f32::INFINITY, f32::NAN])),
                    labels(Dtype::I64, &[2], i64s(&[0, 65_536])),
                ],
                "label 1 is 65536, expected a class number from 0 to 65535 (so in 1 of 2 labels); correct it\n\
                 a.safetensors: image 0 contains inf, expected finite numbers (so in 2 of 2 images); correct it",
            ),
        ] {
            assert_eq!(complaint(&tensors), text);
        }
    }

    #[test]
    fn damaged_files_are_rejected_without_a_panic() {
        let good =
            written(&[images(Dtype::U8, [2, 3, 1, 2], (0..12).collect()), labels(Dtype::I64, &[2], i64s(&[4, 0]))]);
        assert!(read(&good).is_ok());
        for len in 0..good.len() {
            assert!(read(&good[..len]).is_err(), "truncated to {len} bytes");
        }
        let error = read(&good[..good.len() - 1]).unwrap_err().to_string();
        assert!(error.contains("its header declares tensors of 28 bytes, but 27 bytes follow it"), "{error}");
        let error = read(b"\x89PNG\r\n\x1a\n and more").unwrap_err().to_string();
        assert!(error.contains("is not a safetensors file: declares a header of"), "{error}");
        let error = read(b"\x04\0\0\0\0\0\0\0 [1]").unwrap_err().to_string();
        assert!(error.contains("is not a safetensors file, or is damaged"), "{error}");
        let huge = 1u64 << 63;
        let header = format!(
            "{{\"images\":{{\"dtype\":\"U8\",\"shape\":[1,1,1,{huge}],\"data_offsets\":[0,{huge}]}},\
             \"labels\":{{\"dtype\":\"U8\",\"shape\":[{huge}],\"data_offsets\":[{huge},{}]}}}}",
            u64::MAX
        );
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        assert!(read(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn flipped_bytes_never_panic(at in 0..160usize, value in any::<u8>(), tail in 0..3usize) {
            let mut bytes = written(&[
                images(Dtype::U8, [2, 3, 1, 2], (0..12).collect()),
                labels(Dtype::I64, &[2], i64s(&[4, 0])),
            ]);
            let len = bytes.len();
            bytes[at % len] = value;
            bytes.extend(vec![value; tail]);
            let _ = read(&bytes);
        }
    }
}
