//! The LD_PRELOAD library: libc calls to the software GPU.
