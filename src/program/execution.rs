//! How the instructions of a program are executed.

/// How the work of a program gets to GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphs {
    /// Captured once as a graph, which every step launches.
    Captured,
    /// Issued anew in every step.
    None,
}

impl Default for Graphs {
    /// A graph, unless the variable `PERISTYLE_NO_GRAPH` is set.
    fn default() -> Self {
        if std::env::var_os("PERISTYLE_NO_GRAPH").is_some() { Graphs::None } else { Graphs::Captured }
    }
}

/// In which order the steps of a program run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// On the queues of every device, each step after the events that it waits for.
    Queues,
    /// One step after another in the order of the list, without waits: the reference for the queues, and the first
    /// thing to try when a result looks wrong.
    Serial,
}

impl Default for Execution {
    /// On queues, unless the variable `PERISTYLE_SERIAL` is set.
    fn default() -> Self {
        if std::env::var_os("PERISTYLE_SERIAL").is_some() { Execution::Serial } else { Execution::Queues }
    }
}
