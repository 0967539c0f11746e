//! What a scene is played on: a process with its memory, VMs, queues and buffers.

use super::oracle;
use super::shelf::Shelf;
use super::tally::Tally;
use super::{How, Reached};
use crate::finding::Finding;
use crate::script::{Action, Home, Injected, MOST_QUEUES, Memory, MemoryKind, Piece, Script, VmKind};
use machine::checked::{Checked, Company, Config, MapKind, MmInjection};
use machine::program::{BindFlags, Class, Order, Program};
use machine::stats::Way;
use machine::story::{Story, Where};
use machine::{Errno, Injection, RetryStep, behaviour::Behaviours};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use units::{GpuVa, HostFrame, HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K, TileId, bytes_of, pages_of};

/// Where the batches of plain VMs are bound.
const CODE: HostRange = HostRange::new(HostVa(0x10_0000), HostVa(0x11_0000));
/// Where the first buffer is bound; the others follow, each aligned to its size, so that small ones share a page table.
const BUFFERS: HostVa = HostVa(0x4000_0000);
/// What a notifier has of the process' addresses.
const NOTIFIER: u64 = 512 << 20;
/// Where the first userptr is shown; each has room for the most pages and its shift.
const USERPTRS: HostVa = HostVa(0x20_0000_0000);
const USERPTR_ROOM: u64 = 8 << 20;
/// Where no buffer is ever bound.
pub(super) const NOTHING: HostRange = HostRange::new(HostVa(0x8000_0000), HostVa(0x8001_0000));

/// A process that has opened the device.
pub(super) struct Stage {
    pub script: Arc<Script>,
    pub checked: Checked,
    pub main: Program,
    /// Page tables in use before there was a VM.
    pub tables: u64,
    story: Option<Arc<Story>>,
    now: Shelf<Now>,
}

/// A buffer object.
#[derive(Clone, Copy)]
pub(super) struct BufferObject {
    pub handle: u32,
    pub frame: HostFrame,
    pub at: HostRange,
}

/// What changes while the scene is played.
#[derive(Default)]
struct Now {
    places: BTreeMap<usize, HostRange>,
    buffers: Vec<BufferObject>,
    /// What had happened at the last `counts`.
    counted: Tally,
    /// A VM's other queue of binds, by VM.
    bind_queues: BTreeMap<usize, u32>,
    vms: BTreeMap<usize, OpenVm>,
    fences: BTreeMap<usize, u32>,
    fillers: BTreeMap<TileId, Vec<u32>>,
    plain_jobs: u64,
    seqs: BTreeMap<usize, u32>,
    pinned: BTreeSet<HostVa>,
    failed: bool,
}

/// A VM, with its queues, and the bytes of its batches where it is a plain one.
#[derive(Clone, Copy)]
pub(super) struct OpenVm {
    pub id: u32,
    /// By lane and tile; lanes that the scene does not have are as the first.
    queues: [[u32; 2]; MOST_QUEUES],
    pub code: Option<HostFrame>,
}

impl OpenVm {
    /// The queue of a thread, by its lane.
    pub fn queue(&self, lane: usize, tile: TileId) -> u32 {
        self.queues[lane][tile.index()]
    }
}

impl Stage {
    /// Builds the device and everything that the scene declares.
    pub fn set(script: &Arc<Script>, how: &How, behaviours: Behaviours) -> Result<Self, Finding> {
        let (mm, device) = injections(script);
        let config = Config::default();
        let has_neighbour = script.steps().any(|step| matches!(step.action, Action::Process { .. }));
        let company = if has_neighbour { Company::Shared } else { Company::Alone };
        let checked = Checked::on(how.device, config, how.manner, behaviours, device, company, how.story.as_ref());
        let checked = checked.map_err(|e| refused("probe", e))?;
        let (main, tables) = (checked.open(), oracle::tables_used(&checked));
        let buffers = buffers(script, &checked, &main)?;
        let (story, now) = (how.story.clone(), Shelf::new(Now { buffers, ..Now::default() }));
        let stage = Self { script: script.clone(), checked, main, tables, story, now };
        for (index, vm) in script.vms.iter().enumerate().filter(|(_, vm)| vm.kind != VmKind::MirrorLater) {
            stage.open_vm(&stage.main, index, vm.kind)?;
        }
        for (index, memory) in script.memories.iter().enumerate() {
            stage.map_memory(index, memory)?;
        }
        stage.checked.sim.inject(mm);
        Ok(stage)
    }

    fn map_memory(&self, index: usize, memory: &Memory) -> Result<(), Finding> {
        let MemoryKind::Mapping { huge, shared, filled, far } = memory.kind else { return Ok(()) };
        if far {
            let between = self.checked.sim.mmap(pages_of(NOTIFIER), MapKind::Anonymous);
            self.checked.sim.munmap(between);
        }
        let kind = if shared {
            MapKind::Shared
        } else if huge {
            MapKind::Huge
        } else {
            MapKind::Anonymous
        };
        let range = self.checked.sim.mmap(memory.pages, kind);
        for page in (0..memory.pages).filter(|_| filled) {
            self.checked.sim.store_u64(range.page_at(page), 0).map_err(|e| signal("first touch", e))?;
        }
        self.now.with(|now| now.places.insert(index, range));
        Ok(())
    }

    /// A VM with its queues.
    pub fn open_vm(&self, program: &Program, index: usize, kind: VmKind) -> Result<(), Finding> {
        let (id, code) = if kind == VmKind::Plain {
            let made =
                if self.script.vms[index].scratch { program.vm_create_scratch() } else { program.vm_create_plain() };
            let id = made.map_err(|e| refused("VM_CREATE", e))?;
            let code = program.bo_create(CODE.len(), 1).map_err(|e| refused("GEM_CREATE", e))?;
            program.bind_bo(id, code, CODE, Order::default()).map_err(|e| refused("VM_BIND", e))?;
            (id, Some(program.bo_frame(code).map_err(|e| refused("GEM_MMAP_OFFSET", e))?))
        } else {
            let id = program.vm_create().map_err(|e| refused("VM_CREATE", e))?;
            let flags = if kind == VmKind::AutoReset { BindFlags::MADVISE_AUTORESET } else { BindFlags::empty() };
            program.bind_mirror_with(id, 57, flags, None).map_err(|e| refused("VM_BIND", e))?;
            (id, None)
        };
        let lane = |lane| Ok([self.queue(program, id, lane, TileId(0))?, self.queue(program, id, lane, TileId(1))?]);
        let mut queues = [lane(0)?; MOST_QUEUES];
        for (number, queues) in queues.iter_mut().enumerate().take(self.script.queues).skip(1) {
            *queues = lane(number)?;
        }
        self.now.with(|now| now.vms.insert(index, OpenVm { id, queues, code }));
        Ok(())
    }

    /// Ends a VM and its queues.
    pub fn close_vm(&self, program: &Program, index: usize) -> Result<(), Finding> {
        let Some(vm) = self.now.with(|now| now.vms.remove(&index)) else { return Ok(()) };
        let binds = self.now.with(|now| now.bind_queues.remove(&index));
        for queue in vm.queues[..self.script.queues].iter().flatten().copied().chain(binds) {
            program.queue_destroy(queue).map_err(|e| refused("EXEC_QUEUE_DESTROY", e))?;
        }
        program.vm_destroy(vm.id).map_err(|e| refused("VM_DESTROY", e))
    }

    /// Which tile of the device does the work of a scene's tile.
    pub fn tile(&self, tile: TileId) -> TileId {
        tile_of(&self.checked, tile)
    }

    fn queue(&self, program: &Program, vm: u32, lane: usize, tile: TileId) -> Result<u32, Finding> {
        let created = program.queue_create_on(vm, Class::Compute, lane as u16, self.tile(tile));
        created.map_err(|e| refused("EXEC_QUEUE_CREATE", e))
    }

    /// The region of a place, as PREFETCH counts them.
    pub fn region(&self, home: Home) -> u32 {
        match home {
            Home::System => 0,
            Home::Vram(tile) => 1 + u32::from(self.tile(tile).0),
            Home::Default => u32::MAX,
        }
    }

    /// The queue of a tile was banned: the next job finds another one.
    pub fn replace_queue(&self, program: &Program, index: usize, lane: usize, tile: TileId) -> Result<(), Finding> {
        let vm = self.vm(index)?;
        let new = self.queue(program, vm.id, lane, tile)?;
        self.now.with(|now| now.vms.get_mut(&index).map(|vm| vm.queues[lane][tile.index()] = new));
        program.queue_destroy(vm.queue(lane, tile)).map_err(|e| refused("EXEC_QUEUE_DESTROY", e))
    }

    /// An open VM.
    pub fn vm(&self, index: usize) -> Result<OpenVm, Finding> {
        let vm = self.now.with(|now| now.vms.get(&index).copied());
        vm.ok_or_else(|| Finding::Scene(format!("VM {} is not open here", self.script.vms[index].name)))
    }

    /// A buffer.
    pub fn buffer(&self, index: usize) -> BufferObject {
        self.now.with(|now| now.buffers[index])
    }

    /// A buffer is bound in another's place from now on.
    pub fn place_buffer(&self, index: usize, at: HostRange) {
        self.now.with(|now| now.buffers[index].at = at);
    }

    /// The other queue of binds of a VM, made at the first use.
    pub fn bind_queue(&self, program: &Program, index: usize) -> Result<u32, Finding> {
        if let Some(queue) = self.now.with(|now| now.bind_queues.get(&index).copied()) {
            return Ok(queue);
        }
        let made = program.bind_queue_create(self.vm(index)?.id).map_err(|e| refused("EXEC_QUEUE_CREATE", e))?;
        self.now.with(|now| now.bind_queues.insert(index, made));
        Ok(made)
    }

    /// VMs that are open, by their number in the scene.
    pub fn open_vms(&self) -> Vec<usize> {
        self.now.with(|now| now.vms.keys().copied().collect())
    }

    /// How often each thing happened since the last call.
    pub fn tally(&self) -> Tally {
        let all = Tally::of(&self.checked);
        self.now.with(|now| all.since(&std::mem::replace(&mut now.counted, all)))
    }

    /// Whether nobody counts: somebody writes down what happens instead.
    pub const fn is_told(&self) -> bool {
        self.story.is_some()
    }

    /// Where a page of a piece is.
    pub fn page_at(&self, piece: Piece, page: usize) -> Result<HostVa, Finding> {
        match self.script.root(piece, page) {
            (Piece::Buffer(index), page) => Ok(self.buffer(index).at.page_at(page)),
            (Piece::Memory(index), page) => {
                let place = self.now.with(|now| now.places.get(&index).copied());
                let missing = || Finding::Scene(format!("{} is nowhere yet", self.script.memories[index].name));
                place.map(|range| range.page_at(page)).ok_or_else(missing)
            }
        }
    }

    /// Where a VM has a page of a piece.
    pub fn gpu_page_at(&self, piece: Piece, page: usize) -> Result<GpuVa, Finding> {
        if let Piece::Memory(index) = piece
            && let MemoryKind::Userptr { shift, .. } = self.script.memories[index].kind
        {
            return Ok(USERPTRS.add(index as u64 * USERPTR_ROOM + shift + bytes_of(page)).mirror());
        }
        self.page_at(piece, page).map(HostVa::mirror)
    }

    /// Where a VM has pages of a piece, one after another.
    pub fn gpu_range(&self, piece: Piece, pages: std::ops::Range<usize>) -> Result<HostRange, Finding> {
        Ok(HostRange::sized(self.gpu_page_at(piece, pages.start)?.mirrored(), bytes_of(pages.len())))
    }

    /// Pages of a piece of memory, one after another.
    pub fn range(&self, piece: Piece, pages: std::ops::Range<usize>) -> Result<HostRange, Finding> {
        Ok(HostRange::sized(self.page_at(piece, pages.start)?, bytes_of(pages.len())))
    }

    /// A piece lies here from now on.
    pub fn place(&self, index: usize, range: HostRange) {
        self.now.with(|now| now.places.insert(index, range));
    }

    /// The syncobj of a fence, made at the first use.
    pub fn fence(&self, program: &Program, index: usize) -> Result<u32, Finding> {
        if let Some(handle) = self.now.with(|now| now.fences.get(&index).copied()) {
            return Ok(handle);
        }
        let handle = program.syncobj_create().map_err(|e| refused("SYNCOBJ_CREATE", e))?;
        self.now.with(|now| now.fences.insert(index, handle));
        Ok(handle)
    }

    /// A page of a plain VM's batches: each job has the next one.
    pub fn next_code_page(&self) -> u64 {
        self.now.with(|now| {
            now.plain_jobs += 1;
            (now.plain_jobs - 1) % (CODE.len() / SZ_4K)
        })
    }

    /// The number of a writer's next step, from 1.
    pub fn next_seq(&self, writer: usize) -> u32 {
        self.now.with(|now| {
            let seq = now.seqs.entry(writer).or_default();
            *seq += 1;
            *seq
        })
    }

    /// The number of the last step that each writer has begun.
    pub fn begun(&self) -> Vec<u32> {
        let seq = |now: &Now, writer| now.seqs.get(&writer).copied().unwrap_or(0);
        self.now.with(|now| (0..self.script.writers.len()).map(|writer| seq(now, writer)).collect())
    }

    /// The address of a page of batches.
    pub fn code_at(page: u64) -> HostVa {
        CODE.start.add(page * SZ_4K)
    }

    /// Fills the VRAM of a tile with buffers of 2M.
    pub fn fill(&self, program: &Program, tile: TileId) -> Result<(), Finding> {
        let size = self.checked.core.device().platform().tiles.get(tile.index()).map_or(0, |tile| tile.vram_size);
        for _ in 0..size / SZ_2M {
            let filler = program.bo_create(SZ_2M, 2 << self.tile(tile).0).map_err(|e| refused("GEM_CREATE", e))?;
            self.now.with(|now| now.fillers.entry(tile).or_default().push(filler));
        }
        Ok(())
    }

    /// Another process takes VRAM, or gives some back.
    pub fn neighbour(&self, takes: bool, tile: TileId, bytes: u64) -> Result<(), Finding> {
        let Some(neighbour) = self.checked.neighbour() else { return Ok(()) };
        let tile = self.tile(tile);
        if !takes {
            neighbour.give(tile, bytes);
        } else if !neighbour.take(tile, bytes) {
            return Err(refused("the other process's VRAM", Errno::ENOMEM));
        }
        Ok(())
    }

    /// Holds a page in place, once.
    pub fn pin(&self, at: HostVa) -> Result<(), Finding> {
        if !self.now.with(|now| now.pinned.insert(at)) {
            return Err(Finding::Scene("a page is pinned that is pinned already".into()));
        }
        self.checked.sim.pin(at).map(|_| ()).map_err(|e| signal("pin", e))
    }

    /// Lets it go.
    pub fn unpin(&self, at: HostVa) {
        self.checked.sim.unpin(at);
        self.now.with(|now| now.pinned.remove(&at));
    }

    /// Gives these buffers back.
    pub fn drain(&self, program: &Program, tile: TileId) -> Result<(), Finding> {
        let fillers = self.now.with(|now| now.fillers.remove(&tile)).unwrap_or_default();
        fillers.into_iter().try_for_each(|filler| program.bo_close(filler).map_err(|e| refused("GEM_CLOSE", e)))
    }

    /// A step begins.
    pub fn tell_step(&self, text: &str) {
        if let Some(story) = &self.story {
            story.step(text);
        }
    }

    /// What the run came upon so far.
    pub fn reached(&self) -> Reached {
        let book = self.checked.core.ledger().read();
        let pages = |meant: fn(Way) -> bool| book.stats.flow_of(meant).pages;
        let name = |index: &usize| self.script.memories[*index].name.clone();
        Reached {
            stale_binds: book.stats.retries_of(RetryStep::Bind),
            pages_between_tiles: pages(|way| way.from != Where::System && way.to != Where::System),
            pages_to_system: pages(|way| way.to == Where::System),
            pages_to_vram: pages(|way| way.to != Where::System),
            gpu_faults: book.stats.gpu_faults(),
            copied_pages: book.copied_pages,
            bus_pages: book.bus_pages,
            places: self.now.with(|now| now.places.iter().map(|(index, range)| (name(index), *range)).collect()),
        }
    }

    /// A thread has found something: nobody waits for what it would have done.
    pub fn fail(&self) {
        self.now.with(|now| now.failed = true);
    }

    /// Whether one did.
    pub fn has_failed(&self) -> bool {
        self.now.with(|now| now.failed)
    }

    /// Another thread of the program.
    pub fn thread(&self) -> Program {
        self.checked.thread_of(self.main.file().clone())
    }

    /// Ends everything, so that the run ends with nothing held.
    pub fn close(&self) {
        for index in 0..self.script.vms.len() {
            let _ = self.close_vm(&self.main, index);
        }
        for tile in [TileId(0), TileId(1)] {
            let _ = self.drain(&self.main, tile);
        }
        self.main.file().close();
        self.checked.core.engines().stop();
    }
}

fn buffers(script: &Script, checked: &Checked, main: &Program) -> Result<Vec<BufferObject>, Finding> {
    let mut next = BUFFERS;
    let create = |buffer: &crate::script::Buffer| {
        let placement = buffer.vram.map_or(1, |tile| 2 << tile_of(checked, tile).0);
        let size = bytes_of(buffer.pages).next_multiple_of(SZ_64K);
        let handle = main.bo_create(size, placement).map_err(|e| refused("GEM_CREATE", e))?;
        let frame = main.bo_frame(handle).map_err(|e| refused("GEM_MMAP_OFFSET", e))?;
        let at = HostRange::sized(next.align_up(size.next_power_of_two().min(SZ_2M)), size);
        next = at.end;
        Ok(BufferObject { handle, frame, at })
    };
    script.buffers.iter().map(create).collect()
}

/// What may go wrong: in the mm, and in the device.
fn injections(script: &Script) -> (MmInjection, Injection) {
    let (mut mm, mut device) = (MmInjection::default(), Injection::default());
    for &(what, count) in &script.injections {
        let times = u32::try_from(count).unwrap_or(u32::MAX);
        match what {
            Injected::CopyFails => device.fail_copy = Some(count),
            Injected::CopyStops => device.stop_copy = Some(count),
            Injected::MapFails => device.fail_map = Some(count),
            Injected::LosePage => device.lose_page = Some(count),
            Injected::Slow => mm.slow_ns = count,
            Injected::Strangers => mm.strangers = times,
            Injected::FlushDelay => device.flush_delay_ns = count,
            Injected::Cuts => mm.cuts = times,
            Injected::Refusals => mm.refusals = times,
            Injected::Busy => mm.busy = times,
            Injected::Shortages => mm.shortages = times,
        }
    }
    (mm, device)
}

/// Which tile of a device does the work of a scene's tile: of one with fewer tiles the last one.
fn tile_of(checked: &Checked, tile: TileId) -> TileId {
    TileId(tile.0.min((checked.core.device().platform().tiles.len() - 1) as u8))
}

pub(super) fn refused(what: &str, error: Errno) -> Finding {
    Finding::Refused { what: format!("{what}: {error}") }
}

pub(super) fn signal(what: &str, error: machine::checked::CpuError) -> Finding {
    Finding::Signal { what: format!("{what}: {error:?}") }
}
