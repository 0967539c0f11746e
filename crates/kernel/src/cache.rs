//! Where things go: a folder of the user's cache, one entry a (tree, kit, compiler), never the tree.
//!
//! An entry is made whole or not at all: what was begun and not finished is removed, whatever ended it. One process at a time has
//! an entry; another waits for it. What is made for a variant (a runner, glue) is a folder of its own; old ones are forgotten.

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

/// After FNV-1a: names cache entries, protects nothing.
pub(crate) struct Hash(u64);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a part; parts do not run into each other.
    pub(crate) fn add(mut self, part: impl AsRef<[u8]>) -> Self {
        for &byte in part.as_ref().iter().chain(&[0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// Adds a part that may be long, eight bytes at a time: otherwise than [`Self::add`] does.
    pub(crate) fn add_whole(mut self, part: &[u8]) -> Self {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            self.0 = (self.0 ^ u64::from_le_bytes(*word)).wrapping_mul(0x0100_0000_01b3_0001).rotate_left(29);
        }
        self.add(rest).add(part.len().to_le_bytes())
    }

    pub(crate) fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}

/// When a file was written to.
pub(crate) fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|about| about.modified()).ok()
}

/// The cache folder: `PONTOON_KERNEL_CACHE`, or `pontoon/kernel` in the user's own.
pub(crate) fn folder() -> Result<PathBuf> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = given("PONTOON_KERNEL_CACHE") {
        return Ok(folder);
    }
    let base = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")));
    let base = base.context("neither PONTOON_KERNEL_CACHE, XDG_CACHE_HOME nor HOME says where a cache may be")?;
    Ok(base.join("pontoon/kernel"))
}

/// `cache` as every tool takes it, wherever it is started: absolute, and not inside of the tree `tree`, however one gets there.
pub(crate) fn outside(cache: &Path, tree: &Path) -> Result<PathBuf> {
    let cache = std::path::absolute(cache)?;
    let mut real = PathBuf::new();
    for part in cache.components() {
        // What is not there yet is no link, and is made on the way.
        real = match part {
            Component::ParentDir => real.parent().unwrap_or(&real).to_owned(),
            part => real.join(part),
        };
        real = real.canonicalize().unwrap_or(real);
    }
    if real.starts_with(tree) {
        bail!(
            "the cache {} would be inside of the tree, which is never written into: name another folder in PONTOON_KERNEL_CACHE",
            cache.display()
        );
    }
    Ok(cache)
}

/// An entry, held by this process.
pub(crate) struct Entry {
    pub(crate) dir: PathBuf,
    _lock: File,
}

const WHOLE: &str = "whole";
/// Folders of a kind (`run-HASH`, `glue-HASH`) that an entry keeps. All subsets of five patches are 32.
const KEPT: usize = 100;

fn lock_of(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// The file `path`, locked. One that was removed while this waited for it locks nothing.
fn lock(path: &Path) -> Result<File> {
    use std::os::unix::fs::MetadataExt;
    loop {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        flock(&file, FlockOperation::LockExclusive)?;
        if path.metadata().is_ok_and(|about| file.metadata().is_ok_and(|own| own.ino() == about.ino())) {
            return Ok(file);
        }
    }
}

/// Of an entry that was not finished nothing is left, its lock neither.
impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_whole() {
            let _ = self.remove();
            let _ = std::fs::remove_file(lock_of(&self.dir));
        }
    }
}

impl Entry {
    /// Takes the entry `name` of `cache`; waits for another process that has it.
    pub(crate) fn take(cache: &Path, name: &str) -> Result<Self> {
        std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let dir = cache.join(name);
        let lock = lock(&lock_of(&dir))?;
        let entry = Self { dir, _lock: lock };
        if !entry.is_whole() {
            entry.remove()?;
        }
        std::fs::create_dir_all(&entry.dir)?;
        entry.forget_old(KEPT)?;
        Ok(entry)
    }

    /// Removes folders of each kind but the `kept` that were made last.
    fn forget_old(&self, kept: usize) -> Result<()> {
        let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let (name, path) = entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))?;
            if let Some((kind, _)) = name.split_once('-').filter(|_| path.is_dir()) {
                kinds.entry(kind.to_owned()).or_default().push(path);
            }
        }
        for folders in kinds.values_mut() {
            folders.sort_by_key(|path| std::cmp::Reverse(modified(path)));
            folders.iter().skip(kept).try_for_each(std::fs::remove_dir_all)?;
        }
        Ok(())
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.dir.join(WHOLE).is_file()
    }

    pub(crate) fn make_whole(&self) -> Result<()> {
        Ok(std::fs::write(self.dir.join(WHOLE), "")?)
    }

    /// Nothing of it is left. Who ends in the middle of this leaves one that is not whole.
    pub(crate) fn remove(&self) -> Result<()> {
        let _ = std::fs::remove_file(self.dir.join(WHOLE));
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_not_finished_is_empty_the_next_time() {
        let cache = tempfile::tempdir().expect("a folder");
        let entry = Entry::take(cache.path(), "x").expect("free");
        std::fs::write(entry.dir.join("half"), "").expect("written");
        drop(entry);
        assert_eq!(cache.path().read_dir().expect("a folder").count(), 0, "nothing is left, its lock neither");
        let left = cache.path().join("x");
        std::fs::create_dir(&left).and_then(|()| std::fs::write(left.join("half"), "")).expect("written");
        let entry = Entry::take(cache.path(), "x").expect("free");
        assert!(!entry.dir.join("half").exists());
        std::fs::write(entry.dir.join("done"), "").expect("written");
        entry.make_whole().expect("written");
        drop(entry);
        assert!(Entry::take(cache.path(), "x").expect("free").dir.join("done").exists());
    }

    #[test]
    fn old_folders_of_a_kind_are_forgotten() {
        let cache = tempfile::tempdir().expect("a folder");
        let entry = Entry::take(cache.path(), "x").expect("free");
        for (name, seconds) in [("run-a", 1), ("run-b", 3), ("run-c", 2), ("glue-a", 0), ("o", 0)] {
            let dir = entry.dir.join(name);
            std::fs::create_dir_all(dir.join("inside")).expect("made");
            let made = modified(cache.path()).expect("a time") + std::time::Duration::from_secs(seconds);
            File::open(&dir).and_then(|dir| dir.set_modified(made)).expect("set");
        }
        entry.forget_old(2).expect("removed");
        let mut left: Vec<_> = entry.dir.read_dir().expect("a folder").map(|it| it.expect("it").file_name()).collect();
        left.sort();
        assert_eq!(left, ["glue-a", "o", "run-b", "run-c"]);
    }

    #[test]
    fn a_cache_has_an_absolute_path() {
        let cache = outside(Path::new("relative/x"), Path::new("/nowhere")).expect("a folder");
        assert_eq!(cache, std::env::current_dir().expect("a folder").join("relative/x"));
    }

    #[test]
    fn a_cache_inside_of_the_tree_is_refused_by_whatever_way() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().canonicalize().expect("a folder");
        let tree = dir.join("tree");
        std::fs::create_dir(&tree).expect("made");
        std::os::unix::fs::symlink(&tree, dir.join("link")).expect("linked");
        for inside in ["tree", "tree/cache/x", "link/x", "other/../tree/x"] {
            assert!(outside(&dir.join(inside), &tree).is_err(), "{inside}");
        }
        for beside in ["tree-2/x", "cache"] {
            assert!(outside(&dir.join(beside), &tree).is_ok(), "{beside}");
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Hash::new().add("ab").add("c").text(), Hash::new().add("a").add("bc").text());
        let long = |parts: [&str; 2]| Hash::new().add_whole(parts[0].as_bytes()).add_whole(parts[1].as_bytes()).text();
        assert_ne!(long(["12345678ab", "c"]), long(["12345678a", "bc"]));
        assert_ne!(long(["12345678", "87654321"]), long(["87654321", "12345678"]));
        assert_ne!(long(["12345678", ""]), long(["", "12345678"]));
    }
}
