//! The device as its driver sees it: table memory, address spaces, TLB flushes, the IOMMU, contexts, copies, and what it
//! noticed. On top of all others: it alone calls [`Interrupts`].
//!
//! Locking: none of its own; interrupts are called with none held.

use crate::chip::Chip;
use crate::copy::{Copier, CopyJob};
use crate::engine::{Engine, Engines, Happened, Job, Step};
use crate::inject::{FlushFault, Injection, Numbered};
use crate::mmu::access::{Initiator, Op};
use crate::mmu::walker::Space;
use crate::mmu::{Mmu, Translation};
use crate::port::{Bus, Interrupts};
use crate::record::{Counters, Record};
use std::sync::Arc;
use sync::atomic::AtomicU64;
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, Outcome, Report, TileId, bytes_of};
use xe_spec::fault::{Asid, ContextId, EngineId, FaultAck, FaultSlot, FaultType};
use xe_spec::platform::Platform;
use xe_spec::pte::Leaf;
use xe_spec::share::Share;

/// A device of one or more tiles. All methods may be called from any thread.
pub struct Gpu {
    chip: Chip,
    irq: Arc<dyn Interrupts>,
    mmus: Vec<Mmu>,
    engines: Engines,
    copier: Copier,
    /// Flushes that were asked for, over all tiles.
    flushes: AtomicU64,
    /// Bus mappings that were asked for, where one is to fail.
    maps: AtomicU64,
}

impl Gpu {
    /// A device, powered on: no address space, nothing mapped, table memory zero.
    pub fn new(
        platform: &'static Platform,
        bus: Arc<dyn Bus>,
        irq: Arc<dyn Interrupts>,
        injection: Injection,
    ) -> Arc<Self> {
        let engines = Engines::new(platform);
        let tiles = 0..platform.tiles.len();
        Arc::new(Self {
            chip: Chip::new(platform, bus, injection),
            irq,
            mmus: tiles.map(|tile| Mmu::new(TileId(tile as u8), engines.per_tile())).collect(),
            engines,
            copier: Copier::new(),
            flushes: AtomicU64::new(0),
            maps: AtomicU64::new(0),
        })
    }

    /// The platform that the device is one of.
    pub fn platform(&self) -> &'static Platform {
        self.chip.platform
    }

    /// Reads an entry of a page table in any tile's pool; 0, and a record, where there is none.
    pub fn table_read(&self, table: Dpa, index: usize) -> u64 {
        self.chip.reader().entry(table, index).unwrap_or_else(|| {
            self.chip.log.record(Record::TableAccessOutsidePool { table, index });
            0
        })
    }

    /// Writes an entry of a page table; nothing but a record where there is none. Nothing is flushed.
    pub fn table_write(&self, table: Dpa, index: usize, entry: u64) {
        self.table_write_run(table, index, &[entry]);
    }

    /// Writes consecutive entries of one table in one go: no walk sees some of them only.
    pub fn table_write_run(&self, table: Dpa, first: usize, entries: &[u64]) {
        if !self.chip.tables.write(table, first, entries) {
            self.chip.log.record(Record::TableAccessOutsidePool { table, index: first });
        }
    }

    /// Tells a tile where the tables of an address space start, and whether VRAM leaves of 4K are forbidden
    /// in it. Does not flush.
    pub fn set_root(&self, tile: TileId, asid: Asid, root: Dpa, needs_64k: bool) {
        if let Some(mmu) = self.mmus.get(tile.index()) {
            mmu.set_root(asid, Space { root, needs_64k });
        }
    }

    /// Takes an address space from a tile: walks find nothing from now on. Does not flush.
    pub fn clear_root(&self, tile: TileId, asid: Asid) {
        if let Some(mmu) = self.mmus.get(tile.index()) {
            mmu.clear_root(asid);
        }
    }

    /// Flushes `range` (grown to the device's granules) of an address space from a tile's TLB. Returns when the
    /// accesses to VRAM that were in flight, and could have used an old translation, have ended; accesses to
    /// system memory are not waited for where they may block (see [`Bus::system_access_may_block`]).
    pub fn tlb_invalidate(&self, tile: TileId, asid: Asid, range: GpuRange) {
        let (number, injection) = (self.flushes.fetch_add(1), &self.chip.injection);
        if injection.flush_delay_ns > 0 {
            sync::time::sleep_ns(injection.flush_delay_ns);
        }
        match injection.flush {
            FlushFault::LoseAll => return,
            FlushFault::Lose(lost) if lost == number => return,
            _ => {}
        }
        if let Some(mmu) = self.mmus.get(tile.index()) {
            mmu.flush(asid, range, injection.flush);
        }
    }

    /// Lets the device reach `pages` contiguous frames, at bus addresses that are nobody's yet.
    pub fn iommu_map(&self, frame: HostFrame, pages: usize, write: bool) -> Iova {
        self.chip.iommu.map(frame, pages, write)
    }

    /// The same; `None` where it is injected that this one fails.
    pub fn try_iommu_map(&self, frame: HostFrame, pages: usize, write: bool) -> Option<Iova> {
        let failing = &self.chip.injection.fail_maps;
        let fails = !failing.is_empty() && failing.contains(&self.maps.fetch_add(1));
        (!fails).then(|| self.iommu_map(frame, pages, write))
    }

    /// What has been counted of what may be injected by number. No scheduling point.
    pub fn numbered(&self) -> Numbered {
        sync::unscheduled(|| Numbered {
            copies: self.copier.copies(),
            maps: self.maps.load(),
            found: self.mmus.iter().map(Mmu::found).max().unwrap_or(0),
        })
    }

    /// Ends that. An access that the IOMMU has already let through is not waited for. A translation that a TLB still has
    /// is recorded: its next use would be a stray access.
    pub fn iommu_unmap(&self, iova: Iova, pages: usize) {
        for mmu in &self.mmus {
            if let Some((asid, addr)) = mmu.leads_to_bus(iova.0, bytes_of(pages)) {
                self.chip.log.record(Record::StillTranslated { tile: mmu.tile(), asid, addr, iova });
            }
        }
        if !self.chip.iommu.unmap(iova, pages) {
            self.chip.log.record(Record::BadUnmap { iova, pages });
        }
    }

    /// Pages that the device can reach in system memory at present.
    pub fn iommu_mapped_pages(&self) -> u64 {
        self.chip.iommu.mapped_pages()
    }

    /// Executes a copy job on `tile`'s own engine, on the calling thread, and reports how its pages travelled, in order.
    /// The bus may take locks of the host's memory and may block.
    pub fn copy(&self, tile: TileId, job: &CopyJob, report: &mut Report<'_>) {
        match self.mmus.get(tile.index()) {
            Some(mmu) => self.copier.copy(&self.chip, mmu, job, report),
            None => report(job.pages, Outcome::Failed),
        }
    }

    /// The engines that programs may use: on each tile the copy engines, then the compute engines.
    pub fn engines(&self) -> impl Iterator<Item = EngineId> + '_ {
        self.engines.ids()
    }

    /// Makes a context of an address space on an engine, which takes turns command by command. Ids rise and are not reused.
    /// An engine that the platform does not have gives a record, and a context that never runs.
    pub fn context_create(&self, engine: EngineId, asid: Asid) -> ContextId {
        self.context_create_on(&[engine], asid, Share::default())
    }

    /// The same, on whichever of several engines of a tile has least to do when a job comes, and with a share of its turns.
    pub fn context_create_on(&self, placement: &[EngineId], asid: Asid, share: Share) -> ContextId {
        for &engine in placement {
            self.engine(engine);
        }
        self.engines.create(placement, asid, share)
    }

    /// Changes how a context takes turns, from its next turn on.
    pub fn context_share(&self, context: ContextId, share: Share) {
        if let Some(unit) = self.owner(context) {
            unit.set_share(context, share);
        }
    }

    /// Time that a context had an engine so far, in nanoseconds: what its timestamp counts. 0 where there is none.
    pub fn context_ran_ns(&self, context: ContextId) -> u64 {
        self.engines.owner(context).map_or(0, |unit| unit.ran_ns(context))
    }

    /// Ends a context, whatever it does; its jobs are forgotten without a word. Waits for the one command that it is
    /// executing, which may block in a host page fault. An interrupt that is just being delivered by another
    /// thread may still arrive; ids are not reused, so the driver can tell.
    pub fn context_destroy(&self, context: ContextId) {
        if let Some(unit) = self.owner(context) {
            unit.retire(context);
            self.engines.forget(context);
        }
    }

    /// Gives a context a job; jobs run in order. Calls `engine_ready`. A dead context takes no job. Not to be called for one
    /// context by two threads at once.
    pub fn submit(&self, context: ContextId, job: Job) {
        let unit = self.engines.settle(context);
        if unit.is_none() {
            self.chip.log.record(Record::NoSuchContext(context));
        }
        if let Some(unit) = unit
            && unit.enqueue(context, job)
        {
            self.irq.engine_ready(unit.id());
        }
    }

    /// Something happened that contexts may be waiting for in memory: those that pause look at once. Calls `engine_ready`.
    pub fn look_again(&self) {
        self.engines.look_again().for_each(|engine| self.irq.engine_ready(engine));
    }

    /// Runs one command of the context whose turn it is. To be called by one thread an engine.
    pub fn step(&self, engine: EngineId) -> Step {
        let Some((unit, mmu)) = self.engine(engine).zip(self.mmus.get(engine.tile.index())) else { return Step::Idle };
        match unit.step(&self.chip, mmu) {
            Happened::Nothing(step) => return step,
            Happened::Fault(fault) => {
                self.irq.page_fault(fault);
                return Step::Fault;
            }
            Happened::Done(context, seqno) => {
                self.irq.job_done(context, seqno);
                self.look_again();
            }
            Happened::Interrupt(context) => self.irq.user_interrupt(context),
            Happened::Killed(context, seqno) => self.irq.context_killed(context, seqno),
        }
        Step::Ran
    }

    /// One access of 8 bytes as a command of `engine` makes it, through its TLB, for who has no batch in memory: a store, or a
    /// load, which gives what it read. Nobody is told of a fault but the caller.
    pub fn access(&self, engine: EngineId, asid: Asid, addr: GpuVa, store: Option<u64>) -> Result<u64, FaultType> {
        let slot = self.engine(engine).map(Engine::slot);
        let (Some(slot), Some(mmu)) = (slot, self.mmus.get(engine.tile.index())) else {
            return Err(FaultType::NotPresent);
        };
        let by = Initiator { chip: &self.chip, mmu, engine, slot, asid };
        let mut loaded = [0; 8];
        let stored = store.map(u64::to_le_bytes);
        let op = stored.as_ref().map_or(Op::Read(&mut loaded), |bytes| Op::Write(bytes));
        by.access(addr.align_down(8), op).map_err(|refusal| refusal.fault_type)?;
        Ok(u64::from_le_bytes(loaded))
    }

    /// The driver's answer to one fault. Calls `engine_ready`, never another interrupt. A context that is gone meanwhile
    /// is no matter; a fault that is not pending (any more) is a record, and nothing is answered.
    pub fn fault_ack(&self, slot: FaultSlot, ack: FaultAck) {
        match self.engine(slot.engine).and_then(|unit| unit.acknowledge(slot, ack)) {
            Some(true) => self.irq.engine_ready(slot.engine),
            Some(false) => self.chip.log.record(Record::BadAck(slot)),
            None => {}
        }
    }

    /// The first records that nobody took, at most `most`; they stay.
    pub fn first_records(&self, most: usize) -> Vec<Record> {
        self.chip.log.first(most)
    }

    /// Takes the records since the last call.
    pub fn take_records(&self) -> Vec<Record> {
        self.chip.log.take()
    }

    /// What the device did so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.chip.log.counters();
        for mmu in &self.mmus {
            let of = mmu.counts();
            counters.tlb_hits += of.hits;
            counters.walks += of.walks;
            counters.flushes += of.flushes;
            counters.drains += of.drains;
        }
        self.engines.count(&mut counters);
        counters
    }

    /// The address spaces that a tile walks. What follows is for observers: it changes nothing.
    pub fn spaces(&self, tile: TileId) -> Vec<Asid> {
        self.mmus.get(tile.index()).map(Mmu::spaces).unwrap_or_default()
    }

    /// The leaves of an address space on a tile.
    pub fn leaves(&self, tile: TileId, asid: Asid) -> Vec<Translation> {
        self.mmus.get(tile.index()).map(|mmu| mmu.leaves(&self.chip, asid)).unwrap_or_default()
    }

    /// What the TLB of a tile holds.
    pub fn cached(&self, tile: TileId) -> Vec<Translation> {
        self.mmus.get(tile.index()).map(Mmu::cached).unwrap_or_default()
    }

    /// What the tables of a tile map an address to.
    pub fn look(&self, tile: TileId, asid: Asid, addr: GpuVa) -> Option<Leaf> {
        self.mmus.get(tile.index())?.look(&self.chip, asid, addr)
    }

    /// The frame that a bus address leads to.
    pub fn bus_frame(&self, iova: Iova) -> Option<HostFrame> {
        self.chip.iommu.lookup(iova).map(|mapped| mapped.frame)
    }

    /// An engine; `None`, and a record, where the platform has no such.
    fn engine(&self, id: EngineId) -> Option<&Engine> {
        let found = self.engines.find(id);
        if found.is_none() {
            self.chip.log.record(Record::NoSuchEngine(id));
        }
        found
    }

    /// The engine of a context; `None`, and a record, where there is no such context.
    fn owner(&self, context: ContextId) -> Option<&Engine> {
        let found = self.engines.owner(context);
        if found.is_none() {
            self.chip.log.record(Record::NoSuchContext(context));
        }
        found
    }
}
