//! A process with two tiles and parties that do something to it.

use super::{Manager, Process};
use hostmm::conformance::{BringHome, carry, carry_back};
use hostmm::{ClaimRequest, DevicePage, HostMemory, HostMm, OwnerId, PagemapId, Toward};
use mm_sim::{Config, MapKind, Sim};
use std::sync::Arc;
use units::{HostRange, SZ_4K};

pub const OWNER: OwnerId = OwnerId(1);

/// A process with two tiles.
#[derive(Clone)]
pub struct Scene {
    pub process: Process,
    pub sim: Arc<Sim>,
    pub mm: Arc<dyn HostMm>,
    pub memory: Arc<dyn HostMemory>,
    pub tiles: [Arc<BringHome>; 2],
}

impl Scene {
    pub fn new(config: Config, manager: Manager) -> Self {
        let process = Process::new(config, manager);
        let (sim, mm, memory) = (process.sim.clone(), process.mm.clone(), process.memory.clone());
        let tiles = [0, 1].map(|tile| {
            let ops = BringHome::new(OWNER, 2 * SZ_4K, &memory);
            mm.pagemap_insert(PagemapId(tile), OWNER, 64, ops.clone());
            ops
        });
        Self { process, sim, mm, memory, tiles }
    }
    /// Maps pages and stores `first + i` in page `i`.
    pub fn filled(&self, pages: usize, first: u64) -> HostRange {
        let range = self.sim.mmap(pages, MapKind::Anonymous);
        self.fill(range, first);
        range
    }
    pub fn fill(&self, range: HostRange, first: u64) {
        for i in 0..range.pages() {
            self.sim.store_u64(range.page_at(i), first + i as u64).expect("mapped");
        }
    }
    /// Migrates to and fro between the tiles, to frames from `at` on that nobody used; whatever does not move is well.
    pub fn migrate(&self, range: HostRange, rounds: u16, at: u64) {
        for round in 0..rounds {
            let to = DevicePage { pagemap: PagemapId(round % 2), frame: at + 2 * u64::from(round) };
            let _ = carry(&*self.mm, &*self.memory, range, OWNER, to);
            self.check();
        }
    }
    pub fn evict(&self, range: HostRange) {
        let request = ClaimRequest { range, owner: OWNER, toward: Toward::Ram, fault: None };
        let _ = carry_back(&*self.mm, &*self.memory, &request);
        self.check();
    }
    pub fn check(&self) {
        self.sim.check().expect("the books balance");
    }
    pub fn spawn(&self, body: impl FnOnce(Scene) + Send + 'static) -> sync::JoinHandle {
        let scene = self.clone();
        sync::spawn("party", move || body(scene))
    }
    pub fn end(self) {
        self.process.settle();
        self.check();
        self.process.end();
        let freed: u32 = self.tiles.iter().map(|tile| tile.freed_in_all()).sum();
        if self.process.live.is_none() {
            assert_eq!(u64::from(freed), self.sim.counters().freed);
        }
    }
}
