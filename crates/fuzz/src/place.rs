//! Where a sequence's memory lies in the process: the same addresses in every world.
//!
//! Numbers of descriptors are the same too: each that an ioctl gives out becomes the lowest free one from
//! [`FIRST_FD`] on.

use units::{HostRange, HostVa, SZ_2M, SZ_4K};

/// Arguments of ioctls, and what they point to. No batch is aimed at it.
pub const DESK: HostRange = HostRange::new(HostVa(0x6000_0000_0000), HostVa(0x6000_0001_0000));
/// Where in it the argument itself lies.
pub const ARGUMENT: u64 = DESK.start.0;
/// Where what it points to begins.
pub const POINTED: u64 = DESK.start.0 + 0x400;
/// Memory that comes and goes, whose first half is there in the beginning.
pub const ARENA: HostRange = HostRange::new(HostVa(0x6000_1000_0000), HostVa(0x6000_1000_0000 + 4 * SZ_2M));
/// What is mapped of it in the beginning.
pub const MAPPED: HostRange = HostRange::new(ARENA.start, HostVa(ARENA.start.0 + 2 * SZ_2M));
/// Batches, a page each; the last page is for fences.
pub const CODE: HostRange = HostRange::new(HostVa(0x6000_2000_0000), HostVa(0x6000_2001_0000));
/// User fences.
pub const FENCES: u64 = CODE.end.0 - SZ_4K;
/// Where BOs are bound, apart from the mirror: 2M aligned.
pub const BOUND: u64 = 0x2000_0000_0000;

/// Descriptors of the devices themselves.
pub const DEVICE_FDS: [i32; 2] = [480, 482];
/// An eventfd.
pub const EVENT_FD: i32 = 490;
/// The first descriptor that an ioctl gives out.
pub const FIRST_FD: i32 = 500;
