//! What an open file uses: the time of its queues, and the memory of its BOs, as `fdinfo` tells it.
//!
//! A queue's time is that which its context had an engine; queues that ended leave theirs with the file. All engines share
//! one clock, so its count is the total of every class.
//!
//! Locking: each BO's lock by itself.
//!
//! Upstream: `xe_drm_client.c` (`xe_drm_client_fdinfo`), `drm_file.c` (`drm_show_memory_stats`).

use std::sync::Arc;

use sync::atomic::AtomicU64;
use sync::time::now_ns;
use xe_spec::fault::EngineClass;
use xe_spec::platform::Platform;

use crate::bo::Bo;
use crate::exec_queue::ExecQueue;
use crate::open_files::Entry;

const CLASSES: [EngineClass; 3] = EngineClass::ALL;

/// Who an open file is, and the time of its queues that ended.
pub(crate) struct Client {
    pub who: Arc<Entry>,
    ended_ns: [AtomicU64; CLASSES.len()],
}

/// What an open file uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Number of the open file: no other of the device has it.
    pub client: u64,
    /// What the program calls it.
    pub name: Option<String>,
    /// Memory, by the kernel's names of its kinds: system, gtt, and the VRAM of each tile.
    pub memory: Vec<MemoryUse>,
    /// Engines, by class.
    pub engines: Vec<EngineUse>,
}

/// A tile's VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vram {
    /// Bytes that there are.
    pub size: u64,
    /// Those that are used, by all processes.
    pub used: u64,
    /// Bytes of the smallest page.
    pub page: u64,
}

/// Bytes of one kind of memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemoryUse {
    /// Its name.
    pub name: String,
    /// Of BOs that belong there.
    pub total: u64,
    /// Of those that others may have, too.
    pub shared: u64,
    /// Of those that are there.
    pub resident: u64,
    /// Of those that jobs may be using.
    pub active: u64,
}

/// Use of a class of engines, in ticks of the reference clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineUse {
    /// Its name.
    pub name: &'static str,
    /// That this file had an engine of the class.
    pub cycles: u64,
    /// That have passed.
    pub total_cycles: u64,
    /// Engines of the class.
    pub capacity: u64,
}

impl Client {
    pub(crate) fn new(who: Arc<Entry>) -> Self {
        Self { who, ended_ns: [const { AtomicU64::new(0) }; CLASSES.len()] }
    }

    /// Keeps the time of a queue that is about to end.
    pub(crate) fn note(&self, queue: &ExecQueue) {
        for (class, ended) in CLASSES.iter().zip(&self.ended_ns) {
            ended.fetch_add(queue.ran_ns(*class));
        }
    }

    /// What is used at the moment by `queues` and `bos`, which are all that the file has.
    pub(crate) fn usage(&self, platform: &Platform, queues: &[Arc<ExecQueue>], bos: &[Arc<Bo>]) -> Usage {
        let now = platform.ticks(now_ns());
        let here = CLASSES.iter().zip(&self.ended_ns).filter(|(class, _)| platform.engines_of(**class) > 0);
        let engines = here.map(|(&class, ended)| {
            let ran: u64 = queues.iter().map(|queue| queue.ran_ns(class)).sum();
            let capacity = u64::from(platform.engines_of(class)) * platform.tiles.len() as u64;
            EngineUse { name: class.name(), cycles: platform.ticks(ran + ended.load()), total_cycles: now, capacity }
        });
        let users: Vec<_> = queues.iter().filter(|queue| queue.holds_memory()).map(|queue| &queue.vm).collect();
        let is_active = |bo: &Bo| users.iter().any(|vm| bo.is_of(vm.asid));
        let (name, memory) = (self.who.name.lock().clone(), memory(platform, bos, is_active));
        Usage { client: self.who.id, name, memory, engines: engines.collect() }
    }
}

fn memory(platform: &Platform, bos: &[Arc<Bo>], is_active: impl Fn(&Bo) -> bool) -> Vec<MemoryUse> {
    let names = ["system".to_string(), "gtt".to_string()].into_iter();
    let names = names.chain((0..platform.vram_tiles()).map(|tile| format!("vram{tile}")));
    let mut memory: Vec<_> = names.map(|name| MemoryUse { name, ..MemoryUse::default() }).collect();
    for bo in bos {
        let (region, resident) = bo.region();
        // Region 0 is system memory that the device reaches; what it does not reach is no BO's.
        let of = &mut memory[1 + region];
        of.total += bo.config.size;
        of.shared += if bo.is_shared() { bo.config.size } else { 0 };
        of.resident += if resident { bo.config.size } else { 0 };
        of.active += if is_active(bo) { bo.config.size } else { 0 };
    }
    memory
}
