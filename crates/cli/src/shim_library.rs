//! Where the preload library lies, and a program's command line under it.

use crate::Device;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "libpontoon_shim.so";

/// The preload library that was built with this command: beside it, or in `deps` beside it.
pub fn path() -> Result<PathBuf> {
    let command = std::env::current_exe().context("cannot tell where this command lies")?;
    let dir = command.parent().unwrap_or(Path::new("."));
    let places = [dir.join(NAME), dir.join("deps").join(NAME), dir.join("../lib").join(NAME)];
    for place in &places {
        if place.is_file() {
            return Ok(place.canonicalize()?);
        }
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
    /// The files that the library shows lie here; gone with this, however the program ends.
    _view: tempfile::TempDir,
}

/// `program` under the preload library; its report will be in `report`.
pub fn preloaded(program: impl AsRef<OsStr>, device: &Device, report: Option<&Path>) -> Result<Preloaded> {
    let view = tempfile::Builder::new().prefix("pontoon-").permissions(Permissions::from_mode(0o755)).tempdir();
    let view = view.context("cannot make a temporary folder")?;
    let mut command = Command::new(program);
    command.env("PONTOON_ROOT", view.path());
    let mut preload = path()?.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    command.env("LD_PRELOAD", preload).env("PONTOON_BEHAVIOUR", &device.behaviour);
    command.env("PONTOON_MODE", if device.no_move { "no-move" } else { "auto" });
    if let Some(report) = report {
        command.env("PONTOON_REPORT", report);
    }
    Ok(Preloaded { command, _view: view })
}
