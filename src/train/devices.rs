//! The devices of a configuration: whether they are present, and opening a session on them.

use crate::cluster::Team;
use crate::config::{self, Config, PeerAccess};
use crate::device::{LibraryUse, Target};
use crate::error::{Error, Problem, Result, quantity};
use crate::gpu::Driver;
use crate::placement::Peers;
use crate::program::{Plan, Session};
use std::sync::Arc;

/// Returns the target of the program.
pub(super) fn target(config: &Config) -> Target {
    let (threads, libraries) = (config.devices.threads, config.devices.libraries);
    match config.devices.kind {
        config::DeviceKind::Cpu => Target::Cpu { threads },
        config::DeviceKind::Cuda => Target::Gpu { libraries, threads },
        config::DeviceKind::Emu => Target::Gpu { libraries: LibraryUse::Off, threads },
    }
}

/// Returns a problem of the devices.
pub(super) fn problem(config: &Config, message: String) -> Problem {
    Problem { location: config.path.display().to_string(), message: format!("[devices]: {message}") }
}

/// Returns why the devices cannot be used on this machine, or `None` if they can.
pub(super) fn missing(config: &Config) -> Option<String> {
    let devices = &config.devices;
    let count = match devices.kind.driver().map(Driver::count)? {
        Ok(count) => count,
        Err(error) => return Some(error.to_string()),
    };
    let last = devices.ordinals.iter().max().copied().unwrap_or(0);
    (devices.kind == config::DeviceKind::Cuda && last >= count).then(|| {
        format!(
            "cuda:{last} does not exist: the driver reports {}, numbered from 0 (CUDA_VISIBLE_DEVICES may hide \
             others)",
            quantity(count as u64, "GPU")
        )
    })
}

/// Returns which devices can read each other's memory, with a note if this machine's GPUs cannot. Planning needs no
/// GPU: GPUs that are not present are assumed to be connected.
pub(super) fn peers(config: &Config) -> (Peers, Option<String>) {
    let devices = &config.devices;
    let staged = || Peers::SameGpu(devices.ordinals.clone());
    if devices.peer_access == PeerAccess::Off {
        return (staged(), None);
    }
    let mut gpus = devices.ordinals.clone();
    gpus.sort_unstable();
    gpus.dedup();
    let kind = devices.kind.driver().filter(|_| gpus.len() > 1);
    match kind.and_then(|kind| Driver::apart(kind, &gpus).ok().flatten()) {
        Some((a, b)) => {
            let note = format!(
                "cuda:{a} and cuda:{b} cannot access each other's memory; transfers between GPUs go through host memory"
            );
            (staged(), Some(note))
        }
        None => (Peers::All, None),
    }
}

/// Opens the devices of a configuration for a plan.
///
/// # Errors
/// If the devices are those of several processes that have no team; when a GPU is missing, has too little memory, or cannot be used.
pub(super) fn session(config: &Config, plan: Plan, team: Option<&Arc<Team>>) -> Result<Session> {
    let processes = config.devices.processes;
    if let Some(team) = team {
        return Session::of_team(&plan, team, config.devices.kind.driver(), &config.devices.ordinals);
    }
    if processes > 1 {
        return Err(Error::Usage(format!(
            "[cluster]: processes = {processes}, but only train works with several processes; remove processes, or look at their plan"
        )));
    }
    match config.devices.kind.driver() {
        None => Session::new(plan),
        Some(kind) => Session::on_gpus(plan, kind, &config.devices.ordinals),
    }
}
