//! `diagnose` and `compare`, and the experiments of the lecture.

#[path = "../common/mod.rs"]
mod common;
mod compare;
mod hessian;
mod init;
mod jacobian;
mod landscape;
mod lecture;
mod lr_range;
mod surfaces;
