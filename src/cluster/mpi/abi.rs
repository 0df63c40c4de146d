//! The constants of the MPI libraries, whose headers differ. The table is chosen at run time.
//!
//! Sources: `mpi.h` of Open MPI 4.1.4 and 5.0.11 (pointers to objects of the library), `mpi.h` of MPICH 4 and 5 (32-bit integers),
//! and `mpi_abi.h` of MPI 5.0 (small integers in pointers).

use libloading::os::unix::Library;
use std::ffi::c_int;

/// A communicator, type, operation, request or other object of a library.
///
/// MPICH has 32-bit handles. Passed as an argument, a word serves for those too: the called function reads its lower half. As an
/// out-parameter it must be zero before, since only its lower half is written.
pub(super) type Handle = usize;

// A 32-bit handle that is written to the start of a word must be its lower half.
const _: () = assert!(cfg!(target_endian = "little") && size_of::<usize>() == 8);

/// What a library's header defines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abi {
    /// `MPI_COMM_WORLD`.
    pub world: Handle,
    /// `MPI_BYTE`.
    pub byte: Handle,
    /// `MPI_FLOAT`.
    pub float: Handle,
    /// `MPI_DOUBLE`.
    pub double: Handle,
    /// `MPI_SUM`.
    pub sum: Handle,
    /// `MPI_ERRORS_RETURN`.
    pub errors_return: Handle,
    /// `MPI_IN_PLACE`, an address.
    pub in_place: usize,
    /// `MPI_THREAD_FUNNELED`.
    pub funneled: c_int,
}

/// `MPI_UNDEFINED`, the same in all of them.
pub(super) const UNDEFINED: c_int = -32766;

const MPICH: Abi = Abi {
    world: 0x4400_0000,
    byte: 0x4c00_010d,
    float: 0x4c00_040a,
    double: 0x4c00_080b,
    sum: 0x5800_0003,
    errors_return: 0x5400_0001,
    in_place: usize::MAX,
    funneled: 1,
};

const STANDARD: Abi = Abi {
    world: 0x101,
    byte: 0x247,
    float: 0x210,
    double: 0x214,
    sum: 0x21,
    errors_return: 0x143,
    in_place: 1,
    funneled: 1024,
};

impl Abi {
    /// Returns the table of a library with this file name that reports this version; none if it is of an unknown kind.
    pub fn of(library: &Library, file: &str, version: &str) -> Option<Abi> {
        let open_mpi = Abi::of_open_mpi(library);
        // An Open MPI that is built for both ABIs may have its own objects in either library.
        if implements_standard(library) && (open_mpi.is_none() || file.contains("mpi_abi")) {
            return Some(STANDARD);
        }
        open_mpi.or_else(|| is_mpich(version).then_some(MPICH))
    }

    fn of_open_mpi(library: &Library) -> Option<Abi> {
        let object = |name: &str| {
            // SAFETY: only the address of the symbol is taken.
            let symbol = unsafe { library.get::<*const u8>(name) }.ok()?;
            Some(symbol.as_raw_ptr() as Handle)
        };
        Some(Abi {
            world: object("ompi_mpi_comm_world")?,
            byte: object("ompi_mpi_byte")?,
            float: object("ompi_mpi_float")?,
            double: object("ompi_mpi_double")?,
            sum: object("ompi_mpi_op_sum")?,
            errors_return: object("ompi_mpi_errors_return")?,
            in_place: 1,
            funneled: 1,
        })
    }
}

/// Returns whether a library says that its ABI is that of the standard. MPICH's other library has the function too, and denies it.
fn implements_standard(library: &Library) -> bool {
    type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
    // SAFETY: the type is that of the standard.
    let Ok(version) = (unsafe { library.get::<Version>("MPI_Abi_get_version") }) else { return false };
    let (mut major, mut minor) = (-1, -1);
    // SAFETY: the standard allows the call before MPI_Init; both numbers outlive it.
    let code = unsafe { version(&mut major, &mut minor) };
    code == 0 && major >= 1
}

/// Returns whether a version is that of MPICH or of a library with its ABI.
fn is_mpich(version: &str) -> bool {
    ["MPICH", "MVAPICH", "Intel(R) MPI"].iter().any(|name| version.contains(name))
}

#[cfg(test)]
mod tests {
    use super::is_mpich;

    #[test]
    fn libraries_with_the_abi_of_mpich_are_recognized() {
        assert!(is_mpich("MPICH Version:\t4.0.2") && is_mpich("MVAPICH2 Version      :\t2.3.7"));
        assert!(is_mpich("Intel(R) MPI Library 2021.12 for Linux* OS"));
        assert!(!is_mpich("HPE MPT 2.28"));
    }
}
