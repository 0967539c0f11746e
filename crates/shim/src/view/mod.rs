//! The file system as the program sees it: a real directory tree, shown under other names.
//!
//! `/dev/dri/card0` is the file `<tree>/dev/dri/card0`, and so on for sysfs and debugfs, where `<tree>` is the descriptor
//! of a folder (`place`). Opening, listing and reading need nothing more than the changed path. What a file of the tree *is* is decided by its inode after the
//! real call, so links, directory descriptors and a working directory inside the tree need no code of their own.
//!
//! Locking: `ROOT` is taken only for paths that are shown, and held across a fork.

mod made;
mod path;
mod place;
mod property;
mod removal;
mod tree;
pub use path::Of;
pub use place::{shared_file, shared_folder};
pub use tree::slot;

use crate::config;
use crate::device::{Identity, OfDevice};
use crate::fdinfo::OfGt;
use crate::libc_calls;
use crate::minor::{Gt, Kind, Minor};
use crate::nodes::{self, Entry};
use crate::outside;
use core::ffi::c_char;
use core::sync::atomic::{AtomicBool, Ordering};
use machine::ClassSchedule;
use made::{Made, Plan};
use path::Meaning;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use sync::{Mutex, MutexGuard};

/// Where a path of the program leads.
#[allow(clippy::large_enum_variant)] // a box would be freed on the program's stack
pub enum Look {
    /// Nothing of ours.
    Foreign,
    /// To this path, mostly of the tree.
    Shown(RealPath),
    /// A relative path from a directory of the tree: right as it is, but what it finds may be special.
    Inside,
    /// `/proc/self/fd/N` of a descriptor that is a node.
    Node(Minor),
}

/// A path to give to the real function. It holds its bytes itself: nothing is freed on the program's stack.
pub struct RealPath {
    bytes: [u8; 1024],
}

impl RealPath {
    /// The pieces one after the other; `None` where they are too long.
    fn of(pieces: [&[u8]; 3]) -> Option<Self> {
        let mut path = Self { bytes: [0; 1024] };
        let mut length = 0;
        for piece in pieces {
            path.bytes.get_mut(length..length + piece.len())?.copy_from_slice(piece);
            length += piece.len();
        }
        (length < path.bytes.len()).then_some(path)
    }

    /// The path as C has it.
    pub fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

/// A file of the tree that is more than its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// A device node.
    Node(Minor),
    /// A GT's counters, read from all machines at open; they begin anew when it is written.
    Stats(Gt),
    /// How much of a tile's VRAM is used, read from the machine at open; by the GT of the same number.
    Vram(Gt),
    /// What is told of a device as a whole, read from all machines at open.
    Device(u8, OfDevice),
    /// A scheduling property of an engine class, by GT, class and file: written as the kernel allows it.
    Property(Gt, usize, usize),
    /// A limit of a GT's frequency: written as the kernel allows it.
    Limit,
    /// A GT's power profile, likewise.
    Profile,
    /// Resets that GT when it is written.
    Reset(Gt),
}

/// The file system that a file is one of, in the program's eyes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// sysfs.
    Sysfs,
    /// debugfs.
    Debugfs,
    /// procfs.
    Proc,
    /// devtmpfs.
    Devices,
}

/// What a write to a file of the tree does.
pub enum Written {
    /// The file has this text from now on.
    Value(String),
    /// Something is done with a GT, in all processes.
    Order(Gt, OfGt),
    /// Nothing.
    Nothing,
}

/// The tree, once made.
pub struct Root {
    root: OwnedFd,
    /// `/proc/self/fd/N`: how its files are reached.
    reach: String,
    /// Its path when it was made, as links and working directories name it.
    path: Vec<u8>,
    /// The folder to remove at the end, and the process that made it; none where the tree belongs to a whole run.
    own: Option<(PathBuf, u32)>,
    /// All of it was made at once.
    is_whole: bool,
    /// The devices, by their numbers.
    identities: Vec<Identity>,
}

enum State {
    Unmade,
    Made(Arc<Root>, Made),
    /// There is no place for the tree; said once.
    Impossible,
}

/// State of the tree; opaque to others but for holding it across a fork.
pub struct Slot(State);

static ROOT: Mutex<Slot> = Mutex::new(Slot(State::Unmade));
static MADE: AtomicBool = AtomicBool::new(false);
/// This process made it for itself.
static OWN: AtomicBool = AtomicBool::new(false);
static CWD_INSIDE: AtomicBool = AtomicBool::new(false);

/// Whether [`look`] would say something other than foreign. No lock, no allocation.
pub fn may_concern(dirfd: i32, path: &[u8]) -> bool {
    match path::meaning(path) {
        Meaning::Shown(..) | Meaning::Left(_) => true,
        Meaning::Descriptor(fd) => matches!(nodes::entry(fd), Entry::Node(_)),
        Meaning::Foreign if path.first() == Some(&b'/') => false,
        Meaning::Foreign => is_inside(dirfd) || path::may_lead(path),
    }
}

/// Where `path` leads, relative to directory descriptor `dirfd`.
pub fn look(dirfd: i32, path: &[u8]) -> Look {
    match path::meaning(path) {
        Meaning::Foreign if path.first() == Some(&b'/') => Look::Foreign,
        Meaning::Foreign if is_inside(dirfd) => {
            from_within(dirfd, path);
            Look::Inside
        }
        Meaning::Foreign if path::may_lead(path) => from_above(dirfd, path),
        Meaning::Foreign => Look::Foreign,
        other => absolute(other),
    }
}

/// Whether a directory is one of the tree.
fn is_inside(dirfd: i32) -> bool {
    if dirfd == libc::AT_FDCWD { CWD_INSIDE.load(Ordering::Relaxed) } else { nodes::entry(dirfd) == Entry::Dir }
}

fn absolute(meaning: Meaning<'_>) -> Look {
    match meaning {
        Meaning::Shown(prefix, rest) => shown(prefix, rest),
        Meaning::Left(real) => RealPath::of([real.bytes(), b"", b""]).map_or(Look::Foreign, Look::Shown),
        Meaning::Descriptor(fd) => match nodes::entry(fd) {
            Entry::Node(minor) => Look::Node(minor),
            _ => Look::Foreign,
        },
        Meaning::Foreign => Look::Foreign,
    }
}

/// A relative path from a directory outside of the tree: what leads into the tree is shown, where nothing of it is a link.
fn from_above(dirfd: i32, path: &[u8]) -> Look {
    let mut room = [core::mem::MaybeUninit::uninit(); 128];
    let joined = name_of(dirfd, &mut room).map(|above| [above, path].join(&b'/'));
    joined.map_or(Look::Foreign, |joined| absolute(path::meaning(&joined)))
}

fn shown(prefix: &path::Prefix, rest: &[u8]) -> Look {
    let there = root_with(&[prefix.path, rest]).filter(|root| usize::from(prefix.device) < root.identities.len());
    let path = there.and_then(|root| RealPath::of([root.reach.as_bytes(), prefix.path, rest]));
    path.map_or(Look::Foreign, Look::Shown)
}

/// A path from a directory of the tree: what it leads to is made.
fn from_within(dirfd: i32, path: &[u8]) {
    if made().is_none_or(|root| root.is_whole) {
        return;
    }
    let mut room = [core::mem::MaybeUninit::uninit(); 1024];
    if let Some(folder) = name_of(dirfd, &mut room).and_then(shown_name) {
        root_with(&[folder, b"/", path]);
    }
}

/// Whose descriptor a path tells of that leads to an `fdinfo`, from directory descriptor `dirfd` where it is relative.
pub fn fdinfo(dirfd: i32, path: &[u8]) -> Option<Of> {
    let relative = || {
        let fd = path::number(path).filter(|_| dirfd >= 0)?;
        let process = path::fdinfo_of(name_of(dirfd, &mut [core::mem::MaybeUninit::uninit(); 64])?)?;
        Some(Of { process, fd })
    };
    path::fdinfo(path).or_else(relative)
}

/// The file system of an open file that is one of the tree, or a memory file in the place of one; `None` for all others.
pub fn file_system(fd: i32) -> Option<FileSystem> {
    let mut room = [core::mem::MaybeUninit::uninit(); 1024];
    let name = name_of(fd, &mut room)?;
    let instead = || name.strip_prefix(b"/memfd:")?.strip_suffix(b" (deleted)");
    path::file_system(shown_name(name).or_else(instead)?)
}

/// The path of a file, if there is room for it. Not by std, whose readlink is our own; no allocation.
fn name_of(dirfd: i32, room: &mut [core::mem::MaybeUninit<u8>]) -> Option<&[u8]> {
    let mut name = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut digits = [0u8; 10];
    let (mut at, mut rest) = (digits.len(), dirfd.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    name[14..14 + digits.len() - at].copy_from_slice(&digits[at..]);
    let name = core::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    let name = if dirfd == libc::AT_FDCWD { c"/proc/self/cwd" } else { name };
    let size = room.len();
    let (target, _) = rustix::fs::readlinkat_raw(rustix::fs::CWD, name, room).ok()?;
    (target.len() < size).then_some(target)
}

/// Whether there is a tree at all. One load.
pub fn is_made() -> bool {
    MADE.load(Ordering::Acquire)
}

/// Whether this process has to remove it. One load.
pub fn is_to_be_removed() -> bool {
    OWN.load(Ordering::Acquire)
}

/// A fork child removes no tree of its parent's.
pub fn forked() {
    OWN.store(false, Ordering::Release);
}

/// What a file of the tree is, by its inode; `None` for ordinary files.
pub fn special(dev: u64, ino: u64) -> Option<Special> {
    let State::Made(_, made) = &ROOT.lock().0 else { return None };
    made.specials.iter().find(|(_, stat)| (stat.st_dev, stat.st_ino) == (dev, ino)).map(|(what, _)| *what)
}

/// System memory that a device's buffers may take.
pub fn system_bytes(device: u8) -> u64 {
    made().and_then(|root| Some(root.identities.get(usize::from(device))?.system_bytes)).unwrap_or(0)
}

/// What a write of `text` to a file of the tree does, or its errno; `None` where the file takes any bytes.
pub fn written(dev: u64, ino: u64, text: &[u8]) -> Option<Result<Written, i32>> {
    let (gt, class, file) = match special(dev, ino)? {
        Special::Property(gt, class, file) => (gt, class, file),
        Special::Reset(gt) => return Some(order(text, gt, OfGt::Reset)),
        Special::Stats(gt) => return Some(order(text, gt, OfGt::Clear)),
        Special::Limit => return Some(property::limit(text).map(|mhz| Written::Value(format!("{mhz}\n")))),
        Special::Profile => return Some(property::profile(text).map(|shown| Written::Value(shown.into()))),
        Special::Node(_) | Special::Vram(_) | Special::Device(..) => return None,
    };
    let root = made()?;
    let class = root.identities.get(usize::from(gt.device))?.engine_classes.get(class)?;
    let now = |file: &property::File| root.value(gt, class, file);
    Some(property::FILES[file].accept(text, now).map(|value| Written::Value(format!("{value}\n"))))
}

/// What is done with a GT where a text means yes.
fn order(text: &[u8], gt: Gt, what: OfGt) -> Result<Written, i32> {
    property::truth(text).map(|yes| if yes { Written::Order(gt, what) } else { Written::Nothing })
}

/// What the files say of each engine class of each GT, where there are files.
pub fn schedules(mut tell: impl FnMut(Gt, &str, ClassSchedule)) {
    let Some(root) = made() else { return };
    for (gt, identity) in gts(&root.identities) {
        for class in &identity.engine_classes {
            let file = |name: &str| property::FILES.iter().find(|file| file.name == name);
            if let Some(schedule) = property::schedule(|name| root.value(gt, class, file(name)?)) {
                tell(gt, class, schedule);
            }
        }
    }
}

/// All GTs, each with what its device says of itself.
fn gts(identities: &[Identity]) -> impl Iterator<Item = (Gt, &Identity)> {
    let devices = (0..).zip(identities);
    devices.flat_map(|(device, identity)| (0..identity.tiles).map(move |number| (Gt { device, number }, identity)))
}

/// Device and inode number that a node shows.
pub fn node_inode(minor: Minor) -> Option<(u64, u64)> {
    let State::Made(_, made) = &ROOT.lock().0 else { return None };
    let (_, stat) = made.specials.iter().find(|(what, _)| *what == Special::Node(minor))?;
    Some((stat.st_dev, stat.st_ino))
}

/// The path that the program knows: without the place of the tree, where it begins with that.
pub fn shown_name(real: &[u8]) -> Option<&[u8]> {
    let root = made()?;
    let rest = real.strip_prefix(root.path.as_slice())?;
    rest.first().is_none_or(|byte| *byte == b'/').then_some(rest)
}

/// Remembers whether the working directory, which was just changed, lies in the tree.
pub fn working_directory_changed() {
    // Not by std, whose readlink is our own and would give the name that the program knows.
    let now = rustix::fs::readlink("/proc/self/cwd", Vec::new());
    let inside = match (made(), now) {
        (Some(root), Ok(now)) => now.as_bytes().starts_with(&root.path),
        _ => false,
    };
    CWD_INSIDE.store(inside, Ordering::Relaxed);
    if inside
        && let State::Made(root, made) = &mut ROOT.lock().0
        && !root.is_whole
    {
        root.see(made, None);
    }
}

/// The program may begin in the tree of its run: `cd` by a shell, and then a command.
pub fn begin() {
    let mut room = [core::mem::MaybeUninit::uninit(); 1024];
    let base = libc_calls::env_bytes("PONTOON_ROOT").unwrap_or_default();
    let run = base.rsplit(|byte| *byte == b'/').next().filter(|run| !run.is_empty());
    let now = name_of(libc::AT_FDCWD, &mut room);
    if run.zip(now).is_some_and(|(run, now)| now.split(|byte| *byte == b'/').any(|name| name == run)) {
        root_with(&[]);
        working_directory_changed();
    }
}

/// Nobody else makes or looks at the tree while this lives: for the time of a fork.
pub fn hold() -> MutexGuard<'static, Slot> {
    ROOT.lock()
}

/// Removes the tree, where this process made it.
pub fn remove() {
    if let Some((_, folder)) = own() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Removes it as well, or sees to it that it is removed soon: on a disk that takes longer than many a program.
pub fn leave() {
    let Some((root, folder)) = own() else { return };
    if removal::is_quick(&root.root) || !removal::begin(folder) {
        remove();
    }
}

/// The tree, and its folder, where this process made it.
fn own() -> Option<(Arc<Root>, PathBuf)> {
    let root = made()?;
    let (folder, owner) = root.own.clone()?;
    (owner == outside::process()).then_some((root, folder))
}

fn made() -> Option<Arc<Root>> {
    match &ROOT.lock().0 {
        State::Made(root, _) => Some(root.clone()),
        State::Unmade | State::Impossible => None,
    }
}

/// The tree, with all that the path of these pieces leads to.
fn root_with(path: &[&[u8]]) -> Option<Arc<Root>> {
    let mut slot = ROOT.lock();
    if matches!(&slot.0, State::Made(root, made) if !root.is_there(made)) {
        // The process or run that made it has ended, and this one goes on; or the descriptor was closed behind our back.
        if let State::Made(root, _) = core::mem::replace(&mut slot.0, State::Unmade) {
            nodes::unmark(root.root.as_raw_fd());
            core::mem::forget(root);
        }
    }
    if let State::Unmade = slot.0 {
        slot.0 = match Root::make() {
            Ok((root, made)) => {
                MADE.store(true, Ordering::Release);
                OWN.store(root.own.is_some(), Ordering::Release);
                State::Made(Arc::new(root), made)
            }
            Err(why) => {
                let is_set = libc_calls::env_bytes("PONTOON_ROOT").is_some_and(|base| !base.is_empty());
                let remedy = if is_set { "" } else { "; set PONTOON_ROOT to a folder" };
                libc_calls::complain(&format!("no place for the device's files: {why}{remedy}"));
                State::Impossible
            }
        };
    }
    match &mut slot.0 {
        State::Made(root, made) => {
            if !root.is_whole {
                root.see(made, Some(&path.concat()));
            }
            Some(root.clone())
        }
        State::Unmade | State::Impossible => None,
    }
}

impl Root {
    fn make() -> Result<(Self, Made), place::Refusal> {
        let identities = config::identities();
        let mut plan = tree::plan(&identities).map_err(|error| error.to_string())?;
        name_specials(&mut plan, &identities).map_err(|error| error.to_string())?;
        let mut made = Made::new(plan);
        let place::Place { root, own } = place::find(&mut made)?;
        made.find(root.as_fd());
        let is_whole = removal::is_quick(&root);
        let root = libc_calls::raise(root);
        let reach = format!("/proc/self/fd/{}", root.as_raw_fd());
        let path = rustix::fs::readlink(reach.as_str(), Vec::new()).map_err(|error| error.to_string())?;
        nodes::mark_library(root.as_raw_fd());
        let own = own.map(|folder| (folder, std::process::id()));
        Ok((Self { root, reach, path: path.into_bytes(), own, is_whole, identities }, made))
    }

    /// Makes what a path leads to, or all. A process that has lost the right to do so finds what was made before, and says so once.
    fn see(&self, made: &mut Made, path: Option<&[u8]>) {
        static SAID: AtomicBool = AtomicBool::new(false);
        let seen = libc_calls::signals::within_file_limit(|| made.see(self.root.as_fd(), path));
        if let Err(error) = seen
            && !SAID.swap(true, Ordering::AcqRel)
        {
            let path = String::from_utf8_lossy(path.unwrap_or_default());
            libc_calls::complain(&format!("the device's file {path} cannot be made on the disk: {error}"));
        }
    }

    /// The value of a scheduling property: its default where nobody has looked at the file.
    fn value(&self, gt: Gt, class: &str, file: &property::File) -> Option<u32> {
        let path = format!("{}/{}", tree::engines(gt, class), file.name);
        match place::read(self.root.as_fd(), &path) {
            Ok(text) => property::number(&text).ok(),
            Err(_) => Some(file.default),
        }
    }

    /// Whether the descriptor still leads to the tree.
    fn is_there(&self, made: &Made) -> bool {
        let first = Minor { device: 0, kind: Kind::Card };
        let now = place::stat(self.root.as_fd(), &first.path().to_string_lossy());
        now.is_ok_and(|now| {
            made.specials.iter().any(|(_, stat)| (stat.st_dev, stat.st_ino) == (now.st_dev, now.st_ino))
        })
    }
}

/// Says which entries of the plan are more than their bytes.
fn name_specials(plan: &mut Plan, identities: &[Identity]) -> rustix::io::Result<()> {
    let mut note = |what, path: &str| -> rustix::io::Result<()> {
        let entry = plan.get_mut(path.trim_start_matches('/')).ok_or(rustix::io::Errno::NOENT)?;
        entry.special = Some(what);
        Ok(())
    };
    for minor in Minor::all(identities.len()) {
        note(Special::Node(minor), &minor.path().to_string_lossy())?;
    }
    for device in 0..identities.len() as u8 {
        for (what, name) in OfDevice::FILES {
            note(Special::Device(device, what), &format!("{}/{name}", tree::debugfs(device)))?;
        }
    }
    for (gt, identity) in gts(identities) {
        if identity.has_vram {
            note(Special::Vram(gt), &format!("{}/vram_mm", tree::tile_debugfs(gt)))?;
        }
        let debugfs = tree::gt_debugfs(gt);
        note(Special::Stats(gt), &format!("{debugfs}/stats"))?;
        let frequencies = tree::frequencies(gt);
        note(Special::Profile, &format!("{frequencies}/{}", property::PROFILE))?;
        for name in property::LIMITS {
            note(Special::Limit, &format!("{frequencies}/{name}"))?;
        }
        for name in tree::RESETS {
            note(Special::Reset(gt), &format!("{debugfs}/{name}"))?;
        }
        for (index, class) in identity.engine_classes.iter().enumerate() {
            for (number, file) in property::FILES.iter().enumerate() {
                note(Special::Property(gt, index, number), &format!("{}/{}", tree::engines(gt, class), file.name))?;
            }
        }
    }
    Ok(())
}
