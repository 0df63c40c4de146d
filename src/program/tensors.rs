//! Reads and writes the tensors that outlive a step.

use super::session::{Devices, Session};
use crate::error::Result;
use crate::placement::Region;
use crate::tensor::{Axis, Dual, Layout, LocalSlice, Placement, Precision, Real, Shape, Strided};
use std::ops::Range;

/// A tensor that outlives a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistent {
    /// A parameter.
    Parameter(usize),
    /// The gradient of a parameter.
    Gradient(usize),
    /// A parameter's part of a state slot of the optimiser: (slot, parameter).
    Slot(usize, usize),
    /// A running statistic.
    Statistic(usize),
}

/// The direction of a copy: to the device or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// The processes that receive what several of them hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readers {
    All,
    First,
}

/// Returns the bytes of an element in a message.
fn wire_bytes<T: Real>() -> usize {
    if T::PRECISION == Precision::F32 { size_of::<f32>() } else { size_of::<f64>() }
}

fn to_wire<T: Real>(values: &[T]) -> Vec<u8> {
    match T::PRECISION {
        Precision::F32 => values.iter().flat_map(|value| (value.to_f64() as f32).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| value.to_f64().to_le_bytes()).collect(),
    }
}

fn from_wire<T: Real>(bytes: &[u8]) -> Vec<T> {
    let read = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => unreachable!("elements of messages have 4 or 8 bytes"),
    };
    bytes.chunks_exact(wire_bytes::<T>()).map(|bytes| T::from_f64(read(bytes))).collect()
}

impl Session {
    /// Returns the layout, shape and first byte of a tensor in every device's arena.
    fn find(&self, which: Persistent) -> (Layout, Shape, usize) {
        let plan = &self.plan;
        let bytes = plan.spec.precision.bytes();
        let param = |i: usize, region| {
            let part = plan.flat.parts[i];
            let shape = plan.network.parameters[i].param.shape.clone();
            (part.layout, shape, plan.region(region).0 + part.offset * bytes)
        };
        match which {
            Persistent::Parameter(i) => param(i, Region::Weights),
            Persistent::Gradient(i) => param(i, Region::Gradients),
            Persistent::Slot(slot, i) => param(i, Region::Slot(slot)),
            Persistent::Statistic(i) => {
                let (layout, offset) = plan.statistics[i];
                let shape = plan.network.statistics[i].param.shape.clone();
                (layout, shape, plan.region(Region::Statistics).0 + offset * bytes)
            }
        }
    }

    /// Returns the elements of a region of a device of this process.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision.
    pub fn read_region<T: Real>(&self, device: usize, region: Region) -> Result<Vec<T>> {
        let (at, elements) = self.plan.region(region);
        let mut all = vec![T::ZERO; elements];
        self.with::<T>(device, at, elements, Direction::Out, |from| all.copy_from_slice(from))?;
        Ok(all)
    }

    /// Writes the elements of a region of a device of this process.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision, or the number of elements is not the region's.
    pub fn write_region<T: Real>(&mut self, device: usize, region: Region, all: &[T]) -> Result<()> {
        let (at, elements) = self.plan.region(region);
        self.with::<T>(device, at, elements, Direction::In, |to| to.copy_from_slice(all))
    }

    /// Exchanges the weights with the averages of the weights.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If the chain keeps no averages.
    pub fn exchange_average(&mut self) -> Result<()> {
        let slot = self.plan.chain.average().expect("the chain keeps averages");
        match self.plan.spec.precision {
            Precision::F32 => self.exchange::<f32>(Region::Weights, Region::Slot(slot)),
            Precision::F64 => self.exchange::<f64>(Region::Weights, Region::Slot(slot)),
            Precision::Dual => self.exchange::<Dual>(Region::Weights, Region::Slot(slot)),
        }
    }

    fn exchange<T: Real>(&mut self, a: Region, b: Region) -> Result<()> {
        for device in 0..self.plan.own.len() {
            let (first, second) = (self.read_region::<T>(device, a)?, self.read_region::<T>(device, b)?);
            self.write_region(device, a, &second)?;
            self.write_region(device, b, &first)?;
        }
        Ok(())
    }

    /// Calls `f` with elements of a device's arena; for GPUs, copies them from the device before or to it after.
    fn with<T: Real>(
        &self,
        device: usize,
        at: usize,
        elements: usize,
        way: Direction,
        f: impl FnOnce(&mut [T]),
    ) -> Result<()> {
        match &self.devices {
            Devices::Cpu(programs) => programs.with(device, at, elements, f),
            Devices::Gpu(programs) => {
                let mut host = vec![0.0f32; elements];
                if way == Direction::Out {
                    programs.fetch(device, at, &mut host)?;
                }
                let mut values: Vec<T> = host.iter().map(|&v| T::from_f64(f64::from(v))).collect();
                f(&mut values);
                if way == Direction::In {
                    host.iter_mut().zip(values).for_each(|(to, from)| *to = from.to_f64() as f32);
                    programs.store(device, at, &host)?;
                }
            }
        }
        Ok(())
    }

    /// Returns all elements of a tensor, assembled from the devices that hold them; of several processes, all call it.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision.
    pub fn read<T: Real>(&self, which: Persistent) -> Result<Vec<T>> {
        let rows = self.find(which).1.0[0];
        self.read_rows(which, 0..rows)
    }

    /// Returns some rows (indices of dimension 0) of a tensor, assembled from the devices that hold them.
    ///
    /// # Errors
    /// As [`Session::read`].
    ///
    /// # Panics
    /// As [`Session::read`].
    pub fn read_rows<T: Real>(&self, which: Persistent, rows: Range<usize>) -> Result<Vec<T>> {
        Ok(self.assemble(which, rows, Readers::All)?.expect("all processes read"))
    }

    /// Returns some rows of a tensor as [`Session::read_rows`] does, on the first of several processes; nothing on the others. All processes
    /// call it.
    ///
    /// # Errors
    /// As [`Session::read`].
    ///
    /// # Panics
    /// As [`Session::read`].
    pub fn gather_rows<T: Real>(&self, which: Persistent, rows: Range<usize>) -> Result<Option<Vec<T>>> {
        self.assemble(which, rows, Readers::First)
    }

    fn assemble<T: Real>(&self, which: Persistent, rows: Range<usize>, readers: Readers) -> Result<Option<Vec<T>>> {
        let (layout, shape, _) = self.find(which);
        let mesh = self.plan.spec.mesh;
        let (rank, processes) = self.team.as_ref().map_or((0, 1), |team| (team.rank(), team.processes()));
        let reads = |process: usize| readers == Readers::All || process == 0;
        let elements = if reads(rank) { rows.len() * shape.elements() / shape.0[0].max(1) } else { 0 };
        let mut all = vec![T::ZERO; elements];
        for device in 0..mesh.devices() {
            let is_replicated = |axis: Axis| layout.on(axis) == Placement::Replicate;
            let at = mesh.position(device);
            if Axis::INNER_FIRST.into_iter().any(|axis| is_replicated(axis) && at.on(axis) > 0) {
                continue;
            }
            let Some((_, elements, part)) = self.part(which, device, &rows) else { continue };
            let mut put = |from: &[T]| {
                for (row, from) in from.chunks_exact(part.len.max(1)).enumerate() {
                    all[part.offset + row * part.stride..][..part.len].copy_from_slice(from);
                }
            };
            // The devices of a process that hold it, too.
            let held_by = |process: usize| {
                let mut own = self.plan.spec.processes.devices(process, mesh.devices());
                own.find(|&other| {
                    let other = mesh.position(other);
                    Axis::INNER_FIRST.into_iter().all(|axis| is_replicated(axis) || other.on(axis) == at.on(axis))
                })
            };
            match held_by(rank) {
                Some(near) if reads(rank) => {
                    let own = self.part(which, near, &rows).expect("it holds the same part");
                    self.with::<T>(near - self.plan.own.start, own.0, own.1, Direction::Out, |from| put(from))?;
                }
                None if reads(rank) => {
                    let mut bytes = vec![0; elements * wire_bytes::<T>()];
                    let team = self.team.as_ref().expect("other processes hold it");
                    team.receive(self.plan.spec.processes.of(device), &mut bytes)?;
                    put(&from_wire(&bytes));
                }
                _ => {}
            }
            if !self.plan.own.contains(&device) {
                continue;
            }
            let lacking: Vec<usize> =
                (0..processes).filter(|&process| reads(process) && held_by(process).is_none()).collect();
            if let Some(team) = self.team.as_ref().filter(|_| !lacking.is_empty()) {
                let (own, mut bytes) = (self.part(which, device, &rows).expect("it is not empty"), Vec::new());
                self.with::<T>(device - self.plan.own.start, own.0, own.1, Direction::Out, |from| {
                    bytes = to_wire(from)
                })?;
                lacking.into_iter().try_for_each(|process| team.send(process, &bytes))?;
            }
        }
        Ok(reads(rank).then_some(all))
    }

    /// Writes its part of a tensor to every device.
    ///
    /// # Errors
    /// If a GPU reports an error.
    ///
    /// # Panics
    /// If `T` is not the plan's precision, or the number of elements is not the tensor's.
    pub fn write<T: Real>(&mut self, which: Persistent, all: &[T]) -> Result<()> {
        let rows = self.find(which).1.0[0];
        self.write_rows(which, 0..rows, all)
    }

    /// Writes its part of some rows (indices of dimension 0) of a tensor to every device.
    ///
    /// # Errors
    /// As [`Session::write`].
    ///
    /// # Panics
    /// As [`Session::write`].
    pub fn write_rows<T: Real>(&mut self, which: Persistent, rows: Range<usize>, all: &[T]) -> Result<()> {
        let shape = self.find(which).1;
        assert_eq!(all.len(), rows.len() * shape.elements() / shape.0[0].max(1));
        for device in self.plan.own.clone() {
            let Some((at, elements, part)) = self.part(which, device, &rows) else { continue };
            self.with::<T>(device - self.plan.own.start, at, elements, Direction::In, |to| {
                for (row, to) in to.chunks_exact_mut(part.len.max(1)).enumerate() {
                    to.copy_from_slice(&all[part.offset + row * part.stride..][..part.len]);
                }
            })?;
        }
        Ok(())
    }

    /// Returns where a device, of all processes, holds its part of some rows of a tensor: the first byte, the number of elements, and their
    /// places among the rows' elements. `None` if it holds none of them.
    fn part(&self, which: Persistent, device: usize, rows: &Range<usize>) -> Option<(usize, usize, Strided)> {
        let (layout, shape, offset) = self.find(which);
        let mesh = self.plan.spec.mesh;
        let mut window = layout.window(&shape, mesh, mesh.position(device));
        let mut whole = LocalSlice { start: vec![0; shape.rank()], len: shape.0 };
        (whole.start[0], whole.len[0]) = (rows.start, rows.len());
        let (first, end) = (window.start[0], window.start[0] + window.len[0]);
        let (start, end) = (first.max(rows.start), end.min(rows.end));
        if start >= end {
            return None;
        }
        let before: usize = (start - first) * window.len[1..].iter().product::<usize>();
        (window.start[0], window.len[0]) = (start, end - start);
        let at = offset + before * self.plan.spec.precision.bytes();
        Some((at, window.elements(), Strided::of(&window, &whole)))
    }
}
