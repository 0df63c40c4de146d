//! IDX, the format of MNIST and similar data sets: two files, images and labels, plain or gzip.
//!
//! Images: two zero bytes, the type of the elements, the number of dimensions 3, then big-endian u32 N, H, W, and N * H * W elements. Labels:
//! the same with one dimension N. Bytes are 8-bit pixels, elements of all other types floats; labels of floats are values to be predicted.

use super::classes::ClassCounts;
use super::file::{ByteStream, both};
use super::idx_elements::Element;
use super::tensor_targets::LARGEST_CLASSES;
use super::{DataFormat, Dataset, Description, Header, Labels, SourceContext};
use crate::error::{Error, Fault, Result, quantity};
use crate::settings::settings;
use std::path::{Path, PathBuf};

/// The dimensions of images, and those of labels.
const IMAGES: u8 = 3;
const LABELS: u8 = 1;

settings! {
    /// `{ idx = { images = "train-images-idx3-ubyte.gz", labels = "train-labels-idx1-ubyte.gz" } }`: the files of
    /// MNIST, plain or gzip.
    pub struct Idx {
        /// The file of the images.
        pub images: PathBuf, example "\"train-images-idx3-ubyte.gz\"";
        /// The file of the labels.
        pub labels: PathBuf, example "\"train-labels-idx1-ubyte.gz\"";
    }
}

impl DataFormat for Idx {
    fn key(&self) -> &'static str {
        "idx"
    }
    fn check(&self) -> Result<(), Fault> {
        for (key, path) in [("images", &self.images), ("labels", &self.labels)] {
            if path.as_os_str().is_empty() {
                return Err(Fault::at(key, format!("{key} = \"\", expected a file name")));
            }
        }
        Ok(())
    }
    fn files(&self) -> Vec<PathBuf> {
        vec![self.images.clone(), self.labels.clone()]
    }
    fn image_files(&self) -> Vec<PathBuf> {
        vec![self.images.clone()]
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

impl Idx {
    fn open(&self, cx: SourceContext) -> Result<Pair<'static>> {
        let open = |path: &Path| ByteStream::open(&cx.base.find(path)?);
        Pair::new(open(&self.images), open(&self.labels))
    }
}

/// A file of images and the file of their labels, read up to the end of their headers.
pub(super) struct Pair<'a> {
    images: Images<'a>,
    labels: ByteStream<'a>,
    /// The type of the labels.
    element: Element,
}

impl<'a> Pair<'a> {
    /// Reads the headers of both files.
    pub fn new(images: Result<ByteStream<'a>>, labels: Result<ByteStream<'a>>) -> Result<Self> {
        let labels = labels.and_then(|mut stream| {
            let magic = stream.header()?;
            let element = element_of(&stream.path, magic, LABELS)?;
            Ok((word(stream.header()?), stream, element))
        });
        let (images, (count, labels, element)) = both(images.and_then(Images::new), labels)?;
        if count as usize == images.count {
            return Ok(Pair { images, labels, element });
        }
        Err(Error::file(
            &labels.path,
            format!(
                "has {count} labels, but {} has {} images; give two files of the same data set",
                images.stream.path.display(),
                images.count
            ),
        ))
    }

    /// Reads the labels, but no images.
    pub fn describe(self) -> Result<Description> {
        let (images, path) = (self.images, self.labels.path.clone());
        let (labels, classes) = read_labels(self.labels, self.element, images.count)?;
        let pixels = images.element.pixels();
        let header = Header { images: images.count, shape: images.shape, classes, pixels, target_width: 1 };
        match labels {
            Labels::Index(labels) => Ok(Description::of_classes(header, path, ClassCounts::new(labels, classes))),
            _ => Ok(Description::from(header)),
        }
    }

    /// Reads the labels and the images.
    pub fn load(self) -> Result<Dataset> {
        let Images { stream, count, shape, bytes, what, element } = self.images;
        let path = stream.path.clone();
        let labels = read_labels(self.labels, self.element, count);
        let ((labels, classes), bytes) = both(labels, stream.rest(bytes, &what))?;
        let features: usize = shape.iter().product();
        let pixels = element.read_pixels(bytes).map_err(|(index, value)| {
            let image = index / features;
            Error::file(
                &path,
                format!("image {image} contains {value}, expected finite numbers of single precision; correct it"),
            )
        })?;
        Ok(Dataset::loaded(pixels, labels, shape, classes))
    }
}

/// A file of images, read up to the end of its header.
struct Images<'a> {
    stream: ByteStream<'a>,
    count: usize,
    shape: [usize; 3],
    bytes: u64,
    what: String,
    element: Element,
}

impl<'a> Images<'a> {
    fn new(mut stream: ByteStream<'a>) -> Result<Self> {
        let magic = stream.header()?;
        let element = element_of(&stream.path, magic, IMAGES)?;
        let mut dims = [0; 3];
        for dim in &mut dims {
            *dim = word(stream.header()?);
        }
        let [count, height, width] = dims;
        let what = format!("{count} images of {height}x{width}");
        let bytes = u64::from(count).checked_mul(u64::from(height) * u64::from(width));
        let bytes = bytes.and_then(|values| values.checked_mul(element.bytes()));
        match bytes {
            Some(0) => Err(Error::file(&stream.path, format!("its header declares {what}, expected at least one"))),
            Some(bytes) => {
                stream.expect(bytes, &what)?;
                let shape = [height as usize, width as usize, 1];
                Ok(Images { stream, count: count as usize, shape, bytes, what, element })
            }
            None => Err(Error::file(
                &stream.path,
                format!("its header declares {what}, more than any file can hold; the header is damaged"),
            )),
        }
    }
}

/// Reads labels and counts their classes.
fn read_labels(stream: ByteStream, element: Element, count: usize) -> Result<(Labels, usize)> {
    let path = stream.path.clone();
    let bytes = stream.rest(count as u64 * element.bytes(), &format!("{count} labels"))?;
    let most = LARGEST_CLASSES as u32 - 1;
    element.read_labels(&bytes, most).map_err(|(index, value)| {
        Error::file(
            &path,
            format!("label {index} is {value}, expected a class from 0 to {most}, or a finite float; correct it"),
        )
    })
}

fn word(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes)
}

/// Returns the type of the elements that the first four bytes of a file with so many dimensions declare.
fn element_of(path: &Path, magic: [u8; 4], dims: u8) -> Result<Element> {
    let found = match magic {
        [0, 0, code, dims] => Element::of(code).map(|element| (element, dims)),
        _ => None,
    };
    let hint = match found {
        Some((element, found)) if found == dims => return Ok(element),
        Some((_, IMAGES)) => "this file holds images; give the file of labels".to_string(),
        Some((_, LABELS)) => "this file holds labels; give the file of images".to_string(),
        Some((element, found)) => {
            let (name, dims) = (element.name(), quantity(found.into(), "dimension"));
            format!(
                "this IDX file holds {name} in {dims}; write a safetensors file and give it as {{ tensors = \"file.safetensors\" }}"
            )
        }
        None => "give an IDX file, plain or gzip".to_string(),
    };
    let holds = if dims == IMAGES { "IDX images: 3 dimensions" } else { "IDX labels: 1 dimension" };
    let magic = word(magic);
    Err(Error::file(
        path,
        format!("starts with 0x{magic:08x}, expected 0x0000TT{dims:02x} with a type TT ({holds}); {hint}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Pixels;
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    /// Makes an image file of these dimensions whose bytes count up, and a label file of the same count.
    fn files(count: u32, height: u32, width: u32) -> (Vec<u8>, Vec<u8>) {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let (mut images, mut labels) = (words(&[0x803, count, height, width]), words(&[0x801, count]));
        images.extend((0..count * height * width).map(|i| i as u8));
        labels.extend((0..count).map(|i| (i % 3) as u8));
        (images, labels)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(images: &[u8], labels: &[u8]) -> Result<Dataset> {
        let pair = || Pair::new(ByteStream::of("images", images), ByteStream::of("labels", labels));
        let (description, dataset) = (pair().and_then(Pair::describe), pair().and_then(Pair::load));
        if let (Ok(description), Ok(dataset)) = (&description, &dataset) {
            assert_eq!(description.header, dataset.header());
        }
        dataset
    }

    fn complaint(images: &[u8], labels: &[u8]) -> String {
        read(images, labels).unwrap_err().to_string()
    }

    #[test]
    fn plain_and_gzip_files_have_the_same_contents() {
        let (images, labels) = files(4, 2, 3);
        let plain = read(&images, &labels).unwrap();
        assert_eq!((plain.images(), plain.shape, plain.classes), (4, [2, 3, 1], 3));
        assert_eq!(plain.all_pixels().unwrap(), Pixels::U8((0..24).collect()));
        assert_eq!(plain.labels, Labels::Index(vec![0, 1, 2, 0]));
        assert_eq!(read(&gzip(&images), &gzip(&labels)).unwrap(), plain);
    }

    #[test]
    fn elements_of_other_types_are_floats_and_labels_of_floats_are_values() {
        let (images, labels) = files(2, 1, 2);
        let wide: Vec<u8> = [[0, 0, 0x0b, 3].as_slice(), &images[4..16], &[0, 1, 0xff, 0xfe, 0, 3, 1, 0]].concat();
        let read_wide = read(&wide, &labels).unwrap();
        assert_eq!(read_wide.all_pixels().unwrap(), Pixels::F32(vec![1.0, -2.0, 3.0, 256.0]));
        assert_eq!(read_wide.labels, Labels::Index(vec![0, 1]));
        let floats: Vec<u8> =
            [[0, 0, 0x0d, 1, 0, 0, 0, 2].as_slice(), &1.5f32.to_be_bytes(), &(-2f32).to_be_bytes()].concat();
        let values = read(&images, &floats).unwrap();
        assert_eq!((values.labels, values.classes), (Labels::Values(1, vec![1.5, -2.0]), 0));
        let nan = [&floats[..8], &f32::NAN.to_be_bytes(), &floats[12..]].concat();
        let text = "labels: label 0 is NaN, expected a class from 0 to 16777215, or a finite float; correct it";
        assert_eq!(complaint(&images, &nan), text.replace("16777215", &(LARGEST_CLASSES - 1).to_string()));
        let infinite = [[0, 0, 0x0d, 3].as_slice(), &images[4..16], &[0; 12], &f32::INFINITY.to_be_bytes()].concat();
        let text = "images: image 1 contains inf, expected finite numbers of single precision; correct it";
        assert_eq!(complaint(&infinite, &labels), text);
    }

    #[test]
    fn damaged_files_are_rejected_in_one_sentence() {
        let (images, labels) = files(4, 2, 3);
        for (text, found) in [
            (
                "images: starts with 0x00000801, expected 0x0000TT03 with a type TT (IDX images: 3 dimensions); this file \
                 holds labels; give the file of images",
                complaint(&labels, &labels),
            ),
            (
                "images: ends inside its header of 4 bytes; the file is truncated, download it again\nlabels: ends \
                 inside its header of 4 bytes; the file is truncated, download it again",
                complaint(&images[..7], &labels[..7]),
            ),
            (
                "images: starts with 0x00000b04, expected 0x0000TT03 with a type TT (IDX images: 3 dimensions); this IDX file \
                 holds 16-bit integers in 4 dimensions; write a safetensors file and give it as { tensors = \
                 \"file.safetensors\" }",
                complaint(&[&[0, 0, 0x0b, 4], &images[4..]].concat(), &labels),
            ),
            (
                "labels: starts with 0x00000803, expected 0x0000TT01 with a type TT (IDX labels: 1 dimension); this file \
                 holds images; give the file of labels",
                complaint(&images, &images),
            ),
            (
                "images: starts with 0x89504e47, expected 0x0000TT03 with a type TT (IDX images: 3 dimensions); give an IDX \
                 file, plain or gzip",
                complaint(b"\x89PNG and so on", &labels),
            ),
            (
                "images: ends inside its header of 4 bytes; the file is truncated, download it again",
                complaint(&images[..7], &labels),
            ),
            (
                "images: its header declares 4 images of 2x3 (24 bytes), but 23 bytes follow it; the file is truncated \
                 or damaged, download it again",
                complaint(&images[..39], &labels),
            ),
            (
                "images: its header declares 4 images of 2x3 (24 bytes), but 20 bytes follow it; the file is truncated \
                 or damaged, download it again",
                complaint(&gzip(&images[..36]), &labels),
            ),
            (
                "images: continues after 4 images of 2x3 (24 bytes), expected its end there; the file does not \
                 match its header",
                complaint(&gzip(&[&images[..], &[0]].concat()), &labels),
            ),
            (
                "labels: has 5 labels, but images has 4 images; give two files of the same data set",
                complaint(&images, &files(5, 1, 1).1),
            ),
            (
                "images: its header declares 0 images of 2x3, expected at least one",
                complaint(&files(0, 2, 3).0, &labels),
            ),
        ] {
            assert_eq!(found, text);
        }
    }

    #[test]
    fn a_header_with_false_sizes_reserves_no_memory() {
        let (mut images, labels) = files(4, 2, 3);
        images[4..16].fill(0xff);
        let text = "more than any file can hold; the header is damaged";
        assert!(complaint(&images, &labels).ends_with(text), "{}", complaint(&images, &labels));
        images[4..16].copy_from_slice(&[0, 0, 0, 4, 0, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff]);
        assert!(complaint(&images, &labels).contains("but 24 bytes follow it"));
        assert!(complaint(&gzip(&images), &labels).contains("more than a gzip file of this size can hold"));
    }

    #[test]
    fn any_flipped_bit_of_a_gzip_file_is_found_or_changes_nothing() {
        let (images, labels) = files(40, 4, 4);
        let good = gzip(&images);
        let whole = read(&good, &labels).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // The time in the header and the padding before the checksum have no effect.
            if let Ok(dataset) = read(&bad, &labels) {
                assert_eq!(dataset, whole, "bit {bit}");
            }
        }
        for len in 0..good.len() {
            assert!(read(&good[..len], &labels).is_err());
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            magic in prop_oneof![Just(vec![]), Just(vec![0, 0, 8, 3, 0, 0, 0]), Just(vec![0x1f, 0x8b, 8, 0])],
            tail in proptest::collection::vec(any::<u8>(), 0..64),
            labels in proptest::collection::vec(any::<u8>(), 0..32),
        ) {
            let images = [magic, tail].concat();
            let _ = read(&images, &files(4, 2, 3).1);
            let _ = read(&files(4, 2, 3).0, &labels);
            let _ = read(&gzip(&images), &gzip(&labels));
        }
    }
}
