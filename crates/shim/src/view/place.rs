//! Where the tree lies: a folder that nobody else can write to, reached by its descriptor.
//!
//! The library may run in a process of root's while `TMPDIR` or `PONTOON_ROOT` name a folder of another user. So a folder
//! is made exclusively, under a name that cannot be guessed, in a place whose owner and mode keep others from
//! renaming it; it is opened without following a link; all that is made in it is made by way of that descriptor. A tree
//! that is there already is used only if it is root's or our own. From then on the tree is
//! `/proc/self/fd/N`, whatever becomes of its path.

use super::made::Made;
use super::removal;
use crate::libc_calls::{self, signals};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Stat};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Why there is no tree: a sentence for the user.
pub type Refusal = String;

/// A tree, found or made.
pub struct Place {
    /// Its root folder.
    pub root: OwnedFd,
    /// The folder to be removed at the end; none where the tree belongs to a whole run.
    pub own: Option<PathBuf>,
}

/// The tree below `PONTOON_ROOT`, or one of our own where there is none: with all of `made` where it lies in memory, and
/// with [`FIRST`] elsewhere.
pub fn find(made: &mut Made) -> Result<Place, Refusal> {
    if !has_descriptors() {
        return Err("no descriptor is left (ulimit -n)".into());
    }
    let shared = libc_calls::env_bytes("PONTOON_ROOT").filter(|base| !base.is_empty());
    let refused = match shared.map(|base| shared_tree(Path::new(OsStr::from_bytes(&base)), made)) {
        Some(Ok(root)) => return Ok(Place { root, own: None }),
        Some(Err(refusal)) => Some(refusal),
        None => None,
    };
    let runtime = libc_calls::env_bytes("XDG_RUNTIME_DIR").filter(|place| place.starts_with(b"/"));
    let places = runtime.into_iter().chain([b"/dev/shm".to_vec(), b"/tmp".to_vec()]).map(OsString::from_vec);
    let mut why = refused;
    for place in places {
        match own_tree(Path::new(&place), made) {
            Ok(found) => return Ok(found),
            Err(refusal) => why = why.or(Some(refusal)),
        }
    }
    Err(why.unwrap_or_default())
}

/// Whether there are enough descriptors to make a tree, and to remove one.
fn has_descriptors() -> bool {
    let open = |_| rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
    (0..8).map(open).collect::<Option<Vec<_>>>().is_some()
}

/// `base/view`, made where it is not there yet. Other processes may do the same just now.
fn shared_tree(base: &Path, made: &mut Made) -> Result<OwnedFd, Refusal> {
    let folder = trusted(base)?;
    let say = |error| refusal(base, error);
    for _ in 0..2 {
        match open_folder(&folder, OsStr::new("view")) {
            Ok(view) => return is_safe(&view, false).then_some(view).ok_or_else(|| strange(&base.join("view"))),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(say(error)),
        }
        let (name, building) = make_folder(&folder, "view").map_err(say)?;
        fill(&building, made).map_err(say)?;
        if rustix::fs::renameat_with(&folder, &name, &folder, "view", RenameFlags::NOREPLACE).is_err() {
            let _ = std::fs::remove_dir_all(base.join(&name));
        }
    }
    Err(say(rustix::io::Errno::NOENT))
}

/// A file below `PONTOON_ROOT` that the processes of a run share; `None` where there is no such folder.
pub fn shared_file(name: &str) -> Option<Result<OwnedFd, Refusal>> {
    let base = libc_calls::env_bytes("PONTOON_ROOT").filter(|base| !base.is_empty())?;
    let base = Path::new(OsStr::from_bytes(&base));
    let open = || {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(trusted(base)?, name, flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(|error| refusal(&base.join(name), error))?;
        is_safe(&file, false).then_some(file).ok_or_else(|| strange(&base.join(name)))
    };
    Some(open())
}

/// The folder of a run; `None` where there is none, or where others can change what lies in it.
pub fn shared_folder() -> Option<OwnedFd> {
    let base = libc_calls::env_bytes("PONTOON_ROOT").filter(|base| !base.is_empty())?;
    trusted(Path::new(OsStr::from_bytes(&base))).ok()
}

/// A tree in a folder of this process's own.
fn own_tree(place: &Path, made: &mut Made) -> Result<Place, Refusal> {
    let say = |error| refusal(place, error);
    let (name, root) = make_folder(&trusted(place)?, "pontoon").map_err(say)?;
    let own = std::fs::canonicalize(place).unwrap_or(place.to_owned()).join(name);
    match fill(&root, made) {
        Ok(()) => Ok(Place { root, own: Some(own) }),
        Err(error) => {
            let _ = std::fs::remove_dir_all(own);
            Err(say(error))
        }
    }
}

/// What a tree on a disk has from the start: the nodes, whose descriptors outlive an exec and are known by them.
const FIRST: &[u8] = b"dev/dri";

fn fill(root: &OwnedFd, made: &mut Made) -> rustix::io::Result<()> {
    made.forget();
    let fill =
        || if removal::is_quick(root) { made.make_all(root.as_fd()) } else { made.see(root.as_fd(), Some(FIRST)) };
    signals::within_file_limit(fill)
}

/// A new folder under a name of its own, empty, which others may read.
fn make_folder(parent: &OwnedFd, start: &str) -> rustix::io::Result<(OsString, OwnedFd)> {
    loop {
        let name = OsString::from(format!("{start}-{:016x}", number()?));
        match rustix::fs::mkdirat(parent, &name, Mode::RWXU) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => continue,
            Err(error) => return Err(error),
        }
        let folder = open_folder(parent, &name)?;
        if !is_safe(&folder, false) {
            return Err(rustix::io::Errno::PERM);
        }
        rustix::fs::chmodat(&folder, ".", Mode::from_raw_mode(0o755), AtFlags::empty())?;
        return Ok((name, folder));
    }
}

/// Of the kernel's random ones: others cannot make all the names that it may become. Not by the clock: valgrind hides the page from which
/// it is read.
pub fn number() -> rustix::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

fn open_folder(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// A folder in which nobody but root and this user can rename or replace what is ours.
fn trusted(place: &Path) -> Result<OwnedFd, Refusal> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, place, flags, Mode::empty()).map_err(|error| refusal(place, error))?;
    is_safe(&folder, true).then_some(folder).ok_or_else(|| strange(place))
}

/// Whether only root and this user can change what lies in a folder; with the sticky bit others may add to it.
fn is_safe(folder: &OwnedFd, may_be_sticky: bool) -> bool {
    let Ok(stat) = rustix::fs::fstat(folder) else { return false };
    let is_ours = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    is_ours && (stat.st_mode & 0o022 == 0 || may_be_sticky && stat.st_mode & 0o1000 != 0)
}

fn refusal(place: &Path, error: rustix::io::Errno) -> Refusal {
    format!("{}: {error}", place.display())
}

fn strange(place: &Path) -> Refusal {
    format!("{} belongs to another user, or others can change it", place.display())
}

/// A file of the tree, by its path in the program's eyes.
pub fn stat(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<Stat> {
    rustix::fs::statat(root, path.trim_start_matches('/'), AtFlags::SYMLINK_NOFOLLOW)
}

/// The bytes of a short file of the tree.
pub fn read(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<Vec<u8>> {
    let file = rustix::fs::openat(root, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = [0; 64];
    let got = rustix::io::read(&file, &mut bytes)?;
    Ok(bytes[..got].to_vec())
}
