//! The communicators of a run, and what is issued to them.

use super::library::{Handle, IN_PROGRESS, NcclLibrary, SUCCESS};
use super::limited::limited;
use super::unique_id::UniqueId;
use crate::device::Queue;
use crate::error::{Error, Result};
use crate::gpu::driver::{Driver, Issue};
use crate::gpu::gpus::Gpus;
use crate::tensor::{Element, Precision};
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

/// How long the end of a communicator may take.
const END: Duration = Duration::from_secs(5);
const SUM: c_int = 0;

/// A GPU of this process in a communicator.
#[derive(Debug, Clone, Copy)]
pub struct NcclMember {
    /// The device, by its number in this process.
    pub device: usize,
    /// Its rank.
    pub rank: usize,
}

/// A member's handle.
#[derive(Debug, Clone, Copy)]
struct Joined {
    device: usize,
    handle: Handle,
}

// SAFETY: the library allows calls from any thread, one at a time for a communicator, apart from those for errors and aborts.
unsafe impl Send for Joined {}
// SAFETY: as above.
unsafe impl Sync for Joined {}

/// What a collective or a message does with memory of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Replaces elements by their sums over all members.
    AllReduce {
        /// Their address.
        at: u64,
    },
    /// Adds as many elements from each member as there are here times the members; each gets its part.
    ReduceScatter {
        /// The address of the terms.
        from: u64,
        /// The address of the part.
        to: u64,
    },
    /// Copies the elements of each member to all, in the order of their ranks.
    AllGather {
        /// The address of this member's elements.
        from: u64,
        /// The address of all.
        to: u64,
    },
    /// Sends elements to a member.
    Send {
        /// Their address.
        from: u64,
        /// Its rank.
        peer: usize,
    },
    /// Receives elements of a member.
    Receive {
        /// Their address.
        to: u64,
        /// Its rank.
        peer: usize,
    },
}

/// A call to the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NcclCall {
    /// The communicator.
    pub group: usize,
    /// The device, by its number in this process.
    pub device: usize,
    /// What it does.
    pub transfer: Transfer,
    /// The number of elements: of the part, for a reduce-scatter and an all-gather.
    pub elements: usize,
    /// Their type.
    pub element: Element,
}

/// The communicators of this process's devices.
#[derive(Debug)]
pub struct Communicators {
    library: &'static NcclLibrary,
    /// The members of each group that are devices of this process.
    groups: Vec<Vec<Joined>>,
}

impl Communicators {
    /// Creates communicators: for each its identity, its number of members, and those of this process. All processes create theirs in the
    /// same order, and wait for each other.
    ///
    /// # Errors
    /// If a member cannot join, or not all have within a time.
    pub fn open(
        library: &'static NcclLibrary,
        gpus: &Gpus,
        groups: Vec<(UniqueId, usize, Vec<NcclMember>)>,
        limit: Duration,
    ) -> Result<Self> {
        let drivers: Vec<Arc<Driver>> = (0..gpus.len()).map(|device| Arc::clone(gpus.driver(device))).collect();
        let join = move || groups.iter().map(|group| join(library, &drivers, group)).collect::<Result<Vec<_>>>();
        let groups = limited(limit, join).unwrap_or_else(|| {
            Err(Error::Run(format!(
                "NCCL {} did not connect all GPUs within {} s: look at what other processes print, or with NCCL_DEBUG=INFO at what NCCL does; \
                 NCCL_SOCKET_IFNAME chooses the network interface, and [cluster] start_timeout gives it more time",
                library.version,
                limit.as_secs_f64()
            )))
        })?;
        Ok(Communicators { library, groups })
    }

    /// Issues calls to the communication queues of their devices, all at the same time.
    ///
    /// # Errors
    /// If the library refuses.
    ///
    /// # Panics
    /// If a device is no member of the group.
    pub fn issue(&self, gpus: &Gpus, calls: &[NcclCall]) -> Result<()> {
        let functions = &self.library.functions;
        if calls.is_empty() {
            return Ok(());
        }
        // SAFETY: a group that is begun here is ended here.
        self.library.check("begin a group of calls", unsafe { (functions.ncclGroupStart)() })?;
        let issued = calls.iter().try_for_each(|call| self.call(gpus, call));
        // SAFETY: as above.
        let ended = self.library.check("move data between GPUs", unsafe { (functions.ncclGroupEnd)() });
        issued.and(ended)
    }

    fn call(&self, gpus: &Gpus, call: &NcclCall) -> Result<()> {
        let functions = &self.library.functions;
        let member = self.groups[call.group].iter().find(|member| member.device == call.device);
        let handle = member.expect("the device is a member").handle;
        let Issue { driver, stream } = gpus.issue(call.device, Queue::Communication);
        driver.enter()?;
        let kind: c_int = match call.element {
            Element::Bf16 => 9,
            Element::Real(Precision::F32) => 7,
            Element::Real(_) => 8,
        };
        let (count, stream) = (call.elements, stream.raw());
        let (read, write) = (|at: u64| at as *const c_void, |at: u64| at as *mut c_void);
        // SAFETY: the communicator is alive; the plan's checker proved that the elements are within buffers of the device, and that nothing
        // else uses them meanwhile.
        let result = unsafe {
            match call.transfer {
                Transfer::AllReduce { at } => {
                    (functions.ncclAllReduce)(read(at), write(at), count, kind, SUM, handle, stream)
                }
                Transfer::ReduceScatter { from, to } => {
                    (functions.ncclReduceScatter)(read(from), write(to), count, kind, SUM, handle, stream)
                }
                Transfer::AllGather { from, to } => {
                    (functions.ncclAllGather)(read(from), write(to), count, kind, handle, stream)
                }
                Transfer::Send { from, peer } => {
                    (functions.ncclSend)(read(from), count, kind, peer as c_int, handle, stream)
                }
                Transfer::Receive { to, peer } => {
                    (functions.ncclRecv)(write(to), count, kind, peer as c_int, handle, stream)
                }
            }
        };
        self.library.check("move data between GPUs", result)
    }

    /// Returns what has gone wrong since the calls returned, if anything has.
    pub fn failure(&self) -> Option<String> {
        let all = self.groups.iter().flatten();
        let mut results = all.map(|member| {
            let mut error = SUCCESS;
            // SAFETY: the communicator is alive, and this call is allowed beside others.
            let asked = unsafe { (self.library.functions.ncclCommGetAsyncError)(member.handle, &raw mut error) };
            if asked == SUCCESS { error } else { asked }
        });
        results.find_map(|result| self.library.meaning(result))
    }
}

/// Joins a communicator as each of the members of this process.
fn join(
    library: &NcclLibrary,
    drivers: &[Arc<Driver>],
    (id, size, members): &(UniqueId, usize, Vec<NcclMember>),
) -> Result<Vec<Joined>> {
    let functions = &library.functions;
    let mut joined: Vec<Joined> =
        members.iter().map(|member| Joined { device: member.device, handle: std::ptr::null_mut() }).collect();
    // SAFETY: a group that is begun here is ended here.
    library.check("begin a group of calls", unsafe { (functions.ncclGroupStart)() })?;
    let mut begun = Ok(());
    for (member, joined) in members.iter().zip(&mut joined) {
        begun = drivers[member.device].enter().and_then(|()| {
            // SAFETY: the room for the handle lives until the group has ended; the device's context is current.
            let result = unsafe {
                (functions.ncclCommInitRank)(&raw mut joined.handle, *size as c_int, *id, member.rank as c_int)
            };
            library.check("connect GPUs", result)
        });
        if begun.is_err() {
            break;
        }
    }
    // SAFETY: as above.
    let ended = library.check("connect GPUs", unsafe { (functions.ncclGroupEnd)() });
    begun.and(ended)?;
    // Communicators that do not block are not asked for, but an environment may make them so.
    for member in &joined {
        let mut state = IN_PROGRESS;
        while state == IN_PROGRESS {
            // SAFETY: the communicator exists.
            library
                .check("connect GPUs", unsafe { (functions.ncclCommGetAsyncError)(member.handle, &raw mut state) })?;
            if state == IN_PROGRESS {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        library.check("connect GPUs", state)?;
    }
    Ok(joined)
}

impl Drop for Communicators {
    fn drop(&mut self) {
        let functions = &self.library.functions;
        // One that has failed can only be aborted.
        let failed = self.failure().is_some();
        let end_one = if failed { functions.ncclCommAbort } else { functions.ncclCommDestroy };
        let members = std::mem::take(&mut self.groups);
        let end = move || {
            // Of one process, each member may wait for the others.
            std::thread::scope(|scope| {
                for member in members.iter().flatten() {
                    // SAFETY: nothing uses the communicator any more.
                    scope.spawn(move || unsafe { end_one({ member }.handle) });
                }
            });
        };
        limited(END, end);
    }
}
