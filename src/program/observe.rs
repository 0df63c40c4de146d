//! Runs a step while an observer is shown the outputs of layers and the gradients of the batch.

use super::observer::{ArenaPart, Observer, shown};
use super::session::{Devices, Session};
use crate::data::Batch;
use crate::device::Clock;
use crate::error::Result;
use crate::placement::{Region, Variant};
use std::ops::Range;
use std::sync::Arc;

impl Session {
    /// Starts one step as [`Session::submit`] does, and shows it to an observer. The results are the same bits.
    ///
    /// # Errors
    /// If a step fails on a device, or the plan has no such variant.
    ///
    /// # Panics
    /// If a step is in flight, or the batch does not match [`Session::preparer`].
    pub fn submit_observed(
        &mut self,
        variant: Variant,
        batch: &mut Batch,
        clock: Clock,
        observer: &Arc<dyn Observer>,
    ) -> Result<()> {
        assert_eq!(self.under_way(), 0, "submitted steps must finish first");
        let number = self.number(variant, batch)?;
        let shown = shown(&self.plan.programs[number], self.plan.region(Region::Gradients).0, &**observer);
        match &mut self.devices {
            Devices::Gpu(programs) => programs.submit_observed(number, batch, clock, (&shown, &**observer)),
            Devices::Cpu(programs) => {
                programs.run_observed(number, batch, clock, (shown, observer))?;
                self.finished = true;
                Ok(())
            }
        }
    }

    /// Returns some elements of a device's region, as doubles.
    ///
    /// # Errors
    /// If a GPU reports an error.
    pub fn read_elements(&self, device: usize, region: Region, elements: Range<usize>) -> Result<Vec<f64>> {
        let element = region.element(self.plan.spec.precision);
        let byte = self.plan.region(region).0 + elements.start * element.bytes();
        let at = ArenaPart { byte, elements: elements.len(), element };
        match &self.devices {
            Devices::Cpu(programs) => Ok(programs.values(device, at)),
            Devices::Gpu(programs) => programs.values(device, at),
        }
    }

    /// Returns the global norm of the gradients by which the last update clipped them, if it is kept.
    pub fn clipped_norm(&self) -> Option<f64> {
        // The squares of the norms of all parameters.
        let kept = &self.values[self.metrics().len() + Region::COUNTS..];
        let squares = kept.get(..self.plan.flat.order.len())?;
        Some(squares.iter().sum::<f64>().sqrt())
    }
}
