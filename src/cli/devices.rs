//! `peristyle devices`.

use super::launched::{self, Launched};
use super::output::print;
use crate::cluster::{Mover, Process, Stated, Timeouts};
use crate::error::{Result, printable};
use crate::gpu::{Driver, DriverKind, kernels, libraries, nccl};

/// Prints this machine's devices and the compiled kernels that they would use.
pub(super) fn run() -> Result<()> {
    match Process::find(&Stated::default(), &|name| std::env::var(name).ok()) {
        Ok(Some(process)) => {
            launched::run(&process, Mover::Nothing, Timeouts::default(), 1, |all| of_job(&process, all))
                .or_else(|error| alone(&format!("launcher: this is {process}\nlauncher: {error}\n")))
        }
        Ok(None) => alone("launcher: none, this process is alone\n"),
        Err(error) => alone(&format!("launcher: {error}\n")),
    }
}

/// Prints a table of all processes, in the first of them, and the devices of its machine.
fn of_job(process: &Process, all: &Launched) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpus = Driver::count(DriverKind::Cuda).unwrap_or(0);
    let local = process.local.map_or("-".to_string(), |local| format!("{} of {}", local.rank, local.processes));
    let own = format!("{:<24}  {local:<10}  {cores:>5}  {gpus:>4}", shortened(&all.host()));
    let rows = all.team.gather(&own)?;
    if process.rank > 0 {
        return Ok(());
    }
    let mut text = format!(
        "{} processes of {}, which exchange data through {}\n",
        process.processes,
        process.launcher,
        all.team.engine().name()
    );
    text += &format!("{:>4}  {:<24}  {:<10}  {:>5}  {:>4}\n", "rank", "host", "on node", "cores", "GPUs");
    rows.iter().enumerate().for_each(|(rank, row)| text += &format!("{rank:>4}  {row}\n"));
    alone(&text)
}

/// Returns the beginning of a name.
fn shortened(name: &str) -> String {
    name.chars().take(24).collect()
}

/// Prints the devices of this machine, and what there is to say of the launcher.
fn alone(launcher: &str) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!("cpu: {cores} cores, {} vectors\n", vectors());
    match Driver::count(DriverKind::Cuda) {
        Ok(0) => text += "cuda: the driver reports no GPU (CUDA_VISIBLE_DEVICES may hide some)\n",
        Ok(count) => (0..count).for_each(|ordinal| text += &gpu(ordinal)),
        Err(error) => text += &format!("cuda: none: {error}\n"),
    }
    match Driver::count(DriverKind::Emu) {
        Ok(_) => text += "emu: any number of devices, as in emu*2: the GPU kernels compiled for the CPU\n",
        Err(error) => text += &format!("emu: none: {error}\n"),
    }
    let (files, entries) = (kernels::IMAGES.len(), kernels::ENTRIES.len());
    let bytes: usize = kernels::IMAGES.iter().map(|(_, image)| image.len()).sum();
    text += &match files {
        0 => format!("kernels: {entries}; no images for GPUs because the build found no nvcc\n"),
        _ => format!("kernels: {entries} in {files} images for GPUs, {:.1} MB\n", bytes as f64 / 1e6),
    };
    text += launcher;
    let nccl = nccl::nccl().map(|library| format!("{}, {}", library.version, library.path.display()));
    text += &format!("NCCL: {}\n", printable(&nccl.unwrap_or_else(|error| format!("none: {error}"))));
    libraries::described().iter().for_each(|line| text += &format!("{}\n", printable(line)));
    print(&text)
}

/// Returns the line about a GPU.
fn gpu(ordinal: usize) -> String {
    let described = Driver::open(DriverKind::Cuda, ordinal, 1).and_then(|driver| {
        let ((major, minor), (free, total)) = (driver.capability(), driver.memory()?);
        let gigabytes = |bytes: usize| bytes as f64 / 1e9;
        let codes: Vec<String> =
            driver.codes()?.iter().map(|(code, kernels)| format!("{kernels} kernels: {code}")).collect();
        Ok(format!(
            "{}, compute capability {major}.{minor}, {:.1} of {:.1} GB free; {}",
            driver.name(),
            gigabytes(free),
            gigabytes(total),
            codes.join("; ")
        ))
    });
    format!("cuda:{ordinal}: {}\n", described.unwrap_or_else(|error| error.to_string()))
}

fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return "AVX2";
        }
    }
    "baseline"
}
