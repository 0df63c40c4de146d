//! A job that several processes share.

use super::job::Job;
use super::team;
use crate::cluster::Team;
use crate::data::{DataRecord, Place};
use crate::error::{Error, Result};
use crate::program::Plan;
use std::sync::Arc;

impl Job {
    /// Lets several processes train together. All of them call it.
    ///
    /// # Errors
    /// If something in the configuration is for one process.
    pub fn join(&mut self, team: &Arc<Team>, plan: &Plan) -> Result<()> {
        if let Some(message) = team::refusal(&self.config) {
            return Err(Error::Usage(message));
        }
        (self.team, self.plan_hash) = (Some(Arc::clone(team)), team::hash(plan));
        Ok(())
    }

    /// Returns a result that all processes agree on: the error of the first one that has one.
    ///
    /// # Errors
    /// That error, or if the processes cannot exchange data.
    pub fn agree<T>(&self, own: Result<T>) -> Result<T> {
        team::agree(self.team.as_ref(), own)
    }

    /// Checks that all processes train the same on the same data, from the same update and place.
    ///
    /// # Errors
    /// The first difference, or if the processes cannot exchange data.
    pub(super) fn compare(&self, data: &DataRecord, at: (u64, Place)) -> Result<()> {
        let Some(team) = &self.team else { return Ok(()) };
        team::compare(team, &self.config, &self.plan_hash, data, at)
    }

    /// Returns whether this process writes the files of the run: it is alone, or the first of several.
    pub fn leads(&self) -> bool {
        self.team.as_ref().is_none_or(|team| team.rank() == 0)
    }
}
