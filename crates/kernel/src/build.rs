//! The tree's own build, elsewhere: `make O=`, and the commands that it saved, for files of ours and private copies.

use crate::command::{Interrupt, run};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `make` in a tree with a build folder elsewhere.
pub(crate) struct Make<'a> {
    pub(crate) tree: &'a Path,
    pub(crate) out: PathBuf,
    pub(crate) flags: &'a str,
    pub(crate) jobs: usize,
    pub(crate) interrupt: &'a Interrupt,
}

impl Make<'_> {
    pub(crate) fn log(&self) -> PathBuf {
        self.out.with_extension("log")
    }

    /// Makes targets.
    pub(crate) fn run(&self, targets: &[&str], what: &str) -> Result<()> {
        let mut make = Command::new("make");
        make.arg("-C").arg(self.tree).arg(format!("O={}", self.out.display())).arg(format!("-j{}", self.jobs));
        make.arg("ARCH=x86_64").arg(format!("KCFLAGS={}", self.flags)).args(targets);
        // The flags of a make that started this command are not for the kernel's.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("KBUILD_OUTPUT");
        run(&mut make, &self.log(), what, self.interrupt)
    }
}

/// The command that an object was compiled with.
pub(crate) struct Saved {
    /// Its words, as the shell takes them, without output, dependencies and source.
    text: String,
    out: PathBuf,
}

impl Saved {
    /// Reads what kbuild saved for `unit`.
    pub(crate) fn of(out: &Path, unit: &str) -> Result<Self> {
        let file = saved_file(out, unit);
        let text = std::fs::read_to_string(&file).with_context(|| format!("the build saved no command of {unit}"))?;
        let line = text.lines().find(|line| line.starts_with("savedcmd_") || line.starts_with("cmd_"));
        let command = line.and_then(|line| line.split_once(":=")).map(|(_, command)| command.trim());
        let Some(command) = command else { bail!("{} has no saved command", file.display()) };
        // What follows the compiler (objtool, symbol versions) is for an object that goes into a kernel.
        let command = command.split(';').next().unwrap_or(command).trim();
        let mut words: Vec<&str> = command.split_whitespace().collect();
        if words.len() < 4 || !words.contains(&"-c") {
            bail!("the saved command of {unit} is no compiler's");
        }
        words.pop();
        let is_output = |at: usize, words: &[&str]| words[at] == "-o" || (at > 0 && words[at - 1] == "-o");
        let kept = (0..words.len()).filter(|&at| !words[at].starts_with("-Wp,-MMD") && !is_output(at, &words));
        let text = kept.map(|at| words[at]).collect::<Vec<_>>().join(" ");
        Ok(Self { text, out: out.to_owned() })
    }

    /// Compiles `source` to `object`, with more flags behind the saved ones, and folders that are searched before all others.
    pub(crate) fn compile(&self, source: &Path, object: &Path, first: &[PathBuf], more: &str) -> Command {
        let mut shell = Command::new("sh");
        let quoted = |path: &Path| format!("'{}'", path.display());
        let first: String = first.iter().map(|folder| format!("-I{} ", quoted(folder))).collect();
        let (compiler, flags) = self.text.split_once(' ').unwrap_or((&self.text, ""));
        let text = format!("exec {compiler} {first}{flags} {more} -o {} {}", quoted(object), quoted(source));
        shell.arg("-c").arg(text).current_dir(&self.out);
        shell
    }
}

fn saved_file(out: &Path, unit: &str) -> PathBuf {
    let (dir, name) = unit.rsplit_once('/').unwrap_or((".", unit));
    out.join(dir).join(format!(".{name}.cmd"))
}

/// The files that an object was made from, as kbuild wrote them down.
pub(crate) fn dependencies(out: &Path, unit: &str) -> Result<Vec<PathBuf>> {
    Ok(files_of(out, &std::fs::read_to_string(saved_file(out, unit))?))
}

/// The files that anything was made from in the build folder and below, tools of the build and headers that it makes among it.
pub(crate) fn listed(out: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut files, mut folders) = (BTreeSet::new(), vec![out.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir()? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if name.as_encoded_bytes().starts_with(b".") && name.as_encoded_bytes().ends_with(b".cmd") {
                files.extend(files_of(out, &std::fs::read_to_string(entry.path())?));
            }
        }
    }
    Ok(files)
}

fn files_of(out: &Path, text: &str) -> Vec<PathBuf> {
    let lists = ["source_", "deps_"];
    let mut files = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        inside = (inside && !line.is_empty()) || lists.iter().any(|list| line.starts_with(list));
        if !inside {
            continue;
        }
        let words = line.split_once(":=").map_or(line, |(_, words)| words);
        let is_file = |word: &&str| !word.starts_with('$') && !word.ends_with(')') && *word != "\\";
        files.extend(words.split_whitespace().filter(is_file).map(|word| out.join(word)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_command_loses_its_files_and_what_follows_the_compiler() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "savedcmd_lib/a.o := gcc -Wp,-MMD,lib/.a.o.d -I./include -DNAME='\"a\"' -c -o lib/a.o ../t/lib/a.c ; ./objtool x\n\n\
                    source_lib/a.o := ../t/lib/a.c\n\ndeps_lib/a.o := \\\n  $(wildcard include/config/X) \\\n  ../t/include/a.h \\\n\n";
        std::fs::create_dir(dir.path().join("lib")).expect("made");
        std::fs::write(dir.path().join("lib/.a.o.cmd"), text).expect("written");
        let saved = Saved::of(dir.path(), "lib/a.o").expect("a command");
        assert_eq!(saved.text, "gcc -I./include -DNAME='\"a\"' -c");
        let files = dependencies(dir.path(), "lib/a.o").expect("a list");
        assert_eq!(files, [dir.path().join("../t/lib/a.c"), dir.path().join("../t/include/a.h")]);
        assert_eq!(listed(dir.path()).expect("a list"), files.into_iter().collect());
    }
}
