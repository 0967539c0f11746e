//! What of the tree is there. The plan (`tree`) says what it has; here entries become files.
//!
//! In memory all are made at once. On a disk a new file takes a tenth of a millisecond and more, and most programs look at a few of
//! the 250: there an entry is made when a path first leads to it or over it, and with a folder all that it lists. Who goes into the
//! tree by chdir gets all of it: loops inside of libc (`nftw`, `glob`) may begin there, and no function of ours sees them. A file gets
//! its bytes under another name first, so that no process reads half of it; whoever is second finds it there.
//!
//! Locking: `ROOT` is held, as by all that changes what is made.

use super::{Special, place, tree};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{self, Errno};
use std::collections::BTreeMap;

/// What an entry of the plan is.
pub enum What {
    /// A folder.
    Folder,
    /// A file: its bytes and its mode.
    File(Vec<u8>, u32),
    /// A symbolic link.
    Link(String),
}

/// An entry of the plan.
pub struct Entry {
    what: What,
    /// What it is besides.
    pub special: Option<Special>,
    /// This process made it, or found it made.
    is_there: bool,
}

impl Entry {
    /// One that is not there yet.
    pub const fn new(what: What) -> Self {
        Self { what, special: None, is_there: false }
    }
}

/// All entries by their paths, without a slash at the start; a folder stands before what is in it.
pub type Plan = BTreeMap<String, Entry>;

/// So many links may one path lead over, as in the kernel.
const LINKS: u32 = 40;

/// The plan, and what of it is there.
pub struct Made {
    plan: Plan,
    /// What is more than its bytes, as it is there.
    pub specials: Vec<(Special, Stat)>,
    /// What the process takes from the modes of new files.
    umask: u32,
}

impl Made {
    /// Nothing is there yet.
    pub const fn new(plan: Plan) -> Self {
        Self { plan, specials: Vec::new(), umask: 0o777 }
    }

    /// Nothing is there any more: it is another folder.
    pub fn forget(&mut self) {
        self.specials.clear();
        self.plan.values_mut().for_each(|entry| entry.is_there = false);
    }

    /// Makes all of it, in a folder that nobody else sees yet.
    pub fn make_all(&mut self, root: BorrowedFd<'_>) -> io::Result<()> {
        self.umask = tree::umask();
        self.plan.iter().try_for_each(|(path, entry)| self.create(root, path, path, &entry.what))
    }

    /// Finds what is there already, made by whomever.
    pub fn find(&mut self, root: BorrowedFd<'_>) {
        self.forget();
        for (path, entry) in self.plan.iter_mut().filter(|(_, entry)| entry.special.is_some()) {
            if let Some((special, stat)) = entry.special.zip(place::stat(root, path).ok()) {
                entry.is_there = true;
                self.specials.push((special, stat));
            }
        }
    }

    /// Makes what `path` leads to and over; all of it where there is none.
    pub fn see(&mut self, root: BorrowedFd<'_>, path: Option<&[u8]>) -> io::Result<()> {
        let missing = match path {
            Some(path) => self.missing(path),
            None => self.without_known(self.plan.keys().cloned().collect()),
        };
        if !missing.is_empty() {
            // Of this moment: the program may have changed it.
            self.umask = tree::umask();
        }
        for path in missing {
            let Some(entry) = self.plan.get(&path).filter(|entry| !entry.is_there) else { continue };
            match &entry.what {
                what @ What::File(..) => self.create_whole(root, &path, what)?,
                what => exists_or(self.create(root, &path, &path, what))?,
            }
            if let Some(special) = entry.special {
                self.specials.push((special, place::stat(root, &path)?));
            }
            if let Some(entry) = self.plan.get_mut(&path) {
                entry.is_there = true;
            }
        }
        Ok(())
    }

    /// What `path` leads to and over and this process has not seen yet, folders first.
    fn missing(&self, path: &[u8]) -> Vec<String> {
        let mut passed: Vec<String> = Vec::new();
        let (mut at, mut links) = (String::new(), 0);
        let mut ahead = components(&String::from_utf8_lossy(path));
        while let Some(name) = ahead.pop() {
            if name == ".." {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            let here = if at.is_empty() { name } else { format!("{at}/{name}") };
            // What the plan does not have, the kernel will not find.
            let Some(entry) = self.plan.get(&here) else { return self.without_known(passed) };
            passed.push(here.clone());
            match &entry.what {
                What::Link(to) if to.starts_with('/') || links == LINKS => return self.without_known(passed),
                What::Link(to) => {
                    links += 1;
                    ahead.extend(components(to));
                }
                What::Folder | What::File(..) => at = here,
            }
        }
        passed.extend(self.listed(&at));
        self.without_known(passed)
    }

    /// What lies in a folder.
    fn listed(&self, folder: &str) -> impl Iterator<Item = String> {
        let start = format!("{folder}/");
        let below = self.plan.range(start.clone()..).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(&start)).filter(|path| !path[start.len()..].contains('/'));
        below.cloned().collect::<Vec<_>>().into_iter()
    }

    fn without_known(&self, mut paths: Vec<String>) -> Vec<String> {
        paths.retain(|path| self.plan.get(path).is_some_and(|entry| !entry.is_there));
        paths
    }

    /// Makes `what` of the plan's `path` under the name `at`, where there is nothing.
    fn create(&self, root: BorrowedFd<'_>, path: &str, at: &str, what: &What) -> io::Result<()> {
        match what {
            What::Folder => {
                rustix::fs::mkdirat(root, at, Mode::from(0o755))?;
                if self.is_kept(0o755) {
                    Ok(())
                } else {
                    rustix::fs::chmodat(root, at, Mode::from(0o755), AtFlags::empty())
                }
            }
            What::Link(to) => rustix::fs::symlinkat(to.as_str(), root, path),
            What::File(bytes, mode) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(root, at, flags, Mode::from(*mode))?;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    rest = &rest[io::write(&file, rest)?..];
                }
                if self.is_kept(*mode) { Ok(()) } else { rustix::fs::fchmod(&file, Mode::from(*mode)) }
            }
        }
    }

    /// Makes a file that others may look for: it is there with all its bytes, or not at all.
    fn create_whole(&self, root: BorrowedFd<'_>, path: &str, what: &What) -> io::Result<()> {
        let new = format!("new-{:016x}", place::number()?);
        let made = self.create(root, path, &new, what);
        let made = made.and_then(|()| rustix::fs::renameat_with(root, &new, root, path, RenameFlags::NOREPLACE));
        if made.is_err() {
            let _ = rustix::fs::unlinkat(root, &new, AtFlags::empty());
        }
        exists_or(made)
    }

    /// Whether a file that is made with `mode` has it: on a disk each call counts, and most need no chmod.
    const fn is_kept(&self, mode: u32) -> bool {
        mode & self.umask == 0
    }
}

/// Another process was first.
fn exists_or(made: io::Result<()>) -> io::Result<()> {
    if made == Err(Errno::EXIST) { Ok(()) } else { made }
}

/// The components of a path, the last first.
fn components(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|name| !name.is_empty() && *name != ".").map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::os::fd::AsFd;

    fn made() -> Made {
        let file = || What::File(b"x".to_vec(), 0o444);
        let link = |to: &str| What::Link(to.into());
        let plan = [
            ("dev", What::Folder),
            ("dev/dri", What::Folder),
            ("dev/dri/card0", file()),
            ("dev/dri/renderD128", file()),
            ("sys", What::Folder),
            ("sys/class", What::Folder),
            ("sys/class/drm", What::Folder),
            ("sys/class/drm/card0", link("../../gpu")),
            ("sys/class/net", link("/sys/class/net")),
            ("sys/gpu", What::Folder),
            ("sys/gpu/loop", link("loop")),
            ("sys/gpu/tile0", What::Folder),
            ("sys/gpu/tile0/engines", What::Folder),
            ("sys/gpu/vendor", file()),
        ];
        Made::new(plan.into_iter().map(|(path, what)| (path.to_string(), Entry::new(what))).collect())
    }

    #[test]
    fn a_path_needs_what_it_leads_over_and_a_folder_what_it_lists() {
        for (path, needs) in [
            ("/dev/dri/card0", "dev dev/dri dev/dri/card0"),
            ("/dev//./dri/", "dev dev/dri dev/dri/card0 dev/dri/renderD128"),
            ("/dev/dri/../../sys/gpu/vendor", "dev dev/dri sys sys/gpu sys/gpu/vendor"),
            ("/sys/class/drm/card0/vendor", "sys sys/class sys/class/drm sys/class/drm/card0 sys/gpu sys/gpu/vendor"),
            ("/sys/gpu", "sys sys/gpu sys/gpu/loop sys/gpu/tile0 sys/gpu/vendor"),
            ("/sys/gpu/card1", "sys sys/gpu"),
            ("/sys/class", "sys sys/class sys/class/drm sys/class/net"),
            ("/sys/class/net/lo", "sys sys/class sys/class/net"),
        ] {
            assert_eq!(made().missing(path.as_bytes()).join(" "), needs, "{path}");
        }
        assert!(made().missing(b"/sys/gpu/loop").len() as u32 <= LINKS + 4);
    }

    #[test]
    fn two_processes_make_each_file_once() {
        let folder = std::env::temp_dir().join(format!("pontoon-made-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let root = rustix::fs::openat(CWD, &folder, OFlags::PATH, Mode::empty()).expect("a folder");
        let (mut one, mut other) = (made(), made());
        for made in [&mut one, &mut other] {
            made.see(root.as_fd(), Some(b"/sys/class/drm/card0/vendor")).expect("made");
            assert!(made.missing(b"/sys/class/drm/card0/vendor").is_empty());
        }
        assert_eq!(std::fs::read(folder.join("sys/class/drm/card0/vendor")).expect("a file"), b"x");
        let names = |path: &str| std::fs::read_dir(folder.join(path)).expect("a folder").count();
        let counts = [".", "sys", "sys/gpu"].map(names);
        other.see(root.as_fd(), None).expect("made");
        let all = [".", "sys", "sys/gpu"].map(names);
        std::fs::remove_dir_all(&folder).expect("removed");
        assert_eq!((counts, all), ([1, 2, 1], [2, 2, 3]), "nothing is left of a file that was there already");
    }
}
