//! The Rust half of runners, a shared library: inside of this command (`build.rs` put it there), or beside it. It is copied to each
//! runner, so a runner stays what it was when another command is built.

use crate::cache::Hash;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const NAME: &str = "libpontoon_kface.so";

/// Empty in a debug build.
const INSIDE: &[u8] = include_bytes!(env!("PONTOON_KFACE"));

/// Where it is.
pub(crate) enum Library {
    Inside(&'static [u8]),
    Beside(PathBuf),
}

impl Library {
    /// Finds it.
    pub(crate) fn find() -> Result<Self> {
        if !INSIDE.is_empty() {
            return Ok(Self::Inside(INSIDE));
        }
        let command = std::env::current_exe().context("cannot tell where this command lies")?;
        let dirs: Vec<&Path> = command.ancestors().skip(1).take(2).collect();
        let places = dirs.iter().flat_map(|dir| [dir.join(NAME), dir.join("deps").join(NAME)]);
        match places
            .filter(|place| place.is_file())
            .max_by_key(|place| place.metadata().and_then(|file| file.modified()).ok())
        {
            Some(place) => Ok(Self::Beside(place)),
            None => bail!("{NAME} is not beside {}: build it with `cargo build -p pontoon`", command.display()),
        }
    }

    /// Tells one from another.
    pub(crate) fn mark(&self) -> Result<String> {
        Ok(match self {
            Self::Inside(bytes) => Hash::new().add_whole(bytes).text(),
            Self::Beside(file) => {
                let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                Hash::new().add_whole(&bytes).text()
            }
        })
    }

    /// Copies it into a folder.
    pub(crate) fn put(&self, dir: &Path) -> Result<()> {
        let to = dir.join(NAME);
        match self {
            Self::Inside(bytes) => std::fs::write(&to, bytes),
            Self::Beside(file) => std::fs::copy(file, &to).map(|_| ()),
        }
        .with_context(|| format!("cannot write {}", to.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_put_whole_and_named_by_its_content() {
        let dir = tempfile::tempdir().expect("a folder");
        let library = Library::Inside(b"a library");
        library.put(dir.path()).expect("written");
        assert_eq!(std::fs::read(dir.path().join(NAME)).expect("a file"), b"a library");
        assert_ne!(library.mark().expect("a mark"), Library::Inside(b"another").mark().expect("a mark"));
    }

    #[test]
    fn a_command_that_was_built_has_it() {
        assert!(Library::find().is_ok_and(|library| library.mark().is_ok()));
    }
}
