//! Shards, tar archives of pictures: their samples, and mistakes in them.

use crate::common::file;
use crate::common::runs::Folder;
use peristyle::data::files::{ShardSample, ShardSamples, read_shards};
use std::path::PathBuf;

/// Returns a tar archive of members; `None` makes a folder.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, contents) in members {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        all.extend(header);
        all.extend(*contents);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    all
}

/// Writes shards and reads them.
fn read(folder: &Folder, shards: &[&[(&str, &[u8])]]) -> Result<ShardSamples, String> {
    let paths: Vec<PathBuf> = (0..shards.len()).map(|index| folder.at(&format!("s{index}.tar"))).collect();
    for (path, members) in paths.iter().zip(shards) {
        std::fs::write(path, archive(members)).unwrap();
    }
    let message = |error: peristyle::Error| error.to_string().replace(&format!("{}/", folder.0.display()), "");
    read_shards(&paths).map_err(message)
}

#[test]
fn pictures_and_classes_are_joined_by_key() {
    let sample =
        |key: &str, shard, offset, bytes, class| ShardSample { key: key.to_string(), shard, offset, bytes, class };
    // Written by Python's tarfile; the offsets are those it reports.
    let samples = read_shards(&[file("fuzz/corpus/tar/samples")]).unwrap();
    let expected = vec![sample("0001", 0, 512, 10, 5), sample("d/0002", 0, 3584, 3, 16_777_216)];
    assert_eq!(samples, ShardSamples { samples: expected, ignored: 1 });

    let folder = Folder::new("shards");
    let read = read(
        &folder,
        &[
            // The class may stand before the picture, and other members between them.
            &[
                ("a.x/1.cls", b"7\n"),
                ("2.jpeg", b"22"),
                ("._2.jpeg", b"?"),
                ("a.x/1.jpg", b"333"),
                ("2.seg.png", b"4"),
                ("2.cls", b"0"),
            ],
            &[("a.x/2.png", b"5"), ("3.cls", b"1"), ("a.x/2.CLS", b" 12 "), ("README", b"")],
        ],
    );
    let expected = vec![sample("2", 0, 1536, 2, 0), sample("a.x/1", 0, 3584, 3, 7), sample("a.x/2", 1, 512, 1, 12)];
    assert_eq!(read, Ok(ShardSamples { samples: expected, ignored: 4 }));
}

#[test]
fn samples_that_are_not_whole_are_named() {
    let folder = Folder::new("shards-wrong");
    let good: &[(&str, &[u8])] = &[("1.jpg", b"1"), ("1.cls", b"1")];
    let wrong = |members: &[(&str, &[u8])], message: &str| assert_eq!(read(&folder, &[members]).unwrap_err(), message);
    wrong(
        &[("00012.jpg", b"1"), ("00013.cls", b"1"), ("00014.png", b"1")],
        "s0.tar: picture \"00012.jpg\" has no label \"00012.cls\" (so for 2 of 2 pictures); write a number from 0 as its .cls",
    );
    wrong(
        &[("1.cls", b"1"), ("1.webp", b"1")],
        "s0.tar: has no pictures (.jpg, .jpeg or .png), expected at least one; correct the path",
    );
    wrong(
        &[("1.jpg", b"1"), ("1.cls", b"1"), ("1.png", b"1")],
        "s0.tar: has \"1.jpg\" and \"1.png\", expected one of them for a key; remove the other",
    );
    wrong(
        &[("1.jpg", b"1"), ("1.jpg", b"1"), ("1.cls", b"1")],
        "s0.tar: has two members \"1.jpg\"; write the shard again",
    );
    wrong(
        &[("1.jpg", b"1"), ("1.cls", b"1"), ("1.cls", b"1")],
        "s0.tar: has two members \"1.cls\"; write the shard again",
    );
    let expected = "expected a whole number from 0 to 16777216; correct it";
    for (class, found) in
        [("cat", "cat"), ("-1", "-1"), ("", ""), ("1.0", "1.0"), ("16777217", "16777217"), ("\u{ff}", "\u{ff}")]
    {
        wrong(
            &[("1.jpg", b"1"), ("1.cls", class.as_bytes())],
            &format!("s0.tar: \"1.cls\" holds \"{found}\", {expected}"),
        );
    }
    wrong(&[("1.jpg", b"1"), ("1.cls", &[b'1'; 33])], &format!("s0.tar: \"1.cls\" has 33 bytes, {expected}"));
    let twice = read(&folder, &[good, good]).unwrap_err();
    let first = folder.at("s0.tar").display().to_string().replace(&format!("{}/", folder.0.display()), "");
    assert_eq!(twice, format!("s1.tar: has a picture \"1\", as {first} has; give shards of different pictures"));
    assert!(read(&folder, &[&[]]).unwrap_err().starts_with("s0.tar: is empty"));
}
