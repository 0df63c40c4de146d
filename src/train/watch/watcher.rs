//! Keeps the weights around watched updates, and reports on these.

use super::outputs::Outputs;
use super::parts::Part;
use super::signs::{EARLY, Signs, Update};
use super::sums::Sums;
use super::view::{Seen, View};
use crate::cluster::Team;
use crate::config::WatchSettings;
use crate::data::{EpochPlan, Place};
use crate::error::Result;
use crate::network::Network;
use crate::optim::Interval;
use crate::program::{Observer, Session};
use crate::report::{RunEvent, WatchedLayer};
use crate::train::job::Job;
use crate::train::team;
use std::collections::VecDeque;
use std::sync::Arc;

/// Watches a run.
#[derive(Debug)]
pub(in crate::train) struct Watch {
    settings: WatchSettings,
    epoch: EpochPlan,
    network: Arc<Network>,
    parts: Arc<[Part]>,
    view: Arc<View>,
    /// The weights of all parts after the latest updates that were looked at: at most three.
    weights: VecDeque<(u64, Vec<Vec<f64>>)>,
    signs: Signs,
}

impl Watch {
    /// Creates what watches a job's run, if its configuration has it.
    pub fn new(job: &Job, session: &Session) -> Option<Self> {
        let settings = job.config.train.watch?;
        let (network, parts): (_, Arc<[Part]>) = (Arc::clone(&job.network), Part::all(session.plan()).into());
        let view = Arc::new(View::new(&network, &parts));
        let signs = Signs::new(session.plan().chain.clipping());
        Some(Watch { settings, epoch: job.epoch(), network, parts, view, weights: VecDeque::new(), signs })
    }

    /// Returns whether the update that ends at a place is watched.
    fn is_due(&self, step: u64, place: Place) -> bool {
        match self.settings.every {
            _ if step <= EARLY => step == EARLY,
            Interval::Steps(every) => step.is_multiple_of(every),
            Interval::Epochs(every) => place.sample == 0 && place.epoch.is_multiple_of(every),
        }
    }

    /// Returns whether the weights after `step` updates are required: if this update is watched, or one of the next two.
    pub fn inspects(&self, step: u64, place: Place) -> bool {
        let next = self.epoch.after(place);
        let after = self.epoch.after(next);
        self.is_due(step, place) || self.is_due(step + 1, next) || self.is_due(step + 2, after)
    }

    /// Returns the observer of the update after `step` updates, if it is watched.
    pub fn observer(&self, step: u64, place: Place) -> Option<Arc<dyn Observer>> {
        let due = self.is_due(step + 1, self.epoch.after(place));
        due.then(|| Arc::clone(&self.view) as Arc<dyn Observer>)
    }

    /// Keeps the weights after `step` updates, if they are required.
    ///
    /// # Errors
    /// If a device reports an error.
    pub fn look(&mut self, session: &Session, step: u64, place: Place) -> Result<()> {
        if self.inspects(step, place) && self.weights.back().is_none_or(|(last, _)| *last < step) {
            let weights = self.parts.iter().map(|part| part.weights(session)).collect::<Result<_>>()?;
            self.weights.push_back((step, weights));
            if self.weights.len() > 3 {
                self.weights.pop_front();
            }
        }
        Ok(())
    }

    /// Takes notice of an update, and returns what there is to report, to all processes of a team.
    ///
    /// # Errors
    /// If a device reports an error, or the processes cannot exchange data.
    pub fn after(
        &mut self,
        session: &Session,
        team: Option<&Arc<Team>>,
        (step, place): (u64, Place),
        lr: f64,
        loss: f64,
    ) -> Result<Vec<RunEvent>> {
        self.look(session, step, place)?;
        let mut notes: Vec<String> = self.signs.after_step(step, loss, session.clipped_norm()).into_iter().collect();
        let mut events = Vec::new();
        if self.is_due(step, place) {
            let mut seen = self.view.take();
            let layers = self.of_all(team, self.layers(step, &seen), &mut seen.outputs)?;
            let mut all = Sums::default();
            layers.iter().for_each(|sums| all.add(sums));
            let nodes = || self.network.nodes.iter().zip(&layers).zip(&seen.outputs);
            let weighted = nodes().filter(|((node, _), _)| {
                node.params.iter().any(|&param| self.network.parameters[param].param.shape.rank() > 1)
            });
            let weighted: Vec<(&str, Sums)> = weighted.map(|((node, sums), _)| (node.name.as_str(), *sums)).collect();
            notes.extend(self.signs.after_watch(step, &Update { lr, all, layers: weighted }));
            events.push(RunEvent::Watch {
                step,
                gradient_norm: all.gradient.sqrt(),
                update_ratio: all.update_ratio(),
                cosine: all.cosine(),
                layers: nodes()
                    .filter_map(|((node, sums), outputs)| layer(&node.name, sums, outputs.as_ref()))
                    .collect(),
                in_log: self.settings.in_log,
            });
        }
        events.extend(notes.into_iter().map(|text| RunEvent::Note { text }));
        Ok(events)
    }

    /// Returns the sums of every node over all processes, and sets `outputs` to what all of them have seen.
    fn of_all(&self, team: Option<&Arc<Team>>, own: Vec<Sums>, outputs: &mut [Option<Outputs>]) -> Result<Vec<Sums>> {
        let Some(team) = team else { return Ok(own) };
        let sums = own.iter().flat_map(Sums::numbers);
        let numbers = sums.chain(outputs.iter().flatten().flat_map(Outputs::numbers)).collect();
        let numbers = team::total(Some(team), numbers)?;
        let (sums, seen) = numbers.split_at(own.len() * own.first().map_or(0, |sums| sums.numbers().len()));
        let mut seen = seen.iter().copied();
        outputs.iter_mut().flatten().for_each(|outputs| outputs.take_numbers(&mut seen));
        Ok(sums.chunks(sums.len() / own.len()).map(Sums::of_numbers).collect())
    }

    /// Returns the sums of every node.
    fn layers(&self, step: u64, seen: &Seen) -> Vec<Sums> {
        let mut all = vec![Sums::default(); self.network.nodes.len()];
        let at = |step: u64| self.weights.iter().find(|(of, _)| *of == step).map(|(_, weights)| weights);
        let (now, before, earlier) = (at(step), at(step - 1), step.checked_sub(2).and_then(at));
        for (index, part) in self.parts.iter().enumerate() {
            let mut sums = Sums { any: true, gradient: seen.gradients[index], ..Sums::default() };
            if let (Some(now), Some(before)) = (now, before) {
                for (at, (now, before)) in now[index].iter().zip(&before[index]).enumerate() {
                    let (update, last) = (now - before, earlier.map_or(0.0, |earlier| before - earlier[index][at]));
                    sums.weights += before * before * part.scale;
                    sums.update += update * update * part.scale;
                    sums.before += last * last * part.scale;
                    sums.both += update * last * part.scale;
                }
            }
            all[part.node].add(&sums);
        }
        all
    }
}

/// Returns what is reported of a layer, if there is anything.
fn layer(name: &str, sums: &Sums, outputs: Option<&Outputs>) -> Option<WatchedLayer> {
    (sums.any || outputs.is_some()).then(|| WatchedLayer {
        name: name.to_string(),
        gradient_norm: sums.any.then(|| sums.gradient.sqrt()),
        update_ratio: sums.update_ratio(),
        cosine: sums.cosine(),
        dead: outputs.and_then(Outputs::dead),
        saturated: outputs.and_then(Outputs::saturated),
    })
}
