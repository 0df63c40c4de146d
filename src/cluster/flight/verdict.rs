//! Who held up the others, by the flight records of their processes.
//!
//! A process numbers the collectives that it takes part in itself, so with several groups of processes, or with neighbours that exchange
//! data, two processes have different numbers for the same collective, and several threads of a process may begin theirs in any order.
//! Hence numbers are not compared. Two processes mean the same collective if each counts the other among those that take part, and name
//! and step are the same; of several such within a step, the first of one belongs to the first of the other, and so on. A process that
//! has no such entry has not begun the collective, unless the collective is so old that its record may have forgotten it.
//!
//! Who has begun a collective that has not ended waits for all that have not begun it. To blame is, in this order: who did the same
//! collective differently; who left no record, since it was killed; who is waited for and waits for nobody, since it never came; and if
//! those that are waited for all wait themselves, they did different collectives where they should have done the same.

use super::recorder::{EXCHANGE, FlightEntry, FlightRecord};
use super::records::Records;
use crate::cluster::words::name_ranks;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The collectives of each process by name and step, as indices into its record.
type Places<'a> = BTreeMap<usize, HashMap<(&'a str, u64), Vec<usize>>>;

/// A collective in which a process waits.
struct Wait<'a> {
    record: &'a FlightRecord,
    entry: &'a FlightEntry,
    /// The processes that have not begun it.
    lacks: Vec<usize>,
}

impl Wait<'_> {
    fn seconds(&self) -> f64 {
        (self.record.seconds - self.entry.begun).max(0.0)
    }
}

/// Names a collective: `all-reduce "conv1"`.
pub(super) fn collective(entry: &FlightEntry) -> String {
    format!("{} \"{}\"", entry.kind.escape_debug(), entry.name.escape_debug())
}

/// Returns the sentence that names the process which held up the others.
pub(super) fn verdict(records: &Records) -> String {
    let mut places = Places::new();
    for record in records.whole.values() {
        let own = places.entry(record.rank).or_default();
        for (index, entry) in record.collectives.iter().enumerate() {
            own.entry((entry.name.as_str(), entry.step)).or_default().push(index);
        }
    }
    let compared = Compared { records, places };
    let waits = compared.waits();
    let found = compared.different().or_else(|| compared.missing(&waits)).or_else(|| compared.late(&waits));
    found.or_else(|| entangled(&waits)).or_else(|| compared.stuck(&waits)).unwrap_or_else(|| ended(records))
}

struct Compared<'a> {
    records: &'a Records,
    places: Places<'a>,
}

impl<'a> Compared<'a> {
    /// Returns the entry of process `other` for a collective of a record.
    fn counterpart(&self, record: &FlightRecord, index: usize, other: usize) -> Option<&'a FlightEntry> {
        let entry = &record.collectives[index];
        // The places among those that two processes have in common.
        let common = |of: usize, with: usize| {
            let entries = self.records.whole.get(&of).map_or(&[][..], |record| &record.collectives);
            let places = self.places.get(&of).and_then(|places| places.get(&(entry.name.as_str(), entry.step)));
            places.into_iter().flatten().copied().filter(move |index| entries[*index].peers.contains(&with))
        };
        let number = common(record.rank, other).take_while(|place| *place < index).count();
        let place = common(other, record.rank).nth(number)?;
        Some(&self.records.whole.get(&other)?.collectives[place])
    }

    /// Returns whether a process has not begun a collective of another one.
    fn lacks(&self, other: usize, record: &FlightRecord, index: usize) -> bool {
        let Some(own) = self.records.whole.get(&other) else { return !self.records.damaged.contains_key(&other) };
        let step = record.collectives[index].step;
        let forgotten = own.collectives.first().is_some_and(|first| first.sequence > 1 && step <= first.step);
        !forgotten && self.counterpart(record, index, other).is_none()
    }

    /// Returns all collectives that have begun and not ended, the earliest first.
    fn waits(&self) -> Vec<Wait<'a>> {
        let mut waits = Vec::new();
        for record in self.records.whole.values() {
            for (index, entry) in record.collectives.iter().enumerate().filter(|(_, entry)| entry.ended.is_none()) {
                let others = entry.peers.iter().copied().filter(|peer| *peer != record.rank);
                let lacks = others.filter(|other| self.lacks(*other, record, index)).collect();
                waits.push(Wait { record, entry, lacks });
            }
        }
        waits.sort_by_key(|wait| (wait.entry.step, wait.record.rank, wait.entry.sequence));
        waits
    }

    /// Finds a collective that processes do differently.
    fn different(&self) -> Option<String> {
        let mut all = Vec::new();
        for record in self.records.whole.values() {
            for (index, entry) in record.collectives.iter().enumerate() {
                // All are compared with the first, so two that differ are found.
                let first = entry.peers.iter().find(|peer| self.records.whole.contains_key(peer))?;
                let other = self.counterpart(record, index, *first);
                if *first != record.rank && other.is_some_and(|other| differ(entry, other)) {
                    all.push((entry.step, index, record));
                }
            }
        }
        let (_, index, record) = all.into_iter().min_by_key(|(step, index, record)| (*step, *index, record.rank))?;
        let entry = &record.collectives[index];
        let mut ways: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for peer in &entry.peers {
            let own = if *peer == record.rank { Some(entry) } else { self.counterpart(record, index, *peer) };
            if let Some(own) = own {
                ways.entry(format!("{} of {} bytes", own.kind.escape_debug(), own.bytes)).or_default().push(*peer);
            }
        }
        let what = format!("\"{}\" of step {}", entry.name.escape_debug(), entry.step);
        Some(format!(
            "{} in {what}: they do not run the same program or configuration",
            contrast(ways.into_iter().collect())
        ))
    }

    /// Finds processes without a record.
    fn missing(&self, waits: &[Wait]) -> Option<String> {
        let there = |rank: &usize| self.records.whole.contains_key(rank) || self.records.damaged.contains_key(rank);
        let missing: Vec<usize> = (0..self.records.processes).filter(|rank| !there(rank)).collect();
        let waited = waits.iter().find(|wait| wait.lacks.iter().any(|rank| missing.contains(rank)));
        let waited = waited.map_or(String::new(), |wait| format!("; {}", waited_in(waits, wait)));
        let them = if missing.len() == 1 { "it was killed, or its" } else { "they were killed, or their" };
        (!missing.is_empty()).then(|| format!("{} left no record: {them} host failed{waited}", name_ranks(&missing)))
    }

    /// Finds processes that are waited for and wait for nobody.
    fn late(&self, waits: &[Wait]) -> Option<String> {
        let waits_itself: BTreeSet<usize> =
            waits.iter().filter(|wait| !wait.lacks.is_empty()).map(|wait| wait.record.rank).collect();
        let first = waits.iter().find(|wait| wait.lacks.iter().any(|rank| !waits_itself.contains(rank)))?;
        let late: Vec<usize> = first.lacks.iter().copied().filter(|rank| !waits_itself.contains(rank)).collect();
        let last = |rank: &usize| {
            let record = self.records.whole.get(rank)?;
            let entry = record.collectives.last()?;
            let state = if entry.ended.is_some() { "ended" } else { "is in" };
            Some(format!("; process {rank} {state} {} of step {}", collective(entry), entry.step))
        };
        let last = late.first().and_then(last).unwrap_or_default();
        let what = format!("{} of step {}", collective(first.entry), first.entry.step);
        Some(format!("{} did not begin {what}; {}{last}", name_ranks(&late), waited_in(waits, first)))
    }

    /// Finds a collective that all have begun.
    fn stuck(&self, waits: &[Wait]) -> Option<String> {
        let first = waits.first()?;
        let known = if self.records.damaged.is_empty() { "" } else { " whose records can be read" };
        Some(format!(
            "all processes{known} had begun {} of step {}, so none of them is to blame; {}: the network between them, or a device, may have \
             failed",
            collective(first.entry),
            first.entry.step,
            waited_in(waits, first)
        ))
    }
}

/// Returns whether two entries of the same collective contradict each other.
fn differ(a: &FlightEntry, b: &FlightEntry) -> bool {
    a.kind != b.kind || (a.kind != EXCHANGE && a.peers == b.peers && a.bytes != b.bytes)
}

/// Says who waited in the same collective as one, and for how long.
fn waited_in(waits: &[Wait], first: &Wait) -> String {
    let key = |wait: &Wait| (wait.entry.step, wait.entry.name.clone());
    let same: Vec<&Wait> = waits.iter().filter(|wait| key(wait) == key(first)).collect();
    let mut ranks: Vec<usize> = same.iter().map(|wait| wait.record.rank).collect();
    ranks.dedup();
    let longest = same.iter().map(|wait| wait.seconds()).fold(0.0, f64::max);
    let what = format!("{} of step {}", collective(first.entry), first.entry.step);
    format!("{} waited in {what} for {longest:.1} s", name_ranks(&ranks))
}

/// Contrasts those few that do something with the others: `process 2 did b where processes 0 and 1 did a`.
fn contrast(mut ways: Vec<(String, Vec<usize>)>) -> String {
    // The most, and of as many those with the lowest rank, are in the right.
    ways.sort_by_key(|(_, ranks)| (ranks.len(), std::cmp::Reverse(ranks[0])));
    let parts: Vec<String> = ways.iter().map(|(way, ranks)| format!("{} did {way}", name_ranks(ranks))).collect();
    match parts.split_last() {
        Some((most, [])) => most.clone(),
        Some((most, few)) => format!("{} where {most}", few.join(", ")),
        None => String::new(),
    }
}

/// Finds processes that wait for each other in different collectives.
fn entangled(waits: &[Wait]) -> Option<String> {
    let mut ways: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for wait in waits.iter().filter(|wait| !wait.lacks.is_empty() && seen.insert(wait.record.rank)) {
        let entry = wait.entry;
        let way = format!("{} ({} bytes) of step {}", collective(entry), entry.bytes, entry.step);
        ways.entry(way).or_default().push(wait.record.rank);
    }
    let ways: Vec<(String, Vec<usize>)> = ways.into_iter().collect();
    (!ways.is_empty()).then(|| format!("{}: they wait for each other", contrast(ways)))
}

/// Says that no process waited.
fn ended(records: &Records) -> String {
    let last = records.whole.values().map(|record| record.step).max().unwrap_or(0);
    let behind: Vec<usize> =
        records.whole.values().filter(|record| record.step < last).map(|record| record.rank).collect();
    let known = if records.damaged.is_empty() { "" } else { " whose records can be read" };
    let behind = match behind.as_slice() {
        [] => format!("all at step {last}"),
        behind => format!("but {} had not reached step {last}", name_ranks(behind)),
    };
    format!("no process{known} waited for another one: all their collectives had ended, {behind}")
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
