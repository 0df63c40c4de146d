//! Tests of checkpoints: damage, kills, pruning and failed saves.

use super::checkpoint::*;
use super::weights::*;
use crate::error::Error;
use crate::gpu::libraries::{Algorithm, Record, Table};
use crate::tensor::{Precision, Shape};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

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
        write(&self.0, &snapshot(step), keep).unwrap()
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

fn snapshot(step: u64) -> Snapshot {
    let odd = [f32::from_bits(0x7fc1_2345), f32::from_bits(0xff80_0001), -0.0, f32::MIN_POSITIVE / 8.0];
    Snapshot {
        model: vec![tensor("fc1.bias", &[2], &[step as f32, -1.5]), tensor("fc1.weight", &[2, 2], &odd)],
        state: vec![NamedTensor {
            name: "fc1.weight.velocity".into(),
            shape: Shape::from([2, 1]),
            data: TensorData::F64(vec![f64::from_bits(0x7ff8_0000_0000_0abc), 0.1]),
        }],
        info: Info {
            step,
            epoch: 2,
            batch_in_epoch: 7,
            samples: 64 * step,
            seed: u64::MAX,
            precision: Precision::F32,
            mesh: "1x1".into(),
            version: "0.1.0".into(),
            settings: BTreeMap::from([
                ("optimizer.lr".into(), "0.1".into()),
                ("name".into(), "\"crc32\": \"x\"".into()),
            ]),
            evaluations: vec![Evaluation {
                step,
                split: "test".into(),
                loss: 0.1 + 0.2,
                top1: 1.0 / 3.0,
                top5: 1.0,
                images: 360,
            }],
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

/// Returns the bits of all values, because NaN is not equal to itself.
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
    let (path, saved) = (run.write(500, 3), snapshot(500));
    assert!(path.ends_with("checkpoints/step-00000500"));
    let found = latest(&run.0).unwrap();
    assert_eq!(bits(&found.snapshot.model), bits(&saved.model));
    assert_eq!(bits(&found.snapshot.state), bits(&saved.state));
    assert_eq!(found.snapshot.info, saved.info);
    assert_eq!((latest(&run.folder()).unwrap().path, latest(&path).unwrap().path), (path.clone(), path));
}

#[test]
fn a_loss_that_is_not_finite_is_saved() {
    let run = Run::new("nan");
    let mut saved = snapshot(1);
    saved.info.evaluations[0].loss = f64::INFINITY;
    let path = write(&run.0, &saved, 1).unwrap();
    assert!(read(&path).unwrap().info.evaluations[0].loss.is_nan());
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
            let error = read(&path).unwrap_err().to_string();
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
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("missing"), "{error}");
        fs::write(&file, &whole).unwrap();
        assert!(read(&path).is_ok());
    }
}

#[test]
fn the_newest_complete_checkpoint_is_found_and_the_others_are_named() {
    let run = Run::new("latest");
    (1..=3).for_each(|step| drop(run.write(step, 9)));
    fs::write(run.folder().join("step-00000003/model.safetensors"), b"").unwrap();
    fs::remove_file(run.folder().join("step-00000002/state.json")).unwrap();
    let found = latest(&run.0).unwrap();
    assert_eq!(found.snapshot.info.step, 1);
    let skipped: Vec<String> = found.skipped.iter().map(Error::to_string).collect();
    assert!(skipped[0].contains("step-00000003/model.safetensors: damaged: it has 0 bytes"), "{skipped:?}");
    assert!(skipped[1].contains("step-00000002/state.json: missing"), "{skipped:?}");
    assert!(latest(&run.folder().join("step-00000002")).is_err(), "a named checkpoint is not replaced by another");
    fs::remove_file(run.folder().join("step-00000001/state.safetensors")).unwrap();
    let error = latest(&run.0).unwrap_err().to_string();
    assert!(error.contains("no complete checkpoint") && error.lines().count() == 4, "{error}");
    assert!(latest(&run.0.join("nothing")).is_err());
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
    assert_eq!(latest(&run.0).unwrap().path, run.folder().join("step-00000001"));
    run.write(2, 3);
    assert_eq!(run.names(), ["notes", "step-00000001", "step-00000002"]);
    fs::rename(run.folder().join("step-00000002"), run.folder().join("step-00000002.replaced")).unwrap();
    assert_eq!(latest(&run.0).unwrap().snapshot.info.step, 2, "the checkpoint that was about to be replaced is intact");
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
    cut_back(&run.0, 2).unwrap();
    assert_eq!(run.names(), ["step-00000002"]);
}

#[test]
fn the_same_step_is_replaced() {
    let run = Run::new("replace");
    run.write(3, 2);
    let mut other = snapshot(3);
    other.model[0] = tensor("fc1.bias", &[2], &[8.0, 9.0]);
    write(&run.0, &other, 2).unwrap();
    assert_eq!(run.names(), ["step-00000003"]);
    assert_eq!(latest(&run.0).unwrap().snapshot.model[0], other.model[0]);
}

#[test]
fn a_failed_save_reports_one_sentence_and_keeps_the_old_checkpoint() {
    let run = Run::new("full");
    run.write(1, 1);
    // A file in place of the folder stands for any error of the operating system.
    fs::write(run.folder().join("step-00000002.unfinished"), b"").unwrap();
    let error = write(&run.0, &snapshot(2), 1).unwrap_err();
    let Error::Io { path, .. } = &error else { panic!("{error:?}") };
    assert!(path.ends_with("step-00000002.unfinished") && error.to_string().lines().count() == 1, "{error}");
    assert_eq!(latest(&run.0).unwrap().snapshot.info.step, 1);
    let file = run.0.join("file");
    fs::write(&file, b"").unwrap();
    assert!(write(&file, &snapshot(2), 1).unwrap_err().to_string().contains("file/checkpoints: cannot create"));
}

#[test]
fn a_newer_format_is_rejected_with_its_number() {
    let run = Run::new("format");
    let path = run.write(1, 1);
    let text = fs::read_to_string(path.join("state.json")).unwrap().replace("\"format\": 1", "\"format\": 7");
    let (before, seal) = text.split_at(text.rfind("\"crc32\": \"").unwrap() + 10);
    let zeros = format!("{before}00000000{}", &seal[8..]);
    let sealed = format!("{before}{:08x}{}", crc32fast::hash(zeros.as_bytes()), &seal[8..]);
    fs::write(path.join("state.json"), sealed).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("written in format 7") && error.contains("up to 1"), "{error}");
}

#[test]
fn settings_that_affect_training_are_compared() {
    let settings = BTreeMap::from([("optimizer.lr".into(), "0.2".into()), ("seed".into(), "1".into())]);
    let mut info = snapshot(1).info;
    info.settings.remove("name");
    let differences = info.differences(&settings);
    assert_eq!(differences, ["optimizer.lr: 0.1 in the checkpoint, 0.2 now", "seed: not set in the checkpoint, 1 now"]);
    assert!(info.differences(&info.settings).is_empty());
}

#[test]
fn weights_of_other_types_are_widened_or_listed() {
    let header = r#"{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"h":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},"f":{"dtype":"F16","shape":[],"data_offsets":[12,14]}}   "#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend([5, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0xc0, 0xbf, 0x00, 0x3c]);
    let weights = decode(&bytes).unwrap();
    assert_eq!(weights.tensors, [tensor("h", &[2], &[1.0, -1.5]), tensor("f", &[], &[1.0])]);
    assert_eq!(weights.others, ["n (I64)"]);
}

#[test]
fn a_file_without_weights_is_rejected() {
    let run = Run::new("load");
    let path = run.0.join("model.pt");
    fs::write(&path, b"PK\x03\x04 a pickle").unwrap();
    let error = load_model(&path).unwrap_err().to_string();
    assert!(error.contains("not a safetensors file") && error.contains(".pt and .pth files are not read"), "{error}");
    assert!(matches!(load_model(Path::new("/nowhere/x.safetensors")), Err(Error::Io { .. })));
    fs::write(&path, encode(&snapshot(1).model)).unwrap();
    assert_eq!(bits(&load_model(&path).unwrap().tensors), bits(&snapshot(1).model));
}
