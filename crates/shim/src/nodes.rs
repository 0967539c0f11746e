//! Which file descriptors are ours, and the open files behind them.
//!
//! A table of one word a descriptor answers "is it ours?" without a lock; only for those that are, the list of open
//! files is locked. Descriptors made by dup share an open file, which is closed with the last of them.
//!
//! A descriptor that libc closes by itself can leave a stale entry behind. So nothing trusts an entry alone: it is
//! replaced when the number is opened anew through us, and `fstat` compares the inode.
//!
//! A vfork child shares this table with its parent and may close descriptors in its own table of the kernel: changes
//! by another process than the owner are ignored.

use crate::device::{File, Passed};
use crate::minor::{Kind, Minor};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use machine::profile::MAX_DEVICES;
use std::mem;
use std::sync::Arc;
use sync::{Mutex, MutexGuard};

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// None of ours.
    Foreign,
    /// A directory of the tree, or one that was.
    Dir,
    /// One of the machine's own, closed in a fork child.
    Machine,
    /// One of this library's own, which a fork child goes on with.
    Library,
    /// A file of sysfs that is written as the kernel allows it.
    Checked,
    /// An open device node.
    Node(Minor),
    /// What an ioctl of the device gave out as a descriptor.
    Passed,
    /// A dma-buf: the bytes of a buffer.
    Buffer,
}

/// What is behind a descriptor.
pub enum Behind {
    /// An open file of the device.
    File(Arc<dyn File>),
    /// What an ioctl of a file gave out.
    Passed(Passed, Arc<dyn File>),
}

/// An open file.
struct OpenFile {
    behind: Behind,
    /// Which start of the machine it belongs to.
    epoch: u32,
    descriptors: u32,
    /// Calls under way.
    calls: u32,
}

/// The open files; opaque to others but for holding them across a fork.
pub struct Files(Vec<Option<OpenFile>>);

/// Descriptors above this are never ours.
pub const MAX_FD: usize = 1 << 16;

const FOREIGN: u32 = 0;
const DIR: u32 = 1;
const MACHINE: u32 = 2;
const LIBRARY: u32 = 3;
const CHECKED: u32 = 4;
/// From here on: [`KINDS`] times the index in the list of files, plus what it is.
const FIRST_FILE: u32 = 16;
const KINDS: u32 = 16;
/// Nodes are the kinds below: twice the device's number, one more for its render node.
const PASSED: u32 = 2 * MAX_DEVICES as u32;
const BUFFER: u32 = PASSED + 1;

static TABLE: [AtomicU32; MAX_FD] = [const { AtomicU32::new(FOREIGN) }; MAX_FD];
static FILES: Mutex<Files> = Mutex::new(Files(Vec::new()));
static HAS_POLLED: AtomicBool = AtomicBool::new(false);
/// The process whose descriptors these are; 0 before the first.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether any descriptor was ever a node or a dma-buf: those are ready at other times than the kernel says.
pub fn has_polled() -> bool {
    HAS_POLLED.load(Ordering::Acquire)
}

/// What `fd` is. One load.
pub fn entry(fd: i32) -> Entry {
    match word(fd) {
        FOREIGN => Entry::Foreign,
        DIR => Entry::Dir,
        MACHINE => Entry::Machine,
        LIBRARY => Entry::Library,
        CHECKED => Entry::Checked,
        file => match (file - FIRST_FILE) % KINDS {
            PASSED => Entry::Passed,
            BUFFER => Entry::Buffer,
            node => Entry::Node(Minor {
                device: (node / 2) as u8,
                kind: if node % 2 == 0 { Kind::Card } else { Kind::Render },
            }),
        },
    }
}

/// Whether `fd` is one that the program does not know of: for the program it is not open. It may not close, replace,
/// duplicate or change it; whoever takes a descriptor asks this.
pub fn is_hidden(fd: i32) -> bool {
    matches!(entry(fd), Entry::Machine | Entry::Library)
}

/// The open file behind a node's descriptor, with the start of the machine that it belongs to.
pub fn file(fd: i32) -> Option<(Arc<dyn File>, u32)> {
    let index = index(word(fd))?;
    let files = FILES.lock();
    match files.0.get(index)?.as_ref()? {
        OpenFile { behind: Behind::File(file), epoch, .. } => Some((file.clone(), *epoch)),
        _ => None,
    }
}

/// Device and inode number of the file that a descriptor is of, as the kernel has them: those of a node's memory file.
pub fn inode(fd: i32) -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(format!("/proc/self/fd/{fd}").as_str()).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// The node that a memory file shows by the name that the kernel gives it.
pub fn of_name(name: &[u8]) -> Option<Minor> {
    let name = name.strip_prefix(b"/memfd:")?.strip_suffix(b" (deleted)")?;
    Minor::all(MAX_DEVICES).find(|minor| minor.path().to_bytes() == name)
}

/// The open file behind a node's descriptor is another one from now on, unless somebody was here first. What was there
/// is the dead machine's: not even its destructor may run.
pub fn replace(fd: i32, dead: u32, file: Arc<dyn File>, epoch: u32) {
    let mut files = FILES.lock();
    let slot = index(word(fd)).and_then(|index| files.0.get_mut(index)?.as_mut());
    if let Some(open) = slot
        && open.epoch == dead
    {
        open.epoch = epoch;
        mem::forget(mem::replace(&mut open.behind, Behind::File(file)));
    }
}

/// What `fd` was given out as, with the start of the machine that it belongs to; the clone is made only where that is
/// `epoch`.
pub fn passed(fd: i32, epoch: u32) -> Option<(Passed, Arc<dyn File>)> {
    let index = index(word(fd))?;
    let files = FILES.lock();
    match files.0.get(index)?.as_ref()? {
        OpenFile { behind: Behind::Passed(passed, file), epoch: own, .. } if *own == epoch => {
            Some((passed.clone(), file.clone()))
        }
        _ => None,
    }
}

/// `fd`, just made, is a new open file.
pub fn install(fd: i32, minor: Minor, file: Arc<dyn File>, epoch: u32) {
    let kind = 2 * u32::from(minor.device) + u32::from(minor.kind == Kind::Render);
    HAS_POLLED.store(true, Ordering::Release);
    add(fd, kind, Behind::File(file), epoch);
}

/// `fd`, just made, is what an ioctl of `file` gives out.
pub fn give(fd: i32, passed: Passed, file: Arc<dyn File>, epoch: u32) {
    add(fd, PASSED, Behind::Passed(passed, file), epoch);
}

/// `fd` is a dma-buf: as an ioctl of `file` made it, or as it came from elsewhere.
pub fn give_buffer(fd: i32, passed: Passed, file: Arc<dyn File>, epoch: u32) {
    HAS_POLLED.store(true, Ordering::Release);
    add(fd, BUFFER, Behind::Passed(passed, file), epoch);
}

fn add(fd: i32, kind: u32, behind: Behind, epoch: u32) {
    own();
    let mut files = FILES.lock();
    let slot = files.0.iter().position(Option::is_none).unwrap_or_else(|| {
        files.0.push(None);
        files.0.len() - 1
    });
    files.0[slot] = Some(OpenFile { behind, epoch, descriptors: 1, calls: 0 });
    set(fd, FIRST_FILE + slot as u32 * KINDS + kind);
}

/// `fd` is a directory of the tree.
pub fn mark_dir(fd: i32) {
    own();
    set(fd, DIR);
}

/// `fd` is a file of sysfs that was opened for writing.
pub fn mark_checked(fd: i32) {
    own();
    set(fd, CHECKED);
}

/// `fd` belongs to the machine.
pub fn mark_machine(fd: i32) {
    own();
    set(fd, MACHINE);
}

/// `fd` belongs to this library.
pub fn mark_library(fd: i32) {
    own();
    set(fd, LIBRARY);
}

/// `fd` was closed behind our back, or will be: nothing is known of that number any more.
pub fn unmark(fd: i32) {
    set(fd, FOREIGN);
}

/// `new` is a duplicate of `old`, just made.
pub fn share(old: i32, new: i32) {
    let word = word(old);
    if matches!(word, MACHINE | LIBRARY) || !is_owner() {
        return;
    }
    if let Some(index) = index(word)
        && let Some(Some(open)) = FILES.lock().0.get_mut(index)
    {
        open.descriptors += 1;
    }
    set(new, word);
}

/// `fd` is about to be closed, or was just replaced: nothing of ours any more. Gives what was behind it and the start
/// it belongs to where this was its last descriptor, and no call is under way.
pub fn forget(fd: i32) -> Option<(Behind, u32)> {
    if word(fd) == FOREIGN || !is_owner() {
        return None;
    }
    let index = index(TABLE.get(usize::try_from(fd).ok()?)?.swap(FOREIGN, Ordering::AcqRel))?;
    let mut files = FILES.lock();
    let slot = files.0.get_mut(index)?;
    slot.as_mut()?.descriptors -= 1;
    take_unused(slot)
}

/// A call on the open file behind a descriptor begins: it stays until [`end_call`] of its place in the list.
pub fn begin_call(fd: i32) -> Option<usize> {
    let index = index(word(fd))?;
    FILES.lock().0.get_mut(index)?.as_mut()?.calls += 1;
    Some(index)
}

/// The call has ended; gives what [`forget`] does.
pub fn end_call(index: usize) -> Option<(Behind, u32)> {
    let mut files = FILES.lock();
    let slot = files.0.get_mut(index)?;
    slot.as_mut()?.calls -= 1;
    take_unused(slot)
}

fn take_unused(slot: &mut Option<OpenFile>) -> Option<(Behind, u32)> {
    let unused = slot.take_if(|open| open.descriptors == 0 && open.calls == 0)?;
    Some((unused.behind, unused.epoch))
}

/// Every descriptor in `[first, last]` that is ours.
pub fn ours_in(first: u32, last: u32) -> impl Iterator<Item = i32> {
    let end = (last as usize).saturating_add(1).min(MAX_FD);
    let start = (first as usize).min(end);
    (start..end).filter(|fd| TABLE[*fd].load(Ordering::Acquire) != FOREIGN).map(|fd| fd as i32)
}

/// Nobody else uses the open files while this lives: for the time of a fork.
pub fn hold() -> MutexGuard<'static, Files> {
    FILES.lock()
}

/// In a fork child: its descriptors are its own now, and the machine's are nobody's. The parent's open files stay
/// where they are: their threads and locks are gone, so not even their destructors may run.
pub fn forked(close: impl Fn(i32)) {
    if OWNER.load(Ordering::Relaxed) == 0 {
        return;
    }
    OWNER.store(std::process::id(), Ordering::Relaxed);
    // Who made calls is not here.
    FILES.lock().0.iter_mut().flatten().for_each(|open| open.calls = 0);
    for fd in ours_in(0, MAX_FD as u32) {
        if entry(fd) == Entry::Machine {
            set(fd, FOREIGN);
            close(fd);
        }
    }
}

/// Gives up what belongs to a machine that lives in another process.
pub fn leak<T>(thing: T) {
    mem::forget(thing);
}

fn word(fd: i32) -> u32 {
    usize::try_from(fd).ok().and_then(|fd| TABLE.get(fd)).map_or(FOREIGN, |word| word.load(Ordering::Acquire))
}

fn set(fd: i32, word: u32) {
    if let Some(entry) = usize::try_from(fd).ok().and_then(|fd| TABLE.get(fd)) {
        entry.store(word, Ordering::Release);
    }
}

fn index(word: u32) -> Option<usize> {
    word.checked_sub(FIRST_FILE).map(|file| (file / KINDS) as usize)
}

fn own() {
    if OWNER.load(Ordering::Relaxed) == 0 {
        OWNER.store(std::process::id(), Ordering::Relaxed);
    }
}

fn is_owner() -> bool {
    OWNER.load(Ordering::Relaxed) == std::process::id()
}
