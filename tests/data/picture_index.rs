//! The list of pictures that is kept from start to start, files that are left out, and the verification of contents.

use crate::common::file;
use crate::common::runs::{Folder, assert_code, losses, output_of, peristyle};
use std::path::Path;
use std::time::{Duration, SystemTime};

const INDEX: &str = "p.peristyle-index";

/// Returns a folder with two classes of three photographs each in `p`, whose folders have not changed for an hour, and `pictures.toml`.
fn pictures(name: &str) -> Folder {
    let folder = Folder::new(name);
    let names =
        ["plain/cat.jpg", "plain/cat.png", "odd/gray8.png", "plain/coffee.jpg", "odd/palette.png", "plain/rocket.jpg"];
    for (i, from) in names.into_iter().enumerate() {
        let to = folder.at(&format!("p/{}/{i}.jpg", ["cat", "dog"][i / 3]));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file("tests/photos").join(from), to).unwrap();
    }
    let config = "[data]\ntrain = { folder = \"p\", size = 8 }\nbatch = 2\n[model]\ninput = [8, 8, 3]\n\
                  layers = [\"flatten\", { dense = { units = 2 } }]\n[optimizer]\nlr = 0.01\n[train]\nsteps = 9\n";
    folder.write("pictures.toml", config);
    age(&folder);
    folder
}

/// Makes folders an hour old, as if nothing had happened since.
fn age(folder: &Folder) {
    for path in ["p", "p/cat", "p/dog"] {
        set_time(&folder.at(path), 3600);
    }
}

fn set_time(path: &Path, seconds_ago: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds_ago);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn check(folder: &Folder) -> String {
    folder.good(&["check", "pictures.toml"]).out
}

#[test]
fn a_list_is_kept_until_its_folders_change() {
    let folder = pictures("index-kept");
    assert!(check(&folder).contains("6 samples"), "{}", check(&folder));
    let kept = folder.read(INDEX);
    assert!(kept.starts_with("peristyle index 2 "), "{kept}");
    std::fs::copy(folder.at("p/cat/0.jpg"), folder.at("p/cat/9.jpg")).unwrap();
    age(&folder);
    assert!(check(&folder).contains("7 samples"));
    std::fs::remove_file(folder.at("p/cat/9.jpg")).unwrap();
    assert!(check(&folder).contains("6 samples"));
    std::fs::rename(folder.at("p/cat/0.jpg"), folder.at("p/dog/0.jpg")).unwrap();
    folder.good(&["train", "pictures.toml", "--run-dir", "renamed"]);
    // A damaged index is made anew.
    let kept = std::fs::read(folder.at(INDEX)).unwrap();
    for damaged in [&kept[..kept.len() - 1], &[&kept[..40], b"x", &kept[41..]].concat(), b"", b"peristyle index 9 \n"] {
        std::fs::write(folder.at(INDEX), damaged).unwrap();
        assert!(check(&folder).contains("6 samples"));
        assert_ne!(std::fs::read(folder.at(INDEX)).unwrap(), damaged);
    }
}

#[test]
fn an_unchanged_list_is_read_from_the_index_alone() {
    let folder = pictures("index-alone");
    check(&folder);
    // The index is believed, as its folders have not changed: here it says that a picture has another name.
    let text = folder.read(INDEX);
    let (head, json) = text.split_once('\n').unwrap();
    let json = json.replace("cat/0.jpg", "cat/x.jpg");
    let checksum = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(json.as_bytes()));
    assert_eq!(head.len(), "peristyle index 2 ".len() + 16);
    folder.write(INDEX, &format!("peristyle index 2 {checksum}\n{json}"));
    let failed = folder.run(&["train", "pictures.toml", "--run-dir", "run", "--set", "data.order=\"sequential\""]);
    assert_code(&failed, 1, &["p/cat/x.jpg: cannot open: No such file"]);
}

#[test]
fn a_picture_that_has_changed_is_not_trained_on() {
    let folder = pictures("index-changed");
    check(&folder);
    std::fs::copy(file("tests/photos/plain/retina.jpg"), folder.at("p/dog/5.jpg")).unwrap();
    let changed = folder.run(&["train", "pictures.toml", "--run-dir", "run"]);
    let words = ["p/dog/5.jpg: has changed since the list of files was made; start again, and it is read anew"];
    assert_code(&changed, 1, &words);
}

#[test]
fn a_list_that_cannot_lie_beside_its_data_lies_in_the_cache() {
    let folder = pictures("index-cache");
    // A folder in the place of the index.
    std::fs::create_dir_all(folder.at(INDEX).join("in-the-way")).unwrap();
    let check = |cache: &Path| {
        let mut command = peristyle(&folder.0);
        command.args(["check", "pictures.toml"]).env("XDG_CACHE_HOME", cache);
        output_of(&mut command)
    };
    assert_code(&check(&folder.at("cache")), 0, &[]);
    let kept: Vec<_> =
        std::fs::read_dir(folder.at("cache/peristyle")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    let before = std::fs::read(&kept[0]).unwrap();
    assert_code(&check(&folder.at("cache")), 0, &[]);
    assert_eq!(std::fs::read(&kept[0]).unwrap(), before);
    let nowhere = check(&folder.at("pictures.toml"));
    assert_code(&nowhere, 0, &["the list of pictures cannot be kept"]);
}

#[test]
fn files_that_are_left_out_are_the_same_on_every_device_and_after_a_resume() {
    let folder = pictures("index-skip");
    std::fs::copy(file("tests/photos/broken/truncated_half.jpg"), folder.at("p/cat/1x.jpg")).unwrap();
    age(&folder);
    let skip = ["--set", "data.train={ folder = \"p\", size = 8, on_bad = \"skip\", most_bad = 0.2 }"];
    let train = |dir: &str, more: &[&str]| {
        let output = folder.good(&[&["train", "pictures.toml", "--run-dir", dir][..], &skip, more].concat());
        assert!(output.err.contains("left out: p/cat/1x.jpg: is a truncated JPEG file"), "{}", output.err);
        losses(&folder.metrics(dir))
    };
    let whole = train("whole", &[]);
    let two = train("two", &["--set", "devices.use=\"cpu*2\""]);
    assert!(two.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-5 * b), "{two:?} {whole:?}");
    train("parts", &["--set", "train.steps=4"]);
    train("parts", &["--resume"]);
    assert_eq!(folder.checkpoint("parts", 9), folder.checkpoint("whole", 9));
    // Without the file, the run is the same.
    std::fs::remove_file(folder.at("p/cat/1x.jpg")).unwrap();
    folder.good(&["train", "pictures.toml", "--run-dir", "clean"]);
    assert_eq!(losses(&folder.metrics("clean")), whole);
    let clean = folder.metrics("clean");
    let waits = clean.iter().filter(|event| event["event"] == "step" || event["event"] == "end");
    assert!(waits.map(|event| event["input_wait"].as_f64().unwrap()).all(|seconds| seconds >= 0.0));
    // With fail, the file ends the run, unless it comes later than the end.
    std::fs::copy(file("tests/photos/broken/truncated_half.jpg"), folder.at("p/cat/1x.jpg")).unwrap();
    let failed = folder.run(&["train", "pictures.toml", "--run-dir", "failed"]);
    assert_code(&failed, 1, &["p/cat/1x.jpg: is a truncated JPEG file", "on_bad = \"skip\""]);
}

#[test]
fn verification_finds_other_contents_of_the_same_size_and_time() {
    let folder = pictures("index-verify");
    folder.good(&["train", "pictures.toml", "--run-dir", "run", "--set", "train.steps=3"]);
    let resume =
        |more: &[&str]| folder.run(&[&["train", "pictures.toml", "--run-dir", "run", "--resume"][..], more].concat());
    // The contents are read for the first time, and kept.
    assert_code(&resume(&["--verify-data", "--set", "train.steps=4"]), 0, &[]);
    let path = folder.at("p/dog/4.jpg");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 30;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    let found = resume(&["--verify-data", "--set", "train.steps=5"]);
    assert_code(&found, 2, &["p/dog/4.jpg: has other contents than when it was first read"]);
}
