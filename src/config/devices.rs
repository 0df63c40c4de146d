//! `[devices]`: the devices that run the program, and the mesh they form.

use super::collectives::{self, Collectives};
use super::device_kind::DeviceKind;
use super::diagnostics::Diagnostics;
use super::errors;
use super::section::Section;
use super::spans::SpannedValue;
use super::splits::{self, SplitRule};
use crate::cluster::{Local, Mover};
use crate::collectives::NcclUse;
use crate::device::LibraryUse;
use crate::error::{Fault, quantity};
use crate::gpu::{Driver, DriverKind, kernels};
use crate::tensor::{MatmulPrecision, Mesh, Precision};
use serde::Deserialize;
use toml::de::DeValue;

/// The largest number of devices in a mesh. The size of a plan grows with its square.
const MOST: usize = 256;
/// The largest number of threads of a CPU device.
const MOST_THREADS: usize = 1024;
/// The number of devices per core above which a note is due; fewer are common in trials of a mesh.
const CROWDED: usize = 4;
const FORMS: &str = "\"auto\", \"cpu\", \"cpu*4\", \"cuda:0\", \"cuda:0-3\", \"cuda:0*2\", \"emu\" or \"emu*2\"";

/// How GPUs read each other's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerAccess {
    /// Directly if all GPUs of the run can, otherwise through host memory.
    #[default]
    Auto,
    /// Through host memory.
    Off,
}

/// The devices of a run and how they are used.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices {
    /// The kind of all devices.
    pub kind: DeviceKind,
    /// The ordinal of each device of each process, one process after another: which GPU, or the number of the CPU device.
    pub ordinals: Vec<usize>,
    /// The number of processes, each of which brings the same number of devices.
    pub processes: usize,
    /// The arrangement of the devices; the product of its axes is the number of devices.
    pub mesh: Mesh,
    /// The element type, `"f32"` by default.
    pub precision: Precision,
    /// How matrix products round their factors.
    pub products: MatmulPrecision,
    /// How layers without a split of their own are divided along the columns.
    pub split: SplitRule,
    /// How collectives are carried out.
    pub collectives: Collectives,
    /// How data crosses between GPUs, `"auto"` by default.
    pub peer_access: PeerAccess,
    /// What NVIDIA's libraries may compute, `"auto"` by default.
    pub libraries: LibraryUse,
    /// Threads of each CPU or emulated device, at least 1; by default the cores of this machine, divided evenly among
    /// CPU devices, which run at the same time.
    pub threads: usize,
}

impl Devices {
    /// Returns the number of devices.
    pub fn len(&self) -> usize {
        self.ordinals.len()
    }
    /// Returns true if there are no devices, which no valid configuration allows.
    pub fn is_empty(&self) -> bool {
        self.ordinals.is_empty()
    }
    /// Returns the number of devices of each process.
    pub fn each(&self) -> usize {
        self.len() / self.processes
    }
    /// Returns what moves the tensors between processes.
    pub fn mover(&self) -> Mover {
        if self.collectives.nccl == NcclUse::Never { Mover::Mpi } else { Mover::Nccl }
    }
    /// Returns the name of a device: `cpu:0`, or `1/cpu:0` if there are several processes.
    pub fn name(&self, device: usize) -> String {
        let process = if self.processes > 1 { format!("{}/", device / self.each()) } else { String::new() };
        format!("{process}{}:{}", self.kind, self.ordinals[device])
    }
    /// Returns the names of all devices.
    pub fn names(&self) -> Vec<String> {
        (0..self.len()).map(|device| self.name(device)).collect()
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PrecisionName {
    F32,
    F64,
    Tf32,
    Bf16,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeshTable {
    data: Option<usize>,
    columns: Option<usize>,
}

/// Reads the section, of which each process brings the devices; an absent section means the defaults. `local` is the place of this process
/// on its node.
pub(super) fn read(
    diagnostics: &mut Diagnostics,
    value: SpannedValue,
    processes: usize,
    local: Option<Local>,
) -> Devices {
    let mut section = Section::open(diagnostics, "[devices]", "devices", value);
    let used = section.value("use");
    let by_set = used.as_ref().is_some_and(|v| section.diagnostics.source.is_set(v.span().start));
    let chosen = match used {
        Some(value) => read_use(section.diagnostics, &value, local),
        None => Some(auto(local)),
    };
    let known = chosen.is_some();
    let (kind, own) = chosen.unwrap_or((DeviceKind::Cpu, vec![0]));
    let (each, most) = (own.len(), MOST / own.len());
    let processes = if processes > most {
        section.fault(&Fault::at(
            "use",
            format!(
                "{processes} processes with {} each, expected at most {MOST} devices",
                quantity(each as u64, "device")
            ),
        ));
        1
    } else {
        processes
    };
    let ordinals = own.repeat(processes);
    let mesh = read_mesh(&mut section, ordinals.len(), by_set, known);
    let (precision, products) = read_precision(&mut section, kind);
    let collectives = collectives::read(&mut section, kind, &own, processes);
    let peer_access = read_peer_access(&mut section, kind, &own);
    if kind != DeviceKind::Cuda && section.table.contains_key("libraries") {
        section.diagnostics.note(format!("[devices]: libraries has no effect on {kind} devices"));
    }
    let libraries = section.get("libraries").unwrap_or(LibraryUse::Auto);
    let cores = own_cores(local);
    // Emulated devices take turns, so each may use every core.
    let default = if kind == DeviceKind::Emu { cores } else { (cores / each).max(1) };
    if kind == DeviceKind::Cuda && section.table.contains_key("threads") {
        section.diagnostics.note(format!("[devices]: threads has no effect on {kind} devices"));
    }
    let threads = match section.take("threads") {
        Some(threads) if (1..=MOST_THREADS).contains(&threads) => threads,
        Some(threads) => {
            section.out_of_range("threads", threads);
            default
        }
        None => default,
    };
    if kind != DeviceKind::Cuda {
        note_crowded(&mut section, each, threads, cores);
    }
    let split = splits::read(&mut section);
    if mesh.columns == 1 && split != SplitRule::default() {
        section.diagnostics.note("[devices]: split has no effect: the mesh has one column");
    }
    section.finish();
    Devices {
        kind,
        ordinals,
        processes,
        mesh,
        precision,
        products,
        split,
        collectives,
        peer_access,
        libraries,
        threads,
    }
}

/// Adds a note if the cores of this machine are far fewer than what is to run on them.
fn note_crowded(section: &mut Section, devices: usize, threads: usize, cores: usize) {
    let cores_text = quantity(cores as u64, "core");
    if threads > cores {
        section.diagnostics.note(format!(
            "[devices]: threads = {threads} on {cores_text}: threads without a core of their own make a step slower"
        ));
    }
    if devices > CROWDED * cores {
        section.diagnostics.note(format!(
            "[devices]: {devices} devices on {cores_text} take turns, so a step takes longer than on fewer devices"
        ));
    }
}

/// Returns the devices that `"auto"` stands for: every GPU that this build has kernels for, or of several processes of a node the GPU
/// of this one; otherwise one CPU device.
fn auto(local: Option<Local>) -> (DeviceKind, Vec<usize>) {
    // Starting the driver takes time, so this skips it when the build has no kernels for a GPU.
    let gpus = if kernels::IMAGES.is_empty() { 0 } else { Driver::count(DriverKind::Cuda).unwrap_or(0) };
    match local.filter(|local| local.processes > 1) {
        _ if gpus == 0 => (DeviceKind::Cpu, vec![0]),
        // A launcher may show each process a GPU of its own.
        Some(_) if gpus == 1 => (DeviceKind::Cuda, vec![0]),
        Some(local) => (DeviceKind::Cuda, vec![local.rank]),
        None => (DeviceKind::Cuda, (0..gpus.min(MOST)).collect()),
    }
}

/// Returns the cores of this process: those that it is bound to, otherwise its share of the node.
fn own_cores(local: Option<Local>) -> usize {
    let bound = std::thread::available_parallelism().map_or(1, usize::from);
    let all = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let all = all.lines().filter(|line| line.starts_with("processor")).count();
    match local {
        Some(local) if bound >= all => (bound / local.processes.max(1)).max(1),
        _ => bound,
    }
}

fn read_use(
    diagnostics: &mut Diagnostics,
    value: &SpannedValue,
    local: Option<Local>,
) -> Option<(DeviceKind, Vec<usize>)> {
    let one = [value.clone()];
    let items: &[SpannedValue] = match value.get_ref() {
        DeValue::Array(items) => items,
        _ => &one,
    };
    let mut all: Option<(DeviceKind, Vec<usize>)> = None;
    for item in items {
        let at = item.span().start;
        let before = all.as_ref().map_or(0, |(_, ordinals)| ordinals.len());
        let read = match item.get_ref() {
            DeValue::String(text) if text == "auto" => Ok(auto(local)),
            DeValue::String(text) => parse(text, before),
            other => Err(format!("use = {}, expected {FORMS}, or a list of these", errors::show(other))),
        };
        let problem = match (read, &mut all) {
            (Ok(read), None) => {
                all = Some(read);
                continue;
            }
            (Ok((_, more)), Some((_, ordinals))) if ordinals.len() + more.len() > MOST => {
                format!("use lists more than {MOST} devices, expected 1 to {MOST}")
            }
            (Ok((kind, more)), Some((first, ordinals))) if kind == *first => {
                ordinals.extend(more);
                continue;
            }
            (Ok((kind, _)), Some((first, _))) => {
                format!("{first} and {kind} devices in one mesh, expected one kind; keep one of them")
            }
            (Err(message), _) => message,
        };
        diagnostics.problem(at, format!("[devices]: {problem}"));
        return None;
    }
    if all.as_ref().is_none_or(|(_, ordinals)| ordinals.is_empty()) {
        diagnostics.problem(value.span().start, format!("[devices]: use lists no device, expected 1 to {MOST}"));
        return None;
    }
    all
}

/// Parses one entry of `use`; `before` devices precede it.
fn parse(text: &str, before: usize) -> Result<(DeviceKind, Vec<usize>), String> {
    let wrong = || format!("use = {text:?}, expected {FORMS}");
    let too_many = || format!("use = {text:?} stands for more than {MOST} devices, expected 1 to {MOST}");
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = |digits: &str| match digits.parse::<usize>() {
        Ok(n) if n <= MOST => Ok(n),
        _ if is_number(digits) => Err(too_many()),
        _ => Err(wrong()),
    };
    let (device, times) = match text.split_once('*') {
        Some((device, times)) => (device, number(times)?),
        None => (text, 1),
    };
    let (kind, range) = match device.split_once(':') {
        Some((kind, range)) => (kind, Some(range)),
        None => (device, None),
    };
    let range = range.map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let ordinal = |digits: &str| match is_number(digits) {
            true => Ok(digits.parse().unwrap_or(u32::MAX) as usize),
            false => Err(wrong()),
        };
        let (first, last) = (ordinal(first)?, ordinal(last)?);
        if first <= last && (last - first + 1) * times <= MOST {
            return Ok((first, last));
        }
        if first <= last {
            return Err(too_many());
        }
        Err(format!("use = {text:?} counts down, expected an ascending range; write \"{kind}:{last}-{first}\""))
    });
    let kind = match kind {
        "cpu" => DeviceKind::Cpu,
        "emu" => DeviceKind::Emu,
        "cuda" => DeviceKind::Cuda,
        _ => return Err(wrong()),
    };
    match (kind, range.transpose()?) {
        (DeviceKind::Cuda, Some((first, last))) => {
            Ok((kind, (first..=last).flat_map(|i| std::iter::repeat_n(i, times)).collect()))
        }
        (DeviceKind::Cuda, None) => {
            Err(format!("use = {text:?} names no GPU, expected its number; write \"cuda:0\" or \"cuda:0-3\""))
        }
        (_, None) => Ok((kind, (before..before + times).collect())),
        // These devices exist because they are listed, so their numbers only name them.
        (_, Some((first, last))) if first == before && times == 1 => Ok((kind, (first..=last).collect())),
        (_, Some((_, last))) => Err(format!(
            "use = {text:?}, expected {kind} devices in the order of their numbers, from 0, each once; write \"{kind}*{}\"",
            last + 1
        )),
    }
}

fn read_mesh(section: &mut Section, devices: usize, by_set: bool, known: bool) -> Mesh {
    let all = Mesh { data: devices, columns: 1 };
    let given = section.table.get("mesh").map(|v| v.span().start);
    let Some(MeshTable { data, columns }) = section.take("mesh") else { return all };
    if data == Some(0) || columns == Some(0) {
        section.fault(&Fault::at("mesh", "mesh with 0 positions on an axis, expected at least 1"));
        return all;
    }
    let data = data.unwrap_or_else(|| (devices / columns.unwrap_or(1)).max(1));
    let columns = columns.unwrap_or_else(|| (devices / data).max(1));
    let positions = data.saturating_mul(columns);
    if positions == devices {
        return Mesh { data, columns };
    }
    let what = format!("mesh = {{ data = {data}, columns = {columns} }} needs {positions} devices");
    let mesh_by_set = given.is_some_and(|at| section.diagnostics.source.is_set(at));
    if by_set && !mesh_by_set {
        section
            .diagnostics
            .note(format!("[devices]: {what} but use lists {devices}; using {{ data = {devices} }} instead"));
    } else if known {
        let message = format!("{what} but use lists {devices}; choose a mesh whose product is {devices}");
        section.fault(&Fault::at("mesh", message));
    }
    all
}

fn read_precision(section: &mut Section, kind: DeviceKind) -> (Precision, MatmulPrecision) {
    match section.get("precision").unwrap_or(PrecisionName::F32) {
        PrecisionName::F32 => (Precision::F32, MatmulPrecision::Full),
        PrecisionName::F64 if kind == DeviceKind::Cpu => (Precision::F64, MatmulPrecision::Full),
        PrecisionName::F64 => {
            let message = format!("precision = \"f64\" on {kind} devices, expected cpu devices; use \"f32\"");
            section.fault(&Fault::at("precision", message));
            (Precision::F32, MatmulPrecision::Full)
        }
        name if kind == DeviceKind::Cpu => {
            let name = if matches!(name, PrecisionName::Tf32) { "tf32" } else { "bf16" };
            let note = format!("[devices]: precision = \"{name}\" has no effect on cpu devices, which compute in f32");
            section.diagnostics.note(note);
            (Precision::F32, MatmulPrecision::Full)
        }
        PrecisionName::Tf32 => (Precision::F32, MatmulPrecision::Tf32),
        PrecisionName::Bf16 => (Precision::F32, MatmulPrecision::Bf16),
    }
}

fn read_peer_access(section: &mut Section, kind: DeviceKind, ordinals: &[usize]) -> PeerAccess {
    let given = section.take("peer_access");
    let several = ordinals.iter().any(|&ordinal| ordinal != ordinals[0]);
    if given.is_some() && (kind == DeviceKind::Cpu || !several) {
        let on = if kind == DeviceKind::Cpu { "on cpu devices" } else { "with one GPU" };
        section.diagnostics.note(format!("[devices]: peer_access has no effect {on}"));
        return PeerAccess::Auto;
    }
    given.unwrap_or_default()
}
