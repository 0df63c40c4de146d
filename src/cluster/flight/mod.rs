//! Flight records: the last collectives of each process of a job, and what they say of its end.

mod culprit;
mod recorder;
mod records;
mod verdict;

pub use culprit::report;
pub use recorder::{EXCHANGE, FlightEntry, FlightRecord, FlightRecorder, KEPT, Ticket};
