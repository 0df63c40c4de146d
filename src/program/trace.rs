//! Finds where a step goes wrong: runs its instructions one after another and looks at what each layer writes.

use super::observer::ArenaPart;
use super::session::{Devices, Session};
use super::{LocalOperand, Program, Work};
use crate::data::Batch;
use crate::device::Clock;
use crate::error::Result;
use crate::layers::{Access, Pass, Role};
use crate::placement::Variant;

/// The first layer of a step that wrote a value that is not finite.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstNonFinite {
    /// The layer, as the index of its node.
    pub node: usize,
    /// The pass in which it wrote the value.
    pub pass: Pass,
    /// What it wrote.
    pub role: Role,
    /// The samples of the batch whose values are not finite, if the value has a row for each.
    pub rows: Vec<usize>,
}

impl Session {
    /// Runs one step on a batch without updating the weights, and returns the first layer that wrote a value that is not
    /// finite: in the order of the network, or of its backward pass. Of several processes, all call it, and each looks at its devices.
    ///
    /// # Errors
    /// If a step fails on a device, or the plan has no such variant.
    ///
    /// # Panics
    /// If a step is in flight.
    pub fn first_nonfinite(
        &mut self,
        variant: Variant,
        batch: &mut Batch,
        clock: Clock,
    ) -> Result<Option<FirstNonFinite>> {
        assert_eq!(self.under_way(), 0, "submitted steps must finish first");
        let number = self.number(variant, batch)?;
        let (program, alone) = (&self.plan.programs[number], self.team.is_none());
        let mut found: Option<FirstNonFinite> = None;
        let mut look = |index: usize, read: &dyn Fn(usize, ArenaPart) -> Result<Vec<f64>>| {
            let here = non_finite(program, index, read)?;
            match (&mut found, here) {
                // Other devices compute the same phase on their samples.
                (Some(found), Some(here)) if (here.node, here.pass) == (found.node, found.pass) => {
                    found.rows.extend(here.rows);
                }
                (None, here) => found = here,
                (Some(_), _) => {}
            }
            let next = program.instructions.get(index + 1);
            let same = |found: &FirstNonFinite| is_of(next.map(|next| &next.work), found);
            let updates = matches!(next.map(|next| &next.work), Some(Work::Update { bucket: None, .. }) | None);
            // Several processes all reach the end: others wait for the collectives.
            Ok(!updates && (!alone || found.as_ref().is_none_or(same)))
        };
        match &mut self.devices {
            Devices::Cpu(programs) => programs.run_each(number, batch, clock, |programs, index| {
                look(index, &|device, at| Ok(programs.values(device, at)))
            })?,
            Devices::Gpu(programs) => programs.run_each(number, batch, clock, |programs, index| {
                look(index, &|device, at| programs.values(device, at))
            })?,
        }
        if let Some(found) = &mut found {
            found.rows.sort_unstable();
            found.rows.dedup();
        }
        Ok(found)
    }
}

/// Returns whether an instruction is the phase in which the first value was found, on another device.
fn is_of(work: Option<&Work>, found: &FirstNonFinite) -> bool {
    matches!(work, Some(Work::Phase { node, pass, .. }) if (*node, *pass) == (found.node, found.pass))
}

/// Returns what an instruction wrote that is not finite. `read` returns elements of a device's arena.
fn non_finite(
    program: &Program,
    index: usize,
    read: &dyn Fn(usize, ArenaPart) -> Result<Vec<f64>>,
) -> Result<Option<FirstNonFinite>> {
    let instruction = &program.instructions[index];
    let Work::Phase { node, pass, operands, .. } = &instruction.work else { return Ok(None) };
    let rows = program.variant.batch;
    for (role, local) in operands.iter().filter(|(_, local)| matches!(local.access, Access::Write | Access::Update)) {
        let buffer = &program.buffers[local.buffer];
        let byte = buffer.offset + local.offset * buffer.element.bytes();
        let at = ArenaPart { byte, elements: local.window.elements(), element: buffer.element };
        let values = read(instruction.device, at)?;
        if values.iter().all(|value| value.is_finite()) {
            continue;
        }
        let rows = if local.shape.0[0] == rows { bad_rows(local, &values) } else { Vec::new() };
        return Ok(Some(FirstNonFinite { node: *node, pass: *pass, role: *role, rows }));
    }
    Ok(None)
}

/// Returns the rows of the whole tensor in which a device's part has a value that is not finite.
fn bad_rows(local: &LocalOperand, values: &[f64]) -> Vec<usize> {
    let width = values.len() / local.window.len[0].max(1);
    let rows = values.chunks(width.max(1)).enumerate();
    let bad = rows.filter(|(_, row)| row.iter().any(|value| !value.is_finite()));
    bad.map(|(row, _)| local.window.start[0] + row).collect()
}
