//! What `eval` reports of predictions: every number is computed again, by plain loops over the file of predictions.

use crate::common::file;
use crate::common::runs::{CommandOutput, Folder, assert_code};
use flate2::read::GzDecoder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;

/// A row of a file of predictions.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    set: String,
    sample: usize,
    label: usize,
    predicted: usize,
    probability: f32,
    correct: bool,
    probabilities: Vec<f32>,
}

/// Returns the rows of a CSV file of predictions.
fn rows(folder: &Folder, name: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(folder.at(name)).unwrap();
    let header: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    assert_eq!(header[..7], ["set", "sample", "name", "label", "predicted", "probability", "correct"]);
    assert!(header[7..].iter().enumerate().all(|(index, name)| *name == format!("p{index}")), "{header:?}");
    let row = |record: csv::StringRecord| Row {
        set: record[0].to_string(),
        sample: record[1].parse().unwrap(),
        label: record[3].parse().unwrap(),
        predicted: record[4].parse().unwrap(),
        probability: record[5].parse().unwrap(),
        correct: record[6].parse().unwrap(),
        probabilities: record.iter().skip(7).map(|cell| cell.parse().unwrap()).collect(),
    };
    reader.records().map(|record| row(record.unwrap())).collect()
}

fn json(output: &CommandOutput) -> Value {
    assert_eq!(output.out.lines().count(), 1, "{}", output.out);
    serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {}", output.out))
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn is_near(value: &Value, key: &str, expected: f64) {
    match expected.is_nan() {
        true => assert!(value[key].is_null(), "{key}: {value}"),
        false => assert!((number(value, key) - expected).abs() < 1e-12, "{key}: {value}, expected {expected}"),
    }
}

/// Asserts that the report of a set says what the rows of the set say.
fn agrees(report: &Value, rows: &[Row], classes: usize) {
    let n = rows.len() as f64;
    let count = |holds: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| holds(row)).count() as f64;
    assert_eq!(report["images"], rows.len());
    is_near(report, "top1", count(&|row| row.predicted == row.label) / n);
    let rank = |row: &Row| row.probabilities.iter().filter(|&&p| p > row.probabilities[row.label]).count();
    is_near(report, "top5", count(&|row| rank(row) < 5) / n);
    assert_eq!(report["classes"].as_array().unwrap().len(), classes);
    let (mut means, mut seen) = ([0.0; 3], 0.0);
    for (class, result) in report["classes"].as_array().unwrap().iter().enumerate() {
        let (of, predicted) = (count(&|row| row.label == class), count(&|row| row.predicted == class));
        let right = count(&|row| row.label == class && row.predicted == class);
        assert_eq!((number(result, "class"), number(result, "samples")), (class as f64, of));
        let (precision, recall) = (right / predicted, right / of);
        is_near(result, "precision", precision);
        is_near(result, "recall", recall);
        let f1 = if right > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 / (of + predicted) };
        is_near(result, "f1", f1);
        for (mean, value) in means.iter_mut().zip([precision, recall, f1]) {
            *mean += if value.is_nan() { 0.0 } else { value };
        }
        seen += if of + predicted > 0.0 { 1.0 } else { 0.0 };
    }
    for (key, sum) in ["precision", "recall", "f1"].into_iter().zip(means) {
        is_near(&report["mean"], key, sum / seen);
    }
    // Confusions: all of them, the largest number first.
    let mut confused: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.label != row.predicted) {
        *confused.entry((row.label, row.predicted)).or_default() += 1;
    }
    let listed = report["confusions"].as_array().unwrap();
    assert_eq!(listed.len(), confused.len());
    assert!(listed.windows(2).all(|pair| number(&pair[0], "count") >= number(&pair[1], "count")), "{listed:?}");
    for entry in listed {
        let key = (number(entry, "label") as usize, number(entry, "predicted") as usize);
        assert_eq!(entry["count"], confused[&key], "{entry}");
    }
    // The expected calibration error, bin by bin.
    let mut error = 0.0;
    for bin in 0..15 {
        let (low, high) = (f64::from(bin) / 15.0, f64::from(bin + 1) / 15.0);
        let inside: Vec<&Row> =
            rows.iter().filter(|row| low < f64::from(row.probability) && f64::from(row.probability) <= high).collect();
        if !inside.is_empty() {
            let size = inside.len() as f64;
            let accuracy = inside.iter().filter(|row| row.correct).count() as f64 / size;
            let confidence = inside.iter().map(|row| f64::from(row.probability)).sum::<f64>() / size;
            error += size / n * (accuracy - confidence).abs();
        }
    }
    is_near(report, "calibration_error", error);
    // The surest mistakes.
    let mut wrong: Vec<&Row> = rows.iter().filter(|row| !row.correct).collect();
    wrong.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.sample.cmp(&b.sample)));
    let mistakes = report["mistakes"].as_array().unwrap();
    for (mistake, row) in mistakes.iter().zip(&wrong) {
        assert_eq!((number(mistake, "sample") as usize, number(mistake, "label") as usize), (row.sample, row.label));
        assert_eq!(number(mistake, "predicted") as usize, row.predicted);
        assert_eq!(number(mistake, "probability") as f32, row.probability);
    }
}

/// Asserts that every row is consistent in itself.
fn are_distributions(rows: &[Row], classes: usize) {
    for row in rows {
        assert_eq!(row.probabilities.len(), classes, "{row:?}");
        assert!((row.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
        let largest = row.probabilities.iter().fold(0.0f32, |m, &p| m.max(p));
        assert_eq!((row.probability, row.probabilities[row.predicted]), (largest, largest), "{row:?}");
        assert_eq!(row.correct, row.label == row.predicted, "{row:?}");
    }
}

fn of_set(rows: &[Row], set: &str) -> Vec<Row> {
    rows.iter().filter(|row| row.set == set).cloned().collect()
}

/// Returns the labels of the test data.
fn test_labels() -> Vec<u8> {
    let mut labels = Vec::new();
    let stored = std::fs::File::open(file("data/digits8/t10k-labels-idx1-ubyte.gz")).unwrap();
    GzDecoder::new(stored).read_to_end(&mut labels).unwrap();
    labels.split_off(8)
}

#[test]
fn the_report_says_what_the_predictions_say() {
    let folder = Folder::new("eval-report");
    folder.train("run", &["--set", "train.steps=40"]);
    folder.write("p.csv", "of an earlier evaluation\n");
    let output = folder.good(&["eval", "run", "--json", "--predictions", "p.csv", "--mistakes", "5"]);
    let (report, rows) = (json(&output), rows(&folder, "p.csv"));
    assert!(!folder.at("p.csv.part").exists());
    assert_eq!((&report["step"], rows.len()), (&Value::from(40), 144 + 360));
    are_distributions(&rows, 10);
    let sets = report["sets"].as_array().unwrap();
    assert_eq!(sets.len(), 2);
    for set in sets {
        let own = of_set(&rows, set["set"].as_str().unwrap());
        agrees(set, &own, 10);
        // Exactly the metrics that the network computes itself.
        assert_eq!((&set["top1"], &set["top5"]), (&set["metrics"]["top1"], &set["metrics"]["top5"]));
        assert_eq!(set["mistakes"].as_array().unwrap().len(), 5);
    }
    let test = of_set(&rows, "test");
    let labels = test_labels();
    assert!(test.iter().enumerate().all(|(index, row)| row.sample == index && row.label == usize::from(labels[index])));
    let (top1, wrong) = (number(&sets[1], "top1"), test.iter().filter(|row| !row.correct).count());
    assert!(top1 > 0.5 && wrong > 5, "{top1}");
    // Samples of the validation set are called by their number among the training samples.
    let validation = of_set(&rows, "validation");
    assert!(validation.windows(2).all(|pair| pair[0].sample < pair[1].sample) && validation[143].sample > 1000);

    // The text has the same numbers.
    let text = folder.good(&["eval", "run", "--mistakes", "2"]).out;
    let (lines, set) = (text.lines().collect::<Vec<_>>(), &sets[1]);
    let start = lines.iter().position(|line| line.starts_with("step 40  test: loss ")).unwrap();
    let first =
        format!("loss {:.6}  top1 {top1:.4}  top5 {:.4}  (360 images)", number(set, "loss"), number(set, "top5"));
    assert!(lines[start].ends_with(&first), "{text}");
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(words(lines[start + 1]), ["class", "samples", "precision", "recall"]);
    for class in 0..10 {
        let result = &set["classes"][class];
        let expected = [
            class.to_string(),
            result["samples"].to_string(),
            format!("{:.4}", number(result, "precision")),
            format!("{:.4}", number(result, "recall")),
        ];
        assert_eq!(words(lines[start + 2 + class]), expected, "{text}");
    }
    let worst = &set["confusions"][0];
    let of = number(&set["classes"][number(worst, "label") as usize], "samples");
    let share = 100.0 * number(worst, "count") / of;
    let worst = format!("    {} -> {}: {} of {of} ({share:.1} %)", worst["label"], worst["predicted"], worst["count"]);
    assert_eq!(lines[start + 14], worst, "{text}");
    let error = format!("  expected calibration error {:.4} (15 bins)", number(set, "calibration_error"));
    let at = lines[start..].iter().position(|line| *line == error).unwrap_or_else(|| panic!("{error}: {text}"));
    let surest = &set["mistakes"][0];
    let surest = format!(
        "    image {}: {}, predicted {} with probability {:.4}",
        surest["sample"],
        surest["label"],
        surest["predicted"],
        number(surest, "probability")
    );
    assert_eq!(lines[start + at + 2], surest, "{text}");
    assert_eq!(lines.len(), start + at + 4, "{text}");

    // JSON Lines have the same bits.
    folder.good(&["eval", "run", "--predictions", "p.jsonl"]);
    for (line, row) in folder.read("p.jsonl").lines().zip(&rows) {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_eq!((number(&value, "sample") as usize, number(&value, "label") as usize), (row.sample, row.label));
        assert_eq!((&value["set"], &value["correct"]), (&Value::from(row.set.as_str()), &Value::from(row.correct)));
        let bits = |p: &Value| (p.as_f64().unwrap() as f32).to_bits();
        let all: Vec<u32> = value["probabilities"].as_array().unwrap().iter().map(bits).collect();
        assert_eq!(all, row.probabilities.iter().map(|p| p.to_bits()).collect::<Vec<_>>());
    }
    assert_eq!(folder.read("p.jsonl").lines().count(), rows.len());

    // Nothing depends on the devices but the last digits.
    for (devices, mesh) in [("cpu*4", "{ data = 2, columns = 2 }"), ("emu", "{ data = 1, columns = 1 }")] {
        let mesh = format!("devices.mesh={mesh}");
        let arguments = ["eval", "run", "--json", "--predictions", "d.csv", "--devices", devices, "--set", &mesh];
        let (other, others) = (json(&folder.good(&arguments)), self::rows(&folder, "d.csv"));
        assert_eq!(others.len(), rows.len());
        for (a, b) in others.iter().zip(&rows) {
            assert_eq!((&a.set, a.sample, a.label, a.predicted), (&b.set, b.sample, b.label, b.predicted), "{devices}");
            let near = a.probabilities.iter().zip(&b.probabilities).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(near, "{devices}: {a:?}, {b:?}");
        }
        for (a, b) in other["sets"].as_array().unwrap().iter().zip(sets) {
            assert_eq!((&a["classes"], &a["confusions"]), (&b["classes"], &b["confusions"]), "{devices}");
            assert_eq!(a["metrics"]["top1"], a["top1"], "{devices}");
        }
    }
}

#[test]
fn distributions_count_by_their_largest_share_and_the_heaviest_loss_is_what_predicts() {
    let folder = Folder::new("eval-heads");
    let last = "  { name = \"fc2\", dense = { units = 10 } },\n]\n";
    let head = "  { name = \"act\", relu = {} },\n  { name = \"fc2\", dense = { units = 10 } },\n  \
                { name = \"side\", dense = { units = 10 }, inputs = [\"fc1\"] },\n]\nloss = [\n  \
                { softmax_cross_entropy = {}, name = \"main\", inputs = [\"fc2\"], weight = 2.0 },\n  \
                { softmax_cross_entropy = {}, name = \"aux\", inputs = [\"side\"], weight = 0.1 },\n]\n";
    let text = folder.read("small.toml").replace("  \"relu\",\n  { name = \"fc2\"", "  { name = \"fc2\"");
    assert!(text.contains(last));
    folder.write("small.toml", &text.replace(last, head));
    folder.train("run", &["--set", "data.mix=[{ mixup = 0.2 }]"]);
    let report = json(&folder.good(&["eval", "run", "--json", "--predictions", "p.csv"]));
    let (set, rows) = (&report["sets"][1], of_set(&rows(&folder, "p.csv"), "test"));
    agrees(set, &rows, 10);
    assert!(rows.iter().zip(test_labels()).all(|(row, label)| row.label == usize::from(label)));
    assert_eq!(set["top1"], set["metrics"]["main.top1"]);
    assert_ne!(set["top1"], set["metrics"]["aux.top1"]);
    assert_eq!(set["mistakes"].as_array().unwrap().len(), 0);
    // Of equal weights, the last one predicts.
    let equal = ["--set", "model.loss.main.weight=1.0", "--set", "model.loss.aux.weight=1.0"];
    let report = json(&folder.good(&[&["eval", "run", "--json"], &equal[..]].concat()));
    assert_eq!(report["sets"][1]["top1"], report["sets"][1]["metrics"]["aux.top1"]);
}

#[test]
fn of_many_classes_the_worst_are_printed_and_all_are_in_the_file_of_json() {
    let folder = Folder::new("eval-many");
    let text = folder.read("small.toml").replace("units = 10", "units = 120");
    let data = |set: &str| format!("{set} = {{ synthetic = {{ images = 240, classes = 120, shape = [8, 8, 1] }} }}");
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some((set @ ("train" | "test"), _)) => data(set),
        _ => line.to_string(),
    });
    folder.write("small.toml", &lines.map(|line| line + "\n").collect::<String>());
    folder.train("run", &["--set", "train.steps=15", "--set", "data.validation=0"]);
    let output = folder.good(&["eval", "run", "--predictions", "p.csv"]).out;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[1], "  of 120 classes, the 10 with the lowest recall:", "{output}");
    assert!(lines[13].starts_with("  mean") && lines[14].starts_with("  confusions"), "{output}");
    assert!(output.contains(" more\n  expected calibration error "), "{output}");
    let report = json(&folder.good(&["eval", "run", "--json"]));
    assert_eq!(report["sets"][0]["classes"].as_array().unwrap().len(), 120);
    let rows = rows(&folder, "p.csv");
    assert!(rows.len() == 240 && rows.iter().all(|row| row.probabilities.is_empty()));
    let right = rows.iter().filter(|row| row.correct).count() as f64;
    is_near(&report["sets"][0], "top1", right / 240.0);
}

#[test]
fn values_are_written_beside_their_targets() {
    let folder = Folder::new("eval-values");
    let config = std::fs::read_to_string(file("tests/reference/values.toml")).unwrap();
    folder.write("values.toml", &config.replace("[data]", "[data]\nvalidation = 0.2"));
    std::fs::copy(file("tests/reference/values.data.safetensors"), folder.at("values.data.safetensors")).unwrap();
    folder.good(&["train", "values.toml", "--run-dir", "run", "--set", "train.epochs=2"]);
    let report = json(&folder.good(&["eval", "run", "--json", "--predictions", "v.csv"]));
    assert_eq!(folder.good(&["eval", "run"]).out.lines().count(), report["sets"].as_array().unwrap().len());
    let mut reader = csv::Reader::from_path(folder.at("v.csv")).unwrap();
    let header: Vec<String> = reader.headers().unwrap().iter().map(String::from).collect();
    let width = (header.len() - 3) / 2;
    assert_eq!((header[3].as_str(), header[3 + width].as_str()), ("output0", "target0"));
    for set in report["sets"].as_array().unwrap() {
        assert!(set.get("classes").is_none() && set.get("top1").is_none(), "{set}");
        let (mut sum, mut count) = (0.0, 0.0);
        for record in csv::Reader::from_path(folder.at("v.csv")).unwrap().records().map(Result::unwrap) {
            let value = |column: usize| record[column].parse::<f64>().unwrap();
            if set["set"] == record[0] {
                sum += (3..3 + width).map(|column| (value(column) - value(column + width)).powi(2)).sum::<f64>();
                count += width as f64;
            }
        }
        // The run computes in f32.
        assert!((sum / count - number(set, "loss")).abs() < 1e-5 * number(set, "loss"), "{set}, {}", sum / count);
    }
    let refused = folder.run(&["eval", "run", "--mistakes", "3"]);
    assert_code(&refused, 2, &["--mistakes: the targets are values, of which a prediction is neither right nor wrong"]);
}

#[test]
fn mistakes_in_options_are_one_sentence_before_anything_is_evaluated() {
    let folder = Folder::new("eval-options");
    folder.train("run", &["--set", "train.steps=1"]);
    std::fs::create_dir(folder.at("folder")).unwrap();
    for (arguments, words) in [
        (["--predictions", "none/p.csv"], "none/p.csv: there is no folder none; create it, or name another file"),
        (["--predictions", "folder"], "folder: not a file, expected one for predictions; name another"),
        (["--predictions", ".."], "..: not a file, expected one for predictions"),
        (["--mistakes", "0"], "invalid value '0' for '--mistakes <N>'"),
        (["--mistakes", "many"], "invalid value 'many' for '--mistakes <N>'"),
    ] {
        let output = folder.run(&[&["eval", "run"], &arguments[..]].concat());
        assert_code(&output, 2, &[words]);
        assert_eq!(output.out, "", "{arguments:?}");
    }
    // What cannot be evaluated leaves an earlier file alone.
    folder.write("p.csv", "old");
    std::fs::remove_dir_all(folder.at("run/checkpoints")).unwrap();
    assert_eq!(folder.run(&["eval", "run", "--predictions", "p.csv"]).code, Some(2));
    assert_eq!(folder.read("p.csv"), "old");
}
