//! What commands say about NVIDIA's libraries, on the stand-ins.

use super::common::runs::{Folder, output_of, peristyle};
use super::libraries::{DNN, LT, environment};

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn the_selftest_checks_the_libraries() {
    let folder = Folder::new("libraries-selftest");
    let selftest = |libraries: &[&str]| {
        let mut command = peristyle(&folder.0);
        output_of(command.args(["selftest", "--device", "cuda:0", "--quick"]).envs(environment(libraries)))
    };
    let with = selftest(&[LT, DNN]);
    assert_eq!(with.code, Some(0), "{}{}", with.out, with.err);
    let rows =
        |output: &str| output.lines().filter(|line| line.contains(" libraries ") && line.ends_with("ok")).count();
    assert_eq!(rows(&with.out), 7, "{}", with.out);
    let without = selftest(&[]);
    assert!(without.code == Some(0) && rows(&without.out) == 0, "{}{}", without.out, without.err);
    assert!(without.out.contains("cuBLASLt: none"), "{}", without.out);
    let mut command = peristyle(&folder.0);
    command.args(["selftest", "--device", "cuda:0", "--quick", "--no-libraries", "--only", "conv"]);
    let own = output_of(command.envs(environment(&[LT, DNN])));
    assert!(own.code == Some(0) && rows(&own.out) == 0, "{}{}", own.out, own.err);
    assert!(own.out.contains("not checked: libraries: --no-libraries"), "{}", own.out);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn the_selftest_names_what_the_libraries_compute() {
    let folder = Folder::new("libraries-used");
    let selftest = |settings: &[(&str, &str)]| {
        let mut command = peristyle(&folder.0);
        command.args(["selftest", "--device", "cuda:0", "--quick", "--only", "auto libraries", "--json"]);
        let output = output_of(command.envs(environment(&[LT, DNN])).envs(settings.iter().copied()));
        assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
        let report: serde_json::Value = serde_json::from_str(output.out.lines().last().unwrap()).unwrap();
        report["libraries"].clone()
    };
    let used = selftest(&[]);
    assert!(used["libraries"][0].as_str().unwrap().starts_with("cuBLASLt: 13.1.0, /"), "{used}");
    let algorithms = |used: &serde_json::Value, table: &str| -> Vec<String> {
        let table = used["algorithms"][table]["algorithms"].as_object().unwrap();
        table.values().map(|algorithm| algorithm.as_str().unwrap().to_string()).collect()
    };
    assert!(algorithms(&used, "products").iter().any(|algorithm| algorithm.starts_with("cublasLt ")), "{used}");
    assert!(algorithms(&used, "convolutions").iter().any(|algorithm| algorithm.starts_with("cudnn ")), "{used}");
    let used = selftest(&[("FAKE_CUDNN_FAILS", "lacks")]);
    assert!(algorithms(&used, "convolutions").iter().all(|algorithm| algorithm == "own"), "{used}");
    let declined = used["declined"].as_object().unwrap();
    assert!(!declined.is_empty() && declined.values().all(|why| why.as_str().unwrap().contains("3009")), "{used}");
    // A part of cuDNN that is missing is worth a warning, the first time.
    let small = std::fs::read_to_string(folder.at("small.toml")).unwrap();
    let bn = "{ name = \"bn\",";
    let two = small.replace(bn, &format!("{{ name = \"conv2\", conv = {{ filters = 8, kernel = 3 }} }}, {bn}"));
    folder.write("two.toml", &two);
    let mut command = peristyle(&folder.0);
    command.args(["train", "two.toml", "--devices", "cuda:0", "--set", "train.steps=1", "--run-dir", "run"]);
    let trained = output_of(command.envs(environment(&[LT, DNN])).env("FAKE_CUDNN_FAILS", "lacks"));
    assert_eq!(trained.code, Some(0), "{}", trained.err);
    assert_eq!(trained.err.matches("cuDNN is not installed as it should be: ").count(), 1, "{}", trained.err);
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn devices_lists_the_libraries() {
    let folder = Folder::new("libraries-devices");
    let devices = |libraries: &[&str]| output_of(peristyle(&folder.0).arg("devices").envs(environment(libraries))).out;
    let text = devices(&[LT]);
    assert!(text.contains("\ncuBLASLt: 13.1.0, /") && text.contains("/libcublasLt.so.13\n"), "{text}");
    assert!(text.contains("\ncuDNN: none: libcudnn.so.9 was not found in PERISTYLE_LIBRARIES = "), "{text}");
    let text = devices(&[DNN]);
    assert!(text.contains("\ncuDNN: 9.10.2, /"), "{text}");
    assert!(text.contains("\ncuBLASLt: none: libcublasLt.so.13 or libcublasLt.so.12 was not found"), "{text}");
}
