//! IDX, the format of MNIST and similar data sets: two files, images and labels, plain or gzip.
//!
//! Images: big-endian u32 0x00000803, N, H, W, then N * H * W bytes. Labels: 0x00000801, N, then N bytes.

use super::classes::ClassCounts;
use super::file::{ByteStream, both};
use super::{DataFormat, Dataset, Description, Header, Labels, PixelType, Pixels, SourceContext};
use crate::error::{Error, Fault, Result, quantity};
use crate::settings::settings;
use std::path::{Path, PathBuf};

const IMAGES: u32 = 0x0000_0803;
const LABELS: u32 = 0x0000_0801;

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
}

impl<'a> Pair<'a> {
    /// Reads the headers of both files.
    pub fn new(images: Result<ByteStream<'a>>, labels: Result<ByteStream<'a>>) -> Result<Self> {
        let labels = labels.and_then(|mut stream| {
            let magic = word(stream.header()?);
            check_magic(&stream.path, magic, LABELS)?;
            Ok((word(stream.header()?), stream))
        });
        let (images, (count, labels)) = both(images.and_then(Images::new), labels)?;
        if count as usize == images.count {
            return Ok(Pair { images, labels });
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
        let (labels, classes) = read_labels(self.labels, images.count)?;
        let counts = ClassCounts::new(labels, classes);
        let header =
            Header { images: images.count, shape: images.shape, classes, pixels: PixelType::U8, target_width: 1 };
        Ok(Description::of_classes(header, path, counts))
    }

    /// Reads the labels and the images.
    pub fn load(self) -> Result<Dataset> {
        let Images { stream, count, shape, bytes, what } = self.images;
        let ((labels, classes), pixels) = both(read_labels(self.labels, count), stream.rest(bytes, &what))?;
        Ok(Dataset::loaded(Pixels::U8(pixels), Labels::Index(labels), shape, classes))
    }
}

/// A file of images, read up to the end of its header.
struct Images<'a> {
    stream: ByteStream<'a>,
    count: usize,
    shape: [usize; 3],
    bytes: u64,
    what: String,
}

impl<'a> Images<'a> {
    fn new(mut stream: ByteStream<'a>) -> Result<Self> {
        let magic = word(stream.header()?);
        check_magic(&stream.path, magic, IMAGES)?;
        let mut dims = [0; 3];
        for dim in &mut dims {
            *dim = word(stream.header()?);
        }
        let [count, height, width] = dims;
        let what = format!("{count} images of {height}x{width}");
        let bytes = u64::from(count).checked_mul(u64::from(height) * u64::from(width));
        match bytes {
            Some(0) => Err(Error::file(&stream.path, format!("its header declares {what}, expected at least one"))),
            Some(bytes) => {
                stream.expect(bytes, &what)?;
                let shape = [height as usize, width as usize, 1];
                Ok(Images { stream, count: count as usize, shape, bytes, what })
            }
            None => Err(Error::file(
                &stream.path,
                format!("its header declares {what}, more than any file can hold; the header is damaged"),
            )),
        }
    }
}

/// Reads labels and counts their classes.
fn read_labels(stream: ByteStream, count: usize) -> Result<(Vec<u32>, usize)> {
    let labels = stream.rest(count as u64, &format!("{count} labels"))?;
    let classes = labels.iter().fold(0, |most, &label| most.max(usize::from(label) + 1));
    Ok((labels.into_iter().map(u32::from).collect(), classes))
}

fn word(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes)
}

fn check_magic(path: &Path, magic: u32, expected: u32) -> Result<()> {
    if magic == expected {
        return Ok(());
    }
    let holds =
        if expected == IMAGES { "IDX images: bytes in 3 dimensions" } else { "IDX labels: bytes in 1 dimension" };
    let hint = match (magic, contents(magic)) {
        (IMAGES, _) => "this file holds images; give the file of labels".to_string(),
        (LABELS, _) => "this file holds labels; give the file of images".to_string(),
        (_, Some(contents)) => format!(
            "this IDX file holds {contents}, which are not read: convert them to bytes, or write a safetensors file and \
             give it as {{ tensors = \"file.safetensors\" }}"
        ),
        _ => "give an IDX file, plain or gzip".to_string(),
    };
    Err(Error::file(path, format!("starts with 0x{magic:08x}, expected 0x{expected:08x} ({holds}); {hint}")))
}

/// Returns the contents that the first four bytes of an IDX file declare; `None` if they do not start an IDX file.
fn contents(magic: u32) -> Option<String> {
    let [0, 0, element, dims @ 1..=8] = magic.to_be_bytes() else { return None };
    let element = match element {
        0x08 => "bytes",
        0x09 => "signed bytes",
        0x0b => "16-bit integers",
        0x0c => "32-bit integers",
        0x0d => "32-bit floats",
        0x0e => "64-bit floats",
        _ => return None,
    };
    Some(format!("{element} in {}", quantity(dims.into(), "dimension")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    /// Makes an image file of these dimensions whose bytes count up, and a label file of the same count.
    fn files(count: u32, height: u32, width: u32) -> (Vec<u8>, Vec<u8>) {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let (mut images, mut labels) = (words(&[IMAGES, count, height, width]), words(&[LABELS, count]));
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
    fn damaged_files_are_rejected_in_one_sentence() {
        let (images, labels) = files(4, 2, 3);
        for (text, found) in [
            (
                "images: starts with 0x00000801, expected 0x00000803 (IDX images: bytes in 3 dimensions); this file \
                 holds labels; give the file of images",
                complaint(&labels, &labels),
            ),
            (
                "images: ends inside its header of 4 bytes; the file is truncated, download it again\nlabels: ends \
                 inside its header of 4 bytes; the file is truncated, download it again",
                complaint(&images[..7], &labels[..7]),
            ),
            (
                "images: starts with 0x00000b03, expected 0x00000803 (IDX images: bytes in 3 dimensions); this IDX file \
                 holds 16-bit integers in 3 dimensions, which are not read: convert them to bytes, or write a safetensors \
                 file and give it as { tensors = \"file.safetensors\" }",
                complaint(&[&[0, 0, 0x0b, 3], &images[4..]].concat(), &labels),
            ),
            (
                "labels: starts with 0x00000803, expected 0x00000801 (IDX labels: bytes in 1 dimension); this file \
                 holds images; give the file of labels",
                complaint(&images, &images),
            ),
            (
                "images: starts with 0x89504e47, expected 0x00000803 (IDX images: bytes in 3 dimensions); give an IDX \
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
