//! Files of pictures: lists of them, members of archives, and their index. Does not decode.
