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
    let mut objects = Vec::new();
    for file in kit.glue.iter().filter(|file| file.name.ends_with(".c")) {
        let (source, object) = (dir.join(file.name), dir.join(file.name).with_extension("o"));
        run(
            &mut saved.compile(&source, &object, first, &flags),
            &dir.join("log"),
            &format!("glue ({})", file.name),
            interrupt,
        )?;
        objects.push(object);
    }
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
