//! Steps: one line each.

use super::cursor::{Cursor, card, node};
use super::{
    Action, Agent, Counted, Home, MemoryKind, Order, Piece, Script, ScriptError, Span, Step, Touch, Verb, VmKind, VmOn,
    Writer,
};
use machine::Errno;
use machine::interconnect::{DeviceId, Node};
use std::ops::{Range, RangeInclusive};

/// Words that begin a step or stand in one: nothing may be called so.
pub(super) const WORDS: [&str; 41] = [
    "cpu",
    "tile0",
    "tile1",
    "read",
    "write",
    "add",
    "begin",
    "munmap",
    "mmap",
    "dontneed",
    "free",
    "move",
    "to",
    "by",
    "keep",
    "raw",
    "protect",
    "fork",
    "pin",
    "unpin",
    "prefer",
    "pat",
    "prefetch",
    "open",
    "close",
    "bind",
    "unbind",
    "show",
    "hide",
    "wait",
    "fill",
    "drain",
    "holds",
    "process",
    "counts",
    "rest",
    "forgotten",
    "over",
    "apart",
    "late",
    "fails",
];
/// No errno of Linux is larger.
const ERRNOS: i32 = 133;
/// The most writers: each has a number in the words that it leaves.
const MOST_WRITERS: usize = 14;

/// Whether a step must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// It must be done.
    No,
    /// However that is.
    Somehow,
    /// With the errno of this name.
    With(&'static str),
}

impl Fails {
    /// Whether it must.
    pub fn is_wanted(self) -> bool {
        self != Self::No
    }
}

impl Step {
    pub(super) fn with_text(self, number: usize, line: &str) -> Self {
        let column = 1 + line.chars().take_while(|c| c.is_whitespace()).count();
        Self { text: line.trim().into(), place: (number, column), ..self }
    }
}

/// Reads a step of a thread.
pub(super) fn step(at: &mut Cursor<'_>, script: &mut Script, thread: usize) -> Result<Step, ScriptError> {
    let action = action(at, script, thread)?;
    let times = at.times()?;
    let fails = fails(at)?;
    at.end()?;
    Ok(Step { text: String::new(), place: (1, 1), times, fails, action })
}

/// `fails [ERRNO]`
fn fails(at: &mut Cursor<'_>) -> Result<Fails, ScriptError> {
    if !at.take("fails") {
        return Ok(Fails::No);
    }
    let Some(word) = at.peek() else { return Ok(Fails::Somehow) };
    let known = (1..=ERRNOS).map(|number| Errno(number).name()).find(|name| *name == word);
    let name = known.filter(|name| !name.is_empty()).ok_or_else(|| {
        at.error(format!("the driver refuses nothing with '{word}'; write fails, or for example fails EINVAL"))
    })?;
    at.word("an errno")?;
    Ok(Fails::With(name))
}

fn action(at: &mut Cursor<'_>, script: &mut Script, thread: usize) -> Result<Action, ScriptError> {
    let word = at.word("a step")?;
    if let Some((vm, tile)) = agent(at, script, word)? {
        return job(at, script, thread, vm, tile);
    }
    Ok(match word {
        "cpu" => {
            let touches = touches(at, script, thread, Agent::Cpu)?;
            touches.iter().try_for_each(|touch| is_memory(at, &touch.span))?;
            Action::Cpu(touches)
        }
        "munmap" => Action::Unmap(run(at, script)?),
        "mmap" => Action::Map(run(at, script)?),
        "dontneed" => Action::DontNeed(run(at, script)?),
        "free" => Action::Free(run(at, script)?),
        "move" => moved(at, script)?,
        "protect" => {
            let span = run(at, script)?;
            let write = match at.word("ro or rw")? {
                "ro" => false,
                "rw" => true,
                other => return Err(at.error_before(format!("expected ro or rw, not '{other}'"))),
            };
            Action::Protect { span, write }
        }
        "fork" => Action::Fork { late: at.take("late") },
        "pin" => Action::Pin(pages_of_memory(at, script)?),
        "unpin" => Action::Unpin(pages_of_memory(at, script)?),
        "prefer" => Action::Prefer(vm_on(at, script)?, run(at, script)?, home(at, script)?),
        "pat" => Action::Pat(vm_on(at, script)?, run(at, script)?, pat_index(at)?),
        "prefetch" => Action::Prefetch(vm_on(at, script)?, run(at, script)?, home(at, script)?),
        "open" => Action::Open(named_vm(at, script, VmKind::MirrorLater)?),
        "close" => match at.peek().and_then(card) {
            Some(device) => {
                at.word("a device")?;
                Action::CloseDevice(known_card(at, script, device)?)
            }
            None => Action::Close(vm(at, script)?),
        },
        "bind" => {
            let (vm, buffer) = (named_vm(at, script, VmKind::Plain)?, buffer(at, script)?);
            let over = if at.take("over") { Some(place_for(at, script, buffer)?) } else { None };
            Action::Bind { vm, buffer, over, apart: at.take("apart"), order: order(at, script)? }
        }
        "unbind" => {
            let vm = named_vm(at, script, VmKind::Plain)?;
            let buffer = if at.take("nothing") { None } else { Some(buffer(at, script)?) };
            Action::Unbind { vm, buffer, apart: at.take("apart"), order: order(at, script)? }
        }
        "show" => Action::Show { on: mirror(at, script)?, span: userptr(at, script)?, write: !at.take("ro") },
        "hide" => {
            let (vm, span) = (mirror(at, script)?, userptr(at, script)?);
            let beside = if at.take("prefetch") { Some((run(at, script)?, home(at, script)?)) } else { None };
            Action::Hide(vm, span, beside)
        }
        "wait" => Action::Wait(fence(at, script)?),
        "fill" | "drain" => {
            let tile = vram(at, script)?;
            match (word, at.take("tables")) {
                (_, true) => Action::Tables { tile, held: word == "fill" },
                ("fill", false) => Action::Fill(tile),
                (_, false) => Action::Drain(tile),
            }
        }
        "holds" => Action::Holds(vram(at, script)?, at.size()?),
        "process" => process(at, script)?,
        "counts" => Action::Counts(counts(at)?),
        "rest" => Action::Rest,
        "forgotten" => Action::Forgotten(run(at, script)?),
        _ => return Err(at.error_before(format!("'{word}' is no step; steps begin with tile0, tile1, {}", verbs()))),
    })
}

fn verbs() -> String {
    let verbs = WORDS.iter().filter(|word| {
        !["to", "by", "keep", "raw", "late", "fails", "over", "apart", "read", "write", "add", "begin"].contains(word)
    });
    verbs.skip(3).fold("cpu".into(), |list, word| format!("{list}, {word}"))
}

/// What another process does with VRAM.
fn process(at: &mut Cursor<'_>, script: &Script) -> Result<Action, ScriptError> {
    let takes = match at.word("takes or gives")? {
        "takes" => true,
        "gives" => false,
        other => return Err(at.error_before(format!("expected takes or gives, not '{other}'"))),
    };
    let tile = vram(at, script)?;
    if tile.device != DeviceId(0) {
        return Err(at.error_before("another process uses the first device only".into()));
    }
    Ok(Action::Process { takes, tile, bytes: at.size()? })
}

/// `tile0`, `card1.tile0`, or with `NAME.` in front in another VM.
fn agent(at: &Cursor<'_>, script: &Script, word: &str) -> Result<Option<(usize, Node)>, ScriptError> {
    let (vm, place) = match node(word, "tile") {
        Some(_) => ("vm", word),
        None => word.split_once('.').unwrap_or(("vm", word)),
    };
    let Some(tile) = node(place, "tile") else { return Ok(None) };
    let index = script.vms.iter().position(|other| other.name == vm);
    let index = index.ok_or_else(|| at.error_before(format!("there is no VM '{vm}'")))?;
    if script.vms[index].kind == VmKind::Plain && tile.device != DeviceId(0) {
        return Err(at.error_before("a plain VM is one of the first device".into()));
    }
    known(at, script, place, tile).map(|tile| Some((index, tile)))
}

/// A tile that the scene's devices have.
fn known(at: &Cursor<'_>, script: &Script, word: &str, node: Node) -> Result<Node, ScriptError> {
    if script.nodes().any(|known| known == node) {
        return Ok(node);
    }
    let devices: Vec<&str> = script.devices.iter().map(|device| device.name).collect();
    Err(at.error_before(format!("there is no '{word}': the devices are {}", devices.join(", "))))
}

fn known_card(at: &Cursor<'_>, script: &Script, device: DeviceId) -> Result<DeviceId, ScriptError> {
    match usize::from(device.0) < script.devices.len() {
        true => Ok(device),
        false => {
            let (card, count) = (device.0, script.devices.len());
            Err(at.error_before(format!("there is no 'card{card}': the scene has {count} devices, counted from 0")))
        }
    }
}

fn pat_index(at: &mut Cursor<'_>) -> Result<u32, ScriptError> {
    let index = at.number("an entry of the PAT table")?;
    index.try_into().map_err(|_| at.error_before("no PAT table has such an entry".into()))
}

/// Stores of 16 bytes that a page has room for, with the batch's end.
const MOST_STORES: usize = 255;

fn job(at: &mut Cursor<'_>, script: &mut Script, thread: usize, vm: usize, tile: Node) -> Result<Action, ScriptError> {
    let begins = at.take("begin");
    let is_plain = script.vms[vm].kind == VmKind::Plain;
    let is_empty = matches!(at.peek(), None | Some("->" | "behind"));
    let touches =
        if is_plain && is_empty { Vec::new() } else { touches(at, script, thread, Agent::Tile { vm, tile })? };
    let order = order(at, script)?;
    for touch in &touches {
        if matches!(touch.span.of, Piece::Buffer(_)) != is_plain {
            return Err(at.error_before("a plain VM reaches buffers and nothing else, other VMs reach memory".into()));
        }
        if is_plain && touch.verb != Verb::Write {
            return Err(at.error_before("jobs of a plain VM only write".into()));
        }
    }
    if is_plain && touches.iter().map(|touch| touch.span.each().count()).sum::<usize>() > MOST_STORES {
        return Err(at.error_before(format!("a job of a plain VM writes at most {MOST_STORES} pages: make two of it")));
    }
    if !is_plain && (order.behind.is_some() || order.signals.is_some()) {
        return Err(at.error_before("only jobs and binds of a plain VM have fences with a name".into()));
    }
    Ok(Action::Job { vm, tile, touches, waits: !begins && order.signals.is_none(), order })
}

fn touches(at: &mut Cursor<'_>, script: &mut Script, thread: usize, agent: Agent) -> Result<Vec<Touch>, ScriptError> {
    let mut touches = Vec::new();
    loop {
        let verb = match at.word("read, write or add")? {
            "read" => Verb::Read,
            "write" => Verb::Write,
            "add" => Verb::Add,
            word => return Err(at.error_before(format!("expected read, write or add, not '{word}'"))),
        };
        let writer = Writer { agent, thread };
        if verb == Verb::Write && !script.writers.contains(&writer) {
            if script.writers.len() == MOST_WRITERS {
                return Err(at.error_before(format!("more than {MOST_WRITERS} agents write")));
            }
            script.writers.push(writer);
        }
        touches.push(Touch { verb, span: span(at, script)? });
        if !at.take(",") {
            return Ok(touches);
        }
    }
}

fn moved(at: &mut Cursor<'_>, script: &mut Script) -> Result<Action, ScriptError> {
    let from = run(at, script)?;
    at.expect("to")?;
    let name = at.word("a new name")?.to_owned();
    may_be_named(at, &name)?;
    let (pages, is_shared) = (from.whole().len(), script.is_shared(from.of));
    let to = match script.memories.iter_mut().enumerate().find(|(_, memory)| memory.name == name) {
        Some((to, super::Memory { pages: known, kind: MemoryKind::Moved { shared }, .. })) if *known == pages => {
            *shared |= is_shared;
            to
        }
        Some(_) => return Err(at.error_before(format!("'{name}' is memory of another kind or size already"))),
        None => {
            script.memories.push(super::Memory { name, pages, kind: MemoryKind::Moved { shared: is_shared } });
            script.memories.len() - 1
        }
    };
    let shift = shift(at)?;
    Ok(Action::Move { from, to, shift, keep: at.take("keep"), raw: at.take("raw") })
}

/// A name that leaves room on a line, and that may stand in a C program's strings and comments.
pub(super) fn may_be_named(at: &Cursor<'_>, name: &str) -> Result<(), ScriptError> {
    const LONGEST: usize = 20;
    if name.chars().count() > LONGEST {
        return Err(at.error_before(format!("a name has {LONGEST} letters at most")));
    }
    match name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
        true => Ok(()),
        false => Err(at.error_before(format!("'{name}' is no name: letters, digits, - and _"))),
    }
}

/// `by SIZE`
pub(super) fn shift(at: &mut Cursor<'_>) -> Result<u64, ScriptError> {
    let shift = if at.take("by") { at.size()? } else { 0 };
    if shift.is_multiple_of(units::SZ_4K) && shift < units::SZ_2M {
        return Ok(shift);
    }
    Err(at.error_before("memory goes by whole pages of 4K, less than 2M, past a 2M boundary".into()))
}

/// A piece, and which of its pages.
fn span(at: &mut Cursor<'_>, script: &Script) -> Result<Span, ScriptError> {
    let name = at.word("a piece of memory")?;
    let of = match script.buffers.iter().position(|buffer| buffer.name == name) {
        Some(buffer) => Piece::Buffer(buffer),
        None => Piece::Memory(memory_named(at, script, name)?),
    };
    let all = match of {
        Piece::Memory(index) => script.memories[index].pages,
        Piece::Buffer(index) => script.buffers[index].pages,
    };
    Ok(Span { of, pages: pages(at, all)? })
}

/// A CPU reaches memory, and no buffer.
fn is_memory(at: &Cursor<'_>, span: &Span) -> Result<(), ScriptError> {
    match span.of {
        Piece::Memory(_) => Ok(()),
        Piece::Buffer(_) => {
            Err(at.error_before("this step takes memory: only jobs of a plain VM reach buffers".into()))
        }
    }
}

fn pages_of_memory(at: &mut Cursor<'_>, script: &Script) -> Result<Span, ScriptError> {
    let span = span(at, script)?;
    is_memory(at, &span).map(|()| span)
}

/// A span of memory that is one run.
fn run(at: &mut Cursor<'_>, script: &Script) -> Result<Span, ScriptError> {
    let span = pages_of_memory(at, script)?;
    match span.pages.len() {
        1 => Ok(span),
        _ => Err(at.error_before("this step takes one run of memory, such as b or b[0..4]".into())),
    }
}

/// The piece of memory of that name.
pub(super) fn memory_named(at: &Cursor<'_>, script: &Script, name: &str) -> Result<usize, ScriptError> {
    let index = script.memories.iter().position(|memory| memory.name == name);
    index.ok_or_else(|| at.error_before(format!("there is no memory '{name}'")))
}

/// `[0..4,7]`; all pages where nothing is said.
pub(super) fn pages(at: &mut Cursor<'_>, all: usize) -> Result<Vec<Range<usize>>, ScriptError> {
    if !at.take("[") {
        return Ok(std::iter::once(0..all).collect());
    }
    let mut pages = Vec::new();
    loop {
        let first = at.number("a page")? as usize;
        let end = if at.take("..") { at.number("the page after the last")? as usize } else { first.saturating_add(1) };
        if first >= end || end > all {
            return Err(at.error_before(format!("no such pages: there are {all}, counted from 0")));
        }
        pages.push(first..end);
        if !at.take(",") {
            break;
        }
    }
    at.expect("]")?;
    Ok(pages)
}

/// A VM that was named, else the first one.
fn vm(at: &mut Cursor<'_>, script: &Script) -> Result<usize, ScriptError> {
    let index = at.peek().and_then(|word| script.vms.iter().position(|vm| vm.name == word));
    if index.is_some() {
        at.word("a VM")?;
    }
    Ok(index.unwrap_or(0))
}

fn named_vm(at: &mut Cursor<'_>, script: &Script, kind: VmKind) -> Result<usize, ScriptError> {
    let name = at.word("a VM")?;
    let index = script.vms.iter().position(|vm| vm.name == name && vm.kind == kind);
    let needed = if kind == VmKind::Plain { "plain" } else { "later" };
    index.ok_or_else(|| at.error_before(format!("this step takes a VM that was declared as 'vm {name} {needed}'")))
}

/// `NAME`, `NAME.card1` or `card1`; else the first VM, of the first device.
fn vm_on(at: &mut Cursor<'_>, script: &Script) -> Result<VmOn, ScriptError> {
    let word = at.peek().unwrap_or_default();
    let (name, device) = match (card(word), word.split_once('.')) {
        (Some(device), _) => (None, Some(device)),
        (None, Some((name, device))) => (Some(name), card(device)),
        (None, None) => (Some(word), None),
    };
    let index = name.and_then(|name| script.vms.iter().position(|vm| vm.name == name));
    if index.is_some() || device.is_some() {
        at.word("a VM")?;
    }
    if let (Some(name), Some(_), None) = (name, device, index) {
        return Err(at.error_before(format!("there is no VM '{name}'")));
    }
    let device = device.map_or(Ok(DeviceId(0)), |device| known_card(at, script, device))?;
    Ok(VmOn { vm: index.unwrap_or(0), device })
}

/// A VM likewise; it mirrors the process.
fn mirror(at: &mut Cursor<'_>, script: &Script) -> Result<VmOn, ScriptError> {
    match vm_on(at, script)? {
        on if script.vms[on.vm].kind != VmKind::Plain => Ok(on),
        _ => Err(at.error_before("this step takes a VM with faults".into())),
    }
}

/// Pages of a userptr.
fn userptr(at: &mut Cursor<'_>, script: &Script) -> Result<Span, ScriptError> {
    let span = run(at, script)?;
    match span.of {
        Piece::Memory(of) if matches!(script.memories[of].kind, MemoryKind::Userptr { .. }) => Ok(span),
        _ => Err(at.error_before("this step takes what was declared as 'userptr NAME = OTHER[A..B]'".into())),
    }
}

fn buffer(at: &mut Cursor<'_>, script: &Script) -> Result<usize, ScriptError> {
    let name = at.word("a buffer")?;
    let index = script.buffers.iter().position(|buffer| buffer.name == name);
    index.ok_or_else(|| at.error_before(format!("there is no buffer '{name}'")))
}

/// Pages of another buffer in whose place a buffer is bound.
fn place_for(at: &mut Cursor<'_>, script: &Script, buffer: usize) -> Result<Span, ScriptError> {
    let over = span(at, script)?;
    let fits = matches!(over.of, Piece::Buffer(other) if other != buffer) && over.pages.len() == 1;
    let aligned = over.whole().start.is_multiple_of(16) && over.whole().len() == script.buffers[buffer].pages;
    if fits && aligned {
        return Ok(over);
    }
    Err(at.error_before("a buffer is bound over as many pages of another one, from a multiple of 64K on".into()))
}

/// `faults 1, retries 0..2, deferrals 1..`
fn counts(at: &mut Cursor<'_>) -> Result<Vec<(Counted, RangeInclusive<u64>)>, ScriptError> {
    let mut all = Vec::new();
    loop {
        let what = counted(at)?;
        let least = at.number("how often")?;
        let most = match at.take("..") {
            false => least,
            true if at.peek().is_none_or(|word| word == ",") => u64::MAX,
            true => at.number("how often at most")?,
        };
        if least > most {
            return Err(at.error_before(format!("nothing happens {least} times at least and {most} at most")));
        }
        all.push((what, least..=most));
        if !at.take(",") {
            return Ok(all);
        }
    }
}

fn counted(at: &mut Cursor<'_>) -> Result<Counted, ScriptError> {
    let word = at.word("what is counted")?;
    let known = Counted::ALL.iter().find(|(name, _)| *name == word);
    known.map(|(_, counted)| *counted).ok_or_else(|| {
        let names: Vec<&str> = Counted::ALL.iter().map(|(name, _)| *name).collect();
        at.error_before(format!("'{word}' is not counted; there are: {}", names.join(", ")))
    })
}

fn order(at: &mut Cursor<'_>, script: &mut Script) -> Result<Order, ScriptError> {
    let behind = if at.take("behind") { Some(fence(at, script)?) } else { None };
    let signals = if at.take("->") {
        let name = at.word("the fence's name")?.to_owned();
        may_be_named(at, &name)?;
        let index = script.fences.iter().position(|fence| *fence == name);
        Some(index.unwrap_or_else(|| {
            script.fences.push(name);
            script.fences.len() - 1
        }))
    } else {
        None
    };
    Ok(Order { behind, signals })
}

fn fence(at: &mut Cursor<'_>, script: &Script) -> Result<usize, ScriptError> {
    let name = at.word("a fence")?;
    let index = script.fences.iter().position(|fence| fence == name);
    index.ok_or_else(|| at.error_before(format!("no step before this one signals '{name}': write '-> {name}' there")))
}

fn home(at: &mut Cursor<'_>, script: &Script) -> Result<Home, ScriptError> {
    match at.word("system, default, vram0 or vram1")? {
        "system" => Ok(Home::System),
        "default" => Ok(Home::Default),
        word => vram_named(at, script, word, "system, default, vram0 or vram1").map(Home::Vram),
    }
}

fn vram(at: &mut Cursor<'_>, script: &Script) -> Result<Node, ScriptError> {
    let word = at.word("vram0 or vram1")?;
    vram_named(at, script, word, "vram0 or vram1")
}

fn vram_named(at: &Cursor<'_>, script: &Script, word: &str, expected: &str) -> Result<Node, ScriptError> {
    let node = node(word, "vram").ok_or_else(|| at.error_before(format!("expected {expected}, not '{word}'")))?;
    known(at, script, word, node)
}
