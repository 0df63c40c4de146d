//! Pictures in Parquet files, written by pyarrow and Hugging Face's datasets (tests/parquet/make.py): they train as the files that they came from.

use crate::common::file;
use crate::common::runs::{Folder, losses};
use std::path::Path;

/// Returns a folder with the files, and `parquet.toml`, whose training set is `source`.
fn folder(name: &str, source: &str) -> Folder {
    let folder = Folder::new(name);
    for entry in std::fs::read_dir(file("tests/parquet")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, folder.at(from.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let config = format!(
        "seed = 3\n[data]\ntrain = {source}\nbatch = 4\naugment = [{{ random_resized_crop = 8 }}]\n[model]\ninput = [8, 8, 3]\n\
         layers = [\"flatten\", {{ dense = {{ units = 10 }} }}]\n[optimizer]\nlr = 0.01\n[train]\nsteps = 10\n"
    );
    folder.write("parquet.toml", &config);
    folder
}

/// Lists the pictures of make.py: the first two of each class.
fn list(folder: &Folder) {
    let train = file("data/signs-folder/train");
    let sorted = |path: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let lines = sorted(&train).into_iter().enumerate().flat_map(|(class, path)| {
        sorted(&path).into_iter().take(2).map(move |picture| format!("{} {class}\n", picture.display()))
    });
    folder.write("list.txt", &lines.collect::<String>());
}

fn trained(folder: &Folder, run: &str, source: &str) -> (Vec<f64>, String) {
    let set = format!("data.train={source}");
    let output = folder.good(&["train", "parquet.toml", "--run-dir", run, "--set", &set]);
    (losses(&folder.metrics(run)), output.err)
}

const HUB: &str = "{ parquet = \"hub.parquet\" }";
const ZSTD: &str = "{ parquet = \"zstd.parquet\", image = \"picture\", target = \"class\" }";
const PARTS: &str = "{ parquet = \"part-{0..1}.parquet\" }";

#[test]
fn columns_train_as_the_files_that_they_came_from() {
    let folder = folder("parquet", HUB);
    list(&folder);
    let (whole, _) = trained(&folder, "list", "{ list = \"list.txt\" }");
    assert_eq!(whole.len(), 10);
    for (run, source) in [("hub", HUB), ("zstd", ZSTD), ("parts", PARTS)] {
        let (losses, said) = trained(&folder, run, source);
        assert_eq!(losses, whole, "{run}");
        assert!(said.contains(".parquet: unpacked into "), "{run}: {said}");
        // Again, from what is unpacked.
        let (losses, said) = trained(&folder, &format!("{run}-again"), source);
        assert_eq!(losses, whole, "{run}");
        assert!(!said.contains("unpacked"), "{run}: {said}");
    }
    // The names of the classes are in the metadata of one file, and the texts of another; there are none in the third.
    let sign = file("data/signs-folder/train/sign_3");
    let sign = std::fs::read_dir(sign).unwrap().next().unwrap().unwrap().path();
    for (run, name) in [("hub", "sign_"), ("zstd", "sign_"), ("parts", "")] {
        let answer = folder.good(&["predict", run, sign.to_str().unwrap(), "--top", "10", "--csv"]).out;
        assert!((0..10).all(|class| answer.contains(&format!(",{name}{class},"))), "{run}: {answer}");
    }
}

#[test]
fn a_file_that_has_changed_is_unpacked_again_and_one_that_is_damaged_too() {
    let folder = folder("parquet-changed", HUB);
    let unpacked = folder.at("hub.parquet.image.peristyle-unpacked");
    let (whole, _) = trained(&folder, "first", HUB);
    let bytes = std::fs::read(&unpacked).unwrap();
    let time = std::fs::metadata(&unpacked).unwrap().modified().unwrap();
    assert_eq!(time, std::fs::metadata(folder.at("hub.parquet")).unwrap().modified().unwrap());
    // One that is cut off, though it has the right time.
    std::fs::write(&unpacked, &bytes[..bytes.len() - 9]).unwrap();
    std::fs::File::options().write(true).open(&unpacked).unwrap().set_modified(time).unwrap();
    std::fs::remove_file(folder.at("hub.parquet.peristyle-index")).unwrap();
    assert_eq!(trained(&folder, "cut", HUB).0, whole);
    assert_eq!(std::fs::read(&unpacked).unwrap(), bytes);
    // Another file of the same name.
    let later = time + std::time::Duration::from_secs(5);
    std::fs::copy(folder.at("part-1.parquet"), folder.at("hub.parquet")).unwrap();
    std::fs::File::options().write(true).open(folder.at("hub.parquet")).unwrap().set_modified(later).unwrap();
    let (losses, said) = trained(&folder, "other", HUB);
    assert_ne!(losses, whole);
    assert!(said.contains("hub.parquet: unpacked into "), "{said}");
}

#[test]
fn processes_that_start_at_the_same_time_unpack_once() {
    let folder = folder("parquet-together", HUB);
    let start = |_| {
        let mut command = crate::common::runs::peristyle(&folder.0);
        command.args(["check", "parquet.toml", "--data"]).stderr(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let all: Vec<_> = (0..8).map(start).collect();
    let said: Vec<String> = all
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{said}");
            said
        })
        .collect();
    let unpacked = said.iter().filter(|said| said.contains("unpacked into")).count();
    assert_eq!(unpacked, 1, "{said:?}");
}

/// Runs `check` with a training set, which must fail with a mistake of the user, and returns what it says of it.
fn complaint(folder: &Folder, source: &str) -> String {
    let output = folder.run(&["check", "parquet.toml", "--set", &format!("data.train={source}")]);
    assert_eq!(output.code, Some(2), "{}{}", output.out, output.err);
    let lines: Vec<&str> =
        output.err.lines().filter(|line| !line.contains("not checked yet") && !line.contains("add --data")).collect();
    lines.join("\n").replace("peristyle: --set data.train: [data]: ", "")
}

#[test]
fn mistakes_are_named_with_file_row_and_column() {
    let folder = folder("parquet-mistakes", HUB);
    let whole = std::fs::read(folder.at("hub.parquet")).unwrap();
    std::fs::write(folder.at("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    let mut wrong = whole.clone();
    wrong[5..60].fill(0xff);
    std::fs::write(folder.at("wrong.parquet"), &wrong).unwrap();
    for (name, message) in [
        ("brotli", "is compressed by Brotli, which is not known here; write it with zstd or snappy"),
        (
            "no_bytes",
            "row 2: \"image\" has no bytes, expected an encoded picture in each row; write the file with its pictures in it, or remove the row",
        ),
        ("no_class", "row 2: the class in \"label\" is missing, expected one in each row; add it, or remove the row"),
        (
            "unpublished",
            "row 1: the class in \"label\" is -1, as in sets whose classes are not published; give another file",
        ),
        ("two_classes", "has several columns of classes: \"fine\", \"coarse\"; name one: target = \"fine\""),
        ("two_images", "has several columns of pictures: \"image\", \"mask\"; name one: image = \"image\""),
        (
            "numbers",
            "has no column of pictures (bytes, or a group with a column \"bytes\"); its columns are \"x\", \"label\"",
        ),
        ("one_class", "has pictures of one class, expected at least two"),
        ("empty", "has no rows, expected a picture and its class in each"),
        (
            "cut",
            "cannot be read as Parquet (Parquet error: Invalid Parquet file. Corrupt footer); is it such a file, and whole?",
        ),
    ] {
        let said = complaint(&folder, &format!("{{ parquet = \"{name}.parquet\", size = 8 }}"));
        assert_eq!(said, format!("{name}.parquet: {message}"));
    }
    let said = complaint(&folder, "{ parquet = \"wrong.parquet\", size = 8 }");
    assert!(said.starts_with("wrong.parquet: cannot be read as Parquet ("), "{said}");
    for (settings, message) in [
        ("image = \"img\"", "image names \"img\", but the columns are \"image\", \"label\""),
        (
            "target = \"labels\"",
            "target names \"labels\" (did you mean \"label\"?), but the columns are \"image\", \"label\"",
        ),
        ("target = \"image\"", "target names \"image\", which has other values than whole numbers or text"),
    ] {
        let said = complaint(&folder, &format!("{{ parquet = \"hub.parquet\", size = 8, {settings} }}"));
        assert_eq!(said, format!("hub.parquet: {message}"));
    }
    folder.write("classes.txt", "sign_0\nsign_1\n");
    let said = complaint(&folder, "{ parquet = \"hub.parquet\", size = 8, classes = \"classes.txt\" }");
    let message = "has a class \"sign_2\", which is not among the classes (did you mean \"sign_0\"?); give files of the same classes";
    assert_eq!(said, format!("hub.parquet: {message}"));
    let said = complaint(&folder, "{ parquet = \"part-1.parquet\", size = 8, classes = \"classes.txt\" }");
    assert_eq!(said, "part-1.parquet: row 1: class 2, expected 0 to 1, as 2 classes have names");
    let zstd =
        "{ parquet = \"zstd.parquet\", size = 8, image = \"picture\", target = \"class\", classes = \"classes.txt\" }";
    let message = "row 5: class \"sign_2\", which is not among the classes (did you mean \"sign_0\"?); correct it";
    assert_eq!(complaint(&folder, zstd), format!("zstd.parquet: {message}"));
}

#[test]
fn without_a_place_for_unpacked_pictures_the_reasons_are_named() {
    let folder = folder("parquet-room", HUB);
    let beside = folder.at("hub.parquet.image.peristyle-unpacked");
    std::fs::create_dir(&beside).unwrap();
    folder.write("cache", "a file");
    let output = crate::common::runs::output_of(
        crate::common::runs::peristyle(&folder.0)
            .args(["check", "parquet.toml"])
            .env("XDG_CACHE_HOME", folder.at("cache")),
    );
    assert_ne!(output.code, Some(0), "{}{}", output.out, output.err);
    let place = "its pictures are compressed, so they are unpacked once, for which there is no place: ";
    assert!(output.err.contains(&format!("hub.parquet: {place}")), "{}", output.err);
    assert!(output.err.contains("; make room, or set XDG_CACHE_HOME to a folder"), "{}", output.err);
    // With one, it is used.
    let output = crate::common::runs::output_of(
        crate::common::runs::peristyle(&folder.0)
            .args(["check", "parquet.toml", "--data"])
            .env("XDG_CACHE_HOME", folder.at("home")),
    );
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
    assert_eq!(std::fs::read_dir(folder.at("home/peristyle")).unwrap().count(), 1);
}
