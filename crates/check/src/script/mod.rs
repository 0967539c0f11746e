//! Scenes as text: what a person writes by hand and pastes into a mail.
//!
//! ```text
//! shows   tile 1 reads a block that is in the VRAM of tile 0
//! memory  b 64K
//!
//! first
//!     tile0 write b
//! thread reader
//!     tile1 read b
//! thread toucher x2
//!     cpu add b[0,5]
//! then
//!     tile0 read b
//! ```
//!
//! A scene declares its memory, VMs and buffers, and then has *phases*. A phase is either a list of steps that the main
//! thread does one after another (`first`, `then`), or a group of threads (`thread NAME`) that run at the same time. A
//! phase ends when all its threads have ended. `docs/scenes.md` has the whole language.
//!
//! `lex` cuts a line into words, `cursor` reads them, `parse` makes the [`Script`], `steps` its steps, `named` has names. Every error names
//! line and column.

mod cursor;
mod lex;
mod named;
mod parse;
mod steps;

pub use named::{Counted, Injected};
pub(crate) use parse::MOST_QUEUES;
pub use steps::Fails;

use machine::interconnect::{DeviceId, Node};
use machine::profile::Platform;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use units::TileId;

/// A scene as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// What it is called: the file's name without its ending.
    pub name: String,
    /// The text that it was read from.
    pub source: String,
    /// One sentence: what it shows.
    pub shows: String,
    /// The devices that it is written for; one of two tiles where it says nothing.
    pub devices: Vec<&'static Platform>,
    /// Pieces of memory, the mappings before their parts.
    pub memories: Vec<Memory>,
    /// VMs; the first one is there without being declared.
    pub vms: Vec<Vm>,
    /// Buffer objects.
    pub buffers: Vec<Buffer>,
    /// Names of fences.
    pub fences: Vec<String>,
    /// Who writes words: each has one of its own in every page.
    pub writers: Vec<Writer>,
    /// What may go wrong, and how often.
    pub injections: Vec<(Injected, u64)>,
    /// Moments that it is there for, by their number in [`MOMENTS`](crate::play::reach::MOMENTS).
    pub meets: Vec<usize>,
    /// Queues that each VM has on a tile, each on an engine of its own; a thread has that of its number, counted round.
    pub queues: usize,
    /// Whether time may pass while others work.
    pub races_time: bool,
    /// What is done.
    pub phases: Vec<Phase>,
}

/// A piece of the program's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its name.
    pub name: String,
    /// Pages.
    pub pages: usize,
    /// Where it is.
    pub kind: MemoryKind,
}

/// What a piece of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// A mapping of its own; `filled` by the main thread before the first phase.
    Mapping {
        /// Whether first touches take 2M.
        huge: bool,
        /// Whether a file or shared memory is behind it, which never migrates.
        shared: bool,
        /// Whether each page is touched before the scene begins.
        filled: bool,
        /// Whether it lies so far from the memory before it that no notifier has both.
        far: bool,
    },
    /// Pages of another piece, from this one on.
    Part {
        /// Which piece.
        of: usize,
        /// Its first page there.
        first: usize,
    },
    /// What a `move` step makes.
    Moved {
        /// Whether what moves there may have a file or shared memory behind it.
        shared: bool,
    },
    /// Pages of another piece, from this one on, which VMs can show at an address of its own as well (a userptr).
    Userptr {
        /// Which piece.
        of: usize,
        /// Its first page there.
        first: usize,
        /// Bytes past a 2M boundary.
        shift: u64,
    },
}

/// A VM, with queues on each tile. Of several devices each has its own, and a step means one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: VmKind,
    /// Whether writes to where nothing is bound are dropped; only of plain ones.
    pub scratch: bool,
}

/// What a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmKind {
    /// It faults and mirrors the process; made before the first phase.
    Mirror,
    /// The same, and what was advised of memory goes with the memory.
    AutoReset,
    /// The same, made by an `open` step.
    MirrorLater,
    /// Without faults: buffers are bound in it.
    Plain,
}

/// A buffer object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its name.
    pub name: String,
    /// Pages.
    pub pages: usize,
    /// In this tile's VRAM, of the first device; else in system memory.
    pub vram: Option<TileId>,
}

/// Who writes: an agent in a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Which agent.
    pub agent: Agent,
    /// In which thread: 0 for the main one, then in the order of the text.
    pub thread: usize,
}

/// A VM as a device has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmOn {
    /// Which VM.
    pub vm: usize,
    /// Of which device.
    pub device: DeviceId,
}

/// Who touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// A CPU.
    Cpu,
    /// A tile, in a VM.
    Tile {
        /// Which VM.
        vm: usize,
        /// Which tile of which device.
        tile: Node,
    },
}

/// Steps, one after another or by several threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// By the main thread.
    Alone(Vec<Step>),
    /// At the same time.
    Together(Vec<Thread>),
}

/// A thread of a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its name; kept for good, since a task's is.
    pub name: &'static str,
    /// Its number in the scene; the main thread is 0.
    pub number: usize,
    /// Times that it does its steps.
    pub times: u32,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As it was written.
    pub text: String,
    /// Where: line and column, from 1.
    pub place: (usize, usize),
    /// Times.
    pub times: u32,
    /// Whether it must be refused.
    pub fails: Fails,
    /// What.
    pub action: Action,
}

/// Pages of a piece of memory or of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which piece.
    pub of: Piece,
    /// Which of its pages.
    pub pages: Vec<Range<usize>>,
}

impl Span {
    /// Its pages, one by one.
    pub fn each(&self) -> impl Iterator<Item = usize> + '_ {
        self.pages.iter().cloned().flatten()
    }

    /// From its first page to its last.
    pub fn whole(&self) -> Range<usize> {
        let start = self.pages.iter().map(|pages| pages.start).min().unwrap_or(0);
        start..self.pages.iter().map(|pages| pages.end).max().unwrap_or(0)
    }
}

/// A piece of memory or a buffer, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// Memory of the process.
    Memory(usize),
    /// A buffer object.
    Buffer(usize),
}

/// How pages are touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// All words of each page are read and judged.
    Read,
    /// The writer's own word of each page.
    Write,
    /// One is added to the counter of each page.
    Add,
}

/// A touch of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// How.
    pub verb: Verb,
    /// What.
    pub span: Span,
}

/// Fences that a step waits for and signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// It begins behind this one.
    pub behind: Option<usize>,
    /// It signals this one.
    pub signals: Option<usize>,
}

/// Where memory is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In system memory.
    System,
    /// In the VRAM of a tile.
    Vram(Node),
    /// Where it is used.
    Default,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A job of a tile.
    Job {
        /// Its VM.
        vm: usize,
        /// Its tile.
        tile: Node,
        /// What it touches.
        touches: Vec<Touch>,
        /// Whether its end is waited for.
        waits: bool,
        /// Fences.
        order: Order,
    },
    /// Touches by the thread itself.
    Cpu(Vec<Touch>),
    /// munmap.
    Unmap(Span),
    /// mmap in place, as soon as nothing is there.
    Map(Span),
    /// MADV_DONTNEED.
    DontNeed(Span),
    /// MADV_FREE.
    Free(Span),
    /// mremap.
    Move {
        /// What.
        from: Span,
        /// The piece that it becomes.
        to: usize,
        /// Bytes past a 2M boundary.
        shift: u64,
        /// Whether an empty mapping stays behind.
        keep: bool,
        /// Whether it goes past the preload library.
        raw: bool,
    },
    /// mprotect.
    Protect {
        /// What.
        span: Span,
        /// Whether it can be written.
        write: bool,
    },
    /// fork; the child reads all words, and ends.
    Fork {
        /// It reads when everybody else waits.
        late: bool,
    },
    /// A page is held in place.
    Pin(Span),
    /// And let go.
    Unpin(Span),
    /// MADVISE: the preferred location.
    Prefer(VmOn, Span, Home),
    /// MADVISE: an entry of the PAT table.
    Pat(VmOn, Span, u32),
    /// VM_BIND: prefetch.
    Prefetch(VmOn, Span, Home),
    /// VM_CREATE and its mirror, on each device.
    Open(usize),
    /// VM_DESTROY, with its queues, on each device.
    Close(usize),
    /// A device's file is closed, with all that it has.
    CloseDevice(DeviceId),
    /// VM_BIND of a buffer.
    Bind {
        /// In which VM.
        vm: usize,
        /// Which buffer.
        buffer: usize,
        /// In the place of these pages of another one.
        over: Option<Span>,
        /// On a queue of binds of its own.
        apart: bool,
        /// Fences.
        order: Order,
    },
    /// VM_BIND: unmap; nothing is there where no buffer is named.
    Unbind {
        /// In which VM.
        vm: usize,
        /// Which buffer.
        buffer: Option<usize>,
        /// On a queue of binds of its own.
        apart: bool,
        /// Fences.
        order: Order,
    },
    /// VM_BIND of a userptr.
    Show {
        /// In which VM.
        on: VmOn,
        /// What of it.
        span: Span,
        /// Whether tiles may write there.
        write: bool,
    },
    /// VM_BIND: unmap a userptr; in the same call a prefetch.
    Hide(VmOn, Span, Option<(Span, Home)>),
    /// The wait for a fence.
    Wait(usize),
    /// The VRAM of a tile is filled with buffers, which evicts others.
    Fill(Node),
    /// They are given back.
    Drain(Node),
    /// Whoever wants a page table of that tile is told that there is none; or not any more.
    Tables {
        /// Which tile.
        tile: Node,
        /// Whether they are held.
        held: bool,
    },
    /// So many bytes of a tile's VRAM are taken, when all that changed has been settled.
    Holds(Node, u64),
    /// Another process takes so many bytes of a tile's VRAM, or gives them back.
    Process {
        /// It takes them.
        takes: bool,
        /// Which tile's.
        tile: Node,
        /// How many.
        bytes: u64,
    },
    /// So often did these happen since the last such step.
    Counts(Vec<(Counted, RangeInclusive<u64>)>),
    /// Nothing is on its way: all books are compared.
    Rest,
    /// No VM knows anything of this memory any more.
    Forgotten(Span),
}

/// Why a text is no scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Name of the scene.
    pub name: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.name, self.line, self.column, self.message)
    }
}

impl std::error::Error for ScriptError {}

impl Script {
    /// Reads a scene.
    ///
    /// # Errors
    /// The first thing in the text that is no part of a scene.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScriptError> {
        parse::script(name, text)
    }

    /// All steps, of all threads.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.phases.iter().flat_map(|phase| {
            let (alone, threads) = match phase {
                Phase::Alone(steps) => (steps.as_slice(), [].as_slice()),
                Phase::Together(threads) => ([].as_slice(), threads.as_slice()),
            };
            alone.iter().chain(threads.iter().flat_map(|thread: &Thread| &thread.steps))
        })
    }

    /// All tiles of its devices, in their order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        let tiles = |(device, platform): (u8, &&Platform)| {
            let device = DeviceId(device);
            (0..platform.tiles.len()).map(move |tile| Node { device, tile: TileId(tile as u8) })
        };
        (0..).zip(&self.devices).flat_map(tiles)
    }

    /// A tile in words: `tile 1`, and of another device than the first `card1.tile0`.
    pub fn tile_name(node: Node) -> String {
        match node.device {
            DeviceId(0) => format!("tile {}", node.tile.0),
            DeviceId(card) => format!("card{card}.tile{}", node.tile.0),
        }
    }

    /// The mapping that a page of a piece lies in, and its page there.
    pub fn root(&self, piece: Piece, page: usize) -> (Piece, usize) {
        match piece {
            Piece::Memory(index) => match self.memories[index].kind {
                MemoryKind::Part { of, first } | MemoryKind::Userptr { of, first, .. } => {
                    self.root(Piece::Memory(of), first + page)
                }
                MemoryKind::Mapping { .. } | MemoryKind::Moved { .. } => (piece, page),
            },
            Piece::Buffer(_) => (piece, page),
        }
    }

    /// Whether a file or shared memory may be behind a piece, so that a child sees what is written there after the fork.
    pub fn is_shared(&self, piece: Piece) -> bool {
        let (Piece::Memory(root), _) = self.root(piece, 0) else { return true };
        let kind = self.memories[root].kind;
        matches!(kind, MemoryKind::Mapping { shared: true, .. } | MemoryKind::Moved { shared: true })
    }

    /// The name of a piece.
    pub fn piece_name(&self, piece: Piece) -> &str {
        match piece {
            Piece::Memory(index) => &self.memories[index].name,
            Piece::Buffer(index) => &self.buffers[index].name,
        }
    }
}
