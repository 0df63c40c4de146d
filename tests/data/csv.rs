//! CSV files, as sources of the real command: the digits of 8x8 pixels as a table.

use crate::common::runs::{Folder, assert_code, events, losses};
use peristyle::data::{Base, DataSource, Idx, Labels, Pixels, SourceContext, Subset};
use safetensors::tensor::{Dtype, TensorView};

const FEATURES: usize = 64;

/// Returns a folder with the digits as a table (`train.csv`) and as tensors, (N, 64, 1, 1); `table.toml` learns from the
/// former. Each pixel is divided by a number that makes its value long in decimal.
fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    let [images, labels] = ["images-idx3", "labels-idx1"].map(|kind| format!("data/train-{kind}-ubyte.gz").into());
    let base = Base::from(&*folder.0);
    let source: DataSource = Idx { images, labels }.into();
    let data = source.load(SourceContext::new(Subset::Train, &base)).unwrap();
    let (Pixels::U8(pixels), Labels::Index(labels)) = (data.all_pixels().unwrap(), &data.labels) else { panic!() };
    let values: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 37.0).collect();
    let name =
        |class: u32| ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"][class as usize];
    // The order of the names in the alphabet, by hand: eight five four nine one seven six three two zero.
    let sorted = [9u32, 4, 8, 7, 2, 1, 6, 5, 0, 3];
    let mut table = format!("id,name,{}\n", (0..FEATURES).map(|i| format!("p{i}")).collect::<Vec<_>>().join(","));
    let mut numbers = table.replace("name", "class").replace(',', "\t");
    for (i, row) in values.chunks_exact(FEATURES).enumerate() {
        let cells = |between: &str| row.iter().map(f32::to_string).collect::<Vec<_>>().join(between);
        table += &format!("image {i},\"{}\",{}\n", name(labels[i]), cells(","));
        numbers += &format!("image {i}\t{}\t{}\r\n", sorted[labels[i] as usize], cells("\t"));
    }
    folder.write("train.csv", &table);
    folder.write("numbers.tsv", &numbers);
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let classes: Vec<u8> = labels.iter().map(|&label| sorted[label as usize] as u8).collect();
    let images = TensorView::new(Dtype::F32, vec![labels.len(), FEATURES, 1, 1], &bytes).unwrap();
    let labels = TensorView::new(Dtype::U8, vec![labels.len()], &classes).unwrap();
    let tensors = safetensors::serialize([("images", images), ("labels", labels)], None).unwrap();
    std::fs::write(folder.at("train.safetensors"), tensors).unwrap();
    folder.write(
        "table.toml",
        "[data]\ntrain = { csv = { file = \"train.csv\", target = \"name\", ignore = [\"id\"] } }\nvalidation = 0.1\n\
         batch = 50\nnormalize = \"none\"\n[model]\ninput = [1, 1, 64]\nlayers = [\"flatten\", { dense = { units = 32 } }, \
         \"relu\", { dense = { units = 10 } }]\n[optimizer]\nlr = 0.05\nchain = [{ momentum = 0.9 }]\n[train]\nsteps = 40\n\
         evaluate = \"20 steps\"\n",
    );
    folder
}

fn train(folder: &Folder, dir: &str, sets: &[&str]) -> Vec<f64> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    folder.good(&["train", "table.toml", "--run-dir", dir].into_iter().chain(sets).collect::<Vec<_>>());
    losses(&folder.metrics(dir))
}

#[test]
fn a_table_trains_as_tensors_of_its_values() {
    let folder = folder("csv-train");
    let table = train(&folder, "table", &[]);
    assert!(table[39] < 0.5 * table[0], "{table:?}");
    let tensors = "data.train={ tensors = \"train.safetensors\" }";
    let numbers =
        "data.train={ csv = { file = \"numbers.tsv\", target = \"class\", ignore = [\"id\"], separator = \"\\t\" } }";
    let evaluated = |dir: &str| events(&folder.metrics(dir), "eval");
    for (dir, set) in [("tensors", tensors), ("numbers", numbers)] {
        assert_eq!(train(&folder, dir, &[set]), table, "{dir}");
        assert_eq!(evaluated(dir), evaluated("table"));
        assert_eq!(folder.checkpoint(dir, 40), folder.checkpoint("table", 40), "{dir}");
    }

    // Numbers to be predicted.
    let regression = "data.train={ csv = { file = \"numbers.tsv\", target = \"class\", targets = \"numbers\", ignore = [\"id\"], \
                      separator = \"\\t\" } }";
    let layers = "model.layers=[\"flatten\", { dense = { units = 1 } }]";
    let sets = [regression, layers, "model.loss=\"mean_squared_error\"", "optimizer.lr=0.001"];
    let losses = train(&folder, "regression", &sets);
    assert!(losses[39] < 0.5 * losses[0], "{losses:?}");
}

#[test]
fn mistakes_are_reported_by_check() {
    let folder = folder("csv-check");
    let check = |set: &str, words: &str| {
        assert_code(&folder.run(&["check", "table.toml", "--set", set]), 2, &[words]);
    };
    check("data.train={ csv = \"train.csv\" }", "target");
    check(
        "data.train={ csv = { file = \"train.csv\", target = \"nam\" } }",
        "train.csv:1: target names \"nam\" (did you mean \"name\"?)",
    );
    let words = "train.csv:2: column \"id\": \"image 0\" is not a number (so in 1437 of 1437 rows)";
    check("data.train={ csv = { file = \"train.csv\", target = \"name\" } }", words);
    check(
        "data.train={ csv = { file = \"train.csv\", target = \"name\", ignore = [\"name\"] } }",
        "which is the target",
    );
    check("data.train={ csv = { file = \"nothing.csv\", target = \"name\" } }", "nothing.csv: no such file");
    check(
        "data.train={ csv = { file = \"train.csv\", target = \"name\", separator = \"ab\" } }",
        "separator = \"ab\", expected one",
    );
    let out = folder.good(&["check", "table.toml", "--data"]).out;
    assert!(out.contains("images of 1x1x64, 10 of 10 classes"), "{out}");
}
