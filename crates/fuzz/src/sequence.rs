//! A sequence: what a program does, step by step, as a value and as a text.
//!
//! ```text
//! # seed 17, device pvc-2t
//! VM_CREATE 0 flags=0x6
//! VM_BIND 0 vm_id=0x1 num_binds=0x1 bind.range=0x1000 num_syncs=0x1 syncs=0x600000000400
//!   Sync@600000000400 sync_type=0x2 flags=0x1
//! put
//!   Words@600020000000 10000002 00000000 00006000 00000001 05000000
//! unmap page=3 pages=16
//! ```
//!
//! An ioctl's first number is the file that it is for (0: primary node, 1: render node; 2 and 3: those of the second device, where
//! the head says `devices 2`), or a descriptor. What is 0 is
//! not written. `@` behind it: where the argument lies, if not at the desk; `!`: the request, if not its own.

use crate::device::Device;
use crate::layout::{self, Block, Kind};
use crate::place::{ARGUMENT, FIRST_FD};
use std::fmt;

/// What the program does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sequence {
    /// What it was made from; it names the schedule, too.
    pub seed: u64,
    /// Whose ioctls they are.
    pub device: Device,
    /// How many such devices there are, peers of each other: 1 or 2.
    pub devices: u8,
    /// In their order.
    pub steps: Vec<Step>,
}

impl Default for Sequence {
    fn default() -> Self {
        Self { seed: 0, device: Device::default(), devices: 1, steps: Vec::new() }
    }
}

/// One thing that it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// An ioctl.
    Ioctl(Ioctl),
    /// A CPU stores.
    Put(Vec<Block>),
    /// Its memory changes.
    Memory(Memory),
    /// A descriptor is closed.
    Close(i32),
    /// A file is closed, and opened anew.
    Reopen(usize),
    /// A child is born, reads the arena, and ends.
    Fork,
    /// Somebody resets a tile's GT; those of the second device are counted on.
    Reset(u8),
    /// Time passes, nanoseconds.
    Sleep(u64),
}

/// An ioctl.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ioctl {
    /// A file (0 to 3), or a descriptor.
    pub on: i32,
    /// Which one.
    pub call: &'static layout::Call,
    /// Its request: the call's own, or another.
    pub request: u32,
    /// Where the argument lies.
    pub at: u64,
    /// The argument.
    pub arg: Vec<u8>,
    /// What it points to.
    pub blocks: Vec<Block>,
}

impl Ioctl {
    /// A number of the argument.
    pub fn get(&self, name: &str) -> u64 {
        self.call.kind.number(&self.arg, name)
    }
    /// Whether it is on a file.
    pub const fn file(&self) -> Option<usize> {
        if self.on >= 0 && self.on < FIRST_FD { Some((self.on & 3) as usize) } else { None }
    }
}

/// How memory changes. Pages are counted from the arena's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// How.
    pub verb: Verb,
    /// From this page.
    pub page: u64,
    /// So many.
    pub pages: u64,
    /// Where to, for a move.
    pub to: u64,
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A change of memory.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Verb { $($(#[$doc])* $name,)* }
        impl Verb {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Its name.
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }
        }
    };
}

verbs! {
    /// mmap over it, private.
    Map = "map",
    /// mmap over it, shared.
    MapShared = "map-shared",
    /// munmap.
    Unmap = "unmap",
    /// mprotect, reading only.
    ReadOnly = "read-only",
    /// mprotect, reading and writing.
    Writable = "writable",
    /// MADV_DONTNEED.
    DontNeed = "dontneed",
    /// MADV_FREE.
    Free = "free",
    /// mremap.
    Move = "move",
    /// A load of each page.
    Load = "load",
    /// A store to each page.
    Store = "store",
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = if self.devices > 1 { ", devices 2" } else { "" };
        writeln!(f, "# seed {}, device {}{devices}", self.seed, self.device)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ioctl(ioctl) => {
                write!(f, "{} {}", ioctl.call.name, ioctl.on)?;
                if ioctl.request != ioctl.call.request {
                    write!(f, " !{:x}", ioctl.request)?;
                }
                if ioctl.at != ARGUMENT {
                    write!(f, " @{:x}", ioctl.at)?;
                }
                write_fields(f, ioctl.call.kind, &ioctl.arg)?;
                write_blocks(f, &ioctl.blocks)
            }
            Self::Put(blocks) => {
                write!(f, "put")?;
                write_blocks(f, blocks)
            }
            Self::Memory(Memory { verb, page, pages, to }) => {
                write!(f, "{} page={page} pages={pages}", verb.name())?;
                if *verb == Verb::Move { write!(f, " to={to}") } else { Ok(()) }
            }
            Self::Close(fd) => write!(f, "close fd={fd}"),
            Self::Reopen(file) => write!(f, "reopen file={file}"),
            Self::Fork => write!(f, "fork"),
            Self::Reset(tile) => write!(f, "reset tile={tile}"),
            Self::Sleep(ns) => write!(f, "sleep ns={ns}"),
        }
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, kind: Kind, bytes: &[u8]) -> fmt::Result {
    for field in kind.fields() {
        match layout::get(bytes, &field) {
            0 => {}
            value => write!(f, " {}={value:#x}", field.name)?,
        }
    }
    if kind == Kind::Words {
        let words = bytes.chunks(4).map(|word| word.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)));
        words.into_iter().try_for_each(|word| write!(f, " {word:08x}"))?;
    }
    Ok(())
}

fn write_blocks(f: &mut fmt::Formatter<'_>, blocks: &[Block]) -> fmt::Result {
    for block in blocks {
        write!(f, "\n  {}@{:x}", block.kind.name(), block.at)?;
        write_fields(f, block.kind, &block.bytes)?;
    }
    Ok(())
}

impl Sequence {
    /// Reads a text. The error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut sequence = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let told = |what: String| format!("line {number}: {what}");
            if let Some(comment) = line.trim().strip_prefix('#') {
                let seed =
                    comment.trim().strip_prefix("seed ").and_then(|rest| rest.split([',', ' ']).next()?.parse().ok());
                sequence.seed = seed.unwrap_or(sequence.seed);
                if let Some((_, name)) = comment.split_once(", device ") {
                    let name = name.split([',', ' ']).next().unwrap_or("");
                    sequence.device = Device::named(name).map_err(told)?;
                    sequence.devices = if comment.contains(", devices 2") { 2 } else { 1 };
                }
            } else if line.starts_with(' ') {
                let block = parse_block(line.trim()).map_err(told)?;
                match sequence.steps.last_mut() {
                    Some(Step::Ioctl(Ioctl { blocks, .. }) | Step::Put(blocks)) => blocks.push(block),
                    _ => return Err(told("nothing here has blocks".into())),
                }
            } else if !line.trim().is_empty() {
                sequence.steps.push(parse_step(line.trim()).map_err(told)?);
            }
        }
        Ok(sequence)
    }
}

fn parse_step(line: &str) -> Result<Step, String> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or("");
    if let Some(call) = layout::call(name) {
        return parse_ioctl(call, words).map(Step::Ioctl);
    }
    let rest: Vec<&str> = words.collect();
    let named = |name: &str| {
        let found = rest.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(number).ok_or_else(|| format!("'{line}' has no {name}"))
    };
    if let Some(verb) = Verb::ALL.iter().find(|verb| verb.name() == name) {
        let to = if *verb == Verb::Move { named("to")? } else { 0 };
        return Ok(Step::Memory(Memory { verb: *verb, page: named("page")?, pages: named("pages")?, to }));
    }
    Ok(match name {
        "put" => Step::Put(Vec::new()),
        "close" => Step::Close(named("fd")? as i32),
        "reopen" => Step::Reopen(named("file")? as usize & 3),
        "fork" => Step::Fork,
        "reset" => Step::Reset(named("tile")? as u8),
        "sleep" => Step::Sleep(named("ns")?),
        _ => return Err(format!("'{name}' is no step")),
    })
}

fn parse_ioctl<'a>(call: &'static layout::Call, words: impl Iterator<Item = &'a str>) -> Result<Ioctl, String> {
    let mut ioctl =
        Ioctl { on: 0, call, request: call.request, at: ARGUMENT, arg: vec![0; call.kind.size()], blocks: Vec::new() };
    let mut first = true;
    for word in words {
        if std::mem::take(&mut first) {
            ioctl.on = word.parse().map_err(|_| format!("'{word}' is no file"))?;
        } else if let Some(request) = word.strip_prefix('!') {
            ioctl.request = hex(request)? as u32;
        } else if let Some(at) = word.strip_prefix('@') {
            ioctl.at = hex(at)?;
        } else {
            parse_field(call.kind, &mut ioctl.arg, word)?;
        }
    }
    Ok(ioctl)
}

fn parse_block(line: &str) -> Result<Block, String> {
    let mut words = line.split_whitespace();
    let head = words.next().unwrap_or("");
    let (name, at) = head.split_once('@').ok_or_else(|| format!("'{head}' has no address"))?;
    let kind = Kind::named(name).ok_or_else(|| format!("'{name}' is no struct"))?;
    let mut bytes = vec![0; kind.size()];
    words.try_for_each(|word| parse_field(kind, &mut bytes, word))?;
    Ok(Block { at: hex(at)?, kind, bytes })
}

fn parse_field(kind: Kind, bytes: &mut Vec<u8>, word: &str) -> Result<(), String> {
    if kind == Kind::Words {
        bytes.extend((hex(word)? as u32).to_le_bytes());
        return Ok(());
    }
    let (name, value) = word.split_once('=').ok_or_else(|| format!("'{word}' has no value"))?;
    let field = kind.fields().into_iter().find(|field| field.name == name);
    let field = field.ok_or_else(|| format!("{} has no {name}", kind.name()))?;
    layout::set(bytes, &field, number(value).ok_or_else(|| format!("'{value}' is no number"))?);
    Ok(())
}

fn number(text: &str) -> Option<u64> {
    if let Some(rest) = text.strip_prefix('-') {
        return number(rest).map(u64::wrapping_neg);
    }
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn hex(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("'{text}' is no hexadecimal number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_generated_reads_back() {
        for seed in 0..300 {
            let device = Device::named(["pvc-2t", "bmg"][(seed % 2) as usize]).expect("a profile");
            let sequence = crate::generate::sequence_on(device, 1 + (seed % 3 / 2) as u8, seed);
            assert_eq!(Sequence::parse(&sequence.to_string()).as_ref(), Ok(&sequence), "seed {seed}");
        }
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = Sequence::parse("VM_CREATE 0 flags=0x6\nVM_CREATE 0 colour=1\n");
        assert_eq!(error, Err("line 2: VmCreate has no colour".into()));
    }
}
