//! Kills, signals and I/O errors at points of a whole run, by `peristyle chaos`.

mod common;

use common::runs::Folder;

#[test]
fn a_run_survives_kills_signals_and_io_errors() {
    let folder = Folder::new("chaos");
    let counts = ["--kills", "60", "--signals", "32", "--errors", "36", "--timed", "6"];
    let output = folder.run(&[&["chaos", "small.toml"], &counts[..]].concat());
    assert_eq!(output.code, Some(0), "{}{}", output.out, output.err);
    let row = |name: &str, runs: usize| {
        let expected: Vec<String> = [runs, runs, 0, 0, 0].iter().map(usize::to_string).collect();
        let line = output.out.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), expected, "{name}: {}", output.out);
    };
    row("SIGKILL  ", 60);
    for (name, runs) in [("SIGTERM", 8), ("SIGUSR1", 8), ("ENOSPC", 6), ("EINTR", 6), ("a full disk from then on", 6)] {
        row(name, runs);
    }
    row("SIGKILL (timed)", 6);
    assert!(!folder.at("chaos").exists(), "the folder is removed");
}

#[test]
fn a_folder_that_exists_is_not_touched_and_a_configuration_that_fails_is_reported() {
    let folder = Folder::new("chaos-folder");
    std::fs::create_dir(folder.at("chaos")).unwrap();
    let output = folder.run(&["chaos", "small.toml"]);
    assert_eq!(output.code, Some(2), "{}", output.err);
    assert!(output.err.contains("chaos exists already; give the name of a new folder with --dir"), "{}", output.err);
    let output = folder.run(&["chaos", "small.toml", "--dir", "other", "--set", "optimizer.lr=1e30"]);
    assert_eq!(output.code, Some(1), "{}", output.err);
    assert!(output.err.contains("the run that is not stopped ended with exit status: 1"), "{}", output.err);
}
