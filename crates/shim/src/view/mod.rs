//! The file system as the program sees it: a real directory tree, shown under other names.
//!
//! `/dev/dri/card0` is the file `<root>/view/dev/dri/card0`, and so on for sysfs and debugfs. Opening, listing and
//! reading need nothing more than the changed path. What a file of the tree *is* is decided by its inode after the
//! real call, so links, directory descriptors and a working directory inside the tree need no code of their own.
//!
//! Locking: `ROOT` is taken only for paths that are shown, and held across a fork.

mod path;
mod tree;

use crate::device::IDENTITY;
use crate::libc_calls;
use crate::nodes::{self, Entry, Minor};
use core::ffi::c_char;
use core::sync::atomic::{AtomicBool, Ordering};
use path::Meaning;
use rustix::fs::Stat;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
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
    /// A GT's counters, read from the machine at open.
    Stats(u32),
}

/// The tree, once made.
pub struct Root {
    base: PathBuf,
    view: PathBuf,
    /// The process that made `base`, which removes it; none where `PONTOON_ROOT` gave it.
    owner: Option<u32>,
    specials: Vec<(Special, Stat)>,
}

enum State {
    Unmade,
    Made(Arc<Root>),
    /// There is no place for the tree; said once.
    Impossible,
}

/// State of the tree; opaque to others but for holding it across a fork.
pub struct Slot(State);

static ROOT: Mutex<Slot> = Mutex::new(Slot(State::Unmade));
static MADE: AtomicBool = AtomicBool::new(false);
static CWD_INSIDE: AtomicBool = AtomicBool::new(false);

/// Whether [`look`] would say something other than foreign. No lock, no allocation.
pub fn may_concern(dirfd: i32, path: &[u8]) -> bool {
    match path::meaning(path) {
        Meaning::Shown(..) | Meaning::Left(_) => true,
        Meaning::Descriptor(fd) => matches!(nodes::entry(fd), Entry::Node(_)),
        Meaning::Foreign if path.first() == Some(&b'/') => false,
        Meaning::Foreign if dirfd == libc::AT_FDCWD => CWD_INSIDE.load(Ordering::Relaxed),
        Meaning::Foreign => nodes::entry(dirfd) == Entry::Dir,
    }
}

/// Where `path` leads, relative to directory descriptor `dirfd`.
pub fn look(dirfd: i32, path: &[u8]) -> Look {
    match path::meaning(path) {
        Meaning::Shown(prefix, rest) => shown(prefix, rest),
        Meaning::Left(real) => RealPath::of([real.bytes(), b"", b""]).map_or(Look::Foreign, Look::Shown),
        Meaning::Descriptor(fd) => match nodes::entry(fd) {
            Entry::Node(minor) => Look::Node(minor),
            _ => Look::Foreign,
        },
        Meaning::Foreign if !may_concern(dirfd, path) => Look::Foreign,
        Meaning::Foreign => Look::Inside,
    }
}

fn shown(prefix: &[u8], rest: &[u8]) -> Look {
    let Some(root) = root() else { return Look::Foreign };
    let path = RealPath::of([root.view.as_os_str().as_bytes(), prefix, rest]);
    path.map_or(Look::Foreign, Look::Shown)
}

/// Whether there is a tree at all. One load.
pub fn is_made() -> bool {
    MADE.load(Ordering::Acquire)
}

/// What a file of the tree is, by its inode; `None` for ordinary files.
pub fn special(dev: u64, ino: u64) -> Option<Special> {
    let root = made()?;
    root.specials.iter().find(|(_, stat)| (stat.st_dev, stat.st_ino) == (dev, ino)).map(|(what, _)| *what)
}

/// Device and inode number that a node shows.
pub fn node_inode(minor: Minor) -> Option<(u64, u64)> {
    let root = made()?;
    let (_, stat) = root.specials.iter().find(|(what, _)| *what == Special::Node(minor))?;
    Some((stat.st_dev, stat.st_ino))
}

/// The path that the program knows: without the place of the tree, where it begins with that.
pub fn shown_name(real: &[u8]) -> Option<&[u8]> {
    let root = made()?;
    let rest = real.strip_prefix(root.view.as_os_str().as_bytes())?;
    rest.first().is_none_or(|byte| *byte == b'/').then_some(rest)
}

/// Remembers whether the working directory, which was just changed, lies in the tree.
pub fn working_directory_changed() {
    // Not by std, whose readlink is our own and would give the name that the program knows.
    let now = rustix::fs::readlink("/proc/self/cwd", Vec::new());
    let inside = match (made(), now) {
        (Some(root), Ok(now)) => now.as_bytes().starts_with(root.view.as_os_str().as_bytes()),
        _ => false,
    };
    CWD_INSIDE.store(inside, Ordering::Relaxed);
}

/// Nobody else makes or looks at the tree while this lives: for the time of a fork.
pub fn hold() -> MutexGuard<'static, Slot> {
    ROOT.lock()
}

/// In a fork child: a tree of the parent's goes with the parent, so the child makes its own when it needs one.
pub fn forked() {
    let mut slot = ROOT.lock();
    if matches!(&slot.0, State::Made(root) if root.owner.is_some()) {
        slot.0 = State::Unmade;
        MADE.store(false, Ordering::Release);
    }
}

/// Removes the tree, where this process made its place.
pub fn remove() {
    let root = made().filter(|root| root.owner == Some(std::process::id()));
    if let Some(root) = root {
        let _ = fs::remove_dir_all(&root.base);
    }
}

fn made() -> Option<Arc<Root>> {
    match &ROOT.lock().0 {
        State::Made(root) => Some(root.clone()),
        State::Unmade | State::Impossible => None,
    }
}

fn root() -> Option<Arc<Root>> {
    let mut slot = ROOT.lock();
    if let State::Unmade = slot.0 {
        slot.0 = match Root::make() {
            Ok(root) => {
                MADE.store(true, Ordering::Release);
                State::Made(Arc::new(root))
            }
            Err(error) => {
                libc_calls::complain(&format!(
                    "no place for the device's files: {error}; set PONTOON_ROOT to a directory"
                ));
                State::Impossible
            }
        };
    }
    match &slot.0 {
        State::Made(root) => Some(root.clone()),
        State::Unmade | State::Impossible => None,
    }
}

impl Root {
    fn make() -> io::Result<Self> {
        let (base, owner) = match libc_calls::env("PONTOON_ROOT") {
            Some(base) => (PathBuf::from(base), None),
            None => (make_base()?, Some(std::process::id())),
        };
        let base = fs::canonicalize(base)?;
        let view = base.join("view");
        if !view.is_dir() {
            fill(&base, &view)?;
        }
        let mut specials = Vec::new();
        for minor in [Minor::Card, Minor::Render] {
            specials.push((Special::Node(minor), stat(&view, &minor.path().to_string_lossy())?));
        }
        for gt in 0..IDENTITY.tiles {
            specials.push((Special::Stats(gt), stat(&view, &format!("/sys/kernel/debug/dri/0/gt{gt}/stats"))?));
        }
        Ok(Self { base, view, owner, specials })
    }
}

/// Builds the tree beside its place and puts it there in one step: other processes may do the same just now.
fn fill(base: &Path, view: &Path) -> io::Result<()> {
    let building = base.join(format!("view.{}", std::process::id()));
    fs::create_dir_all(&building)?;
    tree::build(&building, &IDENTITY)?;
    if let Err(error) = fs::rename(&building, view) {
        fs::remove_dir_all(&building)?;
        if !view.is_dir() {
            return Err(error);
        }
    }
    Ok(())
}

/// A new directory in `XDG_RUNTIME_DIR` or `/tmp`.
fn make_base() -> io::Result<PathBuf> {
    let places = libc_calls::env("XDG_RUNTIME_DIR").into_iter().chain(["/tmp".to_string()]);
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for place in places {
        for attempt in 0..100 {
            let base = Path::new(&place).join(format!("pontoon-{}-{attempt}", std::process::id()));
            match fs::create_dir(&base) {
                Ok(()) => return Ok(base),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    refused = error;
                    break;
                }
            }
        }
    }
    Err(refused)
}

fn stat(view: &Path, path: &str) -> io::Result<Stat> {
    let mut full = view.as_os_str().to_os_string().into_vec();
    full.extend_from_slice(path.as_bytes());
    Ok(rustix::fs::stat(full)?)
}
