//! Files of pictures: lists of them, members of archives, and their index. Does not decode.
//!
//! To add a way to write many files as one name, extend [`expand`]; archives of another kind get a file beside `tar.rs`.

mod list_file;
mod shard_names;
mod shards;
mod tar;
mod tar_header;

pub use list_file::{FileList, read_list};
pub use shard_names::expand;
pub use shards::{ShardSample, ShardSamples, read_shards};
pub use tar::{Member, ReadAt, members, members_of};

/// The largest class number: the largest that floats hold with all before it.
const LARGEST_LABEL: u32 = 1 << 24;
