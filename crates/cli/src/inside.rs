//! The preload library inside this command (`build.rs` put it there), and how it becomes a file that ld.so can load.
//!
//! It lies in the user's cache under a name that tells its content, and is compared before each use: a file that others can change
//! is never loaded.

use anyhow::{Context, Result, ensure};
use rustix::fs::StatVfsMountFlags;
use std::fs::{self, DirBuilder, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Empty in a debug build.
const LIBRARY: &[u8] = include_bytes!(env!("PONTOON_LIBRARY"));

/// Whether one is inside.
pub fn is_there() -> bool {
    !LIBRARY.is_empty()
}

/// The library as a file; `None` where none is inside.
pub fn library() -> Option<Result<PathBuf>> {
    is_there().then(|| unpacked(LIBRARY, &places()))
}

/// A library that lies where ld.so cannot be told of it, as a file elsewhere.
pub fn copied(library: &Path) -> Result<PathBuf> {
    unpacked(&fs::read(library)?, &places())
}

/// Whether LD_PRELOAD can name a file: it is a list that spaces and colons divide.
pub fn can_be_named(path: &Path) -> bool {
    !path.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b' ' | b':'))
}

/// Where it may lie, the best first.
fn places() -> Vec<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let own = format!("pontoon-{}", rustix::process::geteuid().as_raw());
    let temporary = [std::env::temp_dir(), PathBuf::from("/tmp")].map(|place| place.join(&own));
    cache.map(|cache| cache.join("pontoon")).into_iter().chain(temporary).collect()
}

/// The file in the first place that will have it.
fn unpacked(library: &[u8], places: &[PathBuf]) -> Result<PathBuf> {
    let mut refused = anyhow::anyhow!("there is no place for it");
    for place in places {
        match unpack(library, place) {
            Ok(file) => return Ok(file),
            Err(error) => refused = error.context(place.display().to_string()),
        }
    }
    Err(refused)
        .context("the preload library has no place where ld.so can load it; set XDG_CACHE_HOME to a folder of yours")
}

fn unpack(library: &[u8], place: &Path) -> Result<PathBuf> {
    ensure!(can_be_named(place), "ld.so would take its path apart: it has a space or a colon");
    DirBuilder::new().recursive(true).mode(0o755).create(place)?;
    let about = place.symlink_metadata()?;
    let is_ours = about.is_dir() && about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o022 == 0;
    ensure!(is_ours, "the folder belongs to another user, or others can change it");
    let is_executable = rustix::fs::statvfs(place).is_ok_and(|about| !about.f_flag.contains(StatVfsMountFlags::NOEXEC));
    ensure!(is_executable, "nothing there may be executed (it is mounted noexec)");
    let mut hasher = DefaultHasher::new();
    library.hash(&mut hasher);
    let file = place.join(format!("libpontoon_shim-{:016x}.so", hasher.finish()));
    if fs::read(&file).is_ok_and(|found| found == library) {
        return Ok(file);
    }
    let mut new = tempfile::NamedTempFile::new_in(place)?;
    new.write_all(library)?;
    new.as_file().set_permissions(Permissions::from_mode(0o755))?;
    new.persist(&file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_unpacked_once_where_nobody_else_can_change_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let [open, own] = ["open", "own/pontoon"].map(|name| dir.path().join(name));
        fs::create_dir(&open).expect("a folder");
        fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("permissions");
        let places = [dir.path().join("a space"), dir.path().join("a:colon"), open.clone(), own.clone()];
        let file = unpacked(b"a library", &places).expect("a file");
        assert_eq!(
            (file.parent(), fs::read(&file).expect("a file").as_slice()),
            (Some(own.as_path()), &b"a library"[..])
        );
        let first = file.metadata().expect("a file").ino();
        assert_eq!(unpacked(b"a library", &places).expect("the same").metadata().expect("a file").ino(), first);
        // What somebody changed is replaced; another library has another name.
        fs::write(&file, "another").expect("a file");
        assert_eq!(fs::read(unpacked(b"a library", &places).expect("a file")).expect("a file"), b"a library");
        assert_ne!(unpacked(b"its next version", &places).expect("a file"), file);
        let refused = format!("{:#}", unpacked(b"a library", &[open]).expect_err("others can change it"));
        assert!(refused.contains("others can change it") && refused.contains("XDG_CACHE_HOME"), "{refused}");
    }
}
