//! Opening a run from a checkpoint.

use super::changes;
use super::checkpoint::{self, Checkpoint};
use super::exchange;
use super::job::Job;
use super::run::{Records, ResumeOptions, Run};
use super::sample_losses;
use super::start::tensors;
use super::whitening;
use crate::data::{self, Known};
use crate::device::LibraryUse;
use crate::error::{Error, Result};
use crate::program::{Persistent, Plan};
use std::sync::Arc;

impl Run {
    /// Resumes from the newest valid checkpoint of the run directory; notes which ones were skipped.
    ///
    /// # Errors
    /// When there is none, when it does not fit the network, or when settings or data have changed that may not change.
    pub fn resume(mut job: Job, mut plan: Plan, records: Records, options: &ResumeOptions) -> Result<Run> {
        let found = job.agree(checkpoint::latest(&records.fs, &records.dir, &records.run))?;
        let (info, skipped) = (&found.checkpoint.info, &found.skipped);
        let has_length = job.config.optimizer.schedule.depends_on_length();
        let settings = changes::settings_like(info, &job.config.resolved, has_length);
        let changed = changes::of_settings(info, &settings);
        let has_changed = |key| changed.iter().any(|change| changes::covers(key, &change.key));
        let measure = has_changed("data.normalize");
        // Whitening is fitted to normalised images.
        let keeps = job.config.data.whiten.is_some() && !measure && !has_changed("data.whiten");
        let open = || {
            changes::check_keys(&options.allow_change, info, &settings)?;
            let mut notes = changes::allow(&changed, &options.allow_change)?;
            let whitening = keeps.then(|| whitening::read(&found.checkpoint)).transpose()?;
            let known = Known {
                is_resumed: true,
                record: info.data.as_ref(),
                verify: options.verify_data,
                measure,
                whitening: whitening.as_ref(),
            };
            let opened = data::open_known(&job.config.data, job.config.seed, &job.config.base, known)?;
            notes.extend(changes::allow(&changes::of_data(info, &opened.1), &options.allow_change)?);
            Ok((opened, notes))
        };
        let (opened, notes) = job.agree(open())?;
        job.notes.extend(notes);
        job.notes.extend(skipped.iter().map(|skipped| format!("skipped a checkpoint: {}", skipped.with_causes())));
        if let Some(with_rest) = job.go_on(info.step, info.place)? {
            plan = with_rest;
        }
        // A transform that is new to the chain counts its updates from here.
        let chain = Arc::new(job.config.optimizer.chain.joined(|name| found.checkpoint.start(name)));
        (job.config.optimizer.chain, plan.chain) = (Arc::clone(&chain), chain);
        let mut run = Run::open(job, plan, Ok(opened), records)?;
        let restored = run.restore_model(&found.checkpoint).and_then(|()| run.restore_state(&found.checkpoint));
        run.job.agree(restored)?;
        let by = run.retention().best_by;
        run.best = checkpoint::best_score(&run.records.fs, &run.records.dir, &found.checkpoint.info, &by)?;
        run.unproven = true;
        run.job.compare(&run.data, (run.step, run.place))?;
        if !run.job.leads() {
            return Ok(run);
        }
        let tidied = checkpoint::tidy(&run.records.fs, &run.records.dir, &found.checkpoint.info, &run.retention());
        if let Err(error) = tidied {
            run.job.notes.push(format!("what a kill left could not be removed: {}", error.with_causes()));
        }
        run.warn_of_shortage();
        Ok(run)
    }

    pub(super) fn restore_model(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let network = Arc::clone(&self.job.network);
        let file = &checkpoint.model;
        for (which, parameter) in tensors(&network) {
            let index = file.find(&parameter.name).ok_or_else(|| {
                let message = "resume with the configuration of this run";
                Error::file(&checkpoint.path, format!("it has no tensor \"{}\"; {message}", parameter.name))
            })?;
            exchange::import(&mut self.session, which, parameter, file, index)?;
        }
        self.step = checkpoint.info.step;
        Ok(())
    }

    /// Restores the averages of the weights, of all the optimiser's state.
    pub(super) fn restore_average(&mut self, checkpoint: &Checkpoint, slot: usize) -> Result<()> {
        let network = Arc::clone(&self.job.network);
        for (which, name, parameter) in self.slots() {
            let Persistent::Slot(number, _) = which else { continue };
            if number != slot {
                continue;
            }
            let index = checkpoint.state.find(&name).ok_or_else(|| {
                Error::file(
                    &checkpoint.path,
                    format!("it has no tensor \"{name}\"; the run was trained without train.ema"),
                )
            })?;
            exchange::import(&mut self.session, which, &network.parameters[parameter], &checkpoint.state, index)?;
        }
        Ok(())
    }

    /// Restores the optimiser's state, by parameter and transform; slots of transforms that are new start at zero.
    fn restore_state(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let network = Arc::clone(&self.job.network);
        let (file, info) = (&checkpoint.state, &checkpoint.info);
        let (mut fresh, mut used) = (Vec::new(), Vec::new());
        let average = self.session.plan().chain.average();
        for (which, name, parameter) in self.slots() {
            match file.find(&name) {
                Some(index) => {
                    exchange::import(&mut self.session, which, &network.parameters[parameter], file, index)?;
                    used.push(index);
                }
                // An evaluation may come before the first update.
                None if matches!(which, Persistent::Slot(slot, _) if Some(slot) == average) => {
                    let weights = exchange::read_values(&self.session, Persistent::Parameter(parameter))?;
                    exchange::write_values(&mut self.session, which, &weights)?;
                }
                None => fresh.push(name),
            }
        }
        if let Some(method) = &mut self.method {
            used.extend(method.restore(file, &info.method)?);
        }
        // Read with the data, or fitted again because its setting has changed.
        used.extend(whitening::indices(file));
        used.extend(sample_losses::index(file));
        if self.chooses_hard_examples() {
            self.losses = sample_losses::read(checkpoint, self.splits.train.samples.len())?;
        }
        let unused = file.tensors.iter().enumerate().filter(|(index, _)| !used.contains(index));
        let unused: Vec<String> = unused.map(|(_, tensor)| tensor.name.clone()).collect();
        for (what, names) in [("starts at zero", fresh), ("of the checkpoint is not used", unused)] {
            if !names.is_empty() {
                self.job.notes.push(format!("optimiser state {what}: {}", names.join(", ")));
            }
        }
        if self.job.config.devices.libraries != LibraryUse::Off {
            self.job.notes.extend(self.session.restore_choices(&info.algorithms));
        }
        (self.samples, self.skips, self.history) = (info.samples, info.skips, info.history.resumed());
        self.schedules = self.job.config.optimizer.schedule.states(&info.schedules);
        self.saved = Some(self.step);
        self.evaluations.clone_from(&info.evaluations);
        Ok(())
    }
}
