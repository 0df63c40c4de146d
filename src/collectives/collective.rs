//! The collectives and their algorithms.

/// What a redistribution along one mesh axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Partial to replicate, in place: every device gets the sum.
    AllReduce,
    /// Partial to shard: every device gets its part of the sum.
    ReduceScatter,
    /// Shard to replicate: every device gets all parts.
    AllGather,
    /// Replicate to shard: every device keeps its part. No communication.
    Slice,
    /// Shard of one dimension to shard of another.
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

/// How a collective is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CollectiveAlgorithm {
    /// Devices share memory: each sums its part from all and writes it to all.
    #[default]
    OnePass,
    /// Neighbour to neighbour.
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
