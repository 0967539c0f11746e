//! A tree being worked on: built once, linked once, and again for each state of a series of patches.

use crate::build::{Make, Saved, dependencies};
use crate::cache::{Entry, Hash, folder, modified, outside};
use crate::command::{Interrupt, explain_full, run};
use crate::kit::{Kit, source_of};
use crate::library::Library;
use crate::link::{Linked, link};
use crate::manifest::Manifest;
use crate::overlay::{Overlay, Patched};
use crate::series::Patch;
use crate::tools::Tools;
use crate::tree::Tree;
use crate::{config, glue};
use anyhow::{Context, Result};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A tree, its tools, and its place in the cache.
pub struct Workshop {
    pub(crate) kit: Kit,
    pub(crate) tree: Tree,
    pub(crate) tools: Tools,
    pub(crate) units: Vec<&'static str>,
    mark_of_library: OnceCell<String>,
    entry: Entry,
    stop: Interrupt,
}

/// What puts a runner together: another one makes another.
const LINKED_BY: &str = concat!(env!("CARGO_PKG_VERSION"), include_str!("link.rs"), include_str!("symbols.rs"));

/// Where a runner's tasks can be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Points {
    /// At calls of the glue: locks, waits, allocation of tasks.
    Calls,
    /// Also at marked accesses of the files that are watched.
    Accesses,
}

/// A runner for a state of the tree.
pub struct Built {
    /// The executable.
    pub(crate) runner: PathBuf,
    /// Symbols that end a scene which reaches them.
    pub(crate) trapped: usize,
    /// What is in it of the files that the patches change.
    pub patched: Patched,
}

impl Workshop {
    /// Looks at tree and tools, and takes the tree's place in the cache. Nothing is built yet.
    pub fn open(dir: &Path, kit: Kit, stop: &Interrupt) -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::open_in(&folder()?, &path, dir, kit, stop)
    }

    /// The same with another cache, and tools from elsewhere.
    pub fn open_in(cache: &Path, path: &OsStr, dir: &Path, kit: Kit, stop: &Interrupt) -> Result<Self> {
        let tree = Tree::open(dir, &kit)?;
        let cache = outside(cache, &tree.dir)?;
        let tools = Tools::find(path, kit.headers)?;
        let units = kit.units_of(|file| tree.has(file));
        let hash = Hash::new().add(tree.dir.as_os_str().as_encoded_bytes()).add(&tools.mark).add(kit.flags);
        let hash = kit.config.iter().fold(hash, |hash, line| hash.add(line));
        let entry = Entry::take(&cache, &format!("linux-{}-{}", tree.version.replace('/', "_"), hash.text()))?;
        Ok(Self { kit, tree, tools, units, mark_of_library: OnceCell::new(), entry, stop: stop.clone() })
    }

    /// Where things go.
    pub fn place(&self) -> &Path {
        &self.entry.dir
    }

    fn out(&self) -> PathBuf {
        self.entry.dir.join("o")
    }

    /// Configures and builds the tree's objects, where that was not done or something changed since.
    pub fn build(&self) -> Result<()> {
        let built = if self.entry.is_whole() { self.refresh() } else { self.build_anew() };
        if built.is_err() && !self.entry.is_whole() {
            self.entry.remove()?;
        }
        built.map_err(|error| explain_full(error, &self.entry.dir))
    }

    fn make(&self) -> Make<'_> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Make { tree: &self.tree.dir, out: self.out(), flags: self.kit.flags, jobs, interrupt: &self.stop }
    }

    fn build_anew(&self) -> Result<()> {
        let make = self.make();
        std::fs::create_dir_all(&make.out)?;
        config::configure(&make, self.kit.config)?;
        make.run(&["prepare"], "preparing the tree")?;
        self.make_objects()?;
        self.entry.make_whole()
    }

    /// Compiles again what depends on a file that changed; all of it where `make`, which goes by time, would not see that it did.
    fn refresh(&self) -> Result<()> {
        let was = Manifest::read(&std::fs::read_to_string(self.stamp()).unwrap_or_default());
        let is = Manifest::of(&self.out(), &self.tree.dir)?;
        if was == is && self.units.iter().all(|unit| self.out().join(unit).is_file()) {
            return Ok(());
        }
        if was == is || is.is_seen_by_make(&was, modified(&self.stamp())) {
            return self.make_objects();
        }
        self.entry.remove()?;
        self.build_anew()
    }

    /// A make configures again where a Kconfig file has changed: so each is followed by a look at what stuck.
    fn make_objects(&self) -> Result<()> {
        let (begun, tree) = (self.entry.dir.join("begun"), &self.tree.dir);
        // A file that was written to meanwhile may have been compiled before: then once more.
        for _ in 0..2 {
            std::fs::write(&begun, "")?;
            self.make().run(&self.units, "compiling the tree's files")?;
            config::check(&self.out(), self.kit.config)?;
            let manifest = Manifest::of(&self.out(), tree)?;
            std::fs::write(self.stamp(), manifest.text())?;
            if !manifest.changed_since(tree, modified(&begun)) {
                break;
            }
        }
        Ok(())
    }

    fn stamp(&self) -> PathBuf {
        self.entry.dir.join("manifest")
    }

    /// Read once: a library beside a debug build is long.
    fn mark_of_library(&self) -> Result<&str> {
        if let Some(mark) = self.mark_of_library.get() {
            return Ok(mark);
        }
        let mark = Library::find()?.mark()?;
        Ok(self.mark_of_library.get_or_init(|| mark))
    }

    /// A runner of the tree as it is.
    pub fn link(&self) -> Result<Built> {
        self.link_with(None, Points::Calls)
    }

    /// A runner of the tree as it is, to explore interleavings of.
    pub fn link_watched(&self) -> Result<Built> {
        self.link_with(None, Points::Accesses)
    }

    /// The same, with patches applied.
    pub fn link_patched(&self, patches: &[&Patch]) -> Result<Built> {
        let overlay = Overlay::new(self, patches)?;
        self.link_with(Some(&overlay), Points::Accesses)
    }

    /// A runner of the tree with private copies in the place of some of its files.
    pub(crate) fn link_with(&self, overlay: Option<&Overlay>, points: Points) -> Result<Built> {
        overlay.map_or(Ok(()), |overlay| overlay.must_be_seen(self))?;
        let glue_hash = self.kit.glue.iter().fold(Hash::new(), |hash, file| hash.add(file.name).add(file.text));
        let glue_hash = self.kit.probes.iter().fold(glue_hash, |hash, (name, lines)| hash.add(name).add(lines));
        let kit = self.units.iter().chain(self.kit.watched).chain(self.kit.wraps).chain([&self.kit.watch_flags]);
        let hash = kit.fold(Hash::new().add(glue_hash.text()), Hash::add);
        let hash = hash.add(self.mark_of_library()?).add(LINKED_BY);
        let hash = hash
            .add(std::fs::read_to_string(self.stamp())?)
            .add(overlay.map_or("", |overlay| &overlay.name))
            .add(format!("{points:?}"));
        let dir = self.entry.dir.join(format!("run-{}", hash.text()));
        let (runner, count) = (dir.join("runner"), dir.join("trapped"));
        let left = dir.join("not-compiled");
        let patched = || -> Result<Patched> {
            let not_compiled = std::fs::read_to_string(&left)?.lines().map(str::to_owned).collect();
            Ok(Patched { files: overlay.map_or(0, Overlay::count), not_compiled })
        };
        if runner.is_file()
            && let Ok(trapped) = std::fs::read_to_string(&count).unwrap_or_default().parse()
        {
            return Ok(Built { runner, trapped, patched: patched()? });
        }
        let linked = self.link_in(&dir, &glue_hash, overlay, points);
        if linked.is_err() {
            let _ = std::fs::remove_dir_all(&dir);
        }
        let Linked { runner, trapped } = linked.map_err(|error| explain_full(error, &self.entry.dir))?;
        let dependencies: Vec<_> = self.units.iter().map(|unit| copy_of(&dir, unit).with_extension("d")).collect();
        let not_compiled = overlay.map_or(Vec::new(), |overlay| overlay.not_compiled(&dependencies));
        std::fs::write(&left, not_compiled.join("\n"))?;
        std::fs::write(count, trapped.to_string())?;
        Ok(Built { runner, trapped, patched: patched()? })
    }

    fn link_in(&self, dir: &Path, glue_hash: &Hash, overlay: Option<&Overlay>, points: Points) -> Result<Linked> {
        let saved = Saved::of(&self.out(), self.kit.pattern)?;
        // Headers that a patch changes change the glue, too.
        let headers = overlay.filter(|overlay| overlay.has_headers());
        let of_tree = Hash::new().add(glue_hash.text()).add(std::fs::read_to_string(self.stamp())?);
        let shared = || self.entry.dir.join(format!("glue-{}", of_tree.text()));
        let glue_dir = headers.map_or_else(shared, |_| dir.join("glue"));
        let done = glue_dir.join("done");
        let glue = if done.is_file() {
            let sources = self.kit.glue.iter().filter(|file| file.name.ends_with(".c"));
            sources.map(|file| glue_dir.join(file.name).with_extension("o")).collect()
        } else {
            let first = headers.map_or(Vec::new(), |overlay| overlay.headers_beside(self.kit.pattern));
            let compiled = glue::compile(&self.kit, &saved, &glue_dir, &first, &self.stop);
            if compiled.is_err() {
                let _ = std::fs::remove_dir_all(&glue_dir);
            }
            let objects = compiled?;
            std::fs::write(done, "")?;
            objects
        };
        let mut objects = Vec::new();
        for unit in &self.units {
            let watched = points == Points::Accesses && self.kit.watched.contains(unit);
            let flags = if watched { self.kit.watch_flags } else { "" };
            objects.push(match overlay {
                Some(overlay) if overlay.changes(self, unit)? => self.compile_copy(overlay, dir, unit, flags)?,
                _ if watched => self.compile_watched(unit)?,
                _ => self.out().join(unit),
            });
        }
        link(dir, &objects, &glue, self.kit.wraps, &Library::find()?, &self.stop)
    }

    /// Compiles a private copy with the command that the original was compiled with.
    fn compile_copy(&self, overlay: &Overlay, dir: &Path, unit: &str, more: &str) -> Result<PathBuf> {
        let object = copy_of(dir, unit);
        std::fs::create_dir_all(dir)?;
        let source = overlay.source(self, &source_of(unit))?;
        let folder = source_of(unit).rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
        let quote = |dir: &Path| format!("-iquote '{}'", dir.join(&folder).display());
        let told = format!("-MMD -MF '{}'", object.with_extension("d").display());
        let flags = format!("{} {} {told} {more}", quote(&overlay.dir), quote(&self.tree.dir));
        let saved = Saved::of(&self.out(), unit)?;
        run(
            &mut saved.compile(&source, &object, &overlay.headers(), &flags),
            &dir.join("log"),
            &format!("the patched {}", source_of(unit)),
            &self.stop,
        )?;
        Ok(object)
    }

    /// Compiles one of the tree's files with scheduling points, once for all runners.
    fn compile_watched(&self, unit: &str) -> Result<PathBuf> {
        let of_tree = Hash::new().add(std::fs::read_to_string(self.stamp())?).add(self.kit.watch_flags).text();
        let dir = self.entry.dir.join(format!("watched-{of_tree}"));
        let object = copy_of(&dir, unit);
        if object.is_file() {
            return Ok(object);
        }
        std::fs::create_dir_all(&dir)?;
        let (source, half) = (self.tree.dir.join(source_of(unit)), object.with_extension("half"));
        let saved = Saved::of(&self.out(), unit)?;
        let mut compile = saved.compile(&source, &half, &[], self.kit.watch_flags);
        run(&mut compile, &dir.join("log"), &format!("{} with scheduling points", source_of(unit)), &self.stop)?;
        std::fs::rename(half, &object)?;
        Ok(object)
    }

    /// The tree's files that an object was made from, as paths in the tree.
    pub(crate) fn made_from(&self, unit: &str) -> Result<BTreeSet<String>> {
        let files = dependencies(&self.out(), unit).with_context(|| format!("{unit} was not built"))?;
        let inside =
            |file: &PathBuf| Some(file.canonicalize().ok()?.strip_prefix(&self.tree.dir).ok()?.to_str()?.to_owned());
        Ok(files.iter().filter_map(inside).collect())
    }

    pub(crate) fn stop(&self) -> &Interrupt {
        &self.stop
    }
}

/// Where an object that is made again is in `dir`.
fn copy_of(dir: &Path, unit: &str) -> PathBuf {
    dir.join(unit.replace('/', "_"))
}
