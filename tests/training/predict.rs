//! `peristyle predict`: a trained network is asked about pictures.

use crate::common::file;
use crate::common::runs::{CommandOutput, Folder, assert_code, copy_signs, output_of, peristyle};
use peristyle::data::pictures::{Bitmap, decode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

/// Trains for some updates on the first photographs of each sign, in the run `run`.
fn trained(name: &str, augment: &str) -> Folder {
    let folder = Folder::new(name);
    copy_signs(&folder, [6, 3]);
    let config = format!(
        "[data]\ntrain = {{ folder = \"signs/train\" }}\ntest = {{ folder = \"signs/test\" }}\nbatch = 20\n\
         normalize = \"standardize\"\naugment = {augment}\n[model]\ninput = [24, 24, 3]\n\
         layers = [{{ conv = {{ filters = 8, kernel = 5, stride = 4 }} }}, \"relu\", \"flatten\", {{ dense = {{ units = 10 }} }}]\n\
         [optimizer]\nlr = 0.02\nchain = [{{ momentum = 0.9 }}]\n[train]\nsteps = 12\nevaluate = \"12 steps\"\n"
    );
    folder.write("signs.toml", &config);
    folder.good(&["train", "signs.toml", "--run-dir", "run"]);
    folder
}

const FRAMED: &str = "[{ random_resized_crop = 24 }]";

/// Returns the JSON objects in lines.
fn objects(output: &CommandOutput) -> Vec<Value> {
    output.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the probabilities of all classes in an answer, by class.
fn probabilities(answer: &Value) -> Vec<f32> {
    let top = answer["top"].as_array().unwrap();
    let of = |one: &Value| (one["index"].as_u64().unwrap(), one["probability"].as_f64().unwrap() as f32);
    let by_class: BTreeMap<u64, f32> = top.iter().map(of).collect();
    by_class.into_values().collect()
}

#[test]
fn probabilities_are_those_of_an_evaluation_bit_for_bit() {
    let folder = trained("predict-eval", FRAMED);
    folder.good(&["eval", "run", "--predictions", "evaluated.jsonl"]);
    let answers = objects(&folder.good(&["predict", "run", "signs/test", "--json", "--top", "10"]));
    let evaluated = folder.read("evaluated.jsonl");
    assert_eq!((answers.len(), evaluated.lines().count()), (30, 30));
    for (answer, line) in answers.iter().zip(evaluated.lines()) {
        let row: Value = serde_json::from_str(line).unwrap();
        let (named, file) = (row["name"].as_str().unwrap(), answer["file"].as_str().unwrap());
        assert!(named.ends_with(file), "{named} {file}");
        let expected: Vec<f32> =
            row["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap() as f32).collect();
        assert_eq!(probabilities(answer), expected, "{file}");
        assert_eq!(answer["top"][0]["class"], row["predicted"], "{file}");
        assert_eq!(file.split('/').nth(2), row["label"].as_str(), "{file}");
    }
    // Text and table have the same answers, of as many classes as asked for.
    let text = folder.good(&["predict", "run", "signs/test/sign_4", "--top", "2"]).out;
    let table = folder.good(&["predict", "run", "signs/test/sign_4", "--top", "2", "--csv"]).out;
    let answers = objects(&folder.good(&["predict", "run", "signs/test/sign_4", "--json", "--top", "2"]));
    assert!(table.starts_with("file,error,class1,probability1,class2,probability2\n"), "{table}");
    for ((line, row), answer) in text.lines().zip(table.lines().skip(1)).zip(&answers) {
        let [first, second] = [0, 1].map(|i| &answer["top"][i]);
        let percent = |one: &Value| format!("{:.2} %", 100.0 * one["probability"].as_f64().unwrap());
        let (file, names) =
            (answer["file"].as_str().unwrap(), [first, second].map(|one| one["class"].as_str().unwrap()));
        assert_eq!(line, format!("{file}: {} {}, {} {}", names[0], percent(first), names[1], percent(second)));
        assert_eq!(
            row,
            format!("{file},,{},{},{},{}", names[0], first["probability"], names[1], second["probability"])
        );
    }
}

#[test]
fn what_cannot_be_read_is_reported_and_the_others_are_answered() {
    let folder = trained("predict-bad", FRAMED);
    let photos = file("tests/photos");
    for (from, to) in [
        ("plain/cat.jpg", "asked/a b\u{fc}.jpg"),
        ("broken/truncated_half.jpg", "asked/cut.jpg"),
        ("plain/cat.png", "asked/deep/cat.png"),
        ("broken/unsupported_kind.gif", "asked/g.png"),
        ("broken/text.jpg", "asked/t.jpg"),
        ("odd/gray16.png", "asked/z\n.png"),
    ] {
        let to = folder.at(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(photos.join(from), to).unwrap();
    }
    std::os::unix::fs::symlink("..", folder.at("asked/deep/loop")).unwrap();
    std::os::unix::fs::symlink("nowhere.jpg", folder.at("asked/link.jpg")).unwrap();
    let output = folder.run(&["predict", "run", "asked", "--json"]);
    assert_code(&output, 1, &["4 pictures could not be read"]);
    let answers = objects(&output);
    let files: Vec<&str> = answers.iter().map(|answer| answer["file"].as_str().unwrap()).collect();
    let expected = ["a b\u{fc}.jpg", "cut.jpg", "deep/cat.png", "g.png", "link.jpg", "t.jpg", "z\n.png"];
    assert_eq!(files, expected.map(|name| format!("asked/{name}")));
    for (answer, reason) in answers.iter().zip(["", "truncated", "", "GIF", "No such file", "is not a picture", ""]) {
        match reason {
            "" => assert_eq!(answer["top"].as_array().unwrap().len(), 5, "{answer}"),
            reason => assert!(answer["error"].as_str().unwrap().contains(reason), "{answer}"),
        }
    }
    let text = folder.run(&["predict", "run", "asked"]);
    assert_code(&text, 1, &["asked/cut.jpg: ", "asked/g.png: is a GIF file", "4 pictures could not be read"]);
    assert_eq!(text.out.lines().count(), 3, "{}", text.out);
    assert!(text.out.contains("asked/z\\u{a}.png: "), "{}", text.out);
    let missing = folder.run(&["predict", "run", "asked/none.jpg"]);
    assert_code(&missing, 1, &["asked/none.jpg: ", "No such file", "1 picture could not be read"]);
    std::fs::create_dir(folder.at("empty")).unwrap();
    assert_code(&folder.run(&["predict", "run", "empty"]), 2, &["empty: has no pictures"]);
    assert_code(&folder.run(&["predict", "run", "-", "asked"]), 2, &["- reads the names of all pictures"]);
}

#[test]
fn names_on_standard_input_are_answered_as_they_come() {
    let folder = trained("predict-stdin", FRAMED);
    let all = objects(&folder.good(&["predict", "run", "signs/test", "--json"]));
    let mut command = peristyle(&folder.0);
    command.args(["predict", "run", "-", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answers = BufReader::new(from).lines();
    let mut next = || serde_json::from_str::<Value>(&answers.next().unwrap().unwrap()).unwrap();
    // Each answer is waited for before the next name is written.
    for expected in &all[..3] {
        writeln!(to, "{}", expected["file"].as_str().unwrap()).unwrap();
        let answer = next();
        assert_eq!(answer["file"], expected["file"]);
        assert!(close(&probabilities(&answer), &probabilities(expected)), "{answer} {expected}");
    }
    for expected in &all {
        writeln!(to, "{}", expected["file"].as_str().unwrap()).unwrap();
    }
    drop(to);
    for expected in &all {
        assert_eq!(next()["file"], expected["file"]);
    }
    assert!(child.wait().unwrap().success());
    let mut none = peristyle(&folder.0);
    none.args(["predict", "run", "-"]).stdin(Stdio::null());
    assert_code(&output_of(&mut none), 0, &[]);
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

/// Writes the part of a picture that begins at a row and a column, 24x24, mirrored or not.
fn write_part(picture: &Bitmap, [top, left]: [usize; 2], mirrored: bool, path: &Path) {
    let pixel = |i: usize, j: usize| &picture.pixels[((top + i) * picture.size[1] + left + j) * 3..][..3];
    let pixels: Vec<u8> =
        (0..24).flat_map(|i| (0..24).flat_map(move |j| pixel(i, if mirrored { 23 - j } else { j }).to_vec())).collect();
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), 24, 24);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

#[test]
fn ten_crops_are_the_corners_the_middle_and_their_mirror_images() {
    let folder = trained("predict-ten", "[{ resize = 100 }, { crop = 24 }]");
    let paths = ["signs/test/sign_2", "signs/test/sign_7"];
    let ten = objects(&folder.good(&["predict", "run", paths[0], paths[1], "--ten-crop", "--json", "--top", "10"]));
    assert_eq!(ten.len(), 6);
    let mut command = peristyle(&folder.0);
    let names: String = ten.iter().map(|answer| format!("{}\n", answer["file"].as_str().unwrap())).collect();
    command
        .args(["predict", "run", "-", "--ten-crop", "--json", "--top", "10"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(names.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let streamed = String::from_utf8(output.stdout).unwrap();
    for (line, answer) in streamed.lines().zip(&ten) {
        assert!(close(&probabilities(&serde_json::from_str(line).unwrap()), &probabilities(answer)), "{line} {answer}");
    }
    assert_eq!(streamed.lines().count(), 6);
    for answer in &ten {
        let mut picture = Bitmap::default();
        decode(&std::fs::read(folder.at(answer["file"].as_str().unwrap())).unwrap(), 3, &mut picture).unwrap();
        let _ = std::fs::remove_dir_all(folder.at("parts"));
        std::fs::create_dir(folder.at("parts")).unwrap();
        for (k, at) in [[0, 0], [0, 76], [76, 0], [76, 76], [38, 38]].into_iter().enumerate() {
            write_part(&picture, at, false, &folder.at(&format!("parts/{k}.png")));
            write_part(&picture, at, true, &folder.at(&format!("parts/{k}m.png")));
        }
        let plain = ["--set", "data.augment=[]", "--set", "data.train={ folder = \"signs/train\", size = 24 }"];
        let parts =
            objects(&folder.good(&[&["predict", "run", "parts", "--json", "--top", "10"], &plain[..]].concat()));
        let mut mean = vec![0.0; 10];
        parts.iter().for_each(|part| mean.iter_mut().zip(probabilities(part)).for_each(|(mean, p)| *mean += p / 10.0));
        assert!(close(&mean, &probabilities(answer)), "{mean:?} {answer}");
    }
    // An evaluation of ten crops has the same predictions.
    folder.good(&["eval", "run", "--ten-crop", "--predictions", "evaluated.jsonl"]);
    let rows: Vec<Value> =
        folder.read("evaluated.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 30);
    let row =
        rows.iter().find(|row| row["name"].as_str().unwrap().ends_with(ten[0]["file"].as_str().unwrap())).unwrap();
    let expected: Vec<f32> =
        row["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap() as f32).collect();
    assert!(close(&expected, &probabilities(&ten[0])), "{row} {}", ten[0]);
    let refused =
        folder.run(&["predict", "run", paths[0], "--ten-crop", "--set", "data.augment=[{ resize = [24, 24] }]"]);
    assert_code(&refused, 2, &["--ten-crop: augment has no crop"]);
}

#[test]
fn networks_that_were_not_trained_on_pictures_need_pictures_of_their_size() {
    let folder = Folder::new("predict-digits");
    let config = std::fs::read_to_string(file("configs/lenet.toml")).unwrap();
    folder.write("lenet.toml", &config);
    folder.good(&["train", "lenet.toml", "--run-dir", "run", "--set", "train={ steps = 3 }"]);
    let mut encoder = png::Encoder::new(std::fs::File::create(folder.at("digit.png")).unwrap(), 28, 28);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[7; 28 * 28]).unwrap();
    let shown = folder.good(&["predict", "run", "digit.png", "--top", "1"]).out;
    assert!(shown.starts_with("digit.png: ") && shown.ends_with(" %\n"), "{shown}");
    std::fs::copy(file("tests/photos/plain/cat.png"), folder.at("cat.png")).unwrap();
    let words = ["cat.png: is 200 pixels wide and 133 high, but the run was trained on images of 28x28; resize it"];
    assert_code(&folder.run(&["predict", "run", "cat.png"]), 1, &words);
}
