//! Bring your own kernel: the SVM code of a user's tree, as it is, compiled for user space and run under the project's own device.
//!
//! | step | file | what |
//! |---|---|---|
//! | look | `tree.rs`, `tools.rs` | is it a kernel tree that has this code; compiler and tools |
//! | build | `config.rs`, `build.rs`, `manifest.rs`, `command.rs` | a configuration that sticks, `make O=` elsewhere, what went into it, the tree's saved commands |
//! | patch | `series.rs`, `overlay.rs` | private copies with a series applied, compiled with the same commands |
//! | link | `glue.rs`, `symbols.rs`, `library.rs`, `link.rs` | the C half of `kface`, a trap for every symbol that is not modelled, a runner |
//! | explore | `explore.rs`, `explain.rs`, `places.rs` | scenes of several tasks under seeded schedules; one of them, told |
//! | compare | `diff.rs` | the same acts by the tree's engine and by another one |
//! | judge | `runner.rs`, `facts.rs`, `verdict.rs`, `judge.rs` | scenes, their evidence, what it says |
//!
//! Nothing is ever written into the tree: `cache.rs` says where things go. What is compiled comes from the user's folder; no kernel
//! text is part of this project. What a scene reaches that is not modelled ends it without a verdict.
//!
//! Key types: [`Kit`] (what to compile and with what glue), [`Workshop`] (a tree being worked on), [`judge::Verdict`].
//!
//! Locking: none; one process at a time has a tree's cache (`cache.rs`).
//!
//! Upstream: kbuild; `tools/testing/vma` of the kernel is the nearest relative.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, reason = "starts compilers and runners: outside of what the checker controls")]

mod build;
mod cache;
mod command;
mod config;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod explore;
mod facts;
mod glue;
pub mod judge;
mod kit;
mod library;
mod link;
mod manifest;
mod overlay;
mod places;
mod runner;
pub mod series;
mod symbols;
mod tools;
mod tree;
mod verdict;
mod workshop;

pub use command::Interrupt;
pub use kit::{Kit, Source};
pub use overlay::Patched;
pub use workshop::{Built, Workshop};
