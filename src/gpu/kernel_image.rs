//! What a kernel runs as on a device: machine code that this build brought, or what the driver made of its PTX.

/// What a kernel runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelImage {
    /// Compiled for the CPU, on the emulated device.
    Cpu,
    /// Machine code from the image; the number is its architecture: 90 for sm_90.
    Machine(u32),
    /// PTX from the image that the driver compiled when it loaded it.
    Compiled {
        /// The architecture of the PTX: 80 for compute_80.
        ptx: u32,
        /// The architecture that it was compiled for.
        machine: u32,
    },
}

impl KernelImage {
    /// Tells machine code from compiled PTX. `ptx` and `machine` are what the driver says about a loaded kernel, and
    /// `embedded` are the architectures of the images; machine code in them was made through PTX of its own number.
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
    fn what_the_build_brought_is_told_from_what_the_driver_compiled() {
        let embedded = ["compute_75", "compute_80", "sm_80", "sm_90a"];
        assert_eq!(KernelImage::of(80, 80, &embedded).to_string(), "machine code for sm_80");
        assert_eq!(KernelImage::of(90, 90, &embedded), KernelImage::Machine(90));
        assert_eq!(
            KernelImage::of(80, 120, &embedded).to_string(),
            "PTX for compute_80, compiled by the driver for sm_120"
        );
        // A driver that is told to ignore machine code compiles the PTX for a GPU that the build has code for.
        assert_eq!(KernelImage::of(80, 90, &embedded), KernelImage::Compiled { ptx: 80, machine: 90 });
        assert_eq!(KernelImage::of(75, 75, &embedded), KernelImage::Compiled { ptx: 75, machine: 75 });
    }
}
