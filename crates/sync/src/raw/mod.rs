//! The one module of this crate with `unsafe` in it.
//!
//! Here is only what cannot be said in safe Rust: the word to `lock_api` that our locks exclude ([`locks`]), the
//! way to the scheduler of the current thread ([`current`]), and the switch between stacks ([`fiber`]). All three
//! are safe to use from outside.
#![allow(unsafe_code)]

#[cfg(feature = "std")]
pub(crate) mod current;
#[cfg(feature = "std")]
pub(crate) mod fiber;
mod locks;

#[cfg(feature = "std")]
pub(crate) use locks::{lock_of_reader, lock_of_writer, mutex_of};
