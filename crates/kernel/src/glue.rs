//! The glue, compiled with the tree's headers and the saved command of one of its files; before that, the compiler is asked what
//! this tree has (never its version).

use crate::build::Saved;
use crate::command::{Interrupt, run};
use crate::kit::Kit;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Writes and compiles the glue in `dir`; its objects.
/// Folders in `first` are searched for headers before the tree's own.
pub(crate) fn compile(
    kit: &Kit,
    saved: &Saved,
    dir: &Path,
    first: &[PathBuf],
    interrupt: &Interrupt,
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    for file in &kit.glue {
        std::fs::write(dir.join(file.name), file.text)
            .with_context(|| format!("cannot write into {}", dir.display()))?;
    }
    let header = dir.join("kface_probe.h");
    std::fs::write(&header, probe(kit, saved, dir, first, interrupt)?)?;
    // Warnings are the tree's affair for its own code; ours is compiled by whatever compiler the user has.
    let flags = format!("-w -include '{}' -I'{}'", header.display(), dir.display());
    let sources: Vec<_> = kit.glue.iter().filter(|file| file.name.ends_with(".c")).collect();
    let objects: Vec<PathBuf> = sources.iter().map(|file| dir.join(file.name).with_extension("o")).collect();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let compile = |first_of: usize| -> Result<()> {
        for at in (first_of..sources.len()).step_by(jobs) {
            let mut command = saved.compile(&dir.join(sources[at].name), &objects[at], first, &flags);
            let log = dir.join("log").with_extension(first_of.to_string());
            run(&mut command, &log, &format!("glue ({})", sources[at].name), interrupt)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|job| scope.spawn(move || compile(job))).collect();
        let failed = |_| anyhow::anyhow!("a thread that compiles glue ends early");
        threads.into_iter().try_for_each(|thread| thread.join().map_err(failed)?)
    })?;
    Ok(objects)
}

/// A line for each question.
fn probe(kit: &Kit, saved: &Saved, dir: &Path, first: &[PathBuf], interrupt: &Interrupt) -> Result<String> {
    let mut text = String::from("/* Made by asking the compiler. */\n");
    for (name, lines) in kit.probes {
        interrupt.check()?;
        let (source, object) = (dir.join("probe.c"), dir.join("probe.o"));
        std::fs::write(&source, lines)?;
        let said = saved.compile(&source, &object, first, "-w").output()?;
        text.push_str(&format!("#define KFACE_{name} {}\n", i32::from(said.status.success())));
    }
    Ok(text)
}
