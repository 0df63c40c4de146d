//! The values with which training begins: initial ones, or those of the weights that the file names.

use super::exchange;
use super::job::Job;
use super::lsuv;
use super::start::Start;
use crate::data::{Batches, SampleSets};
use crate::error::Result;
use crate::network::Parameter;
use crate::program::{Persistent, Session};
use std::sync::Arc;

impl Job {
    /// Writes the values with which training begins into a session of this job.
    ///
    /// # Errors
    /// When the weights or the data cannot be read, or a device fails.
    pub fn initialise(&mut self, session: &mut Session, sets: &SampleSets) -> Result<()> {
        exchange::initialise(session, self.config.seed)?;
        let start = self.start.take();
        if let Some(start) = &start {
            start.apply(session, &self.network)?;
        }
        self.scale_outputs(session, sets, start.as_ref())
    }

    /// Scales the weights of the layers that ask for outputs of unit variance, unless they are given.
    fn scale_outputs(&self, session: &mut Session, sets: &SampleSets, start: Option<&Start>) -> Result<()> {
        let network = Arc::clone(&self.network);
        let is_given = |parameter| start.is_some_and(|start| start.has(Persistent::Parameter(parameter)));
        let is_scaled = |&parameter: &usize| {
            let Parameter { param, init, .. } = &network.parameters[parameter];
            param.init.is_none() && init.0.scales_outputs() && !is_given(parameter)
        };
        let weights = (0..network.parameters.len()).filter(is_scaled);
        let scaled: Vec<usize> = weights.map(|weight| network.scale_of(weight)).collect();
        if scaled.is_empty() {
            return Ok(());
        }
        let mut batches = Batches::train(sets);
        let mut batch = batches.empty();
        let (epoch, index) = batches.plan().at(0);
        batches.fill(epoch, index, &mut batch)?;
        let read = |parameter| exchange::read_values(session, Persistent::Parameter(parameter));
        for (parameter, values) in lsuv::scaled(&network, &scaled, self.config.devices.threads, &batch, read)? {
            exchange::write_values(session, Persistent::Parameter(parameter), &values)?;
        }
        Ok(())
    }
}
