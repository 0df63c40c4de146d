//! Commands, configurations and their mistakes, plans and reports.

mod benchmarks;
mod check;
mod cli;
#[path = "../common/mod.rs"]
mod common;
mod config;
mod hostile;
mod plans;
mod selftest;
