//! Where the preload library lies, and a program's command line under it.

use crate::{Device, inside};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{PipeWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const NAME: &str = "libpontoon_shim.so";

/// The preload library that was built with this command: inside it, or beside it, or in `deps` beside it. One that lies there is used instead
/// of the one inside where it is newer than the command: an older one may be of another version.
pub fn path() -> Result<PathBuf> {
    let command = std::env::current_exe().context("cannot tell where this command lies")?;
    let dir = command.parent().unwrap_or(Path::new("."));
    let places = [dir.join(NAME), dir.join("deps").join(NAME), dir.join("../lib").join(NAME)];
    // The newest: a build of the command alone puts the library into `deps` and leaves an older one beside it.
    let built = |place: &PathBuf| place.metadata().and_then(|file| file.modified()).ok();
    let is_library = |place: &&PathBuf| place.metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
    let beside = places.iter().filter(is_library).max_by_key(|place| built(place));
    if let Some(place) = beside.filter(|place| !inside::is_there() || built(place) > built(&command)) {
        let place = place.canonicalize()?;
        return if inside::can_be_named(&place) { Ok(place) } else { inside::copied(&place) };
    }
    if let Some(unpacked) = inside::library() {
        return unpacked;
    }
    bail!(
        "{NAME} is not beside {}: build it with `cargo build --release -p pontoon -p pontoon-shim`",
        command.display()
    )
}

/// A program to be started under the preload library.
pub struct Preloaded {
    /// What to start.
    pub command: Command,
    /// The files that the library shows lie here, and the marks of the run. Without it each process finds a place of its own.
    folder: Option<Folder>,
}

impl Preloaded {
    /// The folder of the run.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|folder| folder.dir.path())
    }

    /// The processes that had a machine and have ended, once those who see to their end are done: what these write belongs to the run.
    /// They take some seconds at most.
    pub fn ended(&self) -> Vec<u32> {
        let entries = self.folder().and_then(|folder| std::fs::read_dir(folder).ok());
        let mut ended = Vec::new();
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let process = name.strip_prefix("outside-").and_then(|process| process.parse().ok());
            if let Some(process) = process.filter(|process| !lives(*process)) {
                let _ = File::open(entry.path()).and_then(|file| file.lock());
                ended.push(process);
            }
        }
        ended
    }

    /// Whether a process of the run has started a machine; `None` where that cannot be known.
    pub fn has_started(&self) -> Option<bool> {
        self.folder().map(|folder| folder.join("started").exists())
    }

    /// Whether a process of the run wanted a machine and got none.
    pub fn was_refused(&self) -> bool {
        self.has_mark("refused")
    }

    /// Whether a process of the run became or started a program that the library is not in.
    pub fn has_unseen(&self) -> bool {
        self.has_mark("unseen")
    }

    /// Whether a process of the run could not write its line of the report, and said why.
    pub fn has_unreported(&self) -> bool {
        self.has_mark("unreported")
    }

    /// Tells a run that this one is within: what its processes did counts there, too. The lines of a report of our own are added
    /// to that run's; without one they are there already.
    pub fn hand_on(&self, report: Option<&Path>) -> Result<()> {
        if let Some(outer) = std::env::var_os("PONTOON_RUN") {
            for mark in MARKS.into_iter().filter(|mark| self.has_mark(mark)) {
                let _ = std::fs::create_dir(Path::new(&outer).join(mark));
            }
        }
        let outer = std::env::var_os("PONTOON_REPORT").filter(|outer| !outer.is_empty());
        let (Some(report), Some(outer)) = (report, outer) else { return Ok(()) };
        append(report, outer.as_ref()).with_context(|| format!("cannot add to the report {}", outer.display()))
    }

    /// Whether a process of the run has made a mark (`marks` in the library).
    fn has_mark(&self, mark: &str) -> bool {
        self.folder().is_some_and(|folder| folder.join(mark).exists())
    }
}

/// What the processes of a run note that an outer run has to know.
const MARKS: [&str; 4] = ["started", "refused", "unseen", "unreported"];

/// Adds the lines of one report to another, unless they are the same, as the library adds a line: links are not followed, and the
/// process' lock is held.
fn append(report: &Path, outer: &Path) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut outer = File::from(rustix::fs::open(outer, flags, Mode::from_raw_mode(0o644))?);
    let mut report = File::open(report)?;
    let place = |file: &File| file.metadata().map(|about| (about.dev(), about.ino()));
    if place(&report)? == place(&outer)? {
        return Ok(());
    }
    let mut lines = Vec::new();
    report.read_to_end(&mut lines)?;
    rustix::fs::fcntl_lock(&outer, FlockOperation::LockExclusive)?;
    outer.write_all(&lines)
}

/// Whether a process is there, and has not ended.
fn lives(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

/// A run's folder: gone with this, and also when this process is killed. Another process removes it when the pipe ends: on a disk that
/// takes a tenth of a second, for which nobody waits.
struct Folder {
    dir: tempfile::TempDir,
    _end: Option<PipeWriter>,
}

impl Folder {
    fn new() -> Option<Self> {
        let mut dir = folder()?;
        // Without a second process this one removes the folder, which stays where it is killed.
        let end = keeper(dir.path()).ok();
        dir.disable_cleanup(end.is_some());
        Some(Self { dir, _end: end })
    }
}

/// A process that removes the folder when this one ends, which it sees by the end of a pipe. A terminal's signals do not
/// reach it.
fn keeper(folder: &Path) -> std::io::Result<PipeWriter> {
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(TIDY_UP).arg(folder).stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
    // The library of an outer run does not miss it.
    command.env_remove("LD_PRELOAD").env("PONTOON_NO_PART", "1").process_group(0).spawn()?;
    Ok(writer)
}

/// Waits for the end of the run, and removes its folder.
pub fn tidy_up(folder: &Path) -> Result<ExitCode> {
    let is_ours = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    anyhow::ensure!(is_ours, "{} is no folder of a run", folder.display());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    if folder.is_dir() {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The word by which a run starts that process.
pub const TIDY_UP: &str = "tidy-up-after-a-run";

/// How a run's folder begins.
const PREFIX: &str = "pontoon-";

/// `program` under the preload library, on the default device; its report will be in `report`.
pub fn preloaded(program: impl AsRef<OsStr>, device: &Device, report: Option<&Path>) -> Result<Preloaded> {
    let folder = Folder::new();
    let mut command = Command::new(program);
    for variable in ["PONTOON_ROOT", "PONTOON_RUN"] {
        match &folder {
            Some(folder) => command.env(variable, folder.dir.path()),
            None => command.env_remove(variable),
        };
    }
    for (variable, option) in SANITIZERS {
        let mut options = std::ffi::OsString::from(option);
        if let Some(others) = std::env::var_os(variable) {
            options.push(":");
            options.push(others);
        }
        command.env(variable, options);
    }
    let mut preload = path()?.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    command.env("LD_PRELOAD", preload).env("PONTOON_BEHAVIOUR", &device.behaviour);
    command.env_remove("PONTOON_DEVICE");
    command.env("PONTOON_MODE", if device.no_move { "no-move" } else { "auto" });
    if let Some(report) = report {
        command.env("PONTOON_REPORT", report);
    }
    Ok(Preloaded { command, folder })
}

/// Address sanitizer wants to be the first library, and need not be; thread sanitizer sees none of the library's locks.
const SANITIZERS: [(&str, &str); 2] =
    [("ASAN_OPTIONS", "verify_asan_link_order=0"), ("TSAN_OPTIONS", "ignore_noninstrumented_modules=1")];

/// A temporary folder in the first place where nobody but root and this user can rename it: in memory where there is such a
/// place.
fn folder() -> Option<tempfile::TempDir> {
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir(), PathBuf::from("/tmp")];
    let make = |place: &PathBuf| {
        let permissions = Permissions::from_mode(0o755);
        tempfile::Builder::new().prefix(PREFIX).permissions(permissions).tempdir_in(place).ok()
    };
    places.iter().filter(|place| is_safe(place)).find_map(make)
}

fn is_safe(place: &Path) -> bool {
    let Ok(about) = place.metadata() else { return false };
    let is_ours = about.uid() == 0 || about.uid() == rustix::process::geteuid().as_raw();
    is_ours && (about.mode() & 0o022 == 0 || about.mode() & 0o1000 != 0)
}
