//! From objects to a runner: the tree's objects become one, with their initialisation in a section that the glue finds; what is
//! undefined is trapped; glue and the Rust half are linked in. The executable lies below 2 GiB, as the kernel's code model wants.

use crate::command::{Interrupt, run};
use crate::symbols;
use anyhow::{Context, Result, bail};
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
    interrupt: &Interrupt,
) -> Result<Linked> {
    std::fs::create_dir_all(dir)?;
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
    gcc.arg(&one).args(glue).arg(&stubs).arg(library()?);
    gcc.args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"]);
    run(&mut gcc, &log, "linking the runner", interrupt)?;
    std::fs::rename(&half, &runner)?;
    for left in [one, all, stubs] {
        std::fs::remove_file(left)?;
    }
    Ok(Linked { runner, trapped: undefined.iter().filter(|name| !name.starts_with("__tracepoint_")).count() })
}

/// The Rust half, which was built with this command: beside it, or in `deps` beside it.
pub(crate) fn library() -> Result<PathBuf> {
    let command = std::env::current_exe().context("cannot tell where this command lies")?;
    let mut dirs: Vec<PathBuf> = command.ancestors().skip(1).take(2).map(Path::to_owned).collect();
    dirs.extend(command.parent().map(|dir| dir.join("deps")));
    dirs.extend(command.parent().map(|dir| dir.join("../lib")));
    let is_it = |name: &str| name.starts_with("libpontoon_kface") && name.ends_with(".a");
    let files = dirs.iter().filter_map(|dir| dir.read_dir().ok()).flatten().flatten();
    let found = files.filter(|file| file.file_name().to_str().is_some_and(is_it)).map(|file| file.path());
    match found.max_by_key(|path| path.metadata().and_then(|file| file.modified()).ok()) {
        Some(path) => Ok(path),
        None => bail!(
            "libpontoon_kface.a is not beside {}: build it with `cargo build --release -p pontoon`",
            command.display()
        ),
    }
}
