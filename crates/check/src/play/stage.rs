//! What a scene is played on: a process with its memory, VMs, queues and buffers.

use super::inject;
use super::oracle;
use super::reach;
use super::shelf::Shelf;
use super::tally::Tally;
use super::vms::{OpenVm, tile_of_first};
use super::{How, Reached};
use crate::finding::Finding;
use crate::script::{Action, Memory, MemoryKind, Piece, Script, Step, VmKind};
use machine::checked::{Checked, Company, Config, MapKind};
use machine::interconnect::{DeviceId, Node};
use machine::ledger::Book;
use machine::program::Program;
use machine::stats::Way;
use machine::story::{Story, Where};
use machine::topology::Topology;
use machine::{Errno, RetryStep, behaviour::Behaviours};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use units::{GpuVa, HostFrame, HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K, bytes_of, pages_of};

/// Where the batches of plain VMs are bound.
pub(super) const CODE: HostRange = HostRange::new(HostVa(0x10_0000), HostVa(0x11_0000));
/// Where the first buffer is bound; the others follow, each aligned to its size, so that small ones share a page table.
const BUFFERS: HostVa = HostVa(0x4000_0000);
/// What a notifier has of the process' addresses.
const NOTIFIER: u64 = 512 << 20;
/// Where the first userptr is shown; each has room for the most pages and its shift.
const USERPTRS: HostVa = HostVa(0x20_0000_0000);
const USERPTR_ROOM: u64 = 8 << 20;
/// Where no buffer is ever bound.
pub(super) const NOTHING: HostRange = HostRange::new(HostVa(0x8000_0000), HostVa(0x8001_0000));

/// A process that has opened the devices.
pub(super) struct Stage {
    pub script: Arc<Script>,
    pub checked: Checked,
    /// Its files, a device each.
    pub main: Vec<Program>,
    /// All tiles of the machine, counted through its devices.
    pub nodes: Vec<Node>,
    /// Page tables in use before there was a VM.
    pub tables: u64,
    /// Whether it is the machine that the scene is written for: what it counts it counts there.
    pub is_own_machine: bool,
    story: Option<Arc<Story>>,
    pub now: Shelf<Now>,
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
pub(super) struct Now {
    places: BTreeMap<usize, HostRange>,
    buffers: Vec<BufferObject>,
    /// What had happened at the last `counts`.
    counted: Tally,
    /// A VM's other queue of binds, by VM.
    pub bind_queues: BTreeMap<usize, u32>,
    pub vms: BTreeMap<usize, OpenVm>,
    fences: BTreeMap<usize, u32>,
    fillers: BTreeMap<Node, Vec<u32>>,
    plain_jobs: u64,
    seqs: BTreeMap<usize, u32>,
    pinned: BTreeSet<HostVa>,
    failed: bool,
    /// The first step that found something.
    broke: Option<String>,
}

impl Stage {
    /// Builds the device and everything that the scene declares.
    pub fn set(script: &Arc<Script>, how: &How, behaviours: Behaviours) -> Result<Self, Finding> {
        let (mm, device) = inject::of(script);
        let config = Config::default();
        let has_neighbour = script.steps().any(|step| matches!(step.action, Action::Process { .. }));
        let company = if has_neighbour { Company::Shared } else { Company::Alone };
        let platforms = how.topology.platforms(&script.devices);
        let checked = Checked::on(&platforms, config, how.manner, behaviours, device, company, how.story.as_ref());
        let checked = checked.map_err(|e| refused("probe", e))?;
        let (main, tables) = (checked.open_all(), oracle::tables_used(&checked));
        let buffers = buffers(script, &checked, first(&main)?)?;
        let (story, now) = (how.story.clone(), Shelf::new(Now { buffers, ..Now::default() }));
        let nodes = how.topology.seats(&checked.nodes().collect::<Vec<_>>());
        let is_own_machine = how.topology == Topology::default();
        let stage = Self { script: script.clone(), checked, main, nodes, tables, is_own_machine, story, now };
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
        let made = program.bind_queue_create(self.plain_vm(index)?).map_err(|e| refused("EXEC_QUEUE_CREATE", e))?;
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

    /// How often faults of tiles were refused so far, by the error.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for core in self.checked.cores() {
            core.ledger().look(|book| {
                let refused = book.stats.tiles.values().flat_map(|tile| &tile.refused);
                refused.for_each(|(errno, times)| *all.entry(errno.clone()).or_default() += times);
            });
        }
        all
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
    pub fn fill(&self, programs: &[Program], node: Node) -> Result<(), Finding> {
        let Node { device, tile } = self.vram_node(node);
        let (program, core) = (of(programs, device)?, self.checked.device(device));
        let size = core.and_then(|core| core.device().vram(tile)).map_or(0, |vram| vram.size);
        for _ in 0..size / SZ_2M {
            let filler = program.bo_create(SZ_2M, 2 << tile.0).map_err(|e| refused("GEM_CREATE", e))?;
            self.now.with(|now| now.fillers.entry(node).or_default().push(filler));
        }
        Ok(())
    }

    /// Nobody gets a page table of a tile; or those that are free are to be had again.
    pub fn hold_tables(&self, node: Node, held: bool) {
        let Node { device, tile } = self.vram_node(node);
        if let Some(core) = self.checked.device(device) {
            core.device().hold_tables(tile, held);
        }
    }

    /// Another process takes VRAM, or gives some back.
    pub fn neighbour(&self, takes: bool, node: Node, bytes: u64) -> Result<(), Finding> {
        let Some(neighbour) = self.checked.neighbour() else { return Ok(()) };
        let tile = self.vram_node(node).tile;
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
    pub fn drain(&self, programs: &[Program], node: Node) -> Result<(), Finding> {
        let (fillers, device) = (self.now.with(|now| now.fillers.remove(&node)), self.vram_node(node).device);
        let program = of(programs, device)?;
        let mut fillers = fillers.unwrap_or_default().into_iter();
        fillers.try_for_each(|filler| program.bo_close(filler).map_err(|e| refused("GEM_CLOSE", e)))
    }

    /// A step begins.
    pub fn tell_step(&self, text: &str) {
        if let Some(story) = &self.story {
            story.step(text);
        }
    }

    /// What a scene cannot have done has the place of the step.
    pub fn at_step(&self, step: &Step, finding: Finding) -> Finding {
        let (line, column) = step.place;
        match finding {
            Finding::Scene(what) => Finding::Scene(format!("{}:{line}:{column}: {what}", self.script.name)),
            finding => finding,
        }
    }

    /// A step has found something.
    pub fn broke_in(&self, step: &Step) {
        let told = format!("line {}: {}", step.place.0, step.text);
        self.now.with(|now| _ = now.broke.get_or_insert(told));
    }

    /// What the run came upon so far.
    pub fn reached(&self) -> Reached {
        let sum = |count: &dyn Fn(&Book) -> u64| self.checked.cores().map(|core| core.ledger().look(count)).sum();
        let pages = |meant: fn(Way) -> bool| sum(&|book| book.stats.flow_of(meant).pages);
        let name = |index: &usize| self.script.memories[*index].name.clone();
        Reached {
            stale_binds: sum(&|book| book.stats.retries_of(RetryStep::Bind)),
            pages_between_tiles: pages(super::is_between_tiles),
            pages_to_system: pages(|way| way.to == Where::System),
            pages_to_vram: pages(|way| way.to != Where::System),
            gpu_faults: sum(&|book| book.stats.gpu_faults()),
            copied_pages: sum(&|book| book.copied_pages),
            bus_pages: sum(&|book| book.bus_pages),
            moments: self.moments(),
            met: Vec::new(),
            step: self.now.with(|now| now.broke.clone()),
            places: self.now.with(|now| now.places.iter().map(|(index, range)| (name(index), *range)).collect()),
        }
    }

    /// How often each moment came so far.
    fn moments(&self) -> reach::Moments {
        let devices = self.checked.cores().map(|core| core.ledger().look(reach::of));
        devices.fold(reach::Moments::default(), |sum, one| std::array::from_fn(|n| sum[n] + one[n]))
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
    pub fn thread(&self) -> Vec<Program> {
        self.main.iter().map(|program| self.checked.thread_of(program.file().clone())).collect()
    }

    /// Ends everything, so that the run ends with nothing held.
    pub fn close(&self) {
        for index in 0..self.script.vms.len() {
            let _ = self.close_vm(&self.main, index);
        }
        for node in self.script.nodes() {
            let _ = self.drain(&self.main, node);
            self.hold_tables(node, false);
        }
        self.main.iter().for_each(|program| program.file().close());
        self.checked.cores().for_each(|core| core.engines().stop());
    }
}

/// The program's file of a device.
pub(super) fn of(programs: &[Program], device: DeviceId) -> Result<&Program, Finding> {
    let program = programs.get(usize::from(device.0));
    program.ok_or_else(|| Finding::Scene(format!("the machine has no card{}", device.0)))
}

/// That of the first one.
pub(super) fn first(programs: &[Program]) -> Result<&Program, Finding> {
    of(programs, DeviceId(0))
}

fn buffers(script: &Script, checked: &Checked, main: &Program) -> Result<Vec<BufferObject>, Finding> {
    let mut next = BUFFERS;
    let create = |buffer: &crate::script::Buffer| {
        let placement = buffer.vram.map_or(1, |tile| 2 << tile_of_first(checked, tile).0);
        let size = bytes_of(buffer.pages).next_multiple_of(SZ_64K);
        let handle = main.bo_create(size, placement).map_err(|e| refused("GEM_CREATE", e))?;
        let frame = main.bo_frame(handle).map_err(|e| refused("GEM_MMAP_OFFSET", e))?;
        let at = HostRange::sized(next.align_up(size.next_power_of_two().min(SZ_2M)), size);
        next = at.end;
        Ok(BufferObject { handle, frame, at })
    };
    script.buffers.iter().map(create).collect()
}

pub(super) fn refused(what: &str, error: Errno) -> Finding {
    Finding::Refused { what: format!("{what}: {error}") }
}

pub(super) fn signal(what: &str, error: machine::checked::CpuError) -> Finding {
    Finding::Signal { what: format!("{what}: {error:?}") }
}
