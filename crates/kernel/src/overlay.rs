//! Private copies of the tree's files with patches applied. The tree itself is only read.

use crate::cache::Hash;
use crate::command::run;
use crate::kit::source_of;
use crate::series::Patch;
use crate::workshop::Workshop;
use anyhow::{Context, Result, bail};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Copies with some patches applied, in a folder that is laid out as the tree is.
pub(crate) struct Overlay {
    /// Names the state.
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    changed: BTreeSet<String>,
    made_from: RefCell<BTreeMap<String, bool>>,
}

/// Which of the files that patches change are compiled.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Patched {
    /// All that they change.
    pub files: usize,
    /// Those that are not compiled here: no verdict is about them.
    pub not_compiled: Vec<String>,
}

impl Patched {
    /// What to say where there are some.
    pub fn note(&self) -> Option<String> {
        let (files, left) = (self.files, &self.not_compiled);
        (!left.is_empty()).then(|| {
            format!(
                "{} of {files} changed files are not compiled here, and not judged: {}",
                left.len(),
                left.join(", ")
            )
        })
    }
}

impl Overlay {
    /// Applies patches in order. An error says which does not apply, and where.
    pub(crate) fn new(shop: &Workshop, patches: &[&Patch]) -> Result<Self> {
        let hash = patches.iter().fold(Hash::new(), |hash, patch| hash.add(&patch.text));
        let name = hash.text();
        let dir = shop.place().join(format!("patched-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let overlay = Self {
            name,
            dir,
            changed: patches.iter().flat_map(|patch| patch.files.clone()).collect(),
            made_from: RefCell::default(),
        };
        for file in &overlay.changed {
            let to = overlay.dir.join(file);
            std::fs::create_dir_all(to.parent().context("a patch names no file")?)?;
            // A patch may make the file.
            if let Ok(text) = shop.tree.read(file) {
                std::fs::write(to, text)?;
            }
        }
        for (number, patch) in patches.iter().enumerate() {
            let file = overlay.dir.join(format!(".patch-{number}"));
            std::fs::write(&file, &patch.text)?;
            let mut tool = Command::new("patch");
            tool.args(["-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-d"])
                .arg(&overlay.dir)
                .arg("-i")
                .arg(&file);
            run(&mut tool, &overlay.dir.join(".log"), "applying", shop.stop()).with_context(|| {
                format!(
                    "patch {:?} does not apply to Linux {} (with those before it); is it against this tree?",
                    patch.subject, shop.tree.version
                )
            })?;
        }
        overlay.copy_neighbours(shop)?;
        Ok(overlay)
    }

    /// Headers are found in the folder of who includes them first: where one of a folder is changed, all of them are copied.
    fn copy_neighbours(&self, shop: &Workshop) -> Result<()> {
        let headers = self.changed.iter().filter(|file| file.ends_with(".h"));
        let folders: BTreeSet<&str> = headers.filter_map(|file| Some(file.rsplit_once('/')?.0)).collect();
        // A folder that the tree lacks is the patch's own.
        let has_neighbours = |folder: &&&str| !folder.starts_with("include") && shop.tree.dir.join(folder).is_dir();
        for folder in folders.iter().filter(has_neighbours) {
            for file in shop.tree.dir.join(folder).read_dir()?.flatten() {
                let to = self.dir.join(folder).join(file.file_name());
                if file.path().extension().is_some_and(|end| end == "h") && !to.exists() {
                    std::fs::copy(file.path(), to)?;
                }
            }
        }
        Ok(())
    }

    /// Where its headers are, in the order in which kbuild searches the tree's.
    pub(crate) fn headers(&self) -> Vec<PathBuf> {
        ["arch/x86/include", "include", "include/uapi"].map(|folder| self.dir.join(folder)).to_vec()
    }

    /// The same for glue, which is no file of the folder whose headers it takes: that of `unit`.
    pub(crate) fn headers_beside(&self, unit: &str) -> Vec<PathBuf> {
        let beside = unit.rsplit_once('/').map(|(folder, _)| self.dir.join(folder));
        beside.into_iter().chain(self.headers()).collect()
    }

    pub(crate) fn has_headers(&self) -> bool {
        self.changed.iter().any(|file| file.ends_with(".h"))
    }

    /// Ends what would say nothing of these patches: where a file that is compiled is gone with them, whatever has its place is not
    /// compiled, and where none of theirs is compiled, nothing of them would be seen.
    pub(crate) fn must_be_seen(&self, shop: &Workshop) -> Result<()> {
        let mut seen = false;
        for unit in &shop.units {
            let sources = std::iter::once(source_of(unit)).chain(shop.made_from(unit)?);
            for file in sources.filter(|file| self.changed.contains(file)) {
                if !self.dir.join(&file).is_file() {
                    bail!("{file} is compiled here, and is deleted or renamed: what is in its place is not compiled");
                }
                seen = true;
            }
        }
        if !seen {
            bail!(
                "no file of these patches is compiled here: {}",
                self.changed.iter().cloned().collect::<Vec<_>>().join(", ")
            );
        }
        Ok(())
    }

    /// The changed files that none of the private copies was made from, by what the compiler wrote down of each.
    pub(crate) fn not_compiled(&self, dependencies: &[PathBuf]) -> Vec<String> {
        let text = |file: &PathBuf| std::fs::read_to_string(file).unwrap_or_default();
        let all = dependencies.iter().map(text).collect::<String>();
        let inside = |word: &str| Some(Path::new(word).canonicalize().ok()?.strip_prefix(&self.dir).ok()?.to_owned());
        let read: BTreeSet<PathBuf> = all.split_whitespace().filter_map(inside).collect();
        self.changed.iter().filter(|file| !read.contains(Path::new(file))).cloned().collect()
    }

    /// How many files are changed.
    pub(crate) fn count(&self) -> usize {
        self.changed.len()
    }

    /// Whether an object is made from a file that is changed here.
    pub(crate) fn changes(&self, shop: &Workshop, unit: &str) -> Result<bool> {
        if let Some(&known) = self.made_from.borrow().get(unit) {
            return Ok(known);
        }
        let changes = self.changed.contains(&source_of(unit)) || !shop.made_from(unit)?.is_disjoint(&self.changed);
        self.made_from.borrow_mut().insert(unit.to_owned(), changes);
        Ok(changes)
    }

    /// The private copy of a source; made now where only its headers are changed.
    pub(crate) fn source(&self, shop: &Workshop, file: &str) -> Result<PathBuf> {
        let to = self.dir.join(file);
        if !to.is_file() {
            std::fs::create_dir_all(to.parent().context("a file in a folder")?)?;
            std::fs::write(&to, shop.tree.read(file)?)?;
        }
        Ok(to)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
