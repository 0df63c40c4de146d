//! Finds and loads an MPI library.

use super::abi::Abi;
use super::calls::Calls;
use super::functions::{Code, Functions, LONGEST_TEXT, until_zero};
use crate::error::{Error, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{OsStr, c_char, c_int};

/// The variable that names the library.
const VARIABLE: &str = "PERISTYLE_MPI";

/// Which library is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefers {
    /// Open MPI.
    OpenMpi,
    /// MPICH, or one with its ABI.
    Mpich,
}

impl Prefers {
    /// Returns the names of the libraries of Open MPI, of MPICH, of MPICH in Debian, and of the standard ABI, in the order in which
    /// they are tried.
    fn names(self) -> [&'static str; 4] {
        match self {
            Prefers::OpenMpi => ["libmpi.so.40", "libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1"],
            Prefers::Mpich => ["libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1", "libmpi.so.40"],
        }
    }
}

/// Loads the library that `PERISTYLE_MPI` names, or else the first that can be loaded.
///
/// # Errors
/// If there is none, or the named one cannot be used.
pub(super) fn load(prefers: Prefers) -> Result<Calls> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return open(&path).map_err(|why| {
            Error::Usage(format!(
                "{VARIABLE}={} cannot be used ({why}); set it to the path of an MPI library, such as \
                 /usr/lib/x86_64-linux-gnu/libmpi.so.40, or unset it",
                path.display()
            ))
        });
    }
    let names = prefers.names();
    let mut refusals = Vec::new();
    for name in names {
        match open(OsStr::new(name)) {
            Ok(calls) => return Ok(calls),
            Err(why) => refusals.push(why),
        }
    }
    Err(Error::Usage(format!(
        "no MPI library can be loaded, tried {} ({}); install Open MPI or MPICH, or set LD_LIBRARY_PATH to the folder of the library or \
         {VARIABLE} to its path",
        names.join(", "),
        refusals.join("; ")
    )))
}

/// Loads a library. The error is the reason why it cannot be used.
fn open(path: &OsStr) -> Result<Calls, String> {
    // SAFETY: an MPI library does nothing before MPI_Init; modules that it loads itself need its symbols.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| reason(&error))?;
    let version = version(&library).map_err(|error| reason(&error))?;
    let file = path.to_string_lossy();
    let abi = Abi::of(&library, &file, &version).ok_or_else(|| {
        format!("{file} is {}, expected Open MPI, MPICH or a library with the ABI of MPI 5", short(&version))
    })?;
    let functions = Functions::of(&library).map_err(|error| reason(&error))?;
    // It registers handlers that run at exit, and its functions are called for as long as the process lives.
    std::mem::forget(library);
    Ok(Calls { functions, abi, name: short(&version) })
}

/// Returns what the loader says.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Returns the text by which a library names itself.
fn version(library: &Library) -> Result<String, libloading::Error> {
    type Version = unsafe extern "C" fn(*mut c_char, *mut c_int) -> Code;
    // SAFETY: the type is that of the standard.
    let version = unsafe { library.get::<Version>("MPI_Get_library_version") }?;
    let (mut text, mut len) = (vec![0; LONGEST_TEXT], 0);
    // SAFETY: the standard allows the call before MPI_Init; no library returns a longer text.
    unsafe { version(text.as_mut_ptr().cast(), &mut len) };
    Ok(until_zero(text))
}

/// Returns the name and the number of a version: `Open MPI v4.1.4, package: ...` is `Open MPI 4.1.4`.
fn short(version: &str) -> String {
    let words = version.split([' ', '\t', '\n', ',', ':']).filter(|word| !word.is_empty() && *word != "Version");
    let starts_with_digit = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let mut name: Vec<&str> = Vec::new();
    for word in words.take(6) {
        let word = word.strip_prefix('v').filter(|rest| starts_with_digit(rest)).unwrap_or(word);
        name.push(word);
        if starts_with_digit(word) {
            break;
        }
    }
    name.join(" ")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn versions_are_shortened_to_name_and_number() {
        let open = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4, May 26, 2022";
        let mpich = "MPICH Version:      5.0.2\nMPICH Release date:  Fri Sep 25\nMPICH ABI:  18:0:6\n";
        let intel = "Intel(R) MPI Library 2021.12 for Linux* OS\n";
        assert_eq!([open, mpich, intel].map(short), ["Open MPI 4.1.4", "MPICH 5.0.2", "Intel(R) MPI Library 2021.12"]);
    }
}
