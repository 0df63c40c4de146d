//! The collectives and their algorithms.

/// The kind of a redistribution along one mesh axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Partial to replicated, in place: every device gets the sum.
    AllReduce,
    /// Partial to sharded: every device gets its part of the sum.
    ReduceScatter,
    /// Sharded to replicated: every device gets all parts.
    AllGather,
    /// Replicated to sharded: every device keeps its part, without communication.
    Slice,
    /// Sharded along one dim to sharded along another.
    AllToAll,
}

impl std::fmt::Display for Collective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Collective::AllReduce => "all-reduce",
            Collective::ReduceScatter => "reduce-scatter",
            Collective::AllGather => "all-gather",
            Collective::Slice => "slice",
            Collective::AllToAll => "all-to-all",
        })
    }
}

/// Which collectives NCCL carries out; others follow the algorithm, or MPI between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NcclUse {
    /// None.
    #[default]
    Never,
    /// Those between processes.
    Between,
    /// All.
    Always,
}

/// The algorithm of a collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CollectiveAlgorithm {
    /// For devices that share memory: each sums its part over all devices and writes it to all.
    #[default]
    OnePass,
    /// Data moves only between neighbours.
    Ring,
}

impl std::fmt::Display for CollectiveAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CollectiveAlgorithm::OnePass => "one_pass",
            CollectiveAlgorithm::Ring => "ring",
        })
    }
}
