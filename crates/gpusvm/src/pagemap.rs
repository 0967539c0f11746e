//! Pagemaps: the VRAM of each tile as device-private pages of the host.
//!
//! The pagemaps of a device are made together, as a [`PagemapSet`]: a migration from tile to tile asks the
//! *source's* operations to push, and collecting pages asks those of whatever pagemap a page is in. So it is between
//! devices: a [`Registry`] is of all devices of a machine, and pagemaps of one owner see each other's pages.
//!
//! References: the set holds its pagemaps, the host mm holds them too (as [`PagemapOps`]); a pagemap refers
//! to both weakly, and the registry to the sets, so that dropping the driver's set and the mm ends everything.
//!
//! Neighbours: `zdd` counts what lives here, `migrate` moves it. Upstream: `struct drm_pagemap`,
//! `struct xe_pagemap`, `drm_pagemap_pagemap_ops`, `struct drm_pagemap_owner_list`.
//!
//! Locking: nothing but the zdd lock and leaf locks (scratch, turns, registry) are taken here.

use crate::devmem::DevmemOps;
use crate::event::{Event, Observer, Where, Why};
use crate::scratch::{Buffers, Pool};
use crate::turn::CpuTurns;
use crate::zdd::{Given, Zdds};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hostmm::{CpuFault, DevicePage, FaultOutcome, HostMm, OwnerId, PagemapId, PagemapOps};
use sync::RwLock;
use sync::rank::{self, Rank};
use units::HostRange;

/// What a pagemap is made from.
pub struct PagemapConfig {
    /// Its name towards the host mm; unused there so far.
    pub id: PagemapId,
    /// Which pagemaps may see each other's pages: the same for all tiles of a device, and for its peers
    /// (`dev_pagemap.owner`).
    pub owner: OwnerId,
    /// Number of 4K frames.
    pub frames: u64,
    /// What the driver does for it.
    pub ops: Arc<dyn DevmemOps>,
}

/// The devices of a machine: whose pagemaps there are, and the CPU faults that were deferred, which do not go away with pages
/// that go from device to device.
pub struct Registry {
    sets: RwLock<Vec<Weak<PagemapSet>>>,
    turns: CpuTurns,
}

impl Default for Registry {
    fn default() -> Self {
        Self { sets: rank::rwlock(Rank::LEAF, Vec::new()), turns: CpuTurns::default() }
    }
}

impl Registry {
    /// The pagemap of that name, of whatever device.
    pub fn find(&self, id: PagemapId) -> Option<Arc<Pagemap>> {
        self.sets.read().iter().find_map(|set| set.upgrade()?.get(id).cloned())
    }
}

/// The pagemaps of one device, one a tile.
pub struct PagemapSet {
    maps: Vec<Arc<Pagemap>>,
    registry: Arc<Registry>,
}

impl PagemapSet {
    /// Makes the pagemaps and introduces them to the host mm (`drm_pagemap_create`, `devm_memremap_pages`).
    ///
    /// Whoever keeps the set keeps the pagemaps working: without it, or without `mm`, migrations end with
    /// [`MigrateError::Gone`](crate::MigrateError::Gone). Call with no lock held.
    pub fn new(
        mm: &Arc<dyn HostMm>,
        observer: &Arc<dyn Observer>,
        registry: &Arc<Registry>,
        pagemaps: Vec<PagemapConfig>,
    ) -> Arc<Self> {
        let set = Arc::new_cyclic(|set: &Weak<Self>| {
            let shared = || (set.clone(), registry.clone(), Arc::downgrade(mm), observer.clone());
            let make = |config| Arc::new(Pagemap::new(config, shared()));
            Self { maps: pagemaps.into_iter().map(make).collect(), registry: registry.clone() }
        });
        registry.sets.write().push(Arc::downgrade(&set));
        for map in &set.maps {
            mm.pagemap_insert(map.id, map.owner, map.frames, map.clone());
        }
        set
    }

    /// The pagemap of that name, if it belongs to this device.
    pub fn get(&self, id: PagemapId) -> Option<&Arc<Pagemap>> {
        self.maps.iter().find(|map| map.id == id)
    }

    /// The pagemap of that name, of whatever device of the machine.
    pub fn find(&self, id: PagemapId) -> Option<Arc<Pagemap>> {
        let own = self.get(id).cloned();
        own.or_else(|| self.registry.find(id))
    }

    /// All of the device's own.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pagemap>> {
        self.maps.iter()
    }
}

/// The VRAM of one tile as device-private pages (`struct drm_pagemap`).
pub struct Pagemap {
    pub(crate) id: PagemapId,
    pub(crate) owner: OwnerId,
    pub(crate) frames: u64,
    pub(crate) ops: Arc<dyn DevmemOps>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) mm: Weak<dyn HostMm>,
    pub(crate) set: Weak<PagemapSet>,
    pub(crate) zdds: Zdds,
    pub(crate) scratch: Pool<Buffers>,
    registry: Arc<Registry>,
}

/// What the pagemaps of a set have in common.
type Shared = (Weak<PagemapSet>, Arc<Registry>, Weak<dyn HostMm>, Arc<dyn Observer>);

impl Pagemap {
    fn new(config: PagemapConfig, (set, registry, mm, observer): Shared) -> Self {
        let PagemapConfig { id, owner, frames, ops } = config;
        let zdds = Zdds::new(ops.granule());
        Self { id, owner, frames, ops, observer, mm, set, zdds, scratch: Pool::default(), registry }
    }

    /// CPU faults that were deferred, of all pagemaps of the machine.
    pub(crate) fn turns(&self) -> &CpuTurns {
        &self.registry.turns
    }

    /// Its name towards the host mm.
    pub fn id(&self) -> PagemapId {
        self.id
    }

    /// Who may see its pages.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Pages that live here now. Takes the zdd lock.
    pub fn live_pages(&self) -> u64 {
        self.zdds.totals().1
    }

    /// Allocations that are not released yet. Takes the zdd lock.
    pub fn allocations(&self) -> usize {
        self.zdds.totals().0
    }

    /// Whether each allocation counts as many pages as it can name, and has nothing that is to be given back. For an observer; takes the zdd lock.
    pub fn is_sound(&self) -> bool {
        self.zdds.are_sound()
    }

    /// Pages from `first` on do not live any more; they may be of several allocations.
    pub(crate) fn pages_put(&self, first: DevicePage, pages: usize) {
        let mut at = 0;
        while at < pages {
            let (put, given) = self.zdds.pages_put(first.add(at as u64), pages - at);
            self.release(given);
            at += put;
        }
    }

    /// Gives what a put ended back to the driver.
    pub(crate) fn release(&self, given: Given) {
        given.into_iter().for_each(|devmem| self.ops.devmem_release(devmem));
    }
}

impl PagemapOps for Pagemap {
    fn migrate_to_ram(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome {
        self.cpu_fault(mm, fault)
    }

    fn folio_free(&self, first: DevicePage, pages: usize) {
        self.pages_put(first, pages);
    }

    fn brought_back(&self, range: HostRange, pages: usize, ns: u64) {
        let (from, to) = (Where::Vram(self.id), Where::System);
        self.observer.event(&Event::Migrated { range, from, to, why: Why::BroughtBack, pages, carried: pages, ns });
    }
}
