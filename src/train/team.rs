//! What the processes of a run tell each other besides tensors: whether each step of the start worked, and that they do the same.

use crate::cluster::Team;
use crate::config::{Config, learned_length, learned_settings};
use crate::data::{DataRecord, Place};
use crate::error::{Error, Result};
use crate::program::Plan;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Returns the result of every process as the same one: if it is an error anywhere, the error of the first process that has one.
///
/// # Errors
/// That error, or if the processes cannot exchange data.
pub fn agree<T>(team: Option<&Arc<Team>>, own: Result<T>) -> Result<T> {
    match team {
        Some(team) => team.agree(own),
        None => own,
    }
}

/// Returns to all processes a value of the first one, which alone has it.
///
/// # Errors
/// If the processes cannot exchange data.
pub fn from_first<T: Serialize + DeserializeOwned>(team: &Arc<Team>, own: Option<&T>) -> Result<T> {
    let own = own.map_or(String::new(), |own| serde_json::to_string(own).expect("it can be written"));
    let all = team.gather(&own)?;
    serde_json::from_str(&all[0]).map_err(|error| Error::Run(format!("what process 0 says cannot be read: {error}")))
}

/// Returns to all processes how a save by the first of them ended.
///
/// # Errors
/// If the processes cannot exchange data.
pub(super) fn first(team: &Arc<Team>, own: Result<PathBuf>) -> Result<Result<PathBuf>> {
    let text = match &own {
        Ok(path) => format!("0{}", path.display()),
        Err(Error::NotFinite(message)) => format!("1{message}"),
        Err(error) => format!("2{}", error.with_causes()),
    };
    let all = team.gather(&text)?;
    if team.rank() == 0 {
        return Ok(own);
    }
    let (kind, text) = all[0].split_at(1);
    Ok(match kind {
        "0" => Ok(PathBuf::from(text)),
        "1" => Err(Error::NotFinite(text.to_string())),
        _ => Err(Error::Run(text.to_string())),
    })
}

/// Returns the sums of values over all processes.
///
/// # Errors
/// If the processes cannot exchange data.
pub(super) fn total(team: Option<&Arc<Team>>, own: Vec<f64>) -> Result<Vec<f64>> {
    match team {
        Some(team) => team.engine().start_sum(own).wait(),
        None => Ok(own),
    }
}

/// Returns the value of each row of a batch, which some processes know, all of them the same.
///
/// # Errors
/// If the processes cannot exchange data.
pub(super) fn of_rows(team: Option<&Arc<Team>>, own: &[Option<f32>]) -> Result<Vec<f32>> {
    let values = own.iter().map(|value| f64::from(value.unwrap_or(0.0)));
    let counts = own.iter().map(|value| f64::from(u8::from(value.is_some())));
    let sums = total(team, values.chain(counts).collect())?;
    let (values, counts) = sums.split_at(own.len());
    // A double has room for the sum of 2^29 equal floats, which is exact.
    Ok(values.iter().zip(counts).map(|(value, count)| (value / count) as f32).collect())
}

/// Returns why a run cannot be shared by several processes, if it cannot.
pub(super) fn refusal(config: &Config) -> Option<String> {
    if let Some(method) = &config.optimizer.method {
        return Some(format!("[optimizer]: method = \"{}\" is for one process; use a chain", method.key()));
    }
    None
}

/// What all processes of a run must have in common, by name.
fn common(config: &Config, data: &DataRecord, plan: &str, (step, place): (u64, Place)) -> Vec<(String, String)> {
    let mut all = vec![
        ("the version of peristyle".to_string(), env!("CARGO_PKG_VERSION").to_string()),
        ("the build of peristyle".to_string(), build()),
        ("seed".to_string(), config.seed.to_string()),
    ];
    // The contents of the data count, not their paths.
    let is_source = |key: &str| {
        ["data.train", "data.test"].iter().any(|source| key == *source || key.starts_with(&format!("{source}.")))
    };
    all.extend(learned_settings(&config.resolved).into_iter().filter(|(key, _)| !is_source(key)));
    all.extend(learned_length(&config.resolved));
    let sets = [("the training data", Some(&data.train)), ("the test data", data.test.as_ref())];
    for (name, set) in sets {
        all.push((name.to_string(), set.map_or("none".to_string(), |set| set.in_common())));
    }
    all.push(("the normalisation".to_string(), format!("{:?}", data.normalization)));
    all.push((
        "the update at which it starts".to_string(),
        format!("{step} (sample {} of epoch {})", place.sample, place.epoch),
    ));
    all.push(("the mesh".to_string(), config.devices.mesh.to_string()));
    all.push(("the plan".to_string(), plan.to_string()));
    all
}

/// Returns a hash of this program's file: other builds of a version may round differently.
fn build() -> String {
    let hash = std::fs::read("/proc/self/exe").map(|bytes| format!("{:016x}", xxh3_64(&bytes)));
    hash.unwrap_or_else(|_| "unknown".to_string())
}

/// Checks that all processes run the same program on the same data; `plan` is its hash.
///
/// # Errors
/// The first difference, or if the processes cannot exchange data.
pub(super) fn compare(
    team: &Arc<Team>,
    config: &Config,
    plan: &str,
    data: &DataRecord,
    at: (u64, Place),
) -> Result<()> {
    let own = common(config, data, plan, at);
    let all = team.gather(&serde_json::to_string(&own).expect("texts can be written"))?;
    let read = |text: &String| -> Vec<(String, String)> { serde_json::from_str(text).unwrap_or_default() };
    let lead = read(&all[0]);
    for (process, other) in all.iter().enumerate().skip(1) {
        let other = read(other);
        let names = lead.iter().chain(&other).map(|(name, _)| name);
        let value = |all: &[(String, String)], name: &str| {
            all.iter().find(|(own, _)| own == name).map_or("not there".to_string(), |(_, value)| value.clone())
        };
        let differs =
            names.map(|name| (name, value(&lead, name), value(&other, name))).find(|(_, lead, other)| lead != other);
        if let Some((name, lead, other)) = differs {
            return Err(Error::Usage(format!(
                "{name}: {lead} in process 0, {other} in process {process}; start all processes with the same program, configuration and data"
            )));
        }
    }
    Ok(())
}

/// Returns a hash of the programs of a plan.
pub(super) fn hash(plan: &Plan) -> String {
    struct Hasher(Xxh3);
    impl Write for Hasher {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut hasher = Hasher(Xxh3::new());
    for program in &plan.programs {
        let written = write!(hasher, "{:?}{:?}", program.variant, program.instructions);
        written.expect("a hash takes any text");
    }
    format!("{:016x}", hasher.0.digest())
}
