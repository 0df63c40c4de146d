//! Pods of Kubernetes, each with two stand-in GPUs, by the variables that JobSet and Kubeflow's training operator set.

use super::common::runs::{Folder, losses, output_of, peristyle};
use super::nccl::with_nccl;
use std::process::{Child, Output, Stdio};

/// Starts a pod's process, which trains with both of its GPUs.
fn pod(folder: &Folder, number: usize, dir: &str, variables: &[(&str, &str)], sets: &[&str]) -> Child {
    let first = (8 * number).to_string();
    let fixed = ["devices.use=\"cuda:0-1\"", "data.batch=9", "train.steps=6", "train.evaluate=never"];
    let mut command = peristyle(&folder.0);
    command.args(["train", "small.toml", "--run-dir", dir]);
    command.args(fixed.iter().chain(sets).flat_map(|set| ["--set", set]));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    // Both pods are on this machine.
    let settings = [&[("FAKE_CUDA_FIRST", &*first)], variables].concat();
    with_nccl(&mut command, &settings).spawn().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn good(pods: impl IntoIterator<Item = Child>) {
    for pod in pods {
        let output = pod.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn pods_with_several_gpus_train_as_one_process_does() {
    let folder = Folder::new("pods");
    let mesh = "devices.mesh={ data = 2, columns = 2 }";
    let whole = ["train", "small.toml", "--run-dir", "whole", "--devices", "cuda:0-3", "--set", mesh];
    let small = ["--set", "data.batch=9", "--set", "train.steps=6", "--set", "train.evaluate=never"];
    let output = output_of(with_nccl(peristyle(&folder.0).args([&whole[..], &small].concat()), &[]));
    assert_eq!(output.code, Some(0), "{}", output.err);
    let exact = "devices.deterministic=true";
    // A PyTorchJob: no rank on the node.
    let port = free_port();
    good([0, 1].map(|number| {
        let rank = number.to_string();
        let variables = [
            ("RANK", &*rank),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "localhost"),
            ("MASTER_PORT", &port),
            ("PET_NODE_RANK", &rank),
            ("PET_NNODES", "2"),
        ];
        pod(&folder, number, "pytorchjob", &variables, &[mesh, exact])
    }));
    // A JobSet: the number of the pod, and what the file says. All collectives go through the library here.
    let address = format!("cluster.address=\"localhost:{}\"", free_port());
    for (dir, more) in [("jobset", &[exact][..]), ("all", &["devices.collectives=\"nccl\""])] {
        good([0, 1].map(|number| {
            let variables =
                [("JOB_COMPLETION_INDEX", &*number.to_string())].map(|(name, value)| (name, value.to_string()));
            let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
            let sets = [&[mesh, "cluster.processes=2", &*address], more].concat();
            pod(&folder, number, dir, &variables, &sets)
        }));
    }
    let curve = |dir: &str| losses(&folder.metrics(dir));
    for dir in ["pytorchjob", "jobset"] {
        assert_eq!(curve(dir), curve("whole"), "{dir}");
        assert!(folder.checkpoint(dir, 6) == folder.checkpoint("whole", 6), "{dir}");
    }
    let pairs = || curve("all").into_iter().zip(curve("whole"));
    assert!(pairs().count() == 6 && pairs().all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs()));
}

#[test]
#[cfg_attr(not(peristyle_kernels), ignore = "needs nvcc: scripts/cuda-toolchain.sh")]
fn a_process_with_another_token_is_no_part_of_the_job() {
    let folder = Folder::new("pods-token");
    let port = free_port();
    let tokens = ["1", "2"].map(|digit| digit.repeat(64));
    let pods = [0, 1].map(|number| {
        let rank = number.to_string();
        let token = &tokens[number];
        let place = [("RANK", &*rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", &port)];
        let variables = [&place[..], &[("PERISTYLE_TOKEN", token)]].concat();
        pod(&folder, number, "run", &variables, &["cluster.start_timeout=\"3 s\""])
    });
    let [first, second] = pods.map(|pod| pod.wait_with_output().unwrap());
    let words = ["process 1 has not connected to localhost:", "brought the token of another job"];
    assert!(words.iter().all(|words| said(&first).contains(words)), "{}", said(&first));
    assert!(said(&second).contains("check the port and the token"), "{}", said(&second));
    assert!(!first.status.success() && !second.status.success() && !folder.at("run").exists());
    let wrong = pod(
        &folder,
        0,
        "run",
        &[
            ("RANK", "0"),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "localhost"),
            ("MASTER_PORT", &port),
            ("PERISTYLE_TOKEN", "short"),
        ],
        &[],
    );
    let wrong = wrong.wait_with_output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        said(&wrong).contains("PERISTYLE_TOKEN: the token has 5 characters, expected 64 hexadecimal digits"),
        "{}",
        said(&wrong)
    );
}
