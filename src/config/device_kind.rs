//! The kinds of devices.

use crate::gpu::DriverKind;

/// A kind of device; all devices of a mesh are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Cores of this machine's CPU.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// GPUs emulated on the CPU.
    Emu,
}

impl DeviceKind {
    /// Returns the driver of these devices; none for CPU devices.
    pub fn driver(self) -> Option<DriverKind> {
        match self {
            DeviceKind::Cpu => None,
            DeviceKind::Cuda => Some(DriverKind::Cuda),
            DeviceKind::Emu => Some(DriverKind::Emu),
        }
    }
}

impl std::fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
            DeviceKind::Emu => "emu",
        })
    }
}
