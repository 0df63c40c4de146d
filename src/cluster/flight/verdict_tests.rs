//! Records are planted in a directory, and the whole report is read.

use crate::cluster::flight::{EXCHANGE, FlightEntry, FlightRecord, report};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory of its own, which is removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("flight-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    fn put(&self, record: &FlightRecord) -> &Self {
        std::fs::write(FlightRecord::path(&self.0, record.rank), serde_json::to_string(record).unwrap()).unwrap();
        self
    }

    fn report(&self) -> String {
        report(&self.0).unwrap()
    }

    fn verdict(&self) -> String {
        self.report().lines().last().unwrap().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// An all-reduce of 400 bytes.
fn entry(name: &str, step: u64, peers: &[usize], ended: bool) -> FlightEntry {
    FlightEntry {
        sequence: 0,
        step,
        name: name.to_string(),
        kind: "all-reduce".to_string(),
        peers: peers.to_vec(),
        bytes: 400,
        begun: 10.0,
        ended: ended.then_some(11.0),
    }
}

/// A record made 600 s after its collectives began.
fn record(rank: usize, processes: usize, mut collectives: Vec<FlightEntry>) -> FlightRecord {
    collectives.iter_mut().zip(1..).for_each(|(entry, sequence)| entry.sequence = sequence);
    FlightRecord {
        rank,
        processes,
        host: format!("node{rank}"),
        pid: 1,
        version: "0.1.0".to_string(),
        reason: "the job ended".to_string(),
        unix_seconds: 0,
        seconds: 610.0,
        step: collectives.last().map_or(0, |entry| entry.step),
        collectives,
    }
}

const ALL: [usize; 4] = [0, 1, 2, 3];

fn done_and(last: FlightEntry) -> Vec<FlightEntry> {
    vec![entry("a", 16, &ALL, true), last]
}

#[test]
fn who_left_no_record_was_killed() {
    let dir = Dir::new();
    for rank in [0, 1, 3] {
        dir.put(&record(rank, 4, done_and(entry("b", 17, &ALL, false))));
    }
    let report = dir.report();
    assert_eq!(report.lines().count(), 7, "{report}");
    let fields: Vec<&str> = report.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(fields, ["0", "node0", "all-reduce", "\"b\",", "400", "bytes", "waits", "17", "600.0", "s"]);
    assert!(report.lines().nth(3).unwrap().contains("no record"));
    assert!(report.contains("recorded by processes 0, 1 and 3: the job ended"), "{report}");
    assert_eq!(
        dir.verdict(),
        "process 2 left no record: it was killed, or its host failed; processes 0, 1 and 3 waited in all-reduce \"b\" of step 17 for \
         600.0 s"
    );
}

#[test]
fn who_did_not_begin_what_the_others_wait_in_is_late() {
    let dir = Dir::new();
    for rank in [0, 1, 3] {
        dir.put(&record(rank, 4, done_and(entry("b", 17, &ALL, false))));
    }
    dir.put(&record(2, 4, vec![entry("a", 16, &ALL, true)]));
    assert_eq!(
        dir.verdict(),
        "process 2 did not begin all-reduce \"b\" of step 17; processes 0, 1 and 3 waited in all-reduce \"b\" of step 17 for 600.0 s; \
         process 2 ended all-reduce \"a\" of step 16"
    );
    dir.put(&record(2, 4, vec![]));
    assert!(dir.verdict().starts_with("process 2 did not begin"), "{}", dir.verdict());
    assert!(dir.report().contains("none begun"));
}

#[test]
fn at_the_end_of_a_chain_of_waits_is_the_culprit() {
    // 0 waits for 1, which waits for 2, which waits for 3, in different groups, so that their numbers differ.
    let dir = Dir::new();
    dir.put(&record(0, 4, vec![entry("x", 5, &[0, 1], false)]));
    dir.put(&record(1, 4, vec![entry("p", 5, &[1, 2], true), entry("q", 5, &[1, 2], false)]));
    dir.put(&record(2, 4, vec![entry("p", 5, &[1, 2], true), entry("r", 5, &[2, 3], false)]));
    dir.put(&record(3, 4, vec![entry("z", 4, &[3], true)]));
    assert!(
        dir.verdict().starts_with("process 3 did not begin all-reduce \"r\" of step 5; process 2 waited"),
        "{}",
        dir.verdict()
    );
}

#[test]
fn the_same_collective_with_another_size_or_kind_is_a_mismatch() {
    for change in
        [|entry: &mut FlightEntry| entry.bytes = 800, |entry: &mut FlightEntry| entry.kind = "broadcast".to_string()]
    {
        let dir = Dir::new();
        for rank in ALL {
            let mut last = entry("b", 17, &ALL, false);
            if rank == 2 {
                change(&mut last);
            }
            dir.put(&record(rank, 4, done_and(last)));
        }
        let verdict = dir.verdict();
        assert!(verdict.starts_with("process 2 did ") && verdict.contains("\"b\" of step 17"), "{verdict}");
        assert!(verdict.contains(" where processes 0, 1 and 3 did all-reduce of 400 bytes"), "{verdict}");
    }
}

#[test]
fn processes_in_different_collectives_wait_for_each_other() {
    let dir = Dir::new();
    for rank in ALL {
        dir.put(&record(rank, 4, done_and(entry(if rank == 2 { "x" } else { "y" }, 17, &ALL, false))));
    }
    assert_eq!(
        dir.verdict(),
        "process 2 did all-reduce \"x\" (400 bytes) of step 17 where processes 0, 1 and 3 did all-reduce \"y\" (400 bytes) of step 17: \
         they wait for each other"
    );
}

#[test]
fn if_all_have_begun_nobody_is_blamed_and_if_all_have_ended_nobody_waits() {
    let (stuck, ended) = (Dir::new(), Dir::new());
    for rank in ALL {
        stuck.put(&record(rank, 4, done_and(entry("b", 17, &ALL, rank == 1))));
        ended.put(&record(rank, 4, done_and(entry("b", 17, &ALL, true))));
    }
    let verdict = stuck.verdict();
    assert!(verdict.starts_with("all processes had begun all-reduce \"b\" of step 17"), "{verdict}");
    assert!(verdict.contains("processes 0, 2 and 3 waited"), "{verdict}");
    assert_eq!(ended.verdict(), "no process waited for another one: all their collectives had ended, all at step 17");
}

#[test]
fn exchanges_with_neighbours_and_repeated_names_are_matched_in_pairs() {
    // A chain: each exchanges twice in a step with its neighbours, of different sizes; process 3 does so once.
    let dir = Dir::new();
    let neighbours: [&[usize]; 4] = [&[1], &[0, 2], &[3, 1], &[2]];
    for rank in ALL {
        let exchange = |ended| FlightEntry {
            kind: EXCHANGE.to_string(),
            bytes: 100 + rank as u64,
            ..entry("halo", 9, neighbours[rank], ended)
        };
        let all = if rank == 3 { vec![exchange(true)] } else { vec![exchange(true), exchange(rank < 1)] };
        dir.put(&record(rank, 4, all));
    }
    assert!(dir.verdict().starts_with("process 3 did not begin exchange \"halo\" of step 9; "), "{}", dir.verdict());
}

#[test]
fn threads_that_begin_in_another_order_are_no_mismatch() {
    let dir = Dir::new();
    dir.put(&record(0, 2, vec![entry("a", 1, &[0, 1], true), entry("b", 1, &[0, 1], true)]));
    dir.put(&record(1, 2, vec![entry("b", 1, &[0, 1], true), entry("a", 1, &[0, 1], true)]));
    assert!(dir.verdict().starts_with("no process waited"), "{}", dir.verdict());
}

#[test]
fn what_a_full_record_has_forgotten_counts_as_begun() {
    let dir = Dir::new();
    dir.put(&record(0, 2, vec![entry("slow", 3, &[0, 1], false)]));
    let mut full = record(1, 2, vec![entry("a", 8, &[1], true)]);
    full.collectives[0].sequence = 1000;
    dir.put(&full);
    assert!(dir.verdict().starts_with("all processes had begun all-reduce \"slow\""), "{}", dir.verdict());
}

#[test]
fn damaged_files_are_named_and_do_not_matter_otherwise() {
    let dir = Dir::new();
    dir.put(&record(0, 8, vec![entry("b", 17, &[0, 1, 2], false)]));
    dir.put(&record(1, 8, vec![entry("b", 17, &[0, 1, 2], false)]));
    let whole = serde_json::to_string(&record(2, 8, vec![])).unwrap();
    let mut other_job = record(7, 9, vec![]);
    other_job.rank = 7;
    let files: [(usize, &str); 5] = [
        (2, &whole[..whole.len() / 2]),
        (3, ""),
        (4, "\u{fffd}[[["),
        (5, &serde_json::to_string(&record(6, 8, vec![])).unwrap()),
        (6, &serde_json::to_string(&record(6, 8, vec![entry("x", 1, &[99], false)])).unwrap()),
    ];
    for (rank, text) in files {
        std::fs::write(FlightRecord::path(&dir.0, rank), text).unwrap();
    }
    std::fs::write(dir.0.join("flight-rank-x.json"), "not one of them").unwrap();
    std::fs::write(FlightRecord::path(&dir.0, 7), [0xff, 0xfe]).unwrap();
    let report = dir.report();
    for (rank, why) in
        [(2, "damaged"), (3, "empty"), (4, "damaged"), (5, "of process 6"), (6, "more processes than"), (7, "UTF-8")]
    {
        let line =
            report.lines().find(|line| line.starts_with(&format!("the record of process {rank} cannot"))).unwrap();
        assert!(line.contains(why), "{line}");
    }
    assert!(dir.verdict().starts_with("all processes whose records can be read had begun"), "{report}");
    dir.put(&other_job);
    assert!(dir.report().contains("it is of a job of 8 processes, others of 9"), "{}", dir.report());
}

#[test]
fn a_directory_without_records_is_a_mistake() {
    let dir = Dir::new();
    let error = report(&dir.0).unwrap_err().to_string();
    assert!(error.contains("has no flight records, expected files like flight-rank-007.json"), "{error}");
    assert!(report(&dir.0.join("none")).is_err());
}

#[test]
fn the_records_of_256_processes_are_compared_quickly() {
    let dir = Dir::new();
    let all: Vec<usize> = (0..256).collect();
    for rank in 0..256 {
        let entries = (0..256).map(|step| entry("b", step, &all, step < 255)).collect();
        dir.put(&record(rank, 256, if rank == 200 { vec![] } else { entries }));
    }
    assert!(dir.verdict().starts_with("process 200 did not begin"), "{}", dir.verdict());
}
