//! Mistakes in folders, lists and shards of pictures, each with its whole message.

use crate::common::file;
use crate::common::runs::Folder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Returns a folder with the classes `cat` and `dog`, of so many pictures each, in `p`, and `pictures.toml`, whose training set is `source`.
fn pictures(name: &str, counts: [usize; 2], source: &str) -> Folder {
    let folder = Folder::new(name);
    for (class, count) in ["cat", "dog"].into_iter().zip(counts) {
        for i in 0..count {
            picture(&folder.at(&format!("p/{class}/{i}.jpg")));
        }
    }
    write_config(&folder, source);
    folder
}

fn picture(to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(file("tests/photos/odd/size_1x1.jpg"), to).unwrap();
}

fn write_config(folder: &Folder, source: &str) {
    let config = format!(
        "[data]\ntrain = {source}\nbatch = 2\n[model]\ninput = [8, 8, 3]\nlayers = [\"flatten\", {{ dense = {{ units = 2 }} }}]\n\
         [optimizer]\nlr = 0.1\n[train]\nsteps = 1\n"
    );
    folder.write("pictures.toml", &config);
}

/// Runs `check`, which must fail with a mistake of the user, and returns what it says of it.
fn complaint(folder: &Folder, more: &[&str]) -> String {
    let output = folder.run(&[&["check", "pictures.toml"], more].concat());
    assert_eq!(output.code, Some(2), "{}{}", output.out, output.err);
    let lines: Vec<&str> =
        output.err.lines().filter(|line| !line.contains("not checked yet") && !line.contains("add --data")).collect();
    let text = lines.join("\n");
    text.strip_prefix("peristyle: ").unwrap_or(&text).replace("pictures.toml:2:9: [data]: ", "")
}

const FOLDER: &str = "{ folder = \"p\", size = 8 }";

#[test]
fn folders_that_are_not_divided_into_classes_are_refused() {
    let folder = pictures("picture-mistakes", [2, 2], FOLDER);
    folder.good(&["check", "pictures.toml", "--data"]);

    let missing = pictures("picture-missing", [0, 0], FOLDER);
    assert!(complaint(&missing, &[]).starts_with("p: no such file; tried "), "{}", complaint(&missing, &[]));
    std::fs::create_dir(missing.at("p")).unwrap();
    let empty = "p: has no pictures, expected a folder for each class with its pictures";
    assert_eq!(complaint(&missing, &[]), empty);
    std::fs::create_dir(missing.at("p/cat")).unwrap();
    let one = "p: has one class, \"cat\", expected at least two; is this the folder above the classes?";
    assert_eq!(complaint(&missing, &[]), one);
    std::fs::create_dir(missing.at("p/dog")).unwrap();
    picture(&missing.at("p/cat/1.jpg"));
    let none = "p/dog: is empty, expected pictures (jpg, jpeg, png); add some, or remove the folder";
    assert_eq!(complaint(&missing, &[]), none);
    missing.write("p/dog/a.gif", "GIF89a");
    let other =
        "p/dog: has no pictures among its 1 file, expected pictures (jpg, jpeg, png); add some, or remove the folder";
    assert_eq!(complaint(&missing, &[]), other);
    std::fs::remove_dir_all(missing.at("p")).unwrap();
    missing.write("p", "text");
    assert_eq!(complaint(&missing, &[]), "p: is a file, expected a folder with a folder for each class");

    picture(&folder.at("p/stray.png"));
    assert_eq!(
        complaint(&folder, &[]),
        "p/stray.png: lies beside the folders of the classes; move it into one of them"
    );
    std::fs::remove_file(folder.at("p/stray.png")).unwrap();
    picture(&folder.at("p/cat/more/1.jpg"));
    let nested = "p/cat/more: is a folder in the folder of a class, expected pictures only; move them up, or give the folder above \
                  the classes";
    assert_eq!(complaint(&folder, &[]), nested);
    std::fs::remove_dir_all(folder.at("p/cat/more")).unwrap();
    symlink("..", folder.at("p/cat/loop")).unwrap();
    assert_eq!(complaint(&folder, &[]), nested.replace("p/cat/more", "p/cat/loop"));
    std::fs::remove_file(folder.at("p/cat/loop")).unwrap();
    symlink("round", folder.at("p/round")).unwrap();
    assert_eq!(
        complaint(&folder, &[]),
        "p/round: is a link that leads nowhere (Too many levels of symbolic links (os error 40)); remove or correct it"
    );
    std::fs::remove_file(folder.at("p/round")).unwrap();
    symlink("nowhere.jpg", folder.at("p/cat/gone.jpg")).unwrap();
    assert_eq!(
        complaint(&folder, &[]),
        "p/cat/gone.jpg: is a link that leads nowhere (No such file or directory (os error 2)); remove or correct it"
    );
    std::fs::remove_file(folder.at("p/cat/gone.jpg")).unwrap();
    let odd = folder.at("p").join(std::ffi::OsStr::from_bytes(b"c\xff"));
    std::fs::create_dir(&odd).unwrap();
    let name = "p/c\u{fffd}: the name of this class is not UTF-8; rename the folder";
    assert_eq!(complaint(&folder, &[]), name);
    std::fs::remove_dir(&odd).unwrap();
    // Names of files may be any.
    picture(&folder.at("p/cat").join(std::ffi::OsStr::from_bytes(b"f\xff.jpg")));
    folder.good(&["train", "pictures.toml", "--run-dir", "run"]);
}

#[test]
fn sizes_classes_and_files_that_do_not_fit_are_refused() {
    let folder = pictures("picture-sizes", [2, 2], "{ folder = \"p\" }");
    let sizes = "these images differ in size, and nothing brings them to one; add size to the source, as in size = 64, or begin augment \
                 with { random_resized_crop = 224 }, or with { resize = 256 } and { crop = 224 }";
    assert_eq!(complaint(&folder, &[]), sizes);
    let crop = complaint(&folder, &["--set", "data.augment=[{ crop = 8 }]"]);
    assert_eq!(crop, "--set data.augment: [data]: crop = 8 may be more than images have; put { resize = 8 } before it");
    let after = complaint(&folder, &["--set", "data.augment=[{ flip = \"vertical\" }, { resize = [8, 8] }]"]);
    assert_eq!(after, "--set data.augment: [data]: resize comes after flip; put it before all augmentations but crop");

    write_config(&folder, "{ folder = \"p\", size = 8, classes = \"names.txt\" }");
    folder.write("names.txt", "dog\ncat\ndog\n");
    assert_eq!(complaint(&folder, &[]), "names.txt: has the class \"dog\" twice; name each class once");
    folder.write("names.txt", "dog\n");
    assert_eq!(
        complaint(&folder, &[]),
        "names.txt: has fewer than two names, expected the name of a class in each line"
    );
    folder.write("names.txt", "dog\ncats\n");
    let near = "p/cat: is not one of the 2 classes (did you mean \"cats\"?); remove the folder, or correct its name";
    assert_eq!(complaint(&folder, &[]), near);

    write_config(&folder, FOLDER);
    std::fs::copy(file("tests/photos/broken/truncated_half.jpg"), folder.at("p/dog/9.jpg")).unwrap();
    folder.write("p/dog/8.jpg", "text");
    folder.good(&["check", "pictures.toml"]);
    let bad = complaint(&folder, &["--data"]);
    let lines: Vec<&str> = bad.lines().collect();
    assert_eq!(lines.len(), 2, "{bad}");
    assert!(
        lines[0].starts_with("p/dog/8.jpg: ") && lines[1].starts_with("p/dog/9.jpg: is a truncated JPEG file"),
        "{bad}"
    );
    assert!(lines.iter().all(|line| line.ends_with(", or leave such files out with on_bad = \"skip\"")), "{bad}");
    let skip = "data.train={ folder = \"p\", size = 8, on_bad = \"skip\", most_bad = 0.4 }";
    let out = folder.good(&["train", "pictures.toml", "--run-dir", "run", "--set", skip]);
    assert!(
        out.err.contains("p: leaves out 2 of 6 files") && out.err.contains("left out: p/dog/9.jpg: is a truncated"),
        "{}",
        out.err
    );
    let many = complaint(&folder, &["--set", &skip.replace("0.4", "0.3")]);
    assert!(
        many.starts_with(
            "--set data.train: [data]: p: 2 files of 6 cannot be decoded, more than most_bad = 0.3; replace or remove them, or allow more"
        ),
        "{many}"
    );
}

#[test]
fn lists_with_mistakes_are_refused_with_their_lines() {
    let folder = pictures("picture-lists", [2, 2], "{ list = \"train.txt\", root = \"p\", size = 8 }");
    folder.write("train.txt", "cat/0.jpg 0\ncat/1.jpg 0\ndog/0.jpg 1\n");
    folder.good(&["train", "pictures.toml", "--run-dir", "run"]);
    folder.write("train.txt", "cat/0.jpg 0\n\n# more\ncat/7.jpg 0\ndog/0.jpg 1\ndog 1\n");
    let wrong = "train.txt:4: p/cat/7.jpg: cannot read: No such file or directory (os error 2); correct the path, or root\n\
                 train.txt:6: p/dog is not a file, expected a picture; correct the path";
    assert_eq!(complaint(&folder, &[]), wrong);
    folder.write("train.txt", "cat/0.jpg 0\ndog/0.jpg\n");
    let label = complaint(&folder, &[]);
    assert_eq!(label, "train.txt:2: \"dog/0.jpg\" has no label, expected a path, a blank and a class number; add it");
    folder.write("train.txt", "cat/0.jpg 0\ndog/0.jpg 99999\n");
    let classes = complaint(&folder, &[]);
    assert!(classes.contains("99999") && classes.contains("2 outputs"), "{classes}");
    folder.write("train.txt", "cat/0.jpg 1\ncat/1.jpg 2\n");
    folder.write("names.txt", "cat\ndog\n");
    let names = "data.train={ list = \"train.txt\", root = \"p\", size = 8, classes = \"names.txt\" }";
    let beyond = complaint(&folder, &["--set", names]);
    assert_eq!(beyond, "--set data.train: [data]: train.txt:2: class 2, expected 0 to 1, as 2 classes have names");
}

/// Makes an archive of some members.
fn tar(path: &Path, members: &[(&str, &[u8])]) {
    let mut archive = Vec::new();
    for (name, bytes) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    std::fs::write(path, archive).unwrap();
}

#[test]
fn shards_train_as_folders_and_their_mistakes_are_named() {
    let folder = pictures("picture-shards", [3, 3], "{ folder = \"p\", size = 8 }");
    let sequential = ["--set", "data.order=\"sequential\"", "--set", "train.steps=6"];
    let losses = |dir: &str, more: &[&str]| {
        folder.good(&[&["train", "pictures.toml", "--run-dir", dir][..], &sequential, more].concat());
        crate::common::runs::losses(&folder.metrics(dir))
    };
    let photos =
        ["plain/cat.jpg", "plain/cat.png", "odd/gray8.png", "plain/coffee.jpg", "odd/palette.png", "plain/rocket.jpg"];
    let photos = photos.map(|name| std::fs::read(file(&format!("tests/photos/{name}"))).unwrap());
    std::fs::remove_dir_all(folder.at("p")).unwrap();
    for (i, bytes) in photos.iter().enumerate() {
        let class = ["cat", "dog"][i / 3];
        std::fs::create_dir_all(folder.at(&format!("p/{class}"))).unwrap();
        std::fs::write(folder.at(&format!("p/{class}/{i}.jpg")), bytes).unwrap();
    }
    let whole = losses("folder", &[]);
    let member = |i: usize| {
        [(format!("p/{i}.jpg"), photos[i].clone()), (format!("p/{i}.cls"), (i / 3).to_string().into_bytes())]
    };
    for (shard, range) in [("s-00.tar", 0..2), ("s-01.tar", 2..6)] {
        let members: Vec<(String, Vec<u8>)> =
            range.flat_map(member).chain([("p/x.json".to_string(), b"{}".to_vec())]).collect();
        tar(&folder.at(shard), &members.iter().map(|(name, bytes)| (&**name, &**bytes)).collect::<Vec<_>>());
    }
    let shards = "data.train={ shards = \"s-{00..01}.tar\", size = 8 }";
    assert_eq!(losses("shards", &["--set", shards]), whole);
    let list: String = (0..6).map(|i| format!("p/{}/{i}.jpg {}\n", ["cat", "dog"][i / 3], i / 3)).collect();
    folder.write("train.txt", &list);
    assert_eq!(losses("list", &["--set", "data.train={ list = \"train.txt\", size = 8 }"]), whole);

    let said = |source: &str| {
        let set = format!("data.train={{ shards = {source}, size = 8 }}");
        complaint(&folder, &["--set", &set]).replace("--set data.train: [data]: ", "")
    };
    assert!(said("\"s-{00..02}.tar\"").starts_with("s-02.tar: no such file; "), "{}", said("\"s-{00..02}.tar\""));
    let down = "shards: {2..1} counts down, expected the smaller number first";
    assert_eq!(said("\"s-{2..1}.tar\""), down);
    let whole = std::fs::read(folder.at("s-01.tar")).unwrap();
    std::fs::write(folder.at("cut.tar"), &whole[..2000]).unwrap();
    let bytes = 512 + photos[2].len();
    let cut = format!(
        "cut.tar: ends inside member \"p/2.jpg\" (bytes 512 to {bytes}, but the file has 2000); it is truncated or damaged, download it again"
    );
    assert_eq!(said("\"cut.tar\""), cut);
    let (one, two) = (&photos[0][..], &photos[3][..]);
    tar(&folder.at("a.tar"), &[("1.jpg", one), ("1.cls", b"0"), ("2.png", two)]);
    let label =
        "a.tar: picture \"2.png\" has no label \"2.cls\" (so for 1 of 2 pictures); write a number from 0 as its .cls";
    assert_eq!(said("\"a.tar\""), label);
    tar(&folder.at("b.tar"), &[("1.jpg", one), ("1.cls", b"0"), ("1.jpg", two)]);
    assert_eq!(said("\"b.tar\""), "b.tar: has two members \"1.jpg\"; write the shard again");
    tar(&folder.at("c.tar"), &[("1.jpg", one), ("1.cls", b"0"), ("2.jpg", two), ("2.cls", b"1")]);
    let twice = "c2.tar: has a picture \"1\", as c.tar has; give shards of different pictures";
    std::fs::copy(folder.at("c.tar"), folder.at("c2.tar")).unwrap();
    assert_eq!(said("[\"c.tar\", \"c2.tar\"]"), twice);
}
