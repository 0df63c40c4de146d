//! Reads the flight records of a job, and says which process held up the others. How it finds out is in `verdict.rs`.

use super::records::Records;
use super::verdict::{collective, verdict};
use crate::cluster::words::name_ranks;
use crate::error::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// The width of the column of collectives.
const WIDTH: usize = 48;

/// Returns a table with a line for each process, and a sentence that names the process which held up the others.
///
/// # Errors
/// If the directory cannot be read, or has no flight records.
pub fn report(dir: &Path) -> Result<String> {
    let records = Records::read(dir)?;
    let mut lines = vec![row(["rank", "host", "last collective begun", "state", "step", "waited"])];
    lines.extend((0..records.processes).map(|rank| records.line(rank)));
    let wrong = |(rank, why): (&usize, &String)| format!("the record of process {rank} cannot be used: {why}");
    lines.extend(records.damaged.iter().map(wrong));
    let mut reasons: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for record in records.whole.values() {
        reasons.entry(&record.reason).or_default().push(record.rank);
    }
    lines.extend(reasons.iter().map(|(reason, ranks)| format!("recorded by {}: {}", name_ranks(ranks), plain(reason))));
    lines.push(verdict(&records));
    Ok(lines.join("\n") + "\n")
}

impl Records {
    /// Returns the line of a process in the table.
    fn line(&self, rank: usize) -> String {
        let number = rank.to_string();
        let Some(record) = self.whole.get(&rank) else {
            let state = if self.damaged.contains_key(&rank) { "damaged" } else { "no record" };
            return row([&number, "-", "-", state, "-", "-"]);
        };
        let waits = record.collectives.iter().find(|entry| entry.ended.is_none());
        let (entry, state) = match (waits, record.collectives.last()) {
            (Some(entry), _) => (Some(entry), "waits"),
            (None, Some(entry)) => (Some(entry), "ended"),
            (None, None) => (None, "none begun"),
        };
        let name = entry.map_or("-".to_string(), |entry| format!("{}, {} bytes", collective(entry), entry.bytes));
        let waited = waits.map_or("-".to_string(), |entry| format!("{:.1} s", (record.seconds - entry.begun).max(0.0)));
        row([&number, &shortened(&record.host, 16), &name, state, &record.step.to_string(), &waited])
    }
}

fn row([rank, host, name, state, step, waited]: [&str; 6]) -> String {
    format!("{rank:>4}  {host:<16}  {:<WIDTH$}  {state:<10}  {step:>8}  {waited:>10}", shortened(name, WIDTH))
}

/// Returns text in which control characters are escaped.
fn plain(text: &str) -> String {
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Returns text that fits a column.
fn shortened(text: &str, width: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(width) {
        None => text,
        Some(_) => text.chars().take(width - 2).chain("..".chars()).collect(),
    }
}
