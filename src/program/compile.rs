//! The passes, in order: they turn the operations of a step into a program with waits and bytes, proved free of races.

use super::{Program, Race, Regions, arena, check, events, lower};
use crate::device::Queue;
use crate::network::Network;
use crate::placement::{Placed, Spec};

/// A program and the memory that it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The program.
    pub program: Program,
    /// Bytes of each device's arena.
    pub arena: Vec<usize>,
    /// Bytes of each process's host memory for transfers of GPUs.
    pub hosts: Vec<usize>,
}

/// Compiles one placed step.
///
/// # Errors
/// The first race that the checker finds, which would be a bug in this crate.
pub fn compile(network: &Network, placed: &Placed, regions: &Regions, spec: &Spec) -> Result<Compiled, Race> {
    let devices = spec.mesh.devices();
    let queues = devices * Queue::COUNT;
    let mut program = lower::lower(network, placed, regions, spec);
    let clocks = events::derive(&mut program, queues);
    let hosts = spec.processes.count();
    let (arena, hosts) = arena::assign(&mut program, clocks, regions.end, (devices, hosts));
    check::check(&program, queues)?;
    check::check_processes(&program, &spec.processes, devices)?;
    Ok(Compiled { program, arena, hosts })
}
