//! Where the preload library lies, and a program's command line under it.

use crate::Device;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "libpontoon_shim.so";

/// The preload library that was built with this command: beside it, or in `deps` beside it.
pub fn path() -> Result<PathBuf> {
    let command = std::env::current_exe().context("cannot tell where this command lies")?;
    let dir = command.parent().unwrap_or(Path::new("."));
    let places = [dir.join(NAME), dir.join("deps").join(NAME), dir.join("../lib").join(NAME)];
    // The newest: a build of the command alone puts the library into `deps` and leaves an older one beside it.
    let built = |place: &&PathBuf| place.metadata().and_then(|file| file.modified()).ok();
    if let Some(place) = places.iter().filter(|place| place.is_file()).max_by_key(built) {
        return Ok(place.canonicalize()?);
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
    /// The files that the library shows lie here; gone with this, however the program ends. Without it each process
    /// finds a place of its own.
    _view: Option<tempfile::TempDir>,
}

/// `program` under the preload library, on the default device; its report will be in `report`.
pub fn preloaded(program: impl AsRef<OsStr>, device: &Device, report: Option<&Path>) -> Result<Preloaded> {
    let view = folder();
    let mut command = Command::new(program);
    match &view {
        Some(view) => command.env("PONTOON_ROOT", view.path()),
        None => command.env_remove("PONTOON_ROOT"),
    };
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
    Ok(Preloaded { command, _view: view })
}

/// A temporary folder in the first place where nobody but root and this user can rename it.
fn folder() -> Option<tempfile::TempDir> {
    let places = [std::env::temp_dir(), PathBuf::from("/tmp")];
    let place = places.iter().find(|place| is_safe(place))?;
    let permissions = Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("pontoon-").permissions(permissions).tempdir_in(place).ok()
}

fn is_safe(place: &Path) -> bool {
    let Ok(about) = place.metadata() else { return false };
    let is_ours = about.uid() == 0 || about.uid() == rustix::process::geteuid().as_raw();
    is_ours && (about.mode() & 0o022 == 0 || about.mode() & 0o1000 != 0)
}
