//! Static files: which file a path means, in which coding it goes out, whether it has to, and how much of it.
//!
//! Pure: files are looked for, and read, in `proxy::files`.

pub mod coding;
pub mod conditions;
pub mod kinds;
pub mod name;
pub mod range;
