//! Variants that do what Linux 7.2 does where that is wrong. Each is a function of the [`Rules`](crate::Rules)
//! table, and says which kernel function it stands for.

pub mod copy;
pub mod fence;
pub mod unfit;
