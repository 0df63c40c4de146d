//! The keys of `[devices]` about collectives.

use super::device_kind::DeviceKind;
use super::section::Section;
use crate::collectives::{CollectiveAlgorithm, NcclUse};
use crate::error::Fault;
use serde::Deserialize;

/// How the devices of a mesh exchange data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collectives {
    /// The algorithm among devices of a process: one pass by default on CPU devices, otherwise a ring.
    pub algorithm: CollectiveAlgorithm,
    /// Which of them NCCL carries out: by default those of GPUs in several processes.
    pub nccl: NcclUse,
    /// Whether collectives between processes add in the order of those within one.
    pub deterministic: bool,
    /// Whether NCCL sums gradients in bf16.
    pub reduces_in_bf16: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    OnePass,
    Ring,
    Nccl,
    Mpi,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReducePrecision {
    F32,
    Bf16,
}

/// Reads the keys; `own` has the devices of each process.
pub(super) fn read(section: &mut Section, kind: DeviceKind, own: &[usize], processes: usize) -> Collectives {
    let name: Option<Name> = section.take("collectives");
    let algorithm = algorithm(section, kind, (own.len() * processes, processes), name);
    let nccl = match name {
        Some(Name::Mpi) => NcclUse::Never,
        Some(Name::Nccl) if kind != DeviceKind::Cuda => {
            section.diagnostics.note(format!("[devices]: collectives = \"nccl\" has no effect on {kind} devices"));
            NcclUse::Never
        }
        Some(Name::Nccl) if own.len() * processes == 1 => {
            section.diagnostics.note("[devices]: collectives has no effect with one device");
            NcclUse::Never
        }
        Some(Name::Nccl) => NcclUse::Always,
        _ if kind == DeviceKind::Cuda && processes > 1 => NcclUse::Between,
        _ => NcclUse::Never,
    };
    let twice = own.iter().enumerate().find(|(index, ordinal)| own[..*index].contains(ordinal));
    if nccl != NcclUse::Never
        && let Some((_, ordinal)) = twice
    {
        let todo = if processes > 1 { "\"mpi\"" } else { "\"ring\"" };
        let message = format!(
            "cuda:{ordinal} is listed twice, but NCCL uses a GPU once; list it once, or use collectives = {todo}"
        );
        section.fault(&Fault::at("use", message));
    }
    let deterministic = section.take("deterministic").unwrap_or(false);
    let reduced: Option<ReducePrecision> = section.take("reduce_precision");
    let in_bf16 = reduced == Some(ReducePrecision::Bf16);
    if in_bf16 && nccl == NcclUse::Never {
        section.diagnostics.note("[devices]: reduce_precision has no effect without collectives by NCCL");
    }
    if in_bf16 && deterministic {
        let message = "reduce_precision = \"bf16\" with deterministic = true, which sums in f32; remove one of them";
        section.fault(&Fault::at("reduce_precision", message));
    }
    Collectives { algorithm, nccl, deterministic, reduces_in_bf16: in_bf16 && nccl != NcclUse::Never && !deterministic }
}

/// Returns the algorithm among the devices of a process.
fn algorithm(
    section: &mut Section,
    kind: DeviceKind,
    (devices, processes): (usize, usize),
    name: Option<Name>,
) -> CollectiveAlgorithm {
    let default = if kind == DeviceKind::Cpu { CollectiveAlgorithm::OnePass } else { CollectiveAlgorithm::Ring };
    if devices == 1 && matches!(name, Some(Name::OnePass | Name::Ring)) {
        section.diagnostics.note("[devices]: collectives has no effect with one device");
    }
    match name {
        Some(Name::OnePass) if kind != DeviceKind::Cpu => {
            if devices > 1 {
                section.diagnostics.note(format!(
                    "[devices]: collectives = \"one_pass\" has no effect on {kind} devices; using \"ring\""
                ));
            }
            CollectiveAlgorithm::Ring
        }
        Some(Name::OnePass) => CollectiveAlgorithm::OnePass,
        Some(Name::Ring) => CollectiveAlgorithm::Ring,
        Some(Name::Mpi) if processes == 1 => {
            section.diagnostics.note("[devices]: collectives = \"mpi\" has no effect with one process");
            default
        }
        _ => default,
    }
}
