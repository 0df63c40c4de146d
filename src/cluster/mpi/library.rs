//! An MPI library, loaded at run time, with the calls that the engine needs.

use super::abi::{Abi, Handle, Kind};
use crate::error::{Error, Result};
use libloading::Library;
use libloading::os::unix::{Library as UnixLibrary, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

/// The variable that names the library.
const VARIABLE: &str = "PERISTYLE_MPI";
/// The names of the libraries: of Open MPI, of MPICH, of MPICH in Debian, of the standard ABI.
const NAMES: [&str; 4] = ["libmpi.so.40", "libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1"];
/// The number of names that are not MPICH's.
const OPEN_MPI: usize = 1;
/// The longest texts that a library returns.
const TEXT: usize = 8192;

type Code = c_int;

/// The functions of a library, in the C types of `mpi.h`; handles are passed as words, of which a library with 32-bit handles reads the lower half.
struct Functions {
    init_thread: unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> Code,
    finalize: unsafe extern "C" fn() -> Code,
    set_errhandler: unsafe extern "C" fn(Handle, Handle) -> Code,
    error_string: unsafe extern "C" fn(c_int, *mut c_char, *mut c_int) -> Code,
    rank: unsafe extern "C" fn(Handle, *mut c_int) -> Code,
    size: unsafe extern "C" fn(Handle, *mut c_int) -> Code,
    dup: unsafe extern "C" fn(Handle, *mut Handle) -> Code,
    split: unsafe extern "C" fn(Handle, c_int, c_int, *mut Handle) -> Code,
    isend: unsafe extern "C" fn(*const c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle) -> Code,
    irecv: unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle) -> Code,
    iallreduce: unsafe extern "C" fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle, *mut Handle) -> Code,
    test: unsafe extern "C" fn(*mut Handle, *mut c_int, *mut c_void) -> Code,
}

/// A loaded library.
pub(super) struct Mpi {
    functions: Functions,
    pub abi: Abi,
    /// `Open MPI 4.1.4`.
    pub name: String,
}

/// Loads the first MPI library that there is: Open MPI, or if `is_mpich` an MPICH.
///
/// # Errors
/// If there is none, or it is of an unknown kind.
pub(super) fn load(is_mpich: bool) -> Result<Mpi> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = Path::new(&path);
        let wrong =
            |why: String| Error::Usage(format!("{VARIABLE}={}: {why}; name the library of an MPI", path.display()));
        return open(path.as_os_str()).map_err(wrong);
    }
    let mut names = NAMES;
    if is_mpich {
        names.rotate_left(OPEN_MPI);
    }
    let mut refused = Vec::new();
    for name in names {
        match open(name.as_ref()) {
            Ok(mpi) => return Ok(mpi),
            Err(why) => refused.push(why),
        }
    }
    Err(Error::Usage(format!(
        "several processes exchange data through MPI, but no library of one can be loaded ({}): install Open MPI or MPICH, or set {VARIABLE} to the \
         path of the library; {}",
        NAMES.join(", "),
        refused.first().map_or("", String::as_str)
    )))
}

fn open(name: &std::ffi::OsStr) -> std::result::Result<Mpi, String> {
    // SAFETY: the initialisers of an MPI library do nothing before MPI_Init. Its own modules need its symbols.
    let library = unsafe { UnixLibrary::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| reason(&error))?;
    // It registers handlers that run at exit, so it is never unloaded.
    let library: &'static Library = Box::leak(Box::new(library.into()));
    let version = version(library).ok_or("it has no MPI_Get_library_version")?;
    let standard = name.to_string_lossy().contains("mpi_abi");
    let unknown = || format!("MPI of an unknown kind: {version}");
    let abi = Kind::of(&version, standard).ok_or_else(unknown)?.abi(library).ok_or_else(unknown)?;
    let functions = functions(library).map_err(|error| error.to_string())?;
    Ok(Mpi { functions, abi, name: short(&version) })
}

/// Returns an error with its causes, of which the loader has the reason.
fn reason(error: &libloading::Error) -> String {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

/// Returns the text that the library reports as its version.
fn version(library: &Library) -> Option<String> {
    // SAFETY: the signature is that of the MPI standard.
    let get =
        unsafe { library.get::<unsafe extern "C" fn(*mut c_char, *mut c_int) -> Code>(b"MPI_Get_library_version") }
            .ok()?;
    let (mut text, mut length) = (vec![0u8; TEXT], 0);
    // SAFETY: the standard allows this call before MPI_Init, and bounds its text by 8192 bytes.
    unsafe { get(text.as_mut_ptr().cast(), &mut length) };
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(TEXT));
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Shortens a version: `Open MPI v4.1.4, package: ...` is `Open MPI 4.1.4`, and `MPICH Version:<tab>5.0.2 ...` is `MPICH 5.0.2`.
fn short(version: &str) -> String {
    let line = version.lines().next().unwrap_or(version).replace("Version:", " ");
    let mut words = line.split([' ', '\t', ',']).filter(|word| !word.is_empty());
    let mut name: Vec<String> = Vec::new();
    for word in words.by_ref() {
        let number = word.trim_start_matches('v');
        let is_number = number.starts_with(|c: char| c.is_ascii_digit());
        name.push(if is_number { number.to_string() } else { word.to_string() });
        if is_number || name.len() == 6 {
            break;
        }
    }
    name.join(" ")
}

fn functions(library: &'static Library) -> std::result::Result<Functions, libloading::Error> {
    /// Returns a function of the library.
    ///
    /// # Safety
    /// `F` is its type.
    unsafe fn get<F: Copy>(library: &'static Library, name: &[u8]) -> std::result::Result<F, libloading::Error> {
        // SAFETY: the caller guarantees the type; the library is never unloaded.
        unsafe { library.get::<F>(name) }.map(|symbol| *symbol)
    }
    // SAFETY: the types are those of the MPI standard, with handles as words.
    unsafe {
        Ok(Functions {
            init_thread: get(library, b"MPI_Init_thread")?,
            finalize: get(library, b"MPI_Finalize")?,
            set_errhandler: get(library, b"MPI_Comm_set_errhandler")?,
            error_string: get(library, b"MPI_Error_string")?,
            rank: get(library, b"MPI_Comm_rank")?,
            size: get(library, b"MPI_Comm_size")?,
            dup: get(library, b"MPI_Comm_dup")?,
            split: get(library, b"MPI_Comm_split")?,
            isend: get(library, b"MPI_Isend")?,
            irecv: get(library, b"MPI_Irecv")?,
            iallreduce: get(library, b"MPI_Iallreduce")?,
            test: get(library, b"MPI_Test")?,
        })
    }
}

/// Why a call failed.
pub(super) type Refusal = String;

impl Mpi {
    fn checked(&self, code: Code, call: &str) -> Result<(), Refusal> {
        if code == 0 {
            return Ok(());
        }
        let (mut text, mut length) = (vec![0u8; TEXT], 0);
        // SAFETY: the text is longer than any MPI's longest.
        unsafe { (self.functions.error_string)(code, text.as_mut_ptr().cast(), &mut length) };
        text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(TEXT));
        Err(format!("{call} of {}: {}", self.name, String::from_utf8_lossy(&text).trim()))
    }

    /// Starts MPI on this thread, which then makes all other calls. Errors are returned from now on.
    pub fn start(&self) -> Result<(), Refusal> {
        let mut provided = 0;
        // SAFETY: MPI allows null arguments; `provided` outlives the call.
        let code = unsafe {
            (self.functions.init_thread)(
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                self.abi.thread_funneled,
                &mut provided,
            )
        };
        self.checked(code, "MPI_Init_thread")?;
        self.returns_errors(self.abi.world)
    }

    fn returns_errors(&self, communicator: Handle) -> Result<(), Refusal> {
        // SAFETY: both are handles of this library.
        let code = unsafe { (self.functions.set_errhandler)(communicator, self.abi.errors_return) };
        self.checked(code, "MPI_Comm_set_errhandler")
    }

    /// Ends MPI.
    pub fn finish(&self) -> Result<(), Refusal> {
        // SAFETY: MPI was started, and no request is under way.
        let code = unsafe { (self.functions.finalize)() };
        self.checked(code, "MPI_Finalize")
    }

    /// Returns the number of this process and of all.
    pub fn place(&self) -> Result<(usize, usize), Refusal> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: the world is a communicator of this library; both numbers outlive the calls.
        let codes = unsafe {
            [(self.functions.rank)(self.abi.world, &mut rank), (self.functions.size)(self.abi.world, &mut size)]
        };
        codes.into_iter().try_for_each(|code| self.checked(code, "MPI_Comm_rank"))?;
        Ok((rank as usize, size as usize))
    }

    /// Returns a copy of the world's communicator, whose messages are its own.
    pub fn copy(&self) -> Result<Handle, Refusal> {
        let mut copy = 0;
        // SAFETY: the world is a communicator of this library; a handle fits into a word.
        let code = unsafe { (self.functions.dup)(self.abi.world, &mut copy) };
        self.checked(code, "MPI_Comm_dup")?;
        self.returns_errors(copy).map(|()| copy)
    }

    /// Creates the communicator of a group; every process of the world calls it. Returns none to those that are not in the group.
    pub fn group(&self, is_in: bool, rank: usize) -> Result<Option<Handle>, Refusal> {
        let (mut group, color) = (0, if is_in { 0 } else { self.abi.undefined });
        // SAFETY: as for `copy`.
        let code = unsafe { (self.functions.split)(self.abi.world, color, rank as c_int, &mut group) };
        self.checked(code, "MPI_Comm_split")?;
        if is_in { self.returns_errors(group).map(|()| Some(group)) } else { Ok(None) }
    }

    /// Starts to send bytes.
    ///
    /// # Safety
    /// They remain valid and unchanged until the request has ended.
    pub unsafe fn send(
        &self,
        from: *const u8,
        bytes: usize,
        to: usize,
        tag: u16,
        over: Handle,
    ) -> Result<Handle, Refusal> {
        let mut request = 0;
        // SAFETY: the caller's guarantees are passed on; a handle fits into a word.
        let code = unsafe {
            (self.functions.isend)(
                from.cast(),
                bytes as c_int,
                self.abi.byte,
                to as c_int,
                c_int::from(tag),
                over,
                &mut request,
            )
        };
        self.checked(code, "MPI_Isend").map(|()| request)
    }

    /// Starts to receive bytes.
    ///
    /// # Safety
    /// Nothing else uses their place until the request has ended.
    pub unsafe fn receive(
        &self,
        to: *mut u8,
        bytes: usize,
        from: usize,
        tag: u16,
        over: Handle,
    ) -> Result<Handle, Refusal> {
        let mut request = 0;
        // SAFETY: as for `send`.
        let code = unsafe {
            (self.functions.irecv)(
                to.cast(),
                bytes as c_int,
                self.abi.byte,
                from as c_int,
                c_int::from(tag),
                over,
                &mut request,
            )
        };
        self.checked(code, "MPI_Irecv").map(|()| request)
    }

    /// Starts to replace values of a type by their sums.
    ///
    /// # Safety
    /// Nothing else uses them until the request has ended.
    pub unsafe fn sum(&self, values: *mut u8, count: usize, of: Handle, over: Handle) -> Result<Handle, Refusal> {
        let mut request = 0;
        let in_place = std::ptr::without_provenance::<c_void>(self.abi.in_place);
        // SAFETY: as for `send`.
        let code = unsafe {
            (self.functions.iallreduce)(in_place, values.cast(), count as c_int, of, self.abi.sum, over, &mut request)
        };
        self.checked(code, "MPI_Iallreduce").map(|()| request)
    }

    /// Returns whether a request has ended.
    pub fn has_ended(&self, request: &mut Handle) -> Result<bool, Refusal> {
        let mut ended = 0;
        let ignored = std::ptr::without_provenance_mut::<c_void>(self.abi.ignored_status);
        // SAFETY: the request is one of this library, and has not ended before.
        let code = unsafe { (self.functions.test)(request, &mut ended, ignored) };
        self.checked(code, "MPI_Test").map(|()| ended != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_shortened_and_tell_the_kind() {
        let open = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4, May 26, 2022";
        let mpich = "MPICH Version:\t5.0.2\nMPICH Release date:\tThu Jan  1\nMPICH ABI:\t18:0:6\n";
        let intel = "Intel(R) MPI Library 2021.12 for Linux* OS\n";
        assert_eq!([open, mpich, intel].map(short), ["Open MPI 4.1.4", "MPICH 5.0.2", "Intel(R) MPI Library 2021.12"]);
        assert_eq!(Kind::of(open, false), Some(Kind::OpenMpi));
        assert_eq!([Kind::of(mpich, false), Kind::of(intel, false)], [Some(Kind::Mpich); 2]);
        assert_eq!((Kind::of(mpich, true), Kind::of("MPT 2.28", false)), (Some(Kind::Standard), None));
    }
}
