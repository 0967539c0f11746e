//! Plays a sequence on the simulated machine, deterministically, and judges what is left of it.
//!
//! Beside the sequence's own files there is a neighbour on each device: another open file, with a queue on each tile, whose
//! jobs must go on being done, whatever the sequence does. When all is closed, the books balance.

use crate::desk::Desk;
use crate::expect::{self, Answer, DESK_BYTES};
use crate::layout::{Block, Kind};
use crate::place::{ARENA, CODE, DESK, MAPPED};
use crate::sequence::{Ioctl, Memory, Sequence, Step, Verb};
use machine::behaviour::Behaviours;
use machine::checked::{Checked, Config, Manner, MapKind, MemoryAdvice, Remap};
use machine::live::EventKind;
use machine::program::{Batch, Class, Program};
use machine::wiring::Core;
use machine::{Errno, File, Record};
use std::fmt;
use std::sync::Arc;
use sync::rank::{self, Rank};
use sync::sim::{Limits, Outcome, Random, TimeRule};
use units::{HostRange, HostVa, SZ_4K, TileId};

/// Steps between two jobs of the neighbour.
const BEAT: usize = 6;
/// A sequence that makes more decisions hangs.
const DECISIONS: u64 = 30_000_000;

/// Why a sequence failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// At which step, where that is known.
    pub step: Option<usize>,
    /// In words.
    pub what: String,
}

impl Failure {
    fn new(step: Option<usize>, what: impl fmt::Display) -> Self {
        Self { step, what: what.to_string() }
    }

    /// Whether another failure is the same one, as far as that can be told: the same words, but for numbers.
    pub fn is_like(&self, other: &Self) -> bool {
        let words = |text: &str| text.chars().filter(|c| !c.is_ascii_hexdigit()).take(60).collect::<String>();
        words(&self.what) == words(&other.what)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => write!(f, "step {step}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Who manages the simulated process' memory, as a seed has it.
pub const fn manner(seed: u64) -> Manner {
    if seed % 4 == 3 { Manner::Userfaultfd } else { Manner::Linux }
}

/// What playing a sequence gave.
pub struct Played {
    /// How each step was answered.
    pub answers: Vec<Answer>,
    /// Whether all was right.
    pub verdict: Result<(), Failure>,
}

/// Plays a sequence.
pub fn play(sequence: &Sequence) -> Played {
    play_with(sequence, Behaviours::CORRECT)
}

/// Plays it on a device that behaves so.
pub fn play_with(sequence: &Sequence, behaviours: Behaviours) -> Played {
    let shelf: Arc<sync::Mutex<(Vec<Answer>, Option<Failure>)>> = Arc::new(rank::mutex(Rank::LEAF, Default::default()));
    let (own, put) = (Arc::new(sequence.clone()), shelf.clone());
    let limits = Limits { steps: DECISIONS, time: TimeRule::Racing, ..Limits::default() };
    let report = sync::sim::run(&mut Random::new(sequence.seed), limits, move || {
        let mut answers = Vec::new();
        let failure = in_the_world(&own, behaviours, &mut answers).err();
        *put.lock() = (answers, failure);
    });
    let (answers, failure) = std::mem::take(&mut *shelf.lock());
    let judged = || expect::judge(sequence, &answers).map_err(|(step, what)| Failure::new(Some(step), what));
    let verdict = match report.outcome {
        Outcome::Finished | Outcome::Cut => failure.map_or_else(judged, Err),
        Outcome::Panicked { name, message, location, .. } => {
            Err(Failure::new(None, format!("panic in '{name}' at {location}: {message}")))
        }
        Outcome::Deadlock { waiting } => Err(Failure::new(None, format!("deadlock: {waiting:?}"))),
        Outcome::StepLimit { name, .. } => Err(Failure::new(None, format!("it does not end: '{name}' goes on and on"))),
    };
    Played { answers, verdict }
}

fn in_the_world(sequence: &Sequence, behaviours: Behaviours, answers: &mut Vec<Answer>) -> Result<(), Failure> {
    let mut world = World::new(sequence, behaviours)?;
    let mut failure = None;
    for (number, step) in sequence.steps.iter().enumerate() {
        answers.push(world.step(step));
        if number % BEAT == BEAT - 1
            && let Err(what) = world.beat()
        {
            failure = Some(Failure::new(Some(number), what));
            break;
        }
    }
    failure.map_or_else(|| world.end(), Err)
}

struct World {
    checked: Arc<Checked>,
    /// Two a device: its primary node, its render node.
    files: Vec<Arc<File>>,
    desk: Desk,
    neighbours: Vec<Neighbour>,
    /// Page tables in use on each tile before there was a VM.
    tables: Vec<u64>,
}

fn tiles(core: &Core) -> impl Iterator<Item = TileId> {
    (0..core.device().platform().tiles.len() as u8).map(TileId)
}

/// All tiles of all devices.
fn nodes(checked: &Checked) -> impl Iterator<Item = (&Arc<Core>, TileId)> {
    checked.cores().flat_map(|core| tiles(core).map(move |tile| (core, tile)))
}

impl World {
    fn new(sequence: &Sequence, behaviours: Behaviours) -> Result<Self, Failure> {
        let (seed, platform) = (sequence.seed, sequence.device.platform());
        let failed = |errno: Errno| Failure::new(None, format!("the world cannot be built: {errno}"));
        let platforms = vec![platform; sequence.devices.into()];
        let checked = Checked::with_devices(Config::default(), manner(seed), &platforms, behaviours);
        let checked = Arc::new(checked.map_err(failed)?);
        if seed & 4 != 0 {
            checked.cores().for_each(|core| core.device().ask_for_priority(|| true));
        }
        let tables = nodes(&checked).map(|(core, tile)| core.device().tables_used(tile)).collect();
        for range in [DESK, MAPPED, CODE] {
            checked.sim.mmap_at(range, MapKind::Anonymous).map_err(|_| failed(Errno::ENOMEM))?;
        }
        let files = checked.cores().flat_map(|core| [core.device().open(), core.device().open_render()]).collect();
        let programs = checked.open_all().into_iter().zip(checked.cores());
        let neighbours = programs.map(|(program, core)| Neighbour::new(program, core, &checked, seed & 4 != 0));
        let neighbours = neighbours.collect::<Result<_, _>>().map_err(failed)?;
        let desk = Desk::new(checked.clone());
        Ok(Self { checked, files, desk, neighbours, tables })
    }

    /// All neighbours' jobs are done.
    fn beat(&self) -> Result<(), String> {
        self.neighbours.iter().try_for_each(|neighbour| neighbour.beat(&self.checked))
    }

    fn step(&mut self, step: &Step) -> Answer {
        match step {
            Step::Ioctl(ioctl) => return self.ioctl(ioctl),
            Step::Put(blocks) => self.put(blocks),
            Step::Memory(memory) => self.memory(*memory),
            Step::Close(fd) => _ = self.desk.close(*fd),
            Step::Reopen(file) => self.reopen(*file),
            Step::Fork => {
                if let Ok(child) = self.checked.fork() {
                    let _ = self.checked.sim.child_load_u64(child, ARENA.start);
                    self.checked.sim.child_exit(child);
                }
            }
            Step::Reset(at) => {
                if let Some((core, tile)) = nodes(&self.checked).nth((*at).into()) {
                    core.device().reset_gt(tile);
                }
            }
            Step::Sleep(ns) => sync::time::sleep_ns(*ns),
        }
        Answer::default()
    }

    /// Closes a file, and opens it anew. A device that is not there has none.
    fn reopen(&mut self, at: usize) {
        let Some((file, core)) = self.files.get_mut(at).zip(self.checked.cores().nth(at / 2)) else { return };
        file.close();
        *file = if at & 1 == 0 { core.device().open() } else { core.device().open_render() };
    }

    fn ioctl(&self, ioctl: &Ioctl) -> Answer {
        self.put(&ioctl.blocks);
        self.put(&[Block { at: ioctl.at, kind: Kind::Words, bytes: ioctl.arg.clone() }]);
        let at = HostVa(ioctl.at);
        let mut desk = vec![0; DESK_BYTES];
        let _ = self.checked.sim.load(DESK.start, &mut desk);
        let done = match ioctl.file() {
            Some(file) => {
                let file = self.files.get(file).ok_or(Errno::EBADF);
                file.and_then(|file| file.ioctl_for(&self.desk, ioctl.request, at))
            }
            None => {
                let passed = self.desk_passed(ioctl.on).ok_or(Errno::EBADF);
                passed.and_then(|passed| self.files[0].ioctl_on(&passed, &self.desk, ioctl.request, at))
            }
        };
        let mut out = vec![0; ioctl.arg.len()];
        let _ = self.checked.sim.load(at, &mut out);
        Answer { errno: done.err().map_or(0, |errno| errno.0), out, desk }
    }

    fn desk_passed(&self, fd: i32) -> Option<machine::Passed> {
        machine::Caller::passed(&self.desk, fd)
    }

    fn put(&self, blocks: &[Block]) {
        for block in blocks {
            // Where nothing is, a program would get a signal: it stores nothing.
            let _ = self.checked.sim.store(HostVa(block.at), &block.bytes);
        }
    }

    fn memory(&self, Memory { verb, page, pages, to }: Memory) {
        let sim = &self.checked.sim;
        let range = HostRange::sized(ARENA.start.add(page * SZ_4K), pages * SZ_4K);
        let each = |touch: &dyn Fn(HostVa)| (0..range.pages()).for_each(|n| touch(range.page_at(n)));
        let told = Some(EventKind::Unmap);
        match verb {
            Verb::Map => self.checked.around_change(range, told, || sim.mmap_over(range, MapKind::Anonymous)),
            Verb::MapShared => self.checked.around_change(range, told, || sim.mmap_over(range, MapKind::Shared)),
            Verb::Unmap => sim.munmap(range),
            Verb::ReadOnly => self.checked.around_change(range, None, || sim.protect_read_only(range)),
            Verb::Writable => self.checked.around_change(range, None, || sim.protect_read_write(range)),
            Verb::DontNeed => sim.madvise_dontneed(range),
            Verb::Free => _ = sim.madvise(range, MemoryAdvice::Free),
            Verb::Move => {
                let remap = Remap::fixed(range, ARENA.start.add(to * SZ_4K));
                let apart = to + pages <= page || page + pages <= to;
                if apart {
                    let _ = self.checked.around_change(range, told, || sim.mremap_as(remap));
                }
            }
            Verb::Load => each(&|at| _ = sim.load_u64(at)),
            Verb::Store => each(&|at| _ = sim.store_u64(at, at.0)),
        }
    }

    /// Closes everything, and looks at the books.
    fn end(self) -> Result<(), Failure> {
        let failed = |what: String| Failure::new(None, what);
        self.beat().map_err(failed)?;
        self.files.iter().for_each(|file| file.close());
        self.beat().map_err(failed)?;
        self.desk.close_all();
        let Self { checked, files, desk, neighbours, tables } = self;
        neighbours.iter().for_each(|neighbour| neighbour.program.file().close());
        drop((files, desk, neighbours));
        for core in checked.cores() {
            core.engines().stop();
            core.device().stop_jobs();
        }
        checked.settle();
        checked.sim.check().map_err(failed)?;
        let is_violation =
            |record: &Record| !matches!(record, Record::SystemFault { .. } | Record::UnknownCommand { .. });
        let records = checked.cores().flat_map(|core| core.gpu().first_records(usize::MAX));
        if let Some(record) = records.into_iter().find(is_violation) {
            return Err(failed(format!("the device records {record:?}")));
        }
        let mapped = checked.cores().map(|core| core.gpu().iommu_mapped_pages()).sum();
        let objects = checked.sim.object_frames() as u64;
        let home = checked.end();
        let mut left = vec![
            (mapped, "pages mapped for the device"),
            (objects, "pages of buffer objects"),
            (checked.sim.claims_in_progress() as u64, "migrations without an end"),
            (u64::from(!home), "process whose memory is not all back"),
        ];
        left.extend(checked.cores().map(|core| (core.device().system_used(), "bytes of system memory")));
        for ((core, tile), before) in nodes(&checked).zip(tables) {
            left.push((core.device().vram_used(tile), "bytes of VRAM"));
            left.push((core.device().tables_used(tile).saturating_sub(before), "page tables"));
        }
        match left.into_iter().find(|(count, _)| *count > 0) {
            Some((count, what)) => Err(failed(format!("left behind: {count} {what}"))),
            None => Ok(()),
        }
    }
}

/// Somebody else, who uses the same device.
struct Neighbour {
    program: Program,
    queues: Vec<u32>,
    /// Batch, fences, data.
    memory: HostRange,
    beats: sync::atomic::AtomicU64,
}

impl Neighbour {
    fn new(program: Program, core: &Core, checked: &Checked, is_high: bool) -> Result<Self, Errno> {
        let vm = program.vm_create()?;
        program.bind_mirror(vm, None)?;
        let queue = |tile| match is_high {
            true => program.queue_create_high(vm, Class::Compute, tile),
            false => program.queue_create(vm, Class::Compute, tile),
        };
        let queues = tiles(core).map(queue).collect::<Result<_, _>>()?;
        let memory = checked.sim.mmap(3, MapKind::Anonymous);
        Ok(Self { program, queues, memory, beats: Default::default() })
    }

    /// Each tile does a job, and its data is there.
    fn beat(&self, checked: &Checked) -> Result<(), String> {
        let [batch, fence, data] = [0, 1, 2].map(|page| self.memory.page_at(page));
        for (queue, n) in self.queues.iter().copied().zip(0..) {
            let beat = self.beats.fetch_add(1) + 1;
            let at = data.add(8 * n);
            let words = Batch::default().store(at.mirror(), beat as u32).end();
            let failed = |what: &str, why: &dyn fmt::Debug| format!("the neighbour's {what} on tile {n}: {why:?}");
            checked.sim.store(batch, &words).map_err(|e| failed("batch", &e))?;
            let run = self.program.exec(queue, batch.mirror(), fence.mirror(), beat);
            run.map_err(|e| failed("EXEC", &e))?;
            self.program.wait(fence, beat, -1, queue).map_err(|e| failed("wait", &e))?;
            let found = checked.sim.load_u64(at).map_err(|e| failed("data", &e))?;
            if found as u32 != beat as u32 {
                return Err(failed("data", &(found, beat)));
            }
        }
        Ok(())
    }
}
