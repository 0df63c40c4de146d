//! Optimisers, schedules, and what is done to gradients and averages of weights.

mod accumulation;
mod clipping;
#[path = "../common/mod.rs"]
mod common;
mod ema;
mod groups;
mod optimizers;
mod schedules;
mod second_order;
mod solvers;
