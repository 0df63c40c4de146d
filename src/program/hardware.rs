//! The rates of machines, for estimates.

/// The rates of one device and its links.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hardware {
    /// Its name for `--hardware`.
    pub name: &'static str,
    /// Floating-point operations per second of one device (for a CPU: of one thread) in full precision, tf32 and bf16.
    pub flops_per_second: [f64; 3],
    /// Bytes of memory read or written per second.
    pub memory_bytes_per_second: f64,
    /// Bytes per second between devices.
    pub link_bytes_per_second: f64,
    /// Bytes per second between nodes, for each device.
    pub network_bytes_per_second: f64,
    /// The time of a short message between nodes.
    pub network_seconds: f64,
    /// The devices of a node.
    pub devices_per_node: usize,
    /// Bytes per second between a device and the host.
    pub host_bytes_per_second: f64,
    /// The fixed cost of an instruction in seconds.
    pub step_seconds: f64,
    /// Whether the arithmetic rate is per thread of a device.
    pub per_thread: bool,
}

/// The known machines. The rates of `cpu` are those of one AVX-512 core at 80 % of its peak; those of `h200` are
/// published measurements of large bf16 products and copies, and of copies over PCIe 5; its nodes have eight GPUs, each with a network
/// card of 400 Gbit/s, as NVIDIA builds them.
pub const HARDWARE: &[Hardware] = &[
    Hardware {
        name: "cpu",
        flops_per_second: [2.0e11; 3],
        memory_bytes_per_second: 2.0e10,
        link_bytes_per_second: 1.0e10,
        network_bytes_per_second: 1.0e10,
        network_seconds: 2e-6,
        devices_per_node: usize::MAX,
        host_bytes_per_second: 1.0e10,
        step_seconds: 2e-6,
        per_thread: true,
    },
    Hardware {
        name: "h200",
        flops_per_second: [6.0e13, 4.0e14, 7.9e14],
        memory_bytes_per_second: 4.3e12,
        link_bytes_per_second: 4.5e11,
        network_bytes_per_second: 5e10,
        network_seconds: 5e-6,
        devices_per_node: 8,
        host_bytes_per_second: 5.5e10,
        step_seconds: 3e-6,
        per_thread: false,
    },
];
