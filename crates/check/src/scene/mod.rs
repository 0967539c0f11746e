//! The built-in scenes: small processes, each with threads that get in each other's way, and what must hold after.
//!
//! | scene | what it is after |
//! |---|---|
//! | `block` | migration: one block between two tiles and the CPU, with atomics, beside memory that is unmapped |
//! | `wide` | invalidation: two ranges on different tiles, changed under them by one event, by advice and by a remap |
//! | `owners` | addresses whose memory another thread takes, beside memory that migrates |
//! | `movers` | memory in VRAM that moves away and is unmapped there, under a tile that writes to its old place |
//! | `binds` | binds that wait, on a VM without faults: what is signalled is bound on every tile |
//! | `guests` | VMs that are new to a block in the middle of its migration |
//!
//! `process` is what they have in common; `words` is the oracle for data.

mod binds;
mod block;
mod guests;
mod movers;
mod owners;
mod process;
mod wide;
mod words;

use crate::finding::Finding;
use machine::Injection;
use machine::behaviour;
use machine::checked::{Checked, Config};
use process::{Process, refused};
use std::fmt;

/// Who manages the memory.
pub use machine::checked::Manner;

/// A built-in scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// One block, touched by both tiles and the CPU.
    Block,
    /// Two ranges, invalidated together.
    Wide,
    /// Memory that changes its owner.
    Owners,
    /// Memory that moves away.
    Movers,
    /// New VMs.
    Guests,
    /// Binds that wait.
    Binds,
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Wide => "wide",
            Self::Owners => "owners",
            Self::Movers => "movers",
            Self::Guests => "guests",
            Self::Binds => "binds",
        })
    }
}

/// What a run came upon: a search in which none of this happens looks past the races that it is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Binds whose pages had changed since they were collected.
    pub stale_binds: u64,
}

/// Runs a scene to its end, inside a checked run. What it leaves is judged here too.
pub fn run(scene: Scene, manner: Manner, behaviours: &str, reached: &mut Reached) -> Result<(), Finding> {
    let behaviours = behaviour::parse(behaviours).map_err(|what| Finding::Refused { what })?;
    let checked =
        Checked::new(Config::default(), manner, behaviours, Injection::default()).map_err(|e| refused("probe", e))?;
    let process = Process::start(checked)?;
    let outcome = match scene {
        Scene::Block => block::play(&process),
        Scene::Wide => wide::play(&process),
        Scene::Owners => owners::play(&process),
        Scene::Movers => movers::play(&process),
        Scene::Guests => guests::play(&process),
        Scene::Binds => binds::play(&process),
    };
    reached.stale_binds = process.checked.core.ledger().read().stale_binds;
    process.close();
    outcome
}
