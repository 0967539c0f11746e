//! Mistakes made on purpose, one a function, for the checker (and the judge of a run) to find. Each takes the
//! place of one entry of the [`Rules`](crate::Rules) table; none stands for a kernel function.

pub mod ends;
pub mod flush;
pub mod leaf;
