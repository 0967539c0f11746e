//! The glue under a kernel tree's own code: what `pontoon kernel` links with the objects of a user's tree.
//!
//! Two halves. The C half (`c/`) is compiled with the tree's own headers and flags when the user asks, and is alone to know the
//! kernel's structures: locks, waits, allocation, the process' memory, an xe device filled in by hand. The Rust half is this crate
//! as a shared library: the device itself (`xe-hw`: page tables walked, batches executed, an IOMMU that refuses), and evidence,
//! one JSON line an event. Between them stand plain integers and byte pointers (`c/kface.h`).
//!
//! Nothing of a kernel is here: no text, no layout, no number of a structure. [`source`] is the C half for who compiles it; [`acts`] and
//! [`stream`] are what another engine needs that is to be compared, [`memory`] what a model of the memory does.
//!
//! Key types: `device::Device`, `evidence::Line`. `ffi` is all there is of `unsafe` (docs/soundness.md).
//!
//! Locking: one task runs; the device's locks are its own.
//!
//! Upstream: none, this is what lies around upstream's code.
#![deny(unsafe_code)]

pub mod acts;
mod compare;
mod conform;
mod device;
mod evidence;
mod ffi;
pub mod memory;
mod runs;
pub mod source;
pub mod stream;
mod tasks;

pub use runs::FINDINGS;
