//! The handles and constants of the MPI libraries, whose headers differ. The table is chosen at run time, by the version that a library
//! reports.
//!
//! Sources: `mpi.h` of Open MPI 4.1.4 and 5.0.11 (pointers to objects of the library), `mpi.h` of MPICH 4 and 5 (32-bit integers), and
//! `mpi_abi.h` of MPI 5.0 (small integers in pointers).

use libloading::Library;

/// A communicator, a type, an operation or another object of the library.
pub(super) type Handle = usize;

/// The values of a library's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Abi {
    pub world: Handle,
    pub byte: Handle,
    pub float: Handle,
    pub double: Handle,
    pub sum: Handle,
    pub errors_return: Handle,
    pub in_place: usize,
    pub ignored_status: usize,
    /// The color of a process that is in no group.
    pub undefined: i32,
    pub thread_funneled: i32,
}

const MPICH: Abi = Abi {
    world: 0x4400_0000,
    byte: 0x4c00_010d,
    float: 0x4c00_040a,
    double: 0x4c00_080b,
    sum: 0x5800_0003,
    errors_return: 0x5400_0001,
    in_place: usize::MAX,
    ignored_status: 1,
    undefined: -32766,
    thread_funneled: 1,
};

const STANDARD: Abi = Abi {
    world: 0x101,
    byte: 0x247,
    float: 0x210,
    double: 0x214,
    sum: 0x21,
    errors_return: 0x143,
    in_place: 1,
    ignored_status: 0,
    undefined: -32766,
    thread_funneled: 1024,
};

/// The kind of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    OpenMpi,
    Mpich,
    /// One with the ABI of MPI 5.0.
    Standard,
}

impl Kind {
    /// Returns the kind of a library that reports a version; `standard` if its file has the name of the standard ABI.
    pub fn of(version: &str, standard: bool) -> Option<Kind> {
        if standard {
            return Some(Kind::Standard);
        }
        let known = [
            ("Open MPI", Kind::OpenMpi),
            ("MPICH", Kind::Mpich),
            ("MVAPICH", Kind::Mpich),
            ("Intel(R) MPI", Kind::Mpich),
        ];
        known.into_iter().find(|(name, _)| version.contains(name)).map(|(_, kind)| kind)
    }

    /// Returns the values of this kind of library; none if it lacks an object.
    pub fn abi(self, library: &Library) -> Option<Abi> {
        let object = |name: &[u8]| {
            // SAFETY: only the address of the object is taken.
            let symbol = unsafe { library.get::<*const u8>(name) }.ok()?;
            // SAFETY: as above; the library is never unloaded.
            Some(unsafe { symbol.into_raw() }.as_raw_ptr() as usize)
        };
        match self {
            Kind::Mpich => Some(MPICH),
            Kind::Standard => Some(STANDARD),
            Kind::OpenMpi => Some(Abi {
                world: object(b"ompi_mpi_comm_world")?,
                byte: object(b"ompi_mpi_byte")?,
                float: object(b"ompi_mpi_float")?,
                double: object(b"ompi_mpi_double")?,
                sum: object(b"ompi_mpi_op_sum")?,
                errors_return: object(b"ompi_mpi_errors_return")?,
                in_place: 1,
                ignored_status: 0,
                undefined: -32766,
                thread_funneled: 1,
            }),
        }
    }
}
