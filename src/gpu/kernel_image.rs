//! The kind of code a kernel runs on a device: machine code from this build, or PTX compiled by the driver.

/// The kind of code that a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelImage {
    /// Compiled for the CPU, on the emulated device.
    Cpu,
    /// Machine code from the image, with its architecture: 90 for sm_90.
    Machine(u32),
    /// PTX from the image, compiled by the driver when it loaded the image.
    Compiled {
        /// The architecture of the PTX: 80 for compute_80.
        ptx: u32,
        /// The architecture for which it was compiled.
        machine: u32,
    },
}

impl KernelImage {
    /// Distinguishes machine code from compiled PTX. `ptx` and `machine` are the architectures that the driver reports
    /// for a loaded kernel, and `embedded` lists those of the images. Machine code in the images was compiled through
    /// PTX of the same number.
    pub fn of(ptx: u32, machine: u32, embedded: &[&str]) -> KernelImage {
        let number = |arch: &str| arch.strip_prefix("sm_")?.trim_end_matches(char::is_alphabetic).parse::<u32>().ok();
        let brought = embedded.iter().any(|arch| number(arch) == Some(machine));
        if brought && ptx == machine { KernelImage::Machine(machine) } else { KernelImage::Compiled { ptx, machine } }
    }
}

impl std::fmt::Display for KernelImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KernelImage::Cpu => f.write_str("compiled for the CPU"),
            KernelImage::Machine(arch) => write!(f, "machine code for sm_{arch}"),
            KernelImage::Compiled { ptx, machine } => {
                write!(f, "PTX for compute_{ptx}, compiled by the driver for sm_{machine}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_of_the_build_is_distinguished_from_compiled_ptx() {
        let embedded = ["compute_75", "compute_80", "sm_80", "sm_90a"];
        assert_eq!(KernelImage::of(80, 80, &embedded).to_string(), "machine code for sm_80");
        assert_eq!(KernelImage::of(90, 90, &embedded), KernelImage::Machine(90));
        assert_eq!(
            KernelImage::of(80, 120, &embedded).to_string(),
            "PTX for compute_80, compiled by the driver for sm_120"
        );
        // A driver told to ignore machine code compiles the PTX even for a GPU that has machine code in this build.
        assert_eq!(KernelImage::of(80, 90, &embedded), KernelImage::Compiled { ptx: 80, machine: 90 });
        assert_eq!(KernelImage::of(75, 75, &embedded), KernelImage::Compiled { ptx: 75, machine: 75 });
    }
}
