//! The words of a script, and its player.
//!
//! Places are pages: `P` of 6 MB that belong to the program and in which nothing is mapped at first, `V` of an arena of 4 MB
//! that the device's descriptor watches. A thread *begins* a call that waits in the kernel; the player goes on when it
//! sleeps there.

use mm_live::Transport;
use mm_live::kernel::{Descriptor, Errno, Fault, Held, Kernel, Message, Populate, Progress, Watch};
use std::sync::Arc;
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

pub use At::{P, V};
pub use Descriptor::{Device, Program};

/// A page.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// Of the program's area.
    P(u64),
    /// Of the arena.
    V(u64),
}

/// Pages from one on.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub At, pub u64);

/// A kind of mapping.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Anonymous,
    Huge,
    Unwritable,
}

/// What a thread of the program does.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Map(Span, Kind),
    MapOver(Span),
    Munmap(Span),
    Move(Span, At),
    MoveKeeping(Span, At),
    Resize(Span, u64),
    DontNeed(Span),
    Free(Span),
    PageOut(Span),
    ReadOnly(Span),
    ReadWrite(Span),
    /// Forks; what a child that ends at once loads.
    ForkLoad(At),
    /// A word of a page.
    Load(At),
    Store(At, u64),
    Populate(Span, Populate),
    /// A copy by the program's descriptor: from, to.
    Copy(At, Span),
}

/// How that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Fine,
    Word(u64),
    Failed(Errno),
    Signal(Fault),
    /// Pages done, and then.
    Pages(u64, Option<Errno>),
}

/// A message, in pages of the program.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// A page is missing: read or written.
    Read(u64),
    Write(u64),
    /// A write to a protected page.
    Protected(u64),
    Unmap(u64, u64),
    Remove(u64, u64),
    /// From, pages, to.
    Remap(u64, u64, u64),
}

/// A step of a script.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The program does something that does not wait.
    Do(Call, Outcome),
    /// A thread does something that waits in the kernel.
    Begin(usize, Call),
    /// It waits still.
    Waits(usize),
    /// It comes back.
    Back(usize, Outcome),
    /// Messages are read, one by one, in this order. Waits until they are there.
    Reads(&'static [Told]),
    /// There is none.
    Silent,
    /// Whether the program's descriptor refuses.
    Refuses(bool),
    Register(Descriptor, Span, Result<(), Errno>),
    RegisterProtecting(Span),
    Unregister(Descriptor, Span, Result<(), Errno>),
    /// From, to.
    MovePages(Descriptor, Span, At, u64, Option<Errno>),
    CopyPages(Descriptor, Span, At, u64, Option<Errno>),
    Zero(Descriptor, Span, u64, Option<Errno>),
    /// A page of words.
    Fill(At, u64),
    Poison(At),
    Protect(Span, Result<(), Errno>),
    Unprotect(Span),
    Wake(Span),
    Drop(Span),
    /// The mapping that a page lies in, if it is writable; `None` where nothing is mapped.
    Mapped(At, Option<(Span, bool)>),
    /// What is held, huge or not.
    Holds(Span, &'static [(Span, bool)]),
    /// A 2M page is made of what is there.
    Collapse(Span),
}

/// A case.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub transport: Transport,
    pub steps: &'static [Step],
}

/// Seconds until what does not come is given up.
const TRIES: u32 = 20;

/// Who a script is played to.
pub trait Stage {
    fn kernel(&self) -> Arc<dyn Kernel>;
    /// Where the program's area begins.
    fn area(&self) -> HostVa;
    /// A call of the program by the calling thread, but for those that any kernel does.
    fn call(&self, call: &Place, what: Call) -> Outcome;
    /// Begins a call, and waits until its thread sleeps in the kernel.
    fn begin(&mut self, thread: usize, place: &Place, what: Call);
    fn is_back(&mut self, thread: usize) -> bool;
    fn end(&mut self, thread: usize) -> Outcome;
    /// Makes a 2M page; false where none can be had.
    fn collapse(&self, range: HostRange) -> bool;
}

/// Where the pages of a script are.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub area: HostVa,
    pub arena: HostVa,
}

impl Place {
    pub fn at(&self, at: At) -> HostVa {
        match at {
            P(page) => self.area.add(page * SZ_4K),
            V(page) => self.arena.add(page * SZ_4K),
        }
    }
    pub fn range(&self, Span(at, pages): Span) -> HostRange {
        HostRange::sized(self.at(at), pages * SZ_4K)
    }
    fn pages(&self, page: u64, pages: u64) -> HostRange {
        self.range(Span(P(page), pages))
    }
    fn message(&self, told: Told) -> Message {
        let fault = |page, write, protected| Message::Fault { addr: self.at(P(page)), write, protected, thread: 0 };
        match told {
            Told::Read(page) => fault(page, false, false),
            Told::Write(page) => fault(page, true, false),
            Told::Protected(page) => fault(page, true, true),
            Told::Unmap(page, pages) => Message::Unmap(self.pages(page, pages)),
            Told::Remove(page, pages) => Message::Remove(self.pages(page, pages)),
            Told::Remap(page, pages, to) => Message::Remap { from: self.pages(page, pages), to: self.at(P(to)) },
        }
    }
}

/// A call that any kernel does by its trait; `None` for the others.
pub fn by_kernel(kernel: &dyn Kernel, place: &Place, what: Call) -> Option<Outcome> {
    let done = match what {
        Call::Load(at) => {
            let mut word = [0; 8];
            match kernel.read(place.at(at), &mut word) {
                Ok(()) => Outcome::Word(u64::from_le_bytes(word)),
                Err(fault) => Outcome::Signal(fault),
            }
        }
        Call::Store(at, word) => match kernel.write(place.at(at), &word.to_le_bytes()) {
            Ok(()) => Outcome::Fine,
            Err(fault) => Outcome::Signal(fault),
        },
        Call::Populate(span, access) => match kernel.populate(place.range(span), access) {
            Ok(()) => Outcome::Fine,
            Err(error) => Outcome::Failed(error),
        },
        Call::Copy(to, span) => {
            let from = place.range(span);
            let Progress { bytes, error } = kernel.copy(Program, place.at(to), from.start, from.len());
            Outcome::Pages(bytes / SZ_4K, error)
        }
        _ => return None,
    };
    Some(done)
}

/// Plays a case; false where it cannot be played to the end here.
pub fn play(stage: &mut dyn Stage, case: &Case) -> bool {
    let kernel = stage.kernel();
    let arena = kernel.map_arena(2 * SZ_2M).expect("4M");
    kernel.register(Device, arena, Watch::Missing).expect("an arena");
    let place = Place { area: stage.area(), arena: arena.start };
    let played = case.steps.iter().enumerate().all(|(number, &step)| {
        let what = format!("{}, step {number}: {step:?}", case.name);
        if let Step::Collapse(span) = step {
            return stage.collapse(place.range(span));
        }
        act(stage, &*kernel, &place, step, &what);
        true
    });
    let mut left = [Message::Other(0)];
    assert!(!played || kernel.read_messages(&mut left) == 0, "{}: {left:?} was not expected", case.name);
    kernel.unmap_arena(arena);
    played
}

fn act(stage: &mut dyn Stage, kernel: &dyn Kernel, place: &Place, step: Step, what: &str) {
    let progress = |pages, error| Progress { bytes: pages * SZ_4K, error };
    match step {
        Step::Do(call, outcome) => {
            let done = by_kernel(kernel, place, call).unwrap_or_else(|| stage.call(place, call));
            assert_eq!(done, outcome, "{what}");
        }
        Step::Begin(thread, call) => stage.begin(thread, place, call),
        Step::Waits(thread) => assert!(!stage.is_back(thread), "{what}"),
        Step::Back(thread, outcome) => assert_eq!(stage.end(thread), outcome, "{what}"),
        Step::Reads(messages) => {
            for told in messages {
                let mut message = [Message::Other(0)];
                let mut tries = TRIES;
                while kernel.read_messages(&mut message) == 0 {
                    kernel.wait(1000);
                    tries -= 1;
                    assert!(tries > 0, "{what}: {told:?} does not come");
                }
                // Which thread it is of is the real kernel's alone.
                if let Message::Fault { thread, .. } = &mut message[0] {
                    *thread = 0;
                }
                assert_eq!(message[0], place.message(*told), "{what}");
            }
        }
        Step::Silent => assert_eq!(kernel.read_messages(&mut [Message::Other(0)]), 0, "{what}"),
        Step::Refuses(refuses) => assert_eq!(kernel.event_pending(), refuses, "{what}"),
        Step::Register(by, span, done) => {
            assert_eq!(kernel.register(by, place.range(span), Watch::Missing), done, "{what}");
        }
        Step::RegisterProtecting(span) => {
            assert_eq!(kernel.register(Program, place.range(span), Watch::MissingAndProtected), Ok(()), "{what}");
        }
        Step::Unregister(by, span, done) => assert_eq!(kernel.unregister(by, place.range(span)), done, "{what}"),
        Step::MovePages(by, from, to, pages, error) => {
            let from = place.range(from);
            let done = kernel.move_pages(by, place.at(to), from.start, from.len());
            assert_eq!(done, progress(pages, error), "{what}");
        }
        Step::CopyPages(by, from, to, pages, error) => {
            let from = place.range(from);
            assert_eq!(kernel.copy(by, place.at(to), from.start, from.len()), progress(pages, error), "{what}");
        }
        Step::Zero(by, span, pages, error) => {
            assert_eq!(kernel.zero(by, place.range(span)), progress(pages, error), "{what}");
        }
        Step::Fill(at, word) => {
            let bytes: Vec<u8> = (0..SZ_4K / 8).flat_map(|_| word.to_le_bytes()).collect();
            assert_eq!(kernel.fill(Program, place.at(at), &bytes), progress(1, None), "{what}");
        }
        Step::Poison(at) => kernel.poison(place.range(Span(at, 1))),
        Step::Protect(span, done) => assert_eq!(kernel.protect(place.range(span), true), done, "{what}"),
        Step::Unprotect(span) => assert_eq!(kernel.protect(place.range(span), false), Ok(()), "{what}"),
        Step::Wake(span) => kernel.wake(place.range(span)),
        Step::Drop(span) => assert_eq!(kernel.drop_pages(place.range(span)), Ok(()), "{what}"),
        Step::Mapped(at, mapped) => {
            let found = kernel.mapping(place.at(at)).filter(|mapping| mapping.range.contains(place.at(at)));
            let found = found.map(|mapping| (mapping.range, mapping.write));
            assert_eq!(found, mapped.map(|(span, write)| (place.range(span), write)), "{what}");
        }
        Step::Holds(span, held) => {
            let mut found = [Held { range: HostRange::new(HostVa(0), HostVa(0)), huge: false }; 16];
            let (count, upto) = kernel.scan(place.range(span), &mut found);
            let held: Vec<Held> = held.iter().map(|&(span, huge)| Held { range: place.range(span), huge }).collect();
            assert_eq!((&found[..count], upto), (&held[..], place.range(span).end), "{what}");
        }
        Step::Collapse(_) => {}
    }
}
