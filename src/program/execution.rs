//! Settings of how the instructions of a program are executed.

/// How GPUs receive the work of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graphs {
    /// Captured once as a graph, which is launched in every step.
    Captured,
    /// Issued again in every step.
    None,
}

impl Default for Graphs {
    /// Returns `Captured`, unless the environment variable `PERISTYLE_NO_GRAPH` is set.
    fn default() -> Self {
        if std::env::var_os("PERISTYLE_NO_GRAPH").is_some() { Graphs::None } else { Graphs::Captured }
    }
}

/// The order in which the instructions of a program run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// On the queues of every device, each instruction after the events that it waits for.
    Queues,
    /// One after another in the order of the list, without waits: the reference for the queues, and the first thing to
    /// try when a result looks wrong.
    Serial,
}

impl Default for Execution {
    /// Returns `Queues`, unless the environment variable `PERISTYLE_SERIAL` is set.
    fn default() -> Self {
        if std::env::var_os("PERISTYLE_SERIAL").is_some() { Execution::Serial } else { Execution::Queues }
    }
}
