//! What the fuzz targets do with their input: one function for each parser. None of them may panic, hang or allocate far
//! more than the input holds; most also check a property of what was read. fuzz/fuzz_targets/ calls them with random
//! bytes, and tests/parsers.rs with the stored corpus.

use peristyle::config::{self, NameMap, NamePattern};
use peristyle::data::files::{ParquetClasses, ParquetFile, members_of, read_list, read_shards};
use peristyle::data::pictures::{Bitmap, Filter, Fit, Lengths, decode, header};
use peristyle::data::{
    Base, Cifar, Csv, CsvTargets, DataSource, Dataset, Files, Folder, Idx, Labels, OnBad, Pixels, SourceContext,
    Subset, Tensors,
};
use peristyle::report::cut_back;
use peristyle::storage::Fs;
use peristyle::train::checkpoint;
use peristyle::train::weights::TensorFile;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_64;

/// Returns a folder of this process, in memory where the system has such a file system.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let folder = parent.join(format!("peristyle-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        folder
    })
}

fn written(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("the folder for temporary files is writable");
    path
}

/// A configuration file. One without mistakes, written with its defaults, is read back with the same meaning.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    parsed(text, &[]);
}

/// A short configuration, because each execution reads it again.
const BASE: &str = r#"[data]
train = { digits = "train" }
batch = 8
[model]
input = [28, 28, 1]
layers = [{ dense = { units = 10 } }]
[optimizer]
lr = 0.1
[train]
steps = 1
"#;

/// `--set` arguments, one per line.
pub fn set(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let sets: Vec<String> = text.lines().map(String::from).collect();
    parsed(BASE, &sets);
}

fn parsed(text: &str, sets: &[String]) {
    let parsed = config::from_text("a.toml", text, Path::new(""), sets);
    for problem in &parsed.problems {
        assert!(!problem.message.is_empty() && !problem.to_string().contains('\n'), "{problem:?}");
    }
    let Some(config) = parsed.config.filter(|_| parsed.problems.is_empty()) else { return };
    let again = config::from_text("a.toml", &config.resolved, Path::new(""), &[]);
    assert!(again.problems.is_empty(), "{:?} in\n{}", again.problems, config.resolved);
}

fn opened(source: &DataSource) -> Option<Dataset> {
    let base = Base::default();
    let cx = SourceContext::new(Subset::Train, &base);
    let header = source.describe(cx).map(|description| description.header);
    let data = source.load(cx).ok()?;
    assert_eq!(data.header(), header.expect("a source with valid contents has a valid header"));
    if let Labels::Index(labels) = &data.labels {
        assert!(labels.iter().all(|&label| (label as usize) < data.classes), "a label of {} or more", data.classes);
    }
    Some(data)
}

fn loaded(source: &DataSource) {
    let Some(data) = opened(source) else { return };
    let values = match data.all_pixels().expect("what was loaded can be read") {
        Pixels::U8(pixels) => pixels.len(),
        Pixels::F32(pixels) => pixels.len(),
    };
    assert_eq!(values, data.images() * data.features());
}

/// IDX files: two bytes with the length of the images, the images, the labels.
pub fn idx(bytes: &[u8]) {
    let [low, high, rest @ ..] = bytes else { return };
    let (images, labels) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([*low, *high]))));
    let (images, labels) = (written("images", images), written("labels", labels));
    loaded(&Idx { images, labels }.into());
}

/// A CIFAR file.
pub fn cifar(bytes: &[u8]) {
    loaded(&Cifar { files: Files::One(written("cifar.bin", bytes)) }.into());
}

/// A JPEG or PNG file, as it is and with the checksums of its PNG chunks corrected.
pub fn picture(bytes: &[u8]) {
    decoded(bytes);
    let signature = b"\x89PNG\r\n\x1a\n";
    if bytes.starts_with(signature) {
        let mut bytes = bytes.to_vec();
        let mut rest = &mut bytes[signature.len()..];
        while let Some((length, chunk)) = rest.split_first_chunk_mut() {
            let end = 4 + u32::from_be_bytes(*length) as usize;
            let Some((chunk, behind)) = chunk.split_at_mut_checked(end) else { break };
            let Some((sum, behind)) = behind.split_first_chunk_mut::<4>() else { break };
            *sum = crc32fast::hash(chunk).to_be_bytes();
            rest = behind;
        }
        decoded(&bytes);
    }
}

/// What is decoded is the same in memory used before, and has the size of its header; grey is that of the colours.
fn decoded(bytes: &[u8]) {
    let (mut color, mut grey) = (Bitmap::default(), Bitmap::default());
    let error = decode(bytes, 3, &mut color).err();
    assert_eq!(decode(bytes, 1, &mut grey).err(), error);
    if let Some(error) = error {
        assert!(error.starts_with("is ") && !error.contains('\n'), "{error}");
        let _ = header(bytes);
        return;
    }
    assert_eq!(header(bytes), Ok(color.size));
    let [height, width] = color.size;
    assert_eq!([color.pixels.len(), grey.pixels.len()], [3, 1].map(|channels| height * width * channels));
    let level =
        |rgb: &[u8]| (u32::from(rgb[0]) * 19595 + u32::from(rgb[1]) * 38470 + u32::from(rgb[2]) * 7471 + 0x8000) >> 16;
    assert!(color.pixels.chunks_exact(3).map(level).eq(grey.pixels.iter().map(|&level| u32::from(level))));
    let first = color.clone();
    decode(bytes, 3, &mut color).expect("it was decoded before");
    assert!(color == first, "the second time differs");
}

/// A safetensors file with images and labels.
pub fn tensors(bytes: &[u8]) {
    loaded(&Tensors { file: written("data.safetensors", bytes) }.into());
}

/// The state.json of a checkpoint, whose own checksum is corrected first.
pub fn checkpoint(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut text = text.to_string();
    let key = "\"crc32\": \"";
    if let Some(start) = text.rfind(key).map(|at| at + key.len())
        && text.is_char_boundary(start + 8)
    {
        text.replace_range(start..start + 8, "00000000");
        let sum = format!("{:08x}", crc32fast::hash(text.as_bytes()));
        text.replace_range(start..start + 8, &sum);
    }
    written("state.json", text.as_bytes());
    let empty = b"\x02\0\0\0\0\0\0\0{}";
    written("model.safetensors", empty);
    written("state.safetensors", empty);
    let _ = checkpoint::read(&Fs::default(), folder());
}

/// A file of JSON lines, after a byte with a step. What is left is a beginning of it, and stays when it is cut again.
pub fn metrics(bytes: &[u8]) {
    let [step, lines @ ..] = bytes else { return };
    let path = written("metrics.jsonl", lines);
    let cut = || {
        let left = cut_back(&Fs::default(), &path, Some(u64::from(*step))).expect("the file can be read");
        (left, std::fs::read(&path).expect("the file can be read"))
    };
    let (left, kept) = cut();
    assert!(lines.starts_with(&kept) && (kept.is_empty() || kept.ends_with(b"\n")));
    assert_eq!(cut(), (left, kept));
}

/// A safetensors file with weights.
pub fn tensor_file(bytes: &[u8]) {
    let Ok(file) = TensorFile::open(&Fs::default(), &written("weights.safetensors", bytes)) else { return };
    for (index, tensor) in file.tensors.iter().enumerate() {
        assert_eq!(file.find(&tensor.name), Some(index));
        let rows = tensor.shape.0.first().map_or(1, |&rows| rows);
        file.rows(index, 0..rows).expect("the values are in the file");
    }
    file.first_nonfinite().expect("the values are in the file");
}

/// A name map, and names to which it is applied: lines `a=b`, then lines without `=`.
pub fn name_map(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pairs, names): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains('='));
    let pairs = pairs.iter().filter_map(|line| line.split_once('=')).map(|(key, to)| (key.to_string(), to.to_string()));
    let Ok(map) = NameMap::new(&pairs.collect::<Vec<_>>()) else { return };
    for name in names {
        match map.apply(name) {
            Ok((mapped, None)) => assert_eq!(mapped, name),
            Ok((_, Some(pair))) => assert!(map.pairs()[pair].0.matches(name).is_some()),
            Err([first, second]) => assert_ne!(first, second),
        }
        if let Ok(pattern) = NamePattern::new(name) {
            // A pattern matches its own text, where a star takes a star.
            assert!(pattern.matches(name).is_some(), "{name}");
        }
    }
}

/// A tar archive, of which the members lie in the file one after another; and the same as a shard of pictures.
pub fn tar(bytes: &[u8]) {
    let mut end = 0;
    let read = members_of(Path::new("a.tar"), bytes, bytes.len() as u64, |member| {
        assert!(member.offset >= end + 512 && !member.name.is_empty(), "{member:?}");
        end = member.offset + member.bytes;
        assert!(end <= bytes.len() as u64, "{member:?}");
        Ok(())
    });
    let shards = read_shards(&[written("a.tar", bytes)]);
    assert!(read.is_ok() || shards.is_err());
    for sample in shards.iter().flat_map(|shards| &shards.samples) {
        assert!(sample.offset + sample.bytes <= bytes.len() as u64, "{sample:?}");
    }
}

/// A list of pictures. Written again, it is the same.
pub fn list(bytes: &[u8]) {
    let Ok(list) = read_list(&written("list.txt", bytes)) else { return };
    let pictures = list.paths.iter().zip(&list.labels).map(|(path, label)| format!("{path} {label}\n"));
    let text = format!("# Pictures\n{}", pictures.collect::<String>());
    let again = read_list(&written("list.txt", text.as_bytes())).expect("a list can be written");
    assert_eq!((again.paths, again.labels), (list.paths, list.labels));
}

/// A CSV file, after a byte that chooses the separator and the kind of targets, which are in column `y`.
pub fn csv(bytes: &[u8]) {
    let [choice, text @ ..] = bytes else { return };
    let separator = [",", ";", "\t", " "][usize::from(choice % 4)].to_string();
    let targets = [CsvTargets::Auto, CsvTargets::Classes, CsvTargets::Numbers][usize::from(choice / 4 % 3)];
    let ignore = if choice / 12 % 2 == 1 { vec!["id".to_string()] } else { Vec::new() };
    let file = written("table.csv", text);
    loaded(&Csv { file, target: "y".to_string(), targets, ignore, separator }.into());
}

/// When the folder of [`index`] was changed, in seconds since 1970.
const CHANGED: u64 = 1_000_000_000;

/// Returns a folder with a picture in each of two classes.
fn pictures() -> &'static Path {
    static PICTURES: OnceLock<PathBuf> = OnceLock::new();
    PICTURES.get_or_init(|| {
        let pictures = folder().join("p");
        let set_time = |path: &Path| {
            let file = std::fs::File::open(path).expect("it was written");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(CHANGED)).expect("it is ours");
        };
        for class in ["cat", "dog"] {
            std::fs::create_dir_all(pictures.join(class)).expect("the folder for temporary files is writable");
            let picture = include_bytes!("../../tests/photos/odd/size_1x1.png");
            set_time(&written(&format!("p/{class}/0.png"), picture));
            set_time(&pictures.join(class));
        }
        set_time(&pictures);
        pictures
    })
}

/// The JSON of the index of a folder of pictures; `@` stands for the folder. Whatever it says, the labels are those of its classes.
pub fn index(bytes: &[u8]) {
    let pictures = pictures();
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let json = text.replace('@', &pictures.display().to_string());
    written("p.peristyle-index", format!("peristyle index 2 {:016x}\n{json}", xxh3_64(json.as_bytes())).as_bytes());
    let source = Folder {
        folder: pictures.to_path_buf(),
        size: Some(Lengths::One(2)),
        fit: Fit::Stretch,
        filter: Filter::Bilinear,
        channels: 3,
        classes: None,
        on_bad: OnBad::Fail,
        most_bad: 0.0,
    };
    if let Some(data) = opened(&source.into()) {
        // The pictures that it names may not exist.
        let _ = data.all_pixels();
    }
}

/// A Parquet file of pictures. Those that are read are as many as their classes.
pub fn parquet(bytes: &[u8]) {
    let Ok(file) = ParquetFile::of(Path::new("a.parquet"), bytes.to_vec(), None, None) else { return };
    let mut pictures = 0;
    let read = file.pictures(&mut |_| {
        pictures += 1;
        Ok(())
    });
    let classes = file.classes().map(|classes| match classes {
        ParquetClasses::Numbers(numbers) => numbers.len(),
        ParquetClasses::Texts(texts) => texts.len(),
    });
    assert!(read.is_err() || pictures == file.rows(), "{pictures} pictures of {} rows", file.rows());
    assert!(classes.is_err() || classes.is_ok_and(|classes| classes == file.rows()));
}
