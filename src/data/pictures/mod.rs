//! Pictures of any size: decoding, resizing, and the geometry of crops. Does not depend on where their files lie.
