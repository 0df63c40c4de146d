//! Code that several test files share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod launched;
pub mod outcome;
pub mod runs;

use peristyle::data::{self, Batches, Preparation};
use peristyle::device::Clock;
use peristyle::network::Network;
use peristyle::placement::Variant;
use peristyle::program::Session;
use peristyle::train::{DataPolicy, Job, exchange};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The meshes on which networks are compared: (data, columns).
pub const MESHES: [(usize, usize); 6] = [(1, 1), (1, 2), (2, 1), (4, 1), (2, 2), (1, 4)];

/// Returns the path of a file in the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the settings that put a configuration on a mesh of CPU devices with one thread each.
pub fn on_mesh((data, columns): (usize, usize)) -> Vec<String> {
    vec![
        format!("devices.use=\"cpu*{}\"", data * columns),
        format!("devices.mesh={{ data = {data}, columns = {columns} }}"),
        "devices.threads=1".to_string(),
    ]
}

/// A configuration with its session and batches.
pub struct Training {
    pub job: Job,
    pub session: Session,
    pub preparation: Preparation,
    pub batches: Batches,
    pub batch: data::Batch,
    pub step: u64,
}

impl Training {
    pub fn new(config: &str, sets: &[String]) -> Training {
        let (job, plan) = Job::open(&file(config), sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{e}"));
        let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
        let mut session = job.session(plan).unwrap_or_else(|e| panic!("{e}"));
        let preparation = Preparation::of(&splits);
        session.prepare(preparation.clone()).unwrap();
        let batches = Batches::train(&splits).prepared_by(session.preparer());
        let batch = batches.empty();
        exchange::initialise(&mut session, job.config.seed).unwrap();
        Training { job, session, preparation, batches, batch, step: 0 }
    }

    /// Submits one update to the devices.
    fn submit(&mut self) {
        let (epoch, index) = self.batches.plan().at(self.step);
        self.batches.fill(epoch, index, &mut self.batch).unwrap();
        self.step += 1;
        let clock = Clock { step: self.step, epoch, lr: self.job.lr(self.step, epoch), row: 0 };
        let variant = Variant::train(self.batch.rows);
        self.session.submit(variant, &mut self.batch, clock).unwrap();
    }

    /// Makes one update and returns its loss.
    pub fn update(&mut self) -> f64 {
        self.submit();
        self.session.finish().unwrap().loss
    }

    /// Makes updates, submitting each before the previous one is finished, and returns their losses.
    pub fn losses_ahead(&mut self, updates: usize) -> Vec<f64> {
        assert_eq!(self.session.depth(), 2, "only GPUs run ahead");
        self.submit();
        let before: Vec<f64> = (1..updates)
            .map(|_| {
                self.submit();
                self.session.finish().unwrap().loss
            })
            .collect();
        before.into_iter().chain([self.session.finish().unwrap().loss]).collect()
    }

    /// Makes updates and returns their losses.
    pub fn losses(&mut self, updates: usize) -> Vec<f64> {
        (0..updates).map(|_| self.update()).collect()
    }
}

/// Builds the network of a configuration's text.
pub fn network(text: &str) -> Result<Arc<Network>, String> {
    let parsed = peristyle::config::from_text("test.toml", text, Path::new("."), &[]);
    peristyle::network::complete(parsed).map(|(_, network)| Arc::new(network)).map_err(|e| e.to_string())
}
