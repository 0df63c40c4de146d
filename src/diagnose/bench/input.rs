//! How fast training data are read, decoded and prepared.

use super::spread::{Effort, Spread};
use super::workload::load_average;
use crate::config;
use crate::data::{self, Batches, Destination, Loader, Place, Sample, SampleSets};
use crate::error::{Error, Result};
use crate::network::CheckedConfig;
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// The images of one round of measurements, at most.
const ROUND: usize = 64;

/// The speed of a stage of reading data, or of all together.
#[derive(Debug, Clone, Serialize)]
pub struct InputStage {
    /// `read`, `decode`, `prepare`, `all` of them, or `loader`, which does all in threads beside the one that takes batches.
    pub stage: &'static str,
    /// The threads.
    pub threads: usize,
    /// Images per second: the median over the repeats.
    pub images_per_second: f64,
    /// The smallest of all repeats.
    pub images_per_second_min: f64,
    /// The largest of all repeats.
    pub images_per_second_max: f64,
    /// Images per second and thread.
    pub images_per_thread: f64,
    /// Megabytes of files per second.
    pub mb_per_second: f64,
}

/// The speed of the training data of a configuration.
#[derive(Debug, Clone, Serialize)]
pub struct InputSpeed {
    /// The name of the configuration.
    pub name: String,
    /// The images of the training set.
    pub images: usize,
    /// The height, width and channels of an image of a batch.
    pub shape: [usize; 3],
    /// The load average of the machine before.
    pub load_average: Option<f64>,
    /// The stages.
    pub stages: Vec<InputStage>,
}

/// Measures how fast the training data of a configuration are read: by one thread, stage by stage, and by the loader with one and with `threads`
/// threads. The stages are reading files; decoding; and preparing: resizing, cutting, augmentation, mixing,
/// normalisation and whitening. Files have been read before, as those of a small data set are after its first epoch.
///
/// # Errors
/// When the configuration or its data cannot be used.
pub fn input(path: &Path, sets: &[String], threads: usize, effort: Effort) -> Result<InputSpeed> {
    let checked = CheckedConfig::new(config::read(path, sets)?);
    let Some(config) = checked.config else { return Err(Error::Config(checked.problems.into())) };
    let sets = data::open(&config.data, config.seed, &config.base)?;
    let load_average = load_average();
    // Half of the time is for the stages, and half for the loader.
    let share = effort.seconds / (2 * effort.repeats) as f64;
    let (rates, bytes) = stages(&sets, effort.repeats, share)?;
    let stage = |stage, threads: usize, rates: Vec<f64>| {
        let Spread { median, least, most } = Spread::of(rates);
        InputStage {
            stage,
            threads,
            images_per_second: median,
            images_per_second_min: least,
            images_per_second_max: most,
            images_per_thread: median / threads as f64,
            mb_per_second: median * bytes / 1e6,
        }
    };
    let names = ["read", "decode", "prepare", "all"];
    let mut stages: Vec<InputStage> = names.into_iter().zip(rates).map(|(name, rates)| stage(name, 1, rates)).collect();
    let mut workers = vec![1, threads];
    workers.dedup();
    for workers in workers {
        let to = Destination { workers, ..Destination::host() };
        let mut loader = Loader::train(&sets, to, Place::default(), usize::MAX)?;
        let mut next = || loader.next_batch().map(|batch| batch.map_or(0, |batch| batch.rows));
        // Batches that were computed ahead.
        (0..3).try_for_each(|_| next().map(drop))?;
        let mut rates = Vec::new();
        for _ in 0..effort.repeats {
            let (begin, mut rows) = (Instant::now(), 0);
            while rows == 0 || begin.elapsed().as_secs_f64() < share / 2.0 {
                rows += next()?;
            }
            rates.push(rows as f64 / begin.elapsed().as_secs_f64());
        }
        stages.push(stage("loader", workers, rates));
    }
    let (images, shape) = (sets.train.samples.len(), config.data.shape(sets.shape()).unwrap_or(sets.shape()));
    Ok(InputSpeed { name: config.name, images, shape, load_average, stages })
}

/// Returns the images per second of each stage and of all together in each repeat, and the bytes of an image's file.
fn stages(sets: &SampleSets, repeats: usize, share: f64) -> Result<([Vec<f64>; 4], f64)> {
    let (data, samples) = (&sets.train.data, &sets.train.samples);
    let rows = ROUND.min(samples.len());
    let mut batches = Batches::train(&SampleSets { batch: rows, ..sets.clone() });
    let (mut batch, mut sample) = (batches.empty(), Sample::default());
    let (mut rates, mut bytes, mut images): ([Vec<f64>; 4], _, _) = (Default::default(), 0, 0);
    let mut place = Place::default();
    for _ in 0..repeats {
        let (begin, mut sums, mut count) = (Instant::now(), [0.0; 3], [0; 3]);
        while count[0] == 0 || begin.elapsed().as_secs_f64() < share {
            // All stages read the same files, which are in memory from the first on.
            batches.fill_at(place, &mut batch)?;
            let chosen: Vec<usize> = (0..batch.rows).map(|row| batches.sample(batch.first + row) as usize).collect();
            let mut time = |stage: usize, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
                let begin = Instant::now();
                work()?;
                sums[stage] += begin.elapsed().as_secs_f64();
                count[stage] += chosen.len();
                Ok(())
            };
            time(0, &mut || {
                chosen.iter().try_for_each(|&index| {
                    bytes += data.samples.fetch(index, &mut sample)?;
                    Ok(())
                })
            })?;
            time(1, &mut || chosen.iter().try_for_each(|&index| data.samples.read(index, &mut sample).map(drop)))?;
            time(2, &mut || batches.fill_at(place, &mut batch))?;
            images += chosen.len();
            place = batches.plan().after(place);
        }
        let [read, decoded, all] = [0, 1, 2].map(|stage| sums[stage] / count[stage] as f64);
        // Data in memory are neither read nor decoded.
        let times = [read, decoded - read, all - decoded, all];
        rates.iter_mut().zip(times).for_each(|(rates, time)| rates.push(1.0 / time.max(1e-9)));
    }
    Ok((rates, bytes as f64 / images.max(1) as f64))
}
