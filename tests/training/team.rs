//! Several processes train as one does: the same curve, with `deterministic` the same bits, one run directory. The processes are threads
//! here, which exchange data through memory; tests/mpi.rs starts real ones.

use crate::common::runs::{Folder, events, losses};
use peristyle::cluster::{MemoryEngine, Team};
use peristyle::report::{Patience, Reporter, ReporterOptions};
use peristyle::storage::Fs;
use peristyle::train::{DataPolicy, Ended, Job, Records, ResumeOptions, Run, Stop};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// How a run is divided: its processes, the devices of each, and the mesh of all.
type Division = (usize, usize, (usize, usize));

fn sets((processes, each, (data, columns)): Division, more: &[&str]) -> Vec<String> {
    let mut sets = vec![
        format!("devices.use=\"cpu*{each}\""),
        format!("devices.mesh={{ data = {data}, columns = {columns} }}"),
        "devices.threads=1".to_string(),
    ];
    if processes > 1 {
        sets.push(format!("cluster.processes={processes}"));
    }
    sets.extend(more.iter().map(|set| (*set).to_string()));
    sets
}

/// Trains as one process of a team, or alone.
fn process(config: &Path, sets: &[String], dir: &Path, resumes: bool, team: Option<Arc<Team>>, stop: &Stop) -> Ended {
    let (mut job, plan) = Job::open(config, sets, DataPolicy::Required).unwrap_or_else(|error| panic!("{error}"));
    let rank = team.as_ref().map_or(0, |team| team.rank());
    if let Some(team) = &team {
        job.join(team, &plan).unwrap();
        stop.join(team);
    }
    let records = Records { dir: dir.to_path_buf(), run: "test".to_string(), fs: Fs::default() };
    let mut run = match resumes {
        true => Run::resume(job, plan, records, &ResumeOptions::default()).unwrap(),
        false => Run::start(job, plan, records).unwrap(),
    };
    let steps = run.job().steps();
    let options =
        ReporterOptions { steps, resume: resumes.then(|| run.step()), patience: Patience::None, verbosity: 0 };
    let mut reporter = match rank {
        0 => Reporter::open(&Fs::default(), dir, options).unwrap(),
        rank => Reporter::of_process(&Fs::default(), dir, rank, 0).unwrap(),
    };
    run.train(&mut reporter, stop, Instant::now()).unwrap()
}

/// Trains in a run directory; `stops` has a handle for each process.
fn train_until(config: &Path, division: Division, more: &[&str], dir: &Path, resumes: bool, stops: &[Stop]) -> Ended {
    let (processes, each, _) = division;
    let sets = sets(division, more);
    std::fs::create_dir_all(dir).unwrap();
    if processes == 1 {
        return process(config, &sets, dir, resumes, None, &stops[0]);
    }
    std::thread::scope(|scope| {
        let team = |engine| Arc::new(Team::new(Box::new(engine), each));
        let start = |(engine, stop)| {
            let (team, sets) = (team(engine), &sets);
            scope.spawn(move || process(config, sets, dir, resumes, Some(team), stop))
        };
        let threads: Vec<_> = MemoryEngine::all(processes).into_iter().zip(stops).map(start).collect();
        let ended: Vec<Ended> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(ended.iter().all(|other| *other == ended[0]), "{ended:?}");
        ended[0]
    })
}

fn train(config: &Path, division: Division, more: &[&str], dir: &Path, resumes: bool) {
    let stops: Vec<Stop> = (0..division.0).map(|_| Stop::default()).collect();
    assert_eq!(train_until(config, division, more, dir, resumes, &stops), Ended::Finished);
}

/// Returns the losses of all updates and evaluations of a run.
fn curve(folder: &Folder, dir: &str) -> (Vec<f64>, Vec<f64>) {
    let metrics = folder.metrics(dir);
    let evaluations = events(&metrics, "eval");
    (losses(&metrics), evaluations.iter().map(|event| event["loss"].as_f64().unwrap()).collect())
}

fn assert_near(a: &[f64], b: &[f64], bound: f64, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (step, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= bound * b.abs(), "{what}, {step}: {a} and {b}");
    }
}

fn config(folder: &Folder, name: &str) -> PathBuf {
    if name == "small.toml" { folder.at(name) } else { crate::common::file(name) }
}

/// Compares runs of several processes with one of as many devices in one process.
fn proves(name: &str, divisions: &[Division], more: &[&str]) {
    let folder = Folder::new(&format!("team-{}", name.replace('/', "-")));
    let config = config(&folder, name);
    for (index, &division) in divisions.iter().enumerate() {
        let (processes, each, mesh) = division;
        let alone = format!("alone-{}-{}", mesh.0, mesh.1);
        for precision in ["f64", "f32"] {
            let precise = format!("devices.precision=\"{precision}\"");
            let more = [&[&*precise], more].concat();
            let whole = format!("{alone}-{precision}");
            if !folder.at(&whole).exists() {
                train(&config, (1, processes * each, mesh), &more, &folder.at(&whole), false);
            }
            let exact = format!("exact-{index}-{precision}");
            let deterministic = [&more[..], &["devices.deterministic=true"]].concat();
            train(&config, division, &deterministic, &folder.at(&exact), false);
            assert_eq!(curve(&folder, &exact), curve(&folder, &whole), "{name} on {division:?}");
            let step = curve(&folder, &whole).0.len() as u64;
            assert!(folder.checkpoint(&exact, step) == folder.checkpoint(&whole, step), "{name} on {division:?}");
            if precision == "f64" {
                let sums = format!("sums-{index}");
                train(&config, division, &more, &folder.at(&sums), false);
                let (own, all) = (curve(&folder, &sums), curve(&folder, &whole));
                assert_near(&own.0, &all.0, 1e-9, &format!("{name} on {division:?}"));
                assert_near(&own.1, &all.1, 1e-9, &format!("{name} on {division:?}"));
            }
        }
    }
}

#[test]
fn data_parallel_processes_have_the_curve_of_one() {
    let divisions = [(2, 1, (2, 1)), (4, 1, (4, 1)), (2, 2, (4, 1)), (3, 1, (3, 1))];
    proves("small.toml", &divisions, &["train.steps=30", "train.evaluate=\"15 steps\"", "train.ema=0.9"]);
}

#[test]
fn columns_in_several_processes_have_the_curve_of_one() {
    let more = ["train.steps=20", "train.evaluate=\"10 steps\"", "train.checkpoint={ every = \"10 steps\" }"];
    proves("configs/columns_small.toml", &[(2, 1, (1, 2)), (4, 1, (2, 2)), (2, 2, (2, 2)), (4, 1, (1, 4))], &more);
    proves("configs/one_weird_trick_small.toml", &[(2, 1, (1, 2)), (4, 1, (2, 2))], &more);
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let folder = Folder::new("team-resume");
    let config = folder.at("small.toml");
    let steps = |steps: u64| format!("train.steps={steps}");
    let train = |division, dir: &str, to: u64, resumes| {
        train(&config, division, &["devices.deterministic=true", &steps(to)], &folder.at(dir), resumes);
    };
    train((1, 4, (4, 1)), "whole", 30, false);
    train((4, 1, (4, 1)), "parts", 9, false);
    train((1, 4, (4, 1)), "parts", 17, true);
    train((2, 2, (4, 1)), "parts", 30, true);
    // The metrics of the first evaluations differ in number, not in value.
    assert_eq!(curve(&folder, "parts").0, curve(&folder, "whole").0);
    assert!(folder.checkpoint("parts", 30) == folder.checkpoint("whole", 30));
    let end = &events(&folder.metrics("parts"), "end")[0];
    let seconds = |key: &str| end[key].as_f64().unwrap();
    assert!(end["restarts"] == 2 && end["slowest"]["process"].as_u64().unwrap() < 2, "{end}");
    assert!(0.0 < seconds("training_seconds") && seconds("training_seconds") <= seconds("total_seconds"), "{end}");
    // Other processes write nothing but their logs.
    let logs: Vec<String> = folder
        .files("parts")
        .into_keys()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("log"))
        .collect();
    assert_eq!(logs, ["log-rank-001.txt", "log-rank-002.txt", "log-rank-003.txt", "log.txt"]);
    let log = folder.read("parts/log-rank-003.txt");
    assert!(log.contains("finished after 9 steps"), "{log}");
}

/// Returns all numbers of a value, in order.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Number(number) => vec![number.as_f64().unwrap()],
        Value::Array(all) => all.iter().flat_map(numbers).collect(),
        Value::Object(all) => all.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn hard_examples_and_watched_updates_are_those_of_one_process() {
    let folder = Folder::new("team-watch");
    let config = folder.at("small.toml");
    let order = "data.order={ hard_examples = { share = 0.7, cap = 3.0, outliers = 0.02 } }";
    let more = ["devices.deterministic=true", "train.steps=40", "train.watch={ every = \"6 steps\" }", order];
    for (processes, each, mesh) in [(3, 1, (3, 1)), (4, 1, (2, 2)), (2, 2, (2, 2))] {
        let (whole, parts) = (format!("whole-{mesh:?}"), format!("{processes}-{mesh:?}"));
        if !folder.at(&whole).exists() {
            train(&config, (1, processes * each, mesh), &more, &folder.at(&whole), false);
        }
        train(&config, (processes, each, mesh), &more, &folder.at(&parts), false);
        assert_eq!(curve(&folder, &parts), curve(&folder, &whole), "{parts}");
        assert!(folder.checkpoint(&parts, 40) == folder.checkpoint(&whole, 40), "{parts}");
        let watched = |dir: &str| numbers(&Value::Array(events(&folder.metrics(dir), "watch")));
        assert!(watched(&whole).len() > 6 * 10);
        assert_near(&watched(&parts), &watched(&whole), 1e-12, &parts);
    }
}

#[test]
fn all_processes_stop_where_one_is_asked_to() {
    let folder = Folder::new("team-stop");
    let config = folder.at("small.toml");
    let division = (3, 1, (3, 1));
    let more = ["devices.deterministic=true", "train.steps=60"];
    train(&config, division, &more, &folder.at("whole"), false);
    for asked in 0..3 {
        let dir = format!("stopped-{asked}");
        let stops: Vec<Stop> = (0..3).map(|_| Stop::default()).collect();
        stops[asked].request();
        let ended = train_until(&config, division, &more, &folder.at(&dir), false, &stops);
        assert_eq!(ended, Ended::Interrupted);
        let made = curve(&folder, &dir).0.len();
        assert!((1..60).contains(&made), "{made}");
        train(&config, division, &more, &folder.at(&dir), true);
        assert_eq!(curve(&folder, &dir).0, curve(&folder, "whole").0);
        assert!(folder.checkpoint(&dir, 60) == folder.checkpoint("whole", 60));
    }
    // By the clock: the checkpoints of all processes are at one place.
    let by_clock = [&more[..], &["train.checkpoint={ every = \"0.02 seconds\", keep = 1000 }"]].concat();
    train(&config, division, &by_clock, &folder.at("clock"), false);
    assert_eq!(curve(&folder, "clock").0, curve(&folder, "whole").0);
    assert!(events(&folder.metrics("clock"), "checkpoint").len() > 2);
}

#[test]
fn emulated_gpus_of_several_processes_have_the_bits_of_one() {
    let folder = Folder::new("team-emulated");
    for name in ["configs/columns_small.toml", "small.toml"] {
        let config = config(&folder, name);
        for (index, (processes, each, mesh)) in [(2, 1, (1, 2)), (2, 2, (1, 4))].into_iter().enumerate() {
            for precision in if index == 0 { &["f32", "bf16"][..] } else { &["f32"] } {
                let more = |devices: usize| {
                    let used = format!("devices.use=\"emu*{devices}\"");
                    let precise = format!("devices.precision=\"{precision}\"");
                    [&*used, &*precise, "train.steps=3", "train.evaluate=\"3 steps\"", "devices.deterministic=true"]
                        .map(String::from)
                };
                let (whole, parts) = (more(processes * each), more(each));
                let dir = |what: &str| format!("{}-{index}-{precision}-{what}", name.replace('/', "-"));
                fn strs(sets: &[String; 5]) -> Vec<&str> {
                    sets.iter().map(String::as_str).collect()
                }
                train(&config, (1, processes * each, mesh), &strs(&whole), &folder.at(&dir("whole")), false);
                train(&config, (processes, each, mesh), &strs(&parts), &folder.at(&dir("parts")), false);
                let what = format!("{name} on {processes} x {each} of {mesh:?}, {precision}");
                assert_eq!(curve(&folder, &dir("parts")), curve(&folder, &dir("whole")), "{what}");
                assert!(folder.checkpoint(&dir("parts"), 3) == folder.checkpoint(&dir("whole"), 3), "{what}");
            }
        }
    }
}
