//! Runs: one curve on every mesh, resumes, files, evaluations, and several processes.

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod emulated;
mod eval;
mod files;
mod many_processes;
mod nonfinite;
mod one_curve;
mod predict;
mod random_networks;
mod ranges;
mod reference;
mod resume;
mod staged;
mod team;
mod watch;
mod weights;
