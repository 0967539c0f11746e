//! Buffer objects: memory that a program names by a handle, binds to GPU addresses and maps for the CPU.
//!
//! The bytes of a BO lie in an object of the host mm for as long as the BO lives ([`HostMemory::object_create`]). What
//! moves is where the *device* finds them ([`Residence`]): by bus addresses, in system memory; or by device addresses,
//! in blocks of a tile's VRAM that show the object ([`Hw::vram_back`]). So a BO that is evicted keeps its contents, the
//! CPU's mappings stay, and no byte is copied; what an eviction must do all the same is what the driver of silicon does:
//! zap and flush every translation, give the VRAM back, and place the BO anew before it is used again.
//!
//! A BO lives while it has a handle, a binding, or somebody who uses it. Its mappings on the CPU keep the bytes, not the BO.
//!
//! A BO of another device's is found where that has it, or in system memory: [`import`].
//!
//! [`BoMap`] is one bind of a BO. VMAs that were cut from it share it; it knows which parts of it are left
//! ([`BoMap::cut`]), since an eviction, which holds no VM's lock, zaps these and nothing else.
//!
//! Locking: `Bo::state` is below a VM's lock and above page tables and VRAM. An eviction only tries to take it: a BO that is
//! being placed or bound stays.
//!
//! Upstream: `xe_bo.c`, `ttm_bo.c`, `xe_ttm_vram_mgr.c`, `struct drm_gpuvm_bo`.
//!
//! [`HostMemory::object_create`]: hostmm::HostMemory::object_create
//! [`Hw::vram_back`]: crate::Hw::vram_back

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use sync::Mutex;
use sync::atomic::{AtomicBool, AtomicU64};
use sync::rank::mutex;
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, PAGE_SHIFT, SZ_2M, SZ_64K, TileId};
use xe_spec::fault::Asid;

use crate::budget::{BytesId, Entry};
use crate::errno::Errno;
use crate::event::Event;
use crate::offsets::Offset;
use crate::patience::Patience;
use crate::ranks;
use crate::resv::Reservation;
use crate::shared::Shared;
use crate::vram::{NoRoom, Owner};

mod config;
mod import;
mod placed;
mod purge;

pub(crate) use config::{BoConfig, region_mask};
use import::{Origin, Window};
pub(crate) use placed::Placed;
pub(crate) use purge::Standing;

/// Region of system memory in a placement mask; tile `n` is region `1 + n`.
const SYSTEM: u32 = 1;
/// The largest block of VRAM that is asked for at once: a leaf of 2M needs no more.
const MAX_BLOCK: u64 = SZ_2M;

/// One BO.
pub(crate) struct Bo {
    shared: Arc<Shared>,
    pub config: BoConfig,
    /// First frame of its bytes.
    object: HostFrame,
    offset: Offset,
    state: Mutex<State>,
    this: Weak<Self>,
    /// Handles of it, in all files.
    handles: AtomicU64,
    /// Descriptors of it were made.
    exported: AtomicBool,
    /// The last advice on atomics, by whichever bind of it, left them to the CPU.
    cpu_atomics: AtomicBool,
    /// What programs ordered by its descriptors: one for all devices that have it.
    pub fences: Arc<Reservation>,
    /// The BO of another device that it shows.
    origin: Option<Origin>,
}

#[derive(Default)]
struct State {
    residence: Residence,
    /// Its bytes are taken of system memory: it is there, or was evicted to there.
    in_system: bool,
    /// Part of a window of 64K is mapped, which VRAM cannot be: it stays in system memory.
    split: bool,
    maps: Vec<Weak<BoMap>>,
    /// Those of other devices that show it.
    importers: Vec<Weak<Bo>>,
    /// Its bytes, by which other processes may have it.
    id: Option<BytesId>,
    /// Whether its contents are needed, as of the last look.
    standing: Standing,
    /// A program ever said that they are not.
    was_advised: bool,
}

impl State {
    fn is_shown_by(&self, vm: Asid) -> bool {
        let mut spaces = self.maps.iter().filter_map(|map| map.upgrade()?.space.upgrade());
        spaces.any(|space| space.asid() == vm)
    }
}

/// Where the device finds a BO.
#[derive(Default)]
enum Residence {
    /// Nowhere: it was never used, or was evicted.
    #[default]
    Nowhere,
    System(Iova),
    /// Blocks of a tile's VRAM, in the order of their contents.
    Vram(TileId, Blocks),
    /// Where the bus shows the VRAM of the device that it came from, likewise.
    Peer(Vec<Window>),
}

/// All of a BO's VRAM.
struct Blocks {
    list: Vec<Block>,
    /// Where the budget keeps that this process has it.
    entry: Entry,
}

/// A block of VRAM: its offset in the tile's, and its bytes, of which the last block may use a part.
#[derive(Clone, Copy)]
struct Block {
    offset: u64,
    bytes: u64,
}

/// Where a BO should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prefer {
    /// Anywhere that it may be; it stays where it is.
    Anything,
    /// In the VRAM of this tile, or wherever it can be.
    Tile(TileId),
    /// In the VRAM of this tile, or of another: nowhere else.
    Vram(TileId),
    /// In the VRAM of this tile, and nowhere else.
    Exactly(TileId),
    /// In system memory, if it may be there.
    System,
}

impl Prefer {
    /// Whether system memory will not do.
    const fn is_strict(self) -> bool {
        matches!(self, Self::Vram(_) | Self::Exactly(_))
    }
}

/// An address space that shows BOs. Called with a BO's lock held: leads to page tables and below.
pub(crate) trait Shows: Send + Sync {
    /// Its number.
    fn asid(&self) -> Asid;
    /// On return nothing translates `span` any more.
    fn unbind(&self, span: GpuRange);
}

impl Bo {
    /// Where it belongs, and whether it is there: region 0 is system memory, `1 + n` the VRAM of tile `n`.
    pub(crate) fn region(&self) -> (usize, bool) {
        match self.state.lock().residence {
            Residence::System(_) | Residence::Peer(_) => (0, true),
            Residence::Vram(tile, _) => (1 + tile.index(), true),
            Residence::Nowhere => {
                let vram = self.config.placement & !SYSTEM;
                (if vram == 0 { 0 } else { vram.trailing_zeros() as usize }, false)
            }
        }
    }

    /// Whether it is that VM's alone, or that VM shows it.
    pub(crate) fn is_of(&self, vm: Asid) -> bool {
        self.config.vm == Some(vm) || self.state.lock().is_shown_by(vm)
    }

    /// A new BO. `EINVAL`, `ENOSPC`: as [`BoConfig::check`] says, or the device file has no place to show it; `ENOMEM`: its bytes are not to be had now.
    pub(crate) fn create(shared: &Arc<Shared>, config: BoConfig) -> Result<Arc<Self>, Errno> {
        config.check(shared)?;
        let offset = shared.offsets.take(config.size).ok_or(Errno::ENOSPC)?;
        let object = shared.memory.object_create(config.pages(), config.label(shared)).ok_or(Errno::ENOMEM)?;
        let bo = Self::over(shared, config, object, offset, None);
        if !config.defer {
            bo.placed(Prefer::Anything)?;
        }
        Ok(bo)
    }

    fn over(
        shared: &Arc<Shared>,
        config: BoConfig,
        object: HostFrame,
        offset: Offset,
        origin: Option<Origin>,
    ) -> Arc<Self> {
        let (rank, fences) = match &origin {
            Some(origin) => (ranks::IMPORT, origin.fences()),
            None => (ranks::BO, Arc::new(Reservation::new())),
        };
        Arc::new_cyclic(|this| Self {
            shared: shared.clone(),
            config,
            object,
            offset,
            state: mutex(rank, State::default()),
            this: this.clone(),
            handles: AtomicU64::new(0),
            exported: AtomicBool::new(false),
            cpu_atomics: AtomicBool::new(false),
            fences,
            origin,
        })
    }

    /// One handle more.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1);
    }

    /// One handle less.
    pub(crate) fn drop_handle(&self) {
        self.handles.fetch_sub(1);
    }

    /// Whether a file has a handle of it.
    pub(crate) fn has_handle(&self) -> bool {
        self.handles.load() > 0
    }

    /// Handles of it.
    pub(crate) fn handles(&self) -> u64 {
        self.handles.load()
    }

    /// How many of the kernel's kinds of owners it has: its handles together, each VM that shows it, and its descriptors together
    /// (from the first one on, whether one is left or not).
    ///
    /// Upstream: `obj->refcount`.
    pub(crate) fn owners(&self) -> u64 {
        let maps: Vec<_> = self.state.lock().maps.iter().filter_map(Weak::upgrade).collect();
        let shown: BTreeSet<_> = maps.iter().filter_map(|map| Some(map.space.upgrade()?.asid().0)).collect();
        u64::from(self.has_handle()) + shown.len() as u64 + u64::from(self.exported.load())
    }

    /// A descriptor of it is made, by which other processes may have it: it is charged as theirs.
    pub(crate) fn note_export(&self, id: BytesId) {
        self.exported.store(true);
        let mut state = self.state.lock();
        if state.id.replace(id).is_none()
            && let Residence::Vram(tile, blocks) = &mut state.residence
            && let Some(tile) = self.shared.gpu.tile(*tile)
        {
            blocks.entry = tile.vram.enter(self.vram_bytes(), id);
        }
    }

    /// Whether somebody else may have it. Upstream: `drm_gem_object_is_shared_for_memory_stats`.
    pub(crate) fn is_shared(&self) -> bool {
        self.exported.load() || self.handles.load() > 1
    }

    /// Advice says whether atomics on it are the CPU's alone: it is the BO's, whichever bind it came by.
    pub(crate) fn leave_atomics_to_cpu(&self, alone: bool) {
        self.cpu_atomics.store(alone);
    }

    /// Whether they are. Upstream: `bo->attr.atomic_access`.
    pub(crate) fn has_cpu_atomics(&self) -> bool {
        self.cpu_atomics.load()
    }

    /// Whether it is another device's.
    pub(crate) const fn is_imported(&self) -> bool {
        self.origin.is_some()
    }

    /// Where device files show it.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset.start
    }

    /// Its first frame, as the host mm knows it.
    pub(crate) const fn object(&self) -> HostFrame {
        self.object
    }

    /// Whether it may be in VRAM.
    pub(crate) const fn may_be_in_vram(&self) -> bool {
        self.config.placement & !SYSTEM != 0
    }

    /// Whether it may be in system memory.
    pub(crate) const fn may_be_in_system(&self) -> bool {
        self.config.placement & SYSTEM != 0
    }

    /// A new bind of it at `start`, from `offset` of its bytes on.
    pub(crate) fn map(self: &Arc<Self>, space: Weak<dyn Shows>, span: GpuRange, offset: u64) -> Arc<BoMap> {
        let live = mutex(ranks::LEAF, vec![Part { span, is_needed: true }]);
        let map = Arc::new(BoMap { bo: self.clone(), space, start: span.start, offset, live });
        let maps = &mut self.state.lock().maps;
        maps.retain(|map| map.strong_count() > 0);
        maps.push(Arc::downgrade(&map));
        map
    }

    /// Makes sure that the device finds it, where `prefer` says as far as it may be there and there is room; it stays there
    /// while the guard lives. Where it must be in VRAM, what is to go for it is waited for while it is busy. `ENOMEM`:
    /// there is no room; `EACCES`: its contents are not needed, or gone.
    pub(crate) fn placed(&self, prefer: Prefer) -> Result<Placed<'_>, Errno> {
        self.placed_for(&[], prefer, None)
    }

    /// The same, where all of `users` reach it, and nothing of `spare` goes for it. `EOPNOTSUPP`: it may be nowhere that they do.
    pub(crate) fn placed_for(
        &self,
        users: &[TileId],
        prefer: Prefer,
        spare: Option<Asid>,
    ) -> Result<Placed<'_>, Errno> {
        if let Some(origin) = &self.origin {
            return self.placed_by(origin);
        }
        let mut patience = Patience::default();
        loop {
            match self.try_placed(users, prefer, spare) {
                Err(Errno::EBUSY) => patience.spend(Errno::ENOMEM)?,
                placed => return placed,
            }
        }
    }

    /// The same of one that is not imported; `EBUSY`: what is to go for it is busy.
    fn try_placed(&self, users: &[TileId], prefer: Prefer, spare: Option<Asid>) -> Result<Placed<'_>, Errno> {
        let mut state = self.state.lock();
        if self.look(&mut state) != Standing::Needed {
            return Err(Errno::EACCES);
        }
        let is_far = matches!(state.residence, Residence::Vram(at, _) if !self.is_reached(at, users));
        if !is_far && self.settled(&state, prefer) {
            return Ok(Placed { bo: self, state, origin: None });
        }
        // From VRAM that one of several users does not reach, it would go to and fro between theirs.
        let prefers_system = prefer == Prefer::System || is_far && !prefer.is_strict();
        let system_first = state.split || prefers_system && self.may_be_in_system();
        let wanted =
            if system_first { self.map_system(&mut state) } else { self.take_any_vram(users, prefer, state.id, spare) };
        let must_move = match &state.residence {
            Residence::Nowhere => true,
            Residence::System(_) => prefer.is_strict(),
            Residence::Vram(..) => is_far || matches!(prefer, Prefer::Exactly(_)),
            Residence::Peer(_) => false,
        };
        let new = match wanted {
            Err(_) if !must_move => return Ok(Placed { bo: self, state, origin: None }),
            // Not where it is wanted, but anywhere is better than nowhere.
            Err(_) if self.may_be_in_system() && !prefer.is_strict() => self.map_system(&mut state),
            wanted => wanted,
        }?;
        self.leave(&mut state);
        self.enter(&mut state, new);
        Ok(Placed { bo: self, state, origin: None })
    }

    fn settled(&self, state: &State, prefer: Prefer) -> bool {
        match (&state.residence, prefer) {
            (Residence::Nowhere, _) => false,
            (Residence::System(_), _) if state.split => true,
            (Residence::System(_), Prefer::Tile(tile)) => !self.may_be_on(tile),
            (Residence::System(_), Prefer::Vram(_) | Prefer::Exactly(_)) => false,
            (Residence::Vram(..), _) if state.split => false,
            (Residence::Vram(at, _), Prefer::Tile(tile) | Prefer::Vram(tile)) => *at == tile || !self.may_be_on(tile),
            (Residence::Vram(at, _), Prefer::Exactly(tile)) => *at == tile,
            (Residence::Vram(..), Prefer::System) => !self.may_be_in_system(),
            (Residence::System(_) | Residence::Vram(..) | Residence::Peer(_), _) => true,
        }
    }

    fn may_be_on(&self, tile: TileId) -> bool {
        self.config.placement >> (1 + tile.0) & 1 != 0
    }

    /// Whether all of `users` reach the VRAM of `tile`.
    fn is_reached(&self, tile: TileId, users: &[TileId]) -> bool {
        let gpu = &self.shared.gpu;
        gpu.pagemap(tile).is_some_and(|vram| users.iter().all(|user| gpu.reaches(*user, vram)))
    }

    /// The tiles whose VRAM it may be in and all of `users` reach, the best first.
    fn candidates(&self, users: &[TileId], prefer: Prefer) -> impl Iterator<Item = TileId> {
        let first = match prefer {
            Prefer::Tile(tile) | Prefer::Vram(tile) | Prefer::Exactly(tile) => Some(tile),
            Prefer::Anything | Prefer::System => None,
        };
        let all = self.shared.gpu.tiles.iter().map(|tile| tile.id);
        let is_only = matches!(prefer, Prefer::Exactly(_));
        let others = all.filter(move |tile| !is_only && Some(*tile) != first);
        first.into_iter().chain(others).filter(|tile| self.may_be_on(*tile) && self.is_reached(*tile, users))
    }

    fn map_system(&self, state: &mut State) -> Result<Residence, Errno> {
        if !state.in_system && !self.shared.system.take(self.config.size) {
            return Err(Errno::ENOMEM);
        }
        state.in_system = true;
        let iova = self.shared.gpu.hw.iommu_map(self.object, self.config.pages() as usize, true);
        iova.map(Residence::System).ok_or(Errno::ENOMEM)
    }

    /// `EBUSY`: on one of the tiles it could be had in a moment; `EOPNOTSUPP`: there is none whose VRAM `users` reach.
    fn take_any_vram(
        &self,
        users: &[TileId],
        prefer: Prefer,
        id: Option<BytesId>,
        spare: Option<Asid>,
    ) -> Result<Residence, Errno> {
        let mut errno = Errno::EOPNOTSUPP;
        for tile in self.candidates(users, prefer) {
            match self.take_vram(tile, id, spare) {
                Ok(blocks) => return Ok(Residence::Vram(tile, blocks)),
                Err(NoRoom::Full) if errno == Errno::EBUSY => {}
                Err(NoRoom::Full) => errno = Errno::ENOMEM,
                Err(NoRoom::Busy) => errno = Errno::EBUSY,
            }
        }
        Err(errno)
    }

    /// Blocks for all of it; those that were used the longest time ago go for it.
    fn take_vram(&self, tile: TileId, id: Option<BytesId>, spare: Option<Asid>) -> Result<Blocks, NoRoom> {
        let vram = &self.shared.gpu.tile(tile).ok_or(NoRoom::Full)?.vram;
        let total = self.shared.platform().tiles.get(tile.index()).map_or(0, |facts| facts.vram_size);
        let wanted = self.vram_bytes();
        if wanted > total {
            return Err(NoRoom::Full);
        }
        let owner: Arc<dyn Owner> = Arc::new(BoOwner(self.this.clone()));
        let (blocks, entry) = vram.alloc_blocks(wanted, MAX_BLOCK, &owner, id, spare)?;
        Ok(Blocks { list: blocks.into_iter().map(|(offset, bytes)| Block { offset, bytes }).collect(), entry })
    }

    /// What it takes of VRAM.
    const fn vram_bytes(&self) -> u64 {
        self.config.size.next_multiple_of(SZ_64K)
    }

    fn enter(&self, state: &mut State, new: Residence) {
        if let Residence::Vram(tile, blocks) = &new {
            self.give_system(state);
            let mut page = 0;
            for (dpa, block) in self.dpas(*tile, &blocks.list) {
                self.shared.gpu.hw.vram_back(dpa, block.bytes, Some(self.object.add(page)));
                page += block.bytes >> PAGE_SHIFT;
            }
        }
        state.residence = new;
    }

    fn give_system(&self, state: &mut State) {
        if std::mem::take(&mut state.in_system) {
            self.shared.system.give(self.config.size);
        }
    }

    /// Ends all translations to it and gives up where it is.
    fn leave(&self, state: &mut State) {
        state.maps.iter().filter_map(Weak::upgrade).for_each(|map| map.zap());
        state.importers.iter().filter_map(Weak::upgrade).for_each(|import| import.moves());
        match std::mem::replace(&mut state.residence, Residence::Nowhere) {
            Residence::Nowhere => {}
            Residence::System(iova) => self.shared.gpu.hw.iommu_unmap(iova, self.config.pages() as usize),
            Residence::Peer(windows) => self.unmap_windows(&windows),
            Residence::Vram(tile, blocks) => {
                let Some(vram) = self.shared.gpu.tile(tile).map(|tile| &tile.vram) else { return };
                vram.leave(blocks.entry);
                for (dpa, block) in self.dpas(tile, &blocks.list) {
                    self.shared.gpu.hw.vram_back(dpa, block.bytes, None);
                    vram.free(block.offset, block.bytes);
                }
            }
        }
    }

    fn dpas<'a>(&self, tile: TileId, blocks: &'a [Block]) -> impl Iterator<Item = (Dpa, &'a Block)> {
        let base = self.shared.gpu.tile(tile).map(|tile| tile.extent.base);
        blocks.iter().filter_map(move |block| Some((base?.add(block.offset), block)))
    }

    fn evict(&self) {
        if let Some(mut state) = self.state.try_lock()
            && let Residence::Vram(tile, _) = state.residence
        {
            self.leave(&mut state);
            self.shared.system.must_take(self.config.size);
            state.in_system = true;
            self.purge_if_unneeded(&mut state);
            self.shared.gpu.emit(Event::BoEvicted { tile, bytes: self.config.size });
        }
    }
}

impl Drop for Bo {
    fn drop(&mut self) {
        let mut state = std::mem::take(self.state.get_mut());
        self.leave(&mut state);
        self.give_system(&mut state);
        self.shared.memory.object_destroy(self.object, self.config.pages());
    }
}

/// Owns a BO's blocks of VRAM.
struct BoOwner(Weak<Bo>);

impl Owner for BoOwner {
    fn evict(&self, _offset: u64) {
        if let Some(bo) = self.0.upgrade() {
            bo.evict();
        }
    }

    /// One that is busy may be or not: it is asked, and does not go.
    fn is_of(&self, vm: Asid) -> bool {
        self.0.upgrade().is_some_and(|bo| {
            bo.config.vm == Some(vm) || bo.state.try_lock().is_some_and(|state| state.is_shown_by(vm))
        })
    }
}

/// One bind of a BO.
pub(crate) struct BoMap {
    pub bo: Arc<Bo>,
    space: Weak<dyn Shows>,
    /// Where byte `offset` of the BO is.
    start: GpuVa,
    offset: u64,
    /// What is left of it.
    live: Mutex<Vec<Part>>,
}

/// A part of a bind that is one VMA.
#[derive(Clone, Copy)]
struct Part {
    span: GpuRange,
    /// What it shows is needed (MADVISE).
    is_needed: bool,
}

impl BoMap {
    /// Which byte of the BO is at `va`.
    pub(crate) fn offset_of(&self, va: GpuVa) -> u64 {
        self.offset + va.offset_from(self.start)
    }

    /// `span` is no part of it any more. The caller holds the VM's lock.
    pub(crate) fn cut(&self, span: GpuRange) {
        let mut live = self.live.lock();
        let rest = |part: Part| part.span.without(span).map(move |span| Part { span, ..part });
        *live = std::mem::take(&mut *live).into_iter().flat_map(rest).collect();
    }

    /// Ends all translations to it.
    fn zap(&self) {
        let Some(space) = self.space.upgrade() else { return };
        let live = self.live.lock().clone();
        live.into_iter().for_each(|part| space.unbind(part.span));
    }
}

impl PartialEq for BoMap {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}
impl Eq for BoMap {}

impl std::fmt::Debug for BoMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoMap").field("start", &self.start).field("offset", &self.offset).finish_non_exhaustive()
    }
}
