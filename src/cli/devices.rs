//! `peristyle devices`.

use super::output::print;
use crate::cluster::{Process, Stated};
use crate::error::{Result, printable};
use crate::gpu::{Driver, DriverKind, kernels, libraries};

/// Prints this machine's devices and the compiled kernels that they would use.
pub(super) fn run() -> Result<()> {
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
    text += &match Process::find(&Stated::default(), &|name| std::env::var(name).ok()) {
        Ok(Some(process)) => format!("launcher: this is {process}\n"),
        Ok(None) => "launcher: none, this process is alone\n".to_string(),
        Err(error) => format!("launcher: {error}\n"),
    };
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
