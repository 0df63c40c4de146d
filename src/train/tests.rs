//! Tests of checkpoints: damage, kills, pruning and failed saves.

use super::checkpoint::*;
use super::manifest::*;
use super::weights::{NamedTensor, TensorData, TensorFile, encode, open_model};
use crate::data::{DataRecord, Place};
use crate::error::{Error, Result};
use crate::gpu::libraries::{Algorithm, Record, Table};
use crate::layers::MetricKind;
use crate::storage::{Fs, Interceptor, Operation};
use crate::tensor::{Precision, Shape};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A run directory of a test, removed at its end.
struct Run(PathBuf);

impl Run {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("peristyle-train-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Run(path)
    }
    fn folder(&self) -> PathBuf {
        self.0.join("checkpoints")
    }
    fn write(&self, step: u64, keep: usize) -> PathBuf {
        save(&self.0, &saved(step), keep).unwrap()
    }
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tensor(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
    NamedTensor { name: name.into(), shape: Shape(shape.to_vec()), data: TensorData::F32(values.to_vec()) }
}

/// The contents of a checkpoint.
struct Saved {
    model: Vec<NamedTensor>,
    state: Vec<NamedTensor>,
    info: Info,
}

fn by_loss() -> Ranking {
    Ranking { split: "test".to_string(), metric: "loss".to_string(), kind: MetricKind::Mean }
}

fn keeping(newest: usize) -> Retention {
    Retention { newest, best: 0, best_by: by_loss() }
}

fn save(dir: &Path, saved: &Saved, keep: usize) -> Result<PathBuf> {
    let Saved { model, state, info } = saved;
    write(&Fs::default(), dir, &Snapshot { model, state, info }, &keeping(keep))
}

fn found(path: &Path) -> Result<LatestCheckpoint> {
    latest(&Fs::default(), path, "")
}

fn good(path: &Path) -> Result<Checkpoint> {
    read(&Fs::default(), path)
}

fn all(file: &TensorFile) -> Vec<NamedTensor> {
    (0..file.tensors.len()).map(|index| file.tensor(index).unwrap()).collect()
}

fn saved(step: u64) -> Saved {
    let odd = [f32::from_bits(0x7f7f_ffff), f32::from_bits(0x8000_0001), -0.0, f32::MIN_POSITIVE / 8.0];
    Saved {
        model: vec![tensor("fc1.bias", &[2], &[step as f32, -1.5]), tensor("fc1.weight", &[2, 2], &odd)],
        state: vec![NamedTensor {
            name: "fc1.weight.velocity".into(),
            shape: Shape::from([2, 1]),
            data: TensorData::F64(vec![f64::from_bits(0x7fe8_0000_0000_0abc), 0.1]),
        }],
        info: Info {
            history: History::default(),
            format: 2,
            run: "a-run".into(),
            step,
            place: Place { epoch: 2, sample: 7 },
            samples: 64 * step,
            skips: 0,
            seed: u64::MAX,
            precision: Precision::F32,
            mesh: "1x1".into(),
            version: "0.1.0".into(),
            settings: BTreeMap::from([
                ("optimizer.lr".into(), "0.1".into()),
                ("name".into(), "\"crc32\": \"x\"".into()),
            ]),
            data: Some(record()),
            evaluations: vec![Evaluation {
                step,
                split: "test".into(),
                loss: 0.1 + 0.2,
                images: 360,
                metrics: BTreeMap::from([("top1".into(), 1.0 / 3.0), ("top5".into(), 1.0)]),
            }],
            schedules: BTreeMap::from([("plateau".into(), vec![0.1, f64::MAX, 3.0])]),
            method: BTreeMap::from([("damping".into(), 0.25)]),
            starts: BTreeMap::from([("momentum".into(), 7)]),
            algorithms: Record {
                gpu: "H".into(),
                products: Table {
                    version: 130_100,
                    algorithms: BTreeMap::from([("y".into(), Algorithm::CublasLt([u64::MAX; 8]))]),
                },
                convolutions: Table::default(),
            },
        },
    }
}

fn record() -> DataRecord {
    let set = serde_json::json!({ "images": 5, "shape": [2, 2, 1], "classes": 2, "pixels": "u8", "target_width": 1,
        "fingerprint": "f00d", "host": "h", "files": [{ "path": "a.gz", "bytes": 7, "modified": 1 }] });
    let constants = serde_json::json!({ "scale": 255.0, "mean": [0.1], "std": [0.3] });
    serde_json::from_value(serde_json::json!({ "train": set, "test": null, "normalization": constants })).unwrap()
}

/// Returns the bits of all values, because 0 and -0 are equal.
fn bits(tensors: &[NamedTensor]) -> Vec<(String, Vec<usize>, Vec<u64>)> {
    let bits = |data: &TensorData| match data {
        TensorData::F32(values) => values.iter().map(|x| u64::from(x.to_bits())).collect(),
        TensorData::F64(values) => values.iter().map(|x| x.to_bits()).collect(),
    };
    tensors.iter().map(|t| (t.name.clone(), t.shape.0.clone(), bits(&t.data))).collect()
}

#[test]
fn a_checkpoint_is_restored_bit_for_bit() {
    let run = Run::new("round-trip");
    let (path, saved) = (run.write(500, 3), saved(500));
    assert!(path.ends_with("checkpoints/step-00000500"));
    let newest = found(&run.0).unwrap();
    assert_eq!(bits(&all(&newest.checkpoint.model)), bits(&saved.model));
    assert_eq!(bits(&all(&newest.checkpoint.state)), bits(&saved.state));
    assert_eq!(newest.checkpoint.info, saved.info);
    let path_of = |path: &Path| found(path).unwrap().checkpoint.path;
    assert_eq!((path_of(&run.folder()), path_of(&path)), (path.clone(), path));
}

#[test]
fn a_loss_that_is_not_finite_is_saved() {
    let run = Run::new("nan");
    let mut saved = saved(1);
    saved.info.evaluations[0].loss = f64::INFINITY;
    saved.info.evaluations[0].metrics.insert("mae".into(), f64::NAN);
    let path = save(&run.0, &saved, 1).unwrap();
    let read = &good(&path).unwrap().info.evaluations[0];
    assert!(read.loss.is_nan() && read.metrics["mae"].is_nan() && read.metrics["top5"] == 1.0, "{read:?}");
}

#[test]
fn a_checkpoint_that_is_not_finite_is_never_the_newest() {
    let run = Run::new("not-finite");
    let good_path = run.write(1, 9);
    let (mut model, mut state) = (saved(2), saved(3));
    model.model[1].data = TensorData::F32(vec![1.0, f32::NAN, 0.0, 0.0]);
    state.state[0].data = TensorData::F64(vec![f64::NEG_INFINITY, 0.1]);
    for saved in [&model, &state] {
        save(&run.0, saved, 9).unwrap();
    }
    let newest = found(&run.0).unwrap();
    assert_eq!(newest.checkpoint.path, good_path);
    let skipped: Vec<String> = newest.skipped.iter().map(ToString::to_string).collect();
    assert!(skipped[0].contains("\"fc1.weight.velocity\" has values that are not finite"), "{skipped:?}");
    assert!(skipped[1].contains("\"fc1.weight\" has values that are not finite"), "{skipped:?}");
}

#[test]
fn every_flipped_byte_and_every_truncation_is_detected() {
    let run = Run::new("damage");
    let path = run.write(500, 3);
    for name in ["model.safetensors", "state.safetensors", "state.json"] {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        let handle = fs::OpenOptions::new().write(true).open(&file).unwrap();
        let damaged = || {
            let error = good(&path).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("damaged") && error.contains("resume from"), "{error}");
        };
        for (i, byte) in whole.iter().enumerate() {
            handle.write_all_at(&[byte ^ (1 << (i % 8))], i as u64).unwrap();
            damaged();
            handle.write_all_at(&[*byte], i as u64).unwrap();
        }
        handle.write_all_at(b" ", whole.len() as u64).unwrap();
        damaged();
        for len in (0..whole.len()).rev() {
            handle.set_len(len as u64).unwrap();
            damaged();
        }
        fs::remove_file(&file).unwrap();
        let error = good(&path).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("missing"), "{error}");
        fs::write(&file, &whole).unwrap();
        assert!(good(&path).is_ok());
    }
}

#[test]
fn the_newest_complete_checkpoint_is_found_and_the_others_are_named() {
    let run = Run::new("latest");
    (1..=3).for_each(|step| drop(run.write(step, 9)));
    fs::write(run.folder().join("step-00000003/model.safetensors"), b"").unwrap();
    fs::remove_file(run.folder().join("step-00000002/state.json")).unwrap();
    let newest = found(&run.0).unwrap();
    assert_eq!(newest.checkpoint.info.step, 1);
    let skipped: Vec<String> = newest.skipped.iter().map(Error::to_string).collect();
    assert!(skipped[0].contains("step-00000003/model.safetensors: damaged: it has 0 bytes"), "{skipped:?}");
    assert!(skipped[1].contains("step-00000002/state.json: missing"), "{skipped:?}");
    assert!(found(&run.folder().join("step-00000002")).is_err(), "a named checkpoint is not replaced by another");
    fs::remove_file(run.folder().join("step-00000001/state.safetensors")).unwrap();
    let error = found(&run.0).unwrap_err().to_string();
    assert!(error.contains("no complete checkpoint") && error.lines().count() == 4, "{error}");
    assert!(found(&run.0.join("nothing")).is_err());
}

#[test]
fn leftovers_of_a_kill_are_ignored_and_removed_by_the_next_save() {
    let run = Run::new("kill");
    run.write(1, 3);
    let copy = |to: &str| {
        fs::create_dir(run.folder().join(to)).unwrap();
        for name in ["model.safetensors", "state.safetensors", "state.json"] {
            fs::copy(run.folder().join("step-00000001").join(name), run.folder().join(to).join(name)).unwrap();
        }
    };
    copy("step-00000002.unfinished");
    copy("step-00000001.replaced");
    copy("step-00000001.replaced.unfinished");
    fs::create_dir(run.folder().join("notes")).unwrap();
    assert_eq!(found(&run.0).unwrap().checkpoint.path, run.folder().join("step-00000001"));
    run.write(2, 3);
    assert_eq!(run.names(), ["notes", "step-00000001", "step-00000002"]);
    fs::rename(run.folder().join("step-00000002"), run.folder().join("step-00000002.replaced")).unwrap();
    assert_eq!(
        found(&run.0).unwrap().checkpoint.info.step,
        2,
        "the checkpoint that was about to be replaced is intact"
    );
    run.write(2, 3);
    assert_eq!(run.names(), ["notes", "step-00000001", "step-00000002"]);
}

#[test]
fn pruning_keeps_the_newest_complete_checkpoints() {
    let run = Run::new("prune");
    (1..=4).for_each(|step| drop(run.write(step, 2)));
    assert_eq!(run.names(), ["step-00000003", "step-00000004"]);
    fs::write(run.folder().join("step-00000004/state.safetensors"), b"short").unwrap();
    run.write(5, 2);
    assert_eq!(run.names(), ["step-00000003", "step-00000004", "step-00000005"], "the damaged one does not count");
    run.write(6, 0);
    assert_eq!(run.names(), ["step-00000006"]);
    run.write(2, 1);
    assert_eq!(run.names(), ["step-00000002", "step-00000006"], "the one just written is kept");
}

#[test]
fn the_same_step_is_replaced() {
    let run = Run::new("replace");
    run.write(3, 2);
    let mut other = saved(3);
    other.model[0] = tensor("fc1.bias", &[2], &[8.0, 9.0]);
    save(&run.0, &other, 2).unwrap();
    assert_eq!(run.names(), ["step-00000003"]);
    assert_eq!(all(&found(&run.0).unwrap().checkpoint.model)[0], other.model[0]);
}

#[test]
fn a_failed_save_reports_one_sentence_and_keeps_the_old_checkpoint() {
    let run = Run::new("full");
    run.write(1, 1);
    // A file in place of the folder stands for any error of the operating system.
    fs::write(run.folder().join("step-00000002.unfinished"), b"").unwrap();
    let error = save(&run.0, &saved(2), 1).unwrap_err();
    let Error::Io { path, .. } = &error else { panic!("{error:?}") };
    assert!(path.ends_with("step-00000002.unfinished") && error.to_string().lines().count() == 1, "{error}");
    assert_eq!(found(&run.0).unwrap().checkpoint.info.step, 1);
    let file = run.0.join("file");
    fs::write(&file, b"").unwrap();
    assert!(save(&file, &saved(2), 1).unwrap_err().to_string().contains("file: cannot create"));
}

#[test]
fn a_newer_format_is_rejected_with_its_number() {
    let run = Run::new("format");
    let path = run.write(1, 1);
    let text = fs::read_to_string(path.join("state.json")).unwrap().replace("\"format\": 2", "\"format\": 7");
    let (before, seal) = text.split_at(text.rfind("\"crc32\": \"").unwrap() + 10);
    let zeros = format!("{before}00000000{}", &seal[8..]);
    let sealed = format!("{before}{:08x}{}", crc32fast::hash(zeros.as_bytes()), &seal[8..]);
    fs::write(path.join("state.json"), sealed).unwrap();
    let error = good(&path).unwrap_err().to_string();
    assert!(error.contains("written in format 7") && error.contains("up to 2"), "{error}");
}

#[test]
fn weights_of_other_types_are_widened_or_listed() {
    let header = r#"{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"h":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},"f":{"dtype":"F16","shape":[],"data_offsets":[12,14]}}   "#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend([5, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0xc0, 0xbf, 0x00, 0x3c]);
    let run = Run::new("types");
    let path = run.0.join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    let weights = open_model(&path).unwrap();
    assert_eq!(all(&weights), [tensor("h", &[2], &[1.0, -1.5]), tensor("f", &[], &[1.0])]);
    let others: Vec<String> = weights.others.iter().map(|spec| format!("{} {:?}", spec.name, spec.dtype)).collect();
    assert_eq!(others, ["n I64"]);
}

#[test]
fn a_file_without_weights_is_rejected() {
    let run = Run::new("load");
    let path = run.0.join("model.pt");
    fs::write(&path, b"PK\x03\x04 a pickle").unwrap();
    let error = open_model(&path).unwrap_err().to_string();
    assert!(error.contains("not a safetensors file") && error.contains(".pt and .pth files are not read"), "{error}");
    assert!(matches!(open_model(Path::new("/nowhere/x.safetensors")), Err(Error::Io { .. })));
    fs::write(&path, encode(&saved(1).model)).unwrap();
    assert_eq!(bits(&all(&open_model(&path).unwrap())), bits(&saved(1).model));
}

/// Fails one operation that reads, and records those that change something.
#[derive(Debug)]
struct Unreadable {
    read: usize,
    seen: Mutex<(usize, Vec<String>)>,
}

impl Interceptor for Unreadable {
    fn before(&self, operation: Operation) -> std::io::Result<()> {
        let mut seen = self.seen.lock().unwrap();
        if matches!(operation, Operation::Read(_) | Operation::List(_)) {
            seen.0 += 1;
            // EIO, EMFILE, EACCES, ESTALE, ENOMEM.
            let errors = [5, 24, 13, 116, 12];
            return match seen.0 == self.read + 1 {
                true => Err(std::io::Error::from_raw_os_error(errors[self.read % errors.len()])),
                false => Ok(()),
            };
        }
        seen.1.push(format!("{operation:?}"));
        Ok(())
    }
}

#[test]
fn a_read_error_is_not_damage() {
    let run = Run::new("unreadable");
    (1..=3).for_each(|step| drop(run.write(step, 9)));
    let mut failed = 0;
    for read in 0.. {
        let unreadable = Arc::new(Unreadable { read, seen: Mutex::default() });
        let result = latest(&Fs::intercepted(unreadable.clone()), &run.0, "");
        let seen = unreadable.seen.lock().unwrap();
        assert!(seen.1.is_empty(), "{:?}", seen.1);
        if seen.0 <= read {
            assert_eq!(result.unwrap().checkpoint.info.step, 3);
            break;
        }
        let error = result.unwrap_err();
        assert!(error.exit_code() == 1 && error.to_string().contains("cannot read"), "{error}");
        failed += 1;
    }
    // The list; manifest, model and state, each opened and read; the two headers.
    assert!(failed >= 10, "{failed}");
}
