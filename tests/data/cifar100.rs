//! CIFAR-100 files, which are read while training: the pictures of signs32 with a second label.

use crate::common::file;
use crate::common::runs::{Folder, assert_code, events, losses};
use peristyle::data::{Base, DataSource, Sample, SourceContext, Subset};

const RECORD: usize = 3074;

/// Returns a folder with the signs as CIFAR-10 (`ten.bin`), as CIFAR-100 in one file (`train.bin`) and in two (`a.bin`,
/// `b.bin`); the superclass of a sign is twice its class. `signs.toml` learns from `train.bin`.
fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    let ten = std::fs::read(file("data/signs32/data_batch_1.bin")).unwrap();
    let hundred: Vec<u8> =
        ten.chunks_exact(3073).flat_map(|record| [&[2 * record[0], record[0]], &record[1..]].concat()).collect();
    let (a, b) = hundred.split_at(700 * RECORD);
    for (name, bytes) in [("ten.bin", &ten[..]), ("train.bin", &hundred), ("a.bin", a), ("b.bin", b)] {
        std::fs::write(folder.at(name), bytes).unwrap();
    }
    let network = "[{ name = \"conv\", conv = { filters = 8, kernel = 5, stride = 4 } }, \"relu\", \"flatten\", \
                   { name = \"fc\", dense = { units = 100 } }]";
    let config = format!(
        "[data]\ntrain = {{ cifar100 = \"train.bin\" }}\nvalidation = 0.1\nbatch = 50\nnormalize = \"standardize\"\n\
         augment = [{{ shift = 2 }}]\n[model]\ninput = [32, 32, 3]\nlayers = {network}\n[optimizer]\nlr = 0.02\n\
         chain = [{{ momentum = 0.9 }}]\n[train]\nsteps = 40\nevaluate = \"20 steps\"\n"
    );
    folder.write("signs.toml", &config);
    folder
}

fn train(folder: &Folder, dir: &str, sets: &[&str]) -> Vec<f64> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    folder.good(&["train", "signs.toml", "--run-dir", dir].into_iter().chain(sets).collect::<Vec<_>>());
    losses(&folder.metrics(dir))
}

#[test]
fn a_stream_trains_as_the_same_pictures_in_memory() {
    let folder = folder("cifar100-train");
    let stream = train(&folder, "stream", &[]);
    assert!(stream[39] < 0.7 * stream[0], "{stream:?}");
    // The same pixels, order and draws: the same bits.
    assert_eq!(train(&folder, "memory", &["data.train={ cifar = \"ten.bin\" }"]), stream);
    assert_eq!(train(&folder, "workers", &["data.workers=3"]), stream);
    assert_eq!(train(&folder, "files", &["data.train={ cifar100 = [\"a.bin\", \"b.bin\"] }"]), stream);
    let evaluated = |dir: &str| events(&folder.metrics(dir), "eval");
    assert_eq!(evaluated("memory"), evaluated("stream"));
    let emulated = train(&folder, "emulated", &["devices.use=\"emu*2\"", "data.workers=2"]);
    assert!(emulated.iter().zip(&stream).all(|(a, b)| (a - b).abs() < 2e-4 * b), "{emulated:?}, {stream:?}");

    // The superclasses are other labels of the same pictures.
    let coarse = "data.train={ cifar100 = { files = \"train.bin\", labels = \"coarse\" } }";
    assert_ne!(train(&folder, "coarse", &[coarse]), stream);
    let out = folder.good(&["check", "signs.toml", "--data", "--set", coarse]).out;
    assert!(out.contains("of 20 classes with") && out.contains("1485 images of 32x32x3, 10 of"), "{out}");

    // A run that stops and resumes reads on where it was.
    train(&folder, "halves", &["train.steps=23"]);
    folder.good(&["train", "signs.toml", "--run-dir", "halves", "--resume"]);
    assert_eq!(folder.checkpoint("halves", 40), folder.checkpoint("stream", 40));
}

#[test]
fn a_crop_gives_the_network_another_shape_and_evaluations_the_middle() {
    let folder = folder("cifar100-crop");
    let sets = ["data.augment=[{ crop = 28 }, { shift = 1 }]", "model.input=[28, 28, 3]"];
    let cropped = train(&folder, "run", &sets);
    assert!(cropped[39] < 0.7 * cropped[0], "{cropped:?}");
    let emulated = train(&folder, "emulated", &[&sets[..], &["devices.use=\"emu*2\""]].concat());
    // Later, rounding has grown with every update.
    assert!(emulated.iter().zip(&cropped).take(30).all(|(a, b)| (a - b).abs() < 1e-5 * b), "{emulated:?}, {cropped:?}");
    let evaluated = |dir: &str| events(&folder.metrics(dir), "eval")[1]["loss"].as_f64().unwrap();
    assert!((evaluated("emulated") - evaluated("run")).abs() < 2e-4 * evaluated("run"));
    // Nothing about an evaluation is drawn.
    let shown = folder.good(&["eval", "run"]).out;
    assert!(shown.contains(&format!("loss {:.6}", evaluated("run"))), "{shown}");
    for (sets, words) in [
        (&sets[..1], "augment makes the images 28x28x3, but [model] input = [32, 32, 3]; write input = [28, 28, 3]"),
        (&["data.augment=[{ crop = 33 }]"], "crop = 33 is more than images of 32x32 have, expected at most 32"),
        (&["data.augment=[{ crop = 4 }, { shift = 4 }]"], "shift = 4 can move images of 4x4 out of the frame"),
    ] {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        assert_code(&folder.run(&["check", "signs.toml"].into_iter().chain(sets).collect::<Vec<_>>()), 2, &[words]);
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_in_use_is_named() {
    let folder = folder("cifar100-cut");
    let source: DataSource = toml::from_str::<Section>("source = { cifar100 = \"train.bin\" }").unwrap().source;
    let base = Base::from(&*folder.0);
    let data = source.load(SourceContext::new(Subset::Train, &base)).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(folder.at("train.bin")).unwrap();
    file.set_len(100 * RECORD as u64 + 5).unwrap();
    assert!(data.samples.read(99, &mut Sample::default()).is_ok());
    let error = data.samples.read(101, &mut Sample::default()).unwrap_err().to_string();
    assert!(
        error.ends_with("train.bin: ends before record 101; it was cut while it was in use, restore it"),
        "{error}"
    );
}

#[derive(serde::Deserialize)]
struct Section {
    source: DataSource,
}

#[test]
fn damaged_files_are_named_in_one_sentence() {
    let folder = folder("cifar100-damage");
    let whole = std::fs::read(folder.at("train.bin")).unwrap();
    let check = |bytes: &[u8], set: &str, words: &str| {
        std::fs::write(folder.at("x.bin"), bytes).unwrap();
        assert_code(&folder.run(&["check", "signs.toml", "--set", set]), 2, &[words]);
    };
    let x = "data.train={ cifar100 = \"x.bin\" }";
    let expected = "expected a multiple of 3074 (two labels and 32x32x3 bytes)";
    let cut = &whole[..3 * RECORD - 1];
    check(cut, x, &format!("x.bin: has 9221 bytes, {expected}; the file is truncated, packed or not a CIFAR-100 file"));
    check(&[], x, &format!("has 0 bytes, {expected}; the file is empty, download it again"));
    check(&whole[..2 * 3073], x, "this looks like CIFAR-10: write { cifar = ... }");
    check(&whole, "data.train={ cifar = \"x.bin\" }", "this looks like CIFAR-100: write { cifar100 = ... }");
    let mut labels = whole.clone();
    (labels[2 * RECORD + 1], labels[5 * RECORD + 1]) = (100, 255);
    check(&labels, x, "x.bin: record 2 has label 100, expected 0 to 99 (so in 2 of 1650 records); the file is damaged");
    check(&whole, "data.train={ cifar100 = { files = \"x.bin\", labels = \"fin\" } }", "unknown");
    let twice = folder.run(&["check", "signs.toml", "--set", "data.train={ cifar100 = [\"a.bin\", \"a.bin\"] }"]);
    assert_code(&twice, 2, &["\"a.bin\" is listed twice; list each file once"]);
}
