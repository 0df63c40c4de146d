//! The events of a run, and their destinations.

use crate::error::Result;
use crate::layers::MetricKind;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// The value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricValue {
    /// Its name: `top1`, or `aux.top1`.
    pub name: Arc<str>,
    /// Its mean over the samples, or the fraction of samples that it counts.
    pub value: f64,
    /// What it is.
    pub kind: MetricKind,
}

/// Writes metrics as fields by their names.
fn as_fields<S: Serializer>(metrics: &[MetricValue], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().map(|metric| (&*metric.name, metric.value)))
}

/// A layer as it was during an update. What it does not have is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WatchedLayer {
    /// Its name.
    pub name: String,
    /// The norm of the gradients of its parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// |w(t) - w(t - 1)| / |w(t - 1)| of its parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_ratio: Option<f64>,
    /// The cosine of the angle between this update of its parameters and the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// The share of its units that are 0 for all samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead: Option<f64>,
    /// The share of its outputs that are in the flat parts of its function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturated: Option<f64>,
}

/// The process whose updates take longest, of several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlowestProcess {
    /// Its number.
    pub process: usize,
    /// The name of its host; empty if it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// By what share it works longer for an update than the median of the processes: 0.1 is 10 %.
    pub behind: f64,
}

/// What became of the time of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct RunSummary {
    /// How often the run was resumed.
    pub restarts: u64,
    /// The seconds of all updates that the run has made, without those that were lost and made again.
    pub training_seconds: f64,
    /// The seconds since the run was started first.
    pub total_seconds: f64,
    /// The seconds of an update in which devices waited for each other's data with nothing to compute, on average since the last start;
    /// none with one device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_communication: Option<f64>,
    /// The process whose updates took longest since the last start, of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest: Option<SlowestProcess>,
}

/// An event of a run. The names of variants and fields are those of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEvent {
    /// The run starts or resumes.
    Start {
        /// The run's name.
        name: String,
        /// Updates already done: 0, or those of the checkpoint that the run resumes from.
        step: u64,
        /// The devices, as the user names them.
        devices: Vec<String>,
        /// The mesh, as data x columns.
        mesh: String,
        /// Number of values in all parameters.
        parameters: u64,
        /// Updates that the run makes.
        steps: u64,
        /// Training samples.
        samples: u64,
        /// Classes of the samples; 0 if they have none.
        classes: u64,
        /// The seed.
        seed: u64,
        /// The name of this host.
        host: String,
        /// Processes that train together.
        processes: u64,
        /// The precision, as written in the configuration.
        precision: String,
        /// Threads of each device.
        threads: usize,
        /// The version of peristyle.
        version: String,
    },
    /// An update was made.
    Step {
        /// Its number, from 1.
        step: u64,
        /// The epoch, from 0.
        epoch: u64,
        /// Mean loss of the global batch, before the update: of several losses, their weighted sum.
        loss: f64,
        /// The metrics of the batch besides it, each as a field of its name.
        #[serde(flatten, serialize_with = "as_fields")]
        metrics: Vec<MetricValue>,
        /// The learning rate.
        lr: f64,
        /// Training images per second since the previous step event.
        images_per_second: f64,
        /// Seconds since the run started or resumed.
        seconds: f64,
        /// Seconds that it waited for its batch.
        input_wait: f64,
        /// Whether the update was skipped because the loss or a gradient is not finite.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        skipped: bool,
    },
    /// The network was evaluated on a set of images.
    Eval {
        /// Updates done.
        step: u64,
        /// The set: `test` or `validation`.
        split: String,
        /// Mean loss: of several losses, their weighted sum.
        loss: f64,
        /// The metrics besides it, each as a field of its name: of a classifier, `top1` and `top5`.
        #[serde(flatten, serialize_with = "as_fields")]
        metrics: Vec<MetricValue>,
        /// Number of images.
        images: u64,
    },
    /// The run was watched during an update.
    Watch {
        /// The update.
        step: u64,
        /// The norm of the gradients of all parameters.
        gradient_norm: f64,
        /// |w(t) - w(t - 1)| / |w(t - 1)| of all weights: what the update changed.
        #[serde(skip_serializing_if = "Option::is_none")]
        update_ratio: Option<f64>,
        /// The cosine of the angle between this update and the one before.
        #[serde(skip_serializing_if = "Option::is_none")]
        cosine: Option<f64>,
        /// The layers that have parameters, or of which units may be dead or values saturated.
        layers: Vec<WatchedLayer>,
        /// Whether it belongs in the log.
        #[serde(skip)]
        in_log: bool,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Updates done.
        step: u64,
        /// The checkpoint's folder inside the run directory.
        path: String,
    },
    /// A note for the user, logged once: a setting or a file was skipped, changed or replaced by a fallback.
    Note {
        /// The text of the note.
        text: String,
    },
    /// The run ended.
    End {
        /// Updates done.
        steps: u64,
        /// Seconds since the run started or resumed.
        seconds: f64,
        /// Seconds of these in which updates waited for their batches.
        input_wait: f64,
        /// The time of all starts together.
        #[serde(flatten)]
        summary: RunSummary,
        /// The reason: `finished`, `interrupted` or `failed`.
        reason: String,
        /// The error of a failed run.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// A destination of events.
pub trait Sink: Send {
    /// Writes an event.
    ///
    /// # Errors
    /// When it cannot be written.
    fn emit(&mut self, event: &RunEvent) -> Result<()>;

    /// Flushes all events to the disk, if the sink guarantees that they survive a power cut.
    ///
    /// # Errors
    /// When it cannot be written.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}
