//! The binary files of CIFAR-10: records of one label byte and 32x32 red, green and blue bytes.

use super::classes::ClassCounts;
use super::file::{ByteStream, both};
use super::files::expand;
use super::{DataFormat, Dataset, Description, Header, Labels, PixelType, Pixels, SourceContext};
use crate::error::{Error, Fault, Result};
use crate::settings::{settings, values};
use crate::storage::open_regular;
use serde::Deserialize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SHAPE: [usize; 3] = [32, 32, 3];
const PLANE: usize = 1024;
const RECORD: usize = 1 + 3 * PLANE;
const CIFAR_100_RECORD: usize = RECORD + 1;
const CLASSES: usize = 10;

settings! {
    /// `{ cifar = "data_batch_1.bin" }` or `{ cifar = ["data_batch_1.bin", "data_batch_2.bin"] }`: 32x32 colour images in
    /// 10 classes, the binary files of CIFAR-10.
    pub struct Cifar from files {
        /// The file, or several, which are concatenated in the order given.
        pub files: Files, example "[\"data_batch_1.bin\", \"data_batch_2.bin\"]";
    }
}

/// One file or several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a file name or a list of file names")]
pub enum Files {
    /// One file.
    One(PathBuf),
    /// Several files, at least one.
    Many(Vec<PathBuf>),
}

values! {
    Files, "file name or list of file names", files => {
        let names: Vec<String> = files.paths().iter().map(|path| format!("{:?}", path.display().to_string())).collect();
        if matches!(files, Files::One(_)) { names.concat() } else { format!("[{}]", names.join(", ")) }
    };
}

impl Files {
    /// Returns the files in order.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Files::One(file) => std::slice::from_ref(file),
            Files::Many(files) => files,
        }
    }

    /// Returns the files, of which names may have braces.
    ///
    /// # Errors
    /// What is wrong with the braces, at a key.
    pub(super) fn expanded(&self, key: &'static str) -> Result<Vec<PathBuf>, Fault> {
        let mut all = Vec::new();
        for pattern in self.paths() {
            let names = expand(&pattern.display().to_string()).map_err(|message| Fault::at(key, message))?;
            all.extend(names.into_iter().map(PathBuf::from));
        }
        Ok(all)
    }

    /// Checks that there are files, and that each is named once.
    ///
    /// # Errors
    /// The first mistake.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let files = self.paths();
        if files.is_empty() {
            return Err(Fault::whole("an empty list of files, expected at least one file"));
        }
        if let Some(i) = files.iter().position(|file| file.as_os_str().is_empty()) {
            return Err(Fault::whole(format!("file {} is \"\", expected the name of a file", i + 1)));
        }
        if let Some(twice) = (1..files.len()).find(|&i| files[..i].contains(&files[i])) {
            let file = files[twice].display();
            return Err(Fault::whole(format!("\"{file}\" is listed twice; list each file once")));
        }
        Ok(())
    }
}

impl Cifar {
    /// Opens the files and counts their records.
    fn open(&self, cx: SourceContext) -> Result<Vec<(ByteStream<'static>, usize)>> {
        let open = |file: &PathBuf| counted(ByteStream::open(&cx.base.find(file)?)?);
        self.files.paths().iter().map(open).fold(Ok(Vec::new()), appended)
    }
}

impl DataFormat for Cifar {
    fn key(&self) -> &'static str {
        "cifar"
    }
    fn check(&self) -> Result<(), Fault> {
        self.files.check()
    }
    fn files(&self) -> Vec<PathBuf> {
        self.files.paths().to_vec()
    }
    fn describe(&self, cx: SourceContext) -> Result<Description> {
        let files = self.open(cx)?;
        let labels =
            files.iter().map(|(stream, records)| labels_of(&stream.path, *records)).fold(Ok(vec![]), appended)?;
        let images = files.iter().map(|(_, records)| records).sum();
        let header = Header { images, shape: SHAPE, classes: CLASSES, pixels: PixelType::U8, target_width: 1 };
        let counts = ClassCounts::new(labels.into_iter().flatten().map(u32::from), CLASSES);
        Ok(Description::of_classes(header, files[0].0.path.clone(), counts))
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        let files = self.open(cx)?;
        let images: usize = files.iter().map(|(_, records)| records).sum();
        let mut pixels = Vec::with_capacity(images * 3 * PLANE);
        let mut labels = Vec::with_capacity(images);
        let read = |(stream, records)| read(stream, records, &mut pixels, &mut labels);
        files.into_iter().map(read).fold(Ok(Vec::new()), appended)?;
        Ok(Dataset::loaded(Pixels::U8(pixels), Labels::Index(labels), SHAPE, CLASSES))
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}

/// Adds what was read of a file to that of the files before it, or its errors to theirs.
fn appended<T>(before: Result<Vec<T>>, file: Result<T>) -> Result<Vec<T>> {
    both(before, file).map(|(mut before, file)| {
        before.push(file);
        before
    })
}

fn counted(stream: ByteStream) -> Result<(ByteStream, usize)> {
    let (len, path) = (stream.left(), &stream.path);
    if stream.packed {
        return Err(Error::file(path, "is a gzip file, expected plain CIFAR-10 records; decompress it first"));
    }
    if len == 0 || !len.is_multiple_of(RECORD as u64) {
        let hint = match len {
            0 => "the file is empty, download it again",
            _ if len.is_multiple_of(CIFAR_100_RECORD as u64) => "this looks like CIFAR-100: write { cifar100 = ... }",
            _ => "the file is truncated or not a CIFAR-10 file",
        };
        let message = format!("has {len} bytes, expected a multiple of {RECORD} (a label and 32x32x3 bytes); {hint}");
        return Err(Error::file(path, message));
    }
    Ok((stream, (len / RECORD as u64) as usize))
}

/// Reads only the labels of a file.
fn labels_of(path: &Path, records: usize) -> Result<Vec<u8>> {
    let (file, _) = open_regular(path)?;
    let mut labels = vec![0; records];
    for (record, label) in labels.iter_mut().enumerate() {
        let read = file.read_exact_at(std::slice::from_mut(label), (record * RECORD) as u64);
        read.map_err(|error| Error::io(path, "read", error))?;
    }
    check_labels(path, &labels)?;
    Ok(labels)
}

fn read(stream: ByteStream, records: usize, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let path = stream.path.clone();
    let bytes = stream.rest((records * RECORD) as u64, &format!("{records} records of {RECORD} bytes"))?;
    check_labels(&path, &bytes.iter().step_by(RECORD).copied().collect::<Vec<_>>())?;
    for record in bytes.chunks_exact(RECORD) {
        labels.push(u32::from(record[0]));
        let (red, rest) = record[1..].split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        for ((&r, &g), &b) in red.iter().zip(green).zip(blue) {
            pixels.extend_from_slice(&[r, g, b]);
        }
    }
    Ok(())
}

fn check_labels(path: &Path, labels: &[u8]) -> Result<()> {
    let mut wrong = labels.iter().enumerate().filter(|(_, label)| usize::from(**label) >= CLASSES);
    let Some((record, label)) = wrong.next() else { return Ok(()) };
    let (wrong, all) = (1 + wrong.count(), labels.len());
    Err(Error::file(
        path,
        format!(
            "record {record} has label {label}, expected 0 to 9 (so in {wrong} of {all} records); the file is \
             damaged or not a CIFAR-10 file"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u32>)> {
        let (stream, records) = counted(ByteStream::of("a.bin", bytes)?)?;
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        read(stream, records, &mut pixels, &mut labels)?;
        Ok((pixels, labels))
    }

    #[test]
    fn planes_become_channels() {
        let mut record = vec![7; RECORD];
        record[1 + 5] = 10;
        record[1 + PLANE + 5] = 20;
        record[1 + 2 * PLANE + 5] = 30;
        let (pixels, labels) = parse(&record).unwrap();
        assert_eq!((&pixels[12..18], labels), (&[7, 7, 7, 10, 20, 30][..], vec![7]));
    }

    #[test]
    fn damaged_files_are_rejected_in_one_sentence() {
        let record = vec![3; RECORD];
        let complaint = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        let expected = "expected a multiple of 3073 (a label and 32x32x3 bytes)";
        assert_eq!(
            complaint(&record[1..]),
            format!("a.bin: has 3072 bytes, {expected}; the file is truncated or not a CIFAR-10 file")
        );
        assert_eq!(complaint(&[]), format!("a.bin: has 0 bytes, {expected}; the file is empty, download it again"));
        assert_eq!(
            complaint(&vec![0; 2 * CIFAR_100_RECORD]),
            format!("a.bin: has 6148 bytes, {expected}; this looks like CIFAR-100: write {{ cifar100 = ... }}")
        );
        assert_eq!(
            complaint(&[record, vec![10; RECORD]].concat()),
            "a.bin: record 1 has label 10, expected 0 to 9 (so in 1 of 2 records); the file is damaged or not a \
             CIFAR-10 file"
        );
        assert_eq!(
            complaint(&[0x1f, 0x8b, 8, 0]),
            "a.bin: is a gzip file, expected plain CIFAR-10 records; decompress it first"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_bytes_never_panic(start in any::<[u8; 4]>(), len in 0..3usize, cut in 0..2usize, fill in 0..12u8) {
            let mut bytes = vec![fill; len * RECORD + cut];
            let head = bytes.len().min(4);
            bytes[..head].copy_from_slice(&start[..head]);
            if let Ok((pixels, labels)) = parse(&bytes) {
                prop_assert_eq!((pixels.len(), labels.len()), (len * 3 * PLANE, len));
            }
        }
    }
}
