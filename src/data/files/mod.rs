//! Files of pictures: lists of them, members of archives, and their index. Does not decode.
//!
//! To add a way to write many files as one name, extend [`expand`]; archives of another kind get a file beside `tar.rs`, and those in which
//! pictures are compressed are unpacked once.

mod catalog;
mod caught;
mod folder;
mod index;
mod kept;
mod list_file;
mod parquet;
mod parquet_columns;
mod shard_names;
mod shards;
mod tar;
mod tar_header;
mod unpacked;

pub(in crate::data) use catalog::{Archive, Catalog, Entry, nanoseconds};
pub(in crate::data) use folder::list as list_folder;
pub use folder::picture_files;
pub(in crate::data) use index::Index;
pub(in crate::data) use kept::{Kept, Witness};
pub use list_file::{FileList, read_list};
pub use parquet::{ParquetClasses, ParquetFile};
pub use shard_names::expand;
pub use shards::{ShardSample, ShardSamples, read_shards};
pub use tar::{Member, ReadAt, members, members_of};
pub(in crate::data) use unpacked::unpack;

/// The largest class number: the largest that floats hold with all before it.
const LARGEST_LABEL: u32 = 1 << 24;
