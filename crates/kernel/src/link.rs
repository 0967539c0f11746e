//! From objects to a runner: the tree's objects become one, with their initialisation in a section that the glue finds; what is
//! undefined is trapped; glue and the Rust half are linked in. The executable lies below 2 GiB, as the kernel's code model wants.

use crate::command::{Interrupt, run};
use crate::library::Library;
use crate::symbols;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Levels of initialisation that built-in objects may have.
const LEVELS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "4s", "5s", "6s", "rootfs"];

/// A runner, and how many symbols it traps.
pub(crate) struct Linked {
    pub(crate) runner: PathBuf,
    pub(crate) trapped: usize,
}

/// Links in `dir`.
pub(crate) fn link(
    dir: &Path,
    tree: &[PathBuf],
    glue: &[PathBuf],
    wraps: &[&str],
    library: &Library,
    interrupt: &Interrupt,
) -> Result<Linked> {
    std::fs::create_dir_all(dir)?;
    library.put(dir)?;
    let log = dir.join("log");
    let [one, all, stubs_text, stubs] = ["tree.o", "all.o", "stubs.S", "stubs.o"].map(|name| dir.join(name));
    let mut ld = Command::new("ld");
    ld.arg("-r").args(wraps.iter().map(|name| format!("--wrap={name}"))).arg("-o").arg(&one).args(tree);
    run(&mut ld, &log, "putting the tree's objects together", interrupt)?;
    let mut objcopy = Command::new("objcopy");
    for level in LEVELS {
        objcopy.arg("--rename-section").arg(format!(".initcall{level}.init=kface_initcalls"));
    }
    run(objcopy.arg(&one), &log, "renaming sections", interrupt)?;
    run(Command::new("ld").arg("-r").arg("-o").arg(&all).arg(&one).args(glue), &log, "adding the glue", interrupt)?;
    let undefined = symbols::undefined(&all)?;
    std::fs::write(&stubs_text, symbols::stubs(&undefined))?;
    run(Command::new("gcc").arg("-c").arg("-o").arg(&stubs).arg(&stubs_text), &log, "making traps", interrupt)?;
    let runner = dir.join("runner");
    let half = dir.join("runner.half");
    let mut gcc = Command::new("gcc");
    gcc.args(["-no-pie", "-z", "noexecstack", "-o"]).arg(&half);
    gcc.args(wraps.iter().map(|name| format!("-Wl,--wrap={name}")));
    gcc.arg(&one).args(glue).arg(&stubs).arg("-L").arg(dir);
    // All calls are bound before the first run begins, which is a copy of that process.
    gcc.args(["-lpontoon_kface", "-Wl,-rpath,$ORIGIN", "-Wl,-z,now"]);
    run(&mut gcc, &log, "linking the runner", interrupt)?;
    std::fs::rename(&half, &runner)?;
    for left in [one, all, stubs] {
        std::fs::remove_file(left)?;
    }
    Ok(Linked { runner, trapped: undefined.iter().filter(|name| !name.starts_with("__tracepoint_")).count() })
}
