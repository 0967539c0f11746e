//! Random but well-formed sequences of ioctls: made from a seed, played, judged, made smaller, printed and played again.
//!
//! [`generate`] makes a [`sequence`] from a seed; [`play`] plays it on the simulated machine, under a schedule of the same
//! seed; [`live`] under the preload library, on the real kernel. What each call must answer is said by [`expect`], which does
//! not know the driver. That nothing panics, hangs or leaks, and that a neighbour gets on, the world itself says.
//! [`shrink`] makes a failing sequence as short as it goes. [`layout`] has names for the bytes.
//!
//! `corpus/` has sequences that once failed, and some that are worth playing again; the tests play them.
#![forbid(unsafe_code)]

mod desk;
pub mod device;
pub mod expect;
pub mod generate;
pub mod layout;
pub mod live;
pub mod place;
pub mod play;
pub mod sequence;
pub mod shrink;
