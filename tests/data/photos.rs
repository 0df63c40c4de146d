//! Real photographs, plain, odd and broken, have the outcomes of tests/photos/expected.tsv and the pixels that Pillow decodes.

use peristyle::data::pictures::{Bitmap, decode, header};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn photos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos")
}

/// Returns the rows of a table: the file, and the other columns.
fn table(name: &str) -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(photos().join(name)).unwrap();
    let rows = text.lines().map(|line| line.split('\t').map(String::from).collect::<Vec<_>>());
    rows.map(|row| (row[0].clone(), row[1..].to_vec())).collect()
}

/// Returns the rows of expected.tsv with an outcome.
fn expected(outcome: &str) -> BTreeMap<String, Vec<String>> {
    table("expected.tsv").into_iter().filter(|(_, row)| row[0] == outcome).collect()
}

fn read(file: &str) -> Vec<u8> {
    std::fs::read(photos().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn decoded(bytes: &[u8], channels: usize) -> Result<Bitmap, String> {
    let mut picture = Bitmap::default();
    decode(bytes, channels, &mut picture).map(|()| picture)
}

#[test]
fn every_file_has_a_row_and_every_row_a_file() {
    let mut files = BTreeSet::new();
    for folder in ["plain", "odd", "broken"] {
        for entry in std::fs::read_dir(photos().join(folder)).unwrap() {
            files.insert(format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap()));
        }
    }
    let outcomes = ["decode", "reject", "no-panic"].map(expected);
    assert_eq!(files, outcomes.iter().flat_map(|rows| rows.keys().cloned()).collect());
    assert_eq!(files.len() + 1, table("expected.tsv").len(), "an outcome is unknown");
    assert!(table("pixels.tsv").keys().eq(outcomes[0].keys()));
}

#[test]
fn sizes_and_mean_colours_are_those_of_pillow() {
    let kinds = table("pixels.tsv");
    for (file, row) in expected("decode") {
        let bytes = read(&file);
        let picture = decoded(&bytes, 3).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(picture.size.map(|side| side.to_string()), [row[2].clone(), row[1].clone()], "{file}");
        assert_eq!(header(&bytes), Ok(picture.size), "{file}");
        let [height, width] = picture.size;
        assert_eq!((picture.channels, picture.pixels.len()), (3, height * width * 3));
        // Decoders of JPEG may round differently; the margins are those of the README.
        let margin = if kinds[&file][0] == "JPEG" { 1.0 } else { 0.01 };
        for (channel, mean) in row[5..].iter().enumerate() {
            let sum: f64 = picture.pixels.iter().skip(channel).step_by(3).map(|value| f64::from(*value)).sum();
            let (found, mean) = (sum / (height * width) as f64, mean.parse::<f64>().unwrap());
            assert!(
                (found - mean).abs() <= margin,
                "{file}: the mean of channel {channel} is {found}, expected {mean}"
            );
        }
    }
}

#[test]
fn pixels_are_those_of_pillow() {
    for (file, row) in table("pixels.tsv") {
        let bytes = read(&file);
        let picture = decoded(&bytes, 3).unwrap();
        if row[0] == "PNG" {
            let grey = decoded(&bytes, 1).unwrap();
            let sums = [&picture, &grey].map(|picture| format!("{:08x}", crc32fast::hash(&picture.pixels)));
            assert_eq!(sums, row[1..], "{file}");
            continue;
        }
        let [h, w] = picture.size;
        let places = [[0, 0], [0, w - 1], [h - 1, 0], [h - 1, w - 1], [h / 2, w / 2]];
        for ([line, column], color) in places.into_iter().zip(&row[1..]) {
            let color = u32::from_str_radix(color, 16).unwrap().to_be_bytes();
            let at = (line * w + column) * 3;
            let found = &picture.pixels[at..at + 3];
            // Decoders of JPEG round differently, which colour conversion can double.
            let near = found.iter().zip(&color[1..]).all(|(a, b)| a.abs_diff(*b) <= 3);
            assert!(near, "{file}: {found:?} at {line}, {column}, expected {:?}", &color[1..]);
        }
    }
}

#[test]
fn grey_pictures_have_the_grey_levels_of_the_colours() {
    for file in expected("decode").keys() {
        let bytes = read(file);
        let (color, grey) = (decoded(&bytes, 3).unwrap(), decoded(&bytes, 1).unwrap());
        assert_eq!((grey.size, grey.channels, grey.pixels.len()), (color.size, 1, color.pixels.len() / 3), "{file}");
        for (color, grey) in color.pixels.chunks_exact(3).zip(&grey.pixels) {
            let exact = 0.299 * f64::from(color[0]) + 0.587 * f64::from(color[1]) + 0.114 * f64::from(color[2]);
            assert!((exact - f64::from(*grey)).abs() < 0.51, "{file}: {color:?} is {grey}");
        }
    }
}

#[test]
fn broken_files_are_refused_in_one_phrase() {
    for file in expected("reject").keys() {
        let mut picture = Bitmap::default();
        let error = decode(&read(file), 3, &mut picture).expect_err(file);
        let advice = ["; replace it", "; convert it", "; make it smaller"];
        assert!(error.starts_with("is ") && !error.contains('\n'), "{file} {error}");
        assert!(advice.iter().any(|advice| error.ends_with(advice)), "{file} {error}");
        assert!(picture.pixels.capacity() < 1 << 20, "{file}: {} bytes", picture.pixels.capacity());
    }
    for file in expected("no-panic").keys() {
        let _ = decoded(&read(file), 3);
    }
    for (file, expected) in [
        ("bad_crc.png", "is a damaged PNG file (a checksum is wrong); replace it"),
        ("truncated.png", "is a truncated PNG file (20284 bytes, without the end of the image); replace it"),
        ("truncated_half.jpg", "is a truncated JPEG file (7807 bytes, without the end of the image); replace it"),
        ("unsupported_kind.webp", "is a WebP file, expected JPEG or PNG; convert it"),
        ("empty.png", "is empty (0 bytes), expected a JPEG or PNG file; replace it"),
        ("text.jpg", "is not a picture: begins with \"this is not \", expected JPEG or PNG; replace it"),
        (
            "bomb_30000x30000.png",
            "is 30000 pixels wide and 30000 high, expected at most 100000000 pixels in all; make it smaller",
        ),
    ] {
        assert_eq!(decoded(&read(&format!("broken/{file}")), 3).unwrap_err(), expected);
    }
}

#[test]
fn no_part_of_a_file_is_accepted() {
    let files = [
        "odd/gray_baseline.jpg",
        "odd/gray_progressive.jpg",
        "odd/UPPER.JPG",
        "odd/progressive.jpg",
        "odd/restart_markers.jpg",
        "odd/cmyk_adobe.jpg",
        "odd/exif_orientation_6.jpg",
        "odd/interlaced_adam7.png",
        "odd/palette.png",
        "odd/rgb16.png",
    ];
    for file in files {
        let bytes = read(file);
        assert!(decoded(&bytes, 3).is_ok());
        let last = bytes.len() - 40..bytes.len();
        for cut in (0..bytes.len()).step_by(bytes.len() / 40).chain(last) {
            assert!(decoded(&bytes[..cut], 3).is_err(), "{file}: the first {cut} bytes of {}", bytes.len());
        }
    }
}

#[test]
fn memory_is_reused_and_leaves_no_trace() {
    let mut picture = Bitmap::default();
    let names =
        ["plain/rocket.jpg", "odd/gray16.png", "odd/exif_orientation_5.jpg", "broken/bit_rot.jpg", "odd/rgba.png"];
    let files = names.map(read);
    for channels in [3, 1, 3] {
        for bytes in &files {
            let again = decode(bytes, channels, &mut picture).map(|()| picture.clone());
            assert_eq!(again, decoded(bytes, channels));
        }
    }
    let place = picture.pixels.as_ptr();
    for bytes in files.iter().chain(&files) {
        let _ = decode(bytes, 3, &mut picture);
        assert_eq!(picture.pixels.as_ptr(), place, "memory was allocated again");
    }
}
