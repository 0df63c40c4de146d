//! The keys of the sections about a run: `[train]` and `[cluster]`.

use super::key::KeyDefault::{Chosen, Value};
use super::key::{SectionKey, key, within};

/// The keys, in the order of the reference.
pub(super) const RUN_KEYS: &[SectionKey] = &[
    within(
        "at least 1",
        key(
            "train.epochs",
            "integer",
            Chosen("`epochs` or `steps` is required"),
            "10 (or steps = 1000)",
            "The length of the run in epochs.",
        ),
    ),
    within(
        "at least 1",
        key(
            "train.steps",
            "integer",
            Chosen("`epochs` or `steps` is required"),
            "1000",
            "The length of the run in updates.",
        ),
    ),
    within(
        "at least 1",
        key(
            "train.accumulate",
            "integer",
            Value("1"),
            "4",
            "The parts into which each batch is divided, whose gradients are accumulated before the update.",
        ),
    ),
    within(
        "a number of at least 0 and below 1",
        key(
            "train.ema",
            "number",
            Chosen("no averages"),
            "0.9999",
            "The fraction of the averages of the weights that is kept from step to step. Evaluations use the averages.",
        ),
    ),
    key(
        "train.evaluate",
        "interval",
        Value("\"1 epoch\""),
        "\"500 steps\"",
        "How often the network is evaluated: epochs, steps or `never`.",
    ),
    key(
        "train.max_time",
        "time",
        Chosen("none"),
        "\"2 hours\"",
        "The time after which the run writes a checkpoint and ends with exit code 75, to be resumed.",
    ),
    key(
        "train.on_nonfinite",
        "`stop` or `skip`",
        Value("\"stop\""),
        "\"skip\"",
        "What follows if the loss or a gradient is not finite: the run stops, or the update is skipped.",
    ),
    within(
        "at least 1",
        key("train.max_skips", "integer", Value("10"), "3", "How many updates in a row may be skipped."),
    ),
    key(
        "train.checkpoint",
        "table",
        Value("{}"),
        "{ every = \"10 minutes\" }",
        "When checkpoints are written, and which are kept.",
    ),
    key(
        "train.checkpoint.every",
        "interval or time",
        Value("\"1 epoch\""),
        "\"10 minutes\"",
        "How often a checkpoint is written.",
    ),
    within(
        "at least 1",
        key("train.checkpoint.keep", "integer", Value("3"), "1", "How many of the latest checkpoints are kept."),
    ),
    key("train.checkpoint.keep_best", "integer", Value("0"), "1", "How many of the best checkpoints are kept besides."),
    key(
        "train.checkpoint.best_by",
        "text",
        Chosen("of the validation data, otherwise of the test data: `top1` of a classifier, `loss` of other networks"),
        "\"test.loss\"",
        "The result by which checkpoints are compared: `validation` or `test`, a dot, and `loss` or a metric.",
    ),
    key(
        "train.checkpoint.on_error",
        "`retry` or `stop`",
        Value("\"retry\""),
        "\"stop\"",
        "What follows if a checkpoint or a line of the metrics cannot be written: the next attempt, or the end of the run.",
    ),
    key(
        "train.watch",
        "table",
        Chosen("nothing is watched"),
        "{ every = \"100 steps\" }",
        "How often gradients, updates and activations of every layer are written to the metrics; warns of what goes wrong.",
    ),
    key(
        "train.watch.every",
        "interval",
        Value("\"100 steps\""),
        "\"1 epoch\"",
        "How often the run is watched, during one update and the one before: epochs or steps.",
    ),
    key("train.watch.log", "boolean", Value("false"), "true", "Whether the log has what is written, too."),
    key("cluster.rank", "integer", Chosen("the launcher says so"), "0", "The number of this process, from 0."),
    within(
        "at least 1",
        key(
            "cluster.processes",
            "integer",
            Chosen("the launcher says so"),
            "4",
            "The number of processes. With 1, a process trains on its own, whatever a launcher says; `plan` prints the program of several.",
        ),
    ),
    key(
        "cluster.address",
        "text",
        Chosen("the launcher says so"),
        "\"node1:29500\"",
        "The host and port at which process 0 listens, if no launcher says so.",
    ),
    key(
        "cluster.timeout",
        "time",
        Value("\"10 s\""),
        "\"30 s\"",
        "How long a process may give no sign of life before the job ends.",
    ),
    key(
        "cluster.requeue",
        "boolean",
        Value("false"),
        "true",
        "Whether a job of Slurm is queued again after the checkpoint of a signal, of `train.max_time`, or of the end of its time, two minutes before that; start it with `--resume auto`.",
    ),
    key(
        "cluster.start_timeout",
        "time",
        Value("\"30 s\""),
        "\"5 minutes\"",
        "How long the start of all processes may take.",
    ),
    key(
        "cluster.collective_timeout",
        "time",
        Value("\"10 minutes\""),
        "\"1 hour\"",
        "How long a collective may take before the job ends; a checkpoint that is being written does not count.",
    ),
];
