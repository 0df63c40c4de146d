//! The rings and trees of NCCL, for estimates: how fast a group of GPUs exchanges data, within a node and between nodes.

use super::hardware::Hardware;
use crate::collectives::Collective;
use std::collections::BTreeMap;
use std::fmt;

/// A group of GPUs that NCCL connects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ring {
    /// The number of GPUs.
    pub members: usize,
    /// The nodes that they are on.
    pub nodes: usize,
    /// The rate at which data passes through every GPU.
    pub bytes_per_second: f64,
    /// The time of a step from one GPU to the next, at the slowest place.
    pub hop_seconds: f64,
}

impl Ring {
    /// Returns the ring of some devices of a mesh, of which consecutive ones fill nodes of so many.
    pub fn of(devices: impl Iterator<Item = usize>, of_node: usize, hardware: &Hardware) -> Self {
        let mut nodes: BTreeMap<usize, usize> = BTreeMap::new();
        devices.for_each(|device| *nodes.entry(device / of_node).or_default() += 1);
        let members = nodes.values().sum();
        if nodes.len() <= 1 {
            let (bytes_per_second, hop_seconds) = (hardware.link_bytes_per_second, hardware.step_seconds);
            return Ring { members, nodes: nodes.len(), bytes_per_second, hop_seconds };
        }
        // Between nodes, each GPU has a network card, and NCCL has a ring through each of those of a group.
        let cards = nodes.values().min().copied().unwrap_or(1) as f64;
        let network = cards * hardware.network_bytes_per_second;
        Ring {
            members,
            nodes: nodes.len(),
            bytes_per_second: network.min(hardware.link_bytes_per_second),
            hop_seconds: hardware.network_seconds,
        }
    }

    /// Returns the seconds of a collective on a tensor of so many bytes: of all parts, where devices hold parts.
    pub fn seconds(&self, collective: Collective, bytes: f64) -> f64 {
        let n = self.members as f64;
        if self.members < 2 {
            return 0.0;
        }
        let passes = if collective == Collective::AllReduce { 2.0 } else { 1.0 };
        let ring = passes * (n - 1.0) * (bytes / n / self.bytes_per_second + self.hop_seconds);
        // Up a tree and down again, which has fewer steps.
        let tree = 2.0 * (n.log2().ceil() * self.hop_seconds + bytes / self.bytes_per_second);
        if collective == Collective::AllReduce { ring.min(tree) } else { ring }
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ring { members, nodes, bytes_per_second, .. } = self;
        let place = if *nodes == 1 { "on a node".to_string() } else { format!("over {nodes} nodes") };
        write!(f, "{members} GPUs {place}, {:.0} GB/s", bytes_per_second / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hardware::HARDWARE;
    use super::*;

    #[test]
    fn rings_have_the_rate_of_their_slowest_link() {
        let h200 = HARDWARE.iter().find(|hardware| hardware.name == "h200").unwrap();
        let inside = Ring::of(0..8, 8, h200);
        assert_eq!((inside.members, inside.nodes, inside.bytes_per_second), (8, 1, 4.5e11));
        // One GPU of each node: one card each.
        let across = Ring::of((0..64).step_by(8), 8, h200);
        assert_eq!((across.members, across.nodes, across.bytes_per_second), (8, 8, 5e10));
        // All GPUs of two nodes: eight cards.
        let both = Ring::of(0..16, 8, h200);
        assert_eq!((both.nodes, both.bytes_per_second), (2, 4e11));
        // 2 (n - 1) / n bytes / rate, and 14 steps.
        let seconds = inside.seconds(Collective::AllReduce, 4.5e9);
        assert!((seconds - (2.0 * 7.0 / 8.0 * 0.01 + 14.0 * h200.step_seconds)).abs() < 1e-9, "{seconds}");
        assert!((inside.seconds(Collective::AllGather, 4.5e9) - (seconds / 2.0)).abs() < 1e-9);
        // Few bytes take the tree.
        let small = Ring::of(0..64, 8, h200).seconds(Collective::AllReduce, 1e3);
        assert!(small < 13.0 * h200.network_seconds, "{small}");
        assert_eq!(both.to_string(), "16 GPUs over 2 nodes, 400 GB/s");
    }
}
