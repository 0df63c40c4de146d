//! The calls of MPI that the engine makes, with errors as results.

use super::abi::{Abi, Handle, UNDEFINED};
use super::functions::{Code, Functions, LONGEST_TEXT, until_zero};
use std::ffi::{c_int, c_void};
use std::ptr::{null_mut, without_provenance};

/// The calls of a loaded library. The thread that calls [`Calls::start`] makes all others too.
#[derive(Debug)]
pub(super) struct Calls {
    pub functions: Functions,
    pub abi: Abi,
    /// The name and number of the library: `Open MPI 4.1.4`.
    pub name: String,
}

/// Why a call failed: which it was, and what the library says.
pub(super) type Refusal = String;

/// A message or a sum that MPI works on.
#[derive(Debug)]
pub(super) struct Request(Handle);

/// Room for a status, which has 20 bytes in MPICH, 24 in Open MPI and 32 in the standard ABI.
type Status = [u64; 8];

impl Calls {
    fn check(&self, code: Code, call: &str) -> Result<(), Refusal> {
        if code == 0 {
            return Ok(());
        }
        let (mut text, mut len) = (vec![0; LONGEST_TEXT], 0);
        // SAFETY: no library returns a longer text.
        unsafe { (self.functions.error_string)(code, text.as_mut_ptr().cast(), &mut len) };
        // MPICH says it in several lines.
        let text = until_zero(text).lines().map(str::trim).collect::<Vec<_>>().join("; ");
        Err(format!("{call} of {}: {text}", self.name))
    }

    /// Starts MPI. From now on it returns errors of the world's communicator; before, it ends the process.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn start(&self) -> Result<(), Refusal> {
        let mut provided = 0;
        // SAFETY: the standard allows null arguments; `provided` outlives the call.
        let code = unsafe { (self.functions.init_thread)(null_mut(), null_mut(), self.abi.funneled, &mut provided) };
        self.check(code, "MPI_Init_thread")?;
        if provided < self.abi.funneled {
            return Err(format!("{} was built without threads, expected at least MPI_THREAD_FUNNELED", self.name));
        }
        self.return_errors(self.abi.world)
    }

    fn return_errors(&self, communicator: Handle) -> Result<(), Refusal> {
        // SAFETY: both are handles of this library.
        let code = unsafe { (self.functions.comm_set_errhandler)(communicator, self.abi.errors_return) };
        self.check(code, "MPI_Comm_set_errhandler")
    }

    /// Ends MPI. Blocks until other processes do so too.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn finish(&self) -> Result<(), Refusal> {
        // SAFETY: MPI runs on this thread.
        let code = unsafe { (self.functions.finalize)() };
        self.check(code, "MPI_Finalize")
    }

    /// Returns the number of this process and that of all processes.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn place(&self) -> Result<(usize, usize), Refusal> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: the world is a communicator of this library; `rank` outlives the call.
        let code = unsafe { (self.functions.comm_rank)(self.abi.world, &mut rank) };
        self.check(code, "MPI_Comm_rank")?;
        // SAFETY: as above, for `size`.
        let code = unsafe { (self.functions.comm_size)(self.abi.world, &mut size) };
        self.check(code, "MPI_Comm_size")?;
        Ok((rank as usize, size as usize))
    }

    /// Creates a communicator of all processes. Blocks until all do so.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn duplicate(&self) -> Result<Handle, Refusal> {
        let mut copy = 0;
        // SAFETY: the world is a communicator of this library; `copy` has room for a handle and outlives the call.
        let code = unsafe { (self.functions.comm_dup)(self.abi.world, &mut copy) };
        self.check(code, "MPI_Comm_dup")?;
        self.return_errors(copy)?;
        Ok(copy)
    }

    /// Creates the communicator of a group. Blocks until all processes do so; returns none to those that are not in the group.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn group(&self, rank: usize, group: &[usize]) -> Result<Option<Handle>, Refusal> {
        let within = group.contains(&rank);
        let (mut part, color) = (0, if within { 0 } else { UNDEFINED });
        // SAFETY: the world is a communicator of this library; `part` has room for a handle and outlives the call.
        let code = unsafe { (self.functions.comm_split)(self.abi.world, color, rank as c_int, &mut part) };
        self.check(code, "MPI_Comm_split")?;
        if !within {
            return Ok(None);
        }
        self.return_errors(part)?;
        Ok(Some(part))
    }

    /// Frees a communicator, on which nothing is under way.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn free(&self, mut communicator: Handle) -> Result<(), Refusal> {
        // SAFETY: the handle is a communicator of this library, and outlives the call.
        let code = unsafe { (self.functions.comm_free)(&mut communicator) };
        self.check(code, "MPI_Comm_free")
    }

    /// Starts to send bytes, at most as many as a C `int` counts.
    ///
    /// # Errors
    /// If MPI refuses.
    ///
    /// # Safety
    /// The bytes stay valid and unchanged until the request has ended.
    pub unsafe fn send(&self, bytes: *const [u8], to: usize, tag: u16, over: Handle) -> Result<Request, Refusal> {
        let (count, to, tag, mut request) = (bytes.len() as c_int, to as c_int, c_int::from(tag), 0);
        let (functions, byte) = (&self.functions, self.abi.byte);
        // SAFETY: the caller guarantees the bytes; `request` has room for a handle and outlives the call.
        let code = unsafe { (functions.isend)(bytes.cast(), count, byte, to, tag, over, &mut request) };
        self.check(code, "MPI_Isend")?;
        Ok(Request(request))
    }

    /// Starts to receive bytes, at most as many as a C `int` counts.
    ///
    /// # Errors
    /// If MPI refuses.
    ///
    /// # Safety
    /// The bytes stay valid, and nothing else uses them, until the request has ended.
    pub unsafe fn receive(&self, bytes: *mut [u8], from: usize, tag: u16, over: Handle) -> Result<Request, Refusal> {
        let (count, from, tag, mut request) = (bytes.len() as c_int, from as c_int, c_int::from(tag), 0);
        let (functions, byte) = (&self.functions, self.abi.byte);
        // SAFETY: the caller guarantees the bytes; `request` has room for a handle and outlives the call.
        let code = unsafe { (functions.irecv)(bytes.cast(), count, byte, from, tag, over, &mut request) };
        self.check(code, "MPI_Irecv")?;
        Ok(Request(request))
    }

    /// Starts to replace values of the type `of` by their sums, at most as many as a C `int` counts.
    ///
    /// # Errors
    /// If MPI refuses.
    ///
    /// # Safety
    /// There are `count` of them, they stay valid, and nothing else uses them, until the request has ended.
    pub unsafe fn sum(&self, values: *mut u8, count: usize, of: Handle, over: Handle) -> Result<Request, Refusal> {
        let (functions, count, sum, mut request) = (&self.functions, count as c_int, self.abi.sum, 0);
        let in_place = without_provenance::<c_void>(self.abi.in_place);
        // SAFETY: the caller guarantees the values; `request` has room for a handle and outlives the call.
        let code = unsafe { (functions.iallreduce)(in_place, values.cast(), count, of, sum, over, &mut request) };
        self.check(code, "MPI_Iallreduce")?;
        Ok(Request(request))
    }

    /// Lets MPI work, and returns whether a request has ended: if it receives, with the number of bytes that came. A request that
    /// has ended is not to be passed again.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn ended(&self, request: &mut Request) -> Result<Option<usize>, Refusal> {
        let (mut ended, mut status, mut count) = (0, Status::default(), 0);
        // SAFETY: the request is one of this library; `status` has room for that of any library, and all outlive the call.
        let code = unsafe { (self.functions.test)(&mut request.0, &mut ended, status.as_mut_ptr().cast()) };
        self.check(code, "MPI_Test")?;
        if ended == 0 {
            return Ok(None);
        }
        // SAFETY: the call before has written the status; `count` outlives the call.
        let code = unsafe { (self.functions.get_count)(status.as_ptr().cast(), self.abi.byte, &mut count) };
        self.check(code, "MPI_Get_count")?;
        Ok(Some(count as usize))
    }

    /// Lets MPI work where nothing is under way. `rank` is this process, which sends itself no messages.
    ///
    /// # Errors
    /// If MPI refuses.
    pub fn work(&self, rank: usize, over: Handle) -> Result<(), Refusal> {
        let (mut found, mut status) = (0, Status::default());
        let (functions, rank) = (&self.functions, rank as c_int);
        // SAFETY: the communicator is one of this library; `status` has room for that of any library, and all outlive the call.
        let code = unsafe { (functions.iprobe)(rank, 0, over, &mut found, status.as_mut_ptr().cast()) };
        self.check(code, "MPI_Iprobe")
    }
}
