//! GPU shared virtual memory: notifiers, ranges, pages, pagemaps, device memory and migration.
//!
//! The engine of Pontoon, vendor-neutral: what Linux calls drm_gpusvm and drm_pagemap. Below it lies a
//! [`hostmm::HostMm`] (the memory manager of a running process, or a simulated one), above it a driver.
//!
//! A fault's way through this crate: `range` (find or insert) → `migrate::to_devmem` → `pages` (collect,
//! map for the device) and, on the way back, `notifier` (invalidate) and `migrate::to_ram` (CPU fault).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod hostmm;
