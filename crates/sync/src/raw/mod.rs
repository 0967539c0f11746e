//! The one module of this crate with `unsafe` in it.
//!
//! Here is only what cannot be said in safe Rust: the word to `lock_api` that our locks exclude. The locks
//! themselves are safe code in [`crate::lock`].
#![allow(unsafe_code)]

mod locks;
