//! The Xe DRM interface as user space sees it.
#![forbid(unsafe_code)]
#![no_std]
