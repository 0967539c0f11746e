//! What the objects were made from, file by file, by content: a file that was edited is another one, whatever its size and time say.
//!
//! Key types: [`Manifest`].

use crate::build::listed;
use crate::cache::{Hash, modified};
use crate::config;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files that kbuild reads beside those that it writes down.
const RULES: &[&str] = &["Makefile", "Kbuild"];

/// Files with a hash of each. One that is gone has none.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct Manifest(BTreeMap<PathBuf, String>);

impl Manifest {
    /// Of all that kbuild wrote down in the build folder `out`, and its own rules and Kconfig files in `tree`.
    pub(crate) fn of(out: &Path, tree: &Path) -> Result<Self> {
        let mut files = config::made_from(out, tree);
        files.extend(listed(out)?);
        let folders: BTreeSet<&Path> = files.iter().flat_map(|file| file.ancestors().skip(1)).collect();
        let folders = folders.into_iter().filter(|folder| folder.starts_with(tree));
        let mut rules: Vec<PathBuf> = folders.flat_map(|folder| RULES.iter().map(|name| folder.join(name))).collect();
        for file in tree.join("scripts").read_dir().into_iter().flatten().flatten() {
            let name = file.file_name();
            if RULES.iter().any(|rule| name.to_string_lossy().starts_with(rule)) {
                rules.push(file.path());
            }
        }
        files.extend(rules.into_iter().filter(|file| file.is_file()));
        let hash =
            |file: &PathBuf| std::fs::read(file).map_or(String::new(), |bytes| Hash::new().add_whole(&bytes).text());
        Ok(Self(files.into_iter().map(|file| (file.clone(), hash(&file))).collect()))
    }

    /// As [`Self::text`] gave it; nothing where it is none.
    pub(crate) fn read(text: &str) -> Self {
        Self(
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(hash, file)| (file.into(), hash.into()))
                .collect(),
        )
    }

    /// A line a file.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|(file, hash)| format!("{hash} {}\n", file.display())).collect()
    }

    /// Whether `make`, which goes by time, would see each change since `was`: all of these files are newer than `built`.
    pub(crate) fn is_seen_by_make(&self, was: &Self, built: Option<SystemTime>) -> bool {
        let differs = |file: &&PathBuf| self.0.get(*file) != was.0.get(*file);
        let mut changed = was.0.keys().chain(self.0.keys()).filter(differs);
        !was.0.is_empty() && changed.all(|file| newer(file, built))
    }

    /// Whether a file of `tree` was written to later than `begun`.
    pub(crate) fn changed_since(&self, tree: &Path, begun: Option<SystemTime>) -> bool {
        self.0.keys().filter(|file| file.starts_with(tree)).any(|file| newer(file, begun))
    }
}

fn newer(file: &Path, than: Option<SystemTime>) -> bool {
    modified(file).is_some_and(|time| than.is_some_and(|than| time > than))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let (tree, out) = (dir.path().join("a tree"), dir.path().join("o"));
        std::fs::create_dir_all(tree.join("lib")).expect("made");
        std::fs::create_dir_all(out.join("lib")).expect("made");
        std::fs::write(tree.join("lib/Makefile"), "obj-y += a.o\n").expect("written");
        let text = "savedcmd_lib/a.o := gcc\n\nsource_lib/a.o := ../a.c\n\ndeps_lib/a.o := \\\n  ../a.h \\\n\n";
        std::fs::write(out.join("lib/.a.o.cmd"), text).expect("written");
        std::fs::write(dir.path().join("a.h"), "x").expect("written");
        let manifest = Manifest::of(&out, &tree).expect("a list");
        assert_eq!(manifest.0.len(), 2, "{manifest:?}");
        assert_eq!(Manifest::read(&manifest.text()), manifest);
    }

    #[test]
    fn make_sees_what_is_newer_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.c");
        std::fs::write(&file, "x").expect("written");
        let manifest = |hash: &str| Manifest([(file.clone(), hash.to_owned())].into());
        let time = modified(&file);
        let before = time.map(|time| time - std::time::Duration::from_secs(1));
        assert!(manifest("2").is_seen_by_make(&manifest("1"), before));
        assert!(!manifest("2").is_seen_by_make(&manifest("1"), time), "the same time");
        assert!(!manifest("2").is_seen_by_make(&Manifest::default(), before), "nothing is known");
        std::fs::remove_file(&file).expect("removed");
        assert!(!manifest("").is_seen_by_make(&manifest("1"), before), "it is gone");
    }
}
