//! Starting tools: their output goes to a log, an interruption ends the work, a full disk is named.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody wants this to end (Ctrl-C).
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT and SIGTERM set it; tools of the same terminal get them, too.
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, interrupt.0.clone())?;
        }
        Ok(interrupt)
    }

    /// Ends the work here if it is to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::SeqCst) {
            bail!("interrupted; nothing is left behind");
        }
        Ok(())
    }

    /// As if somebody had pressed Ctrl-C.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs `command` to its end with its output in `log`; an error has the log's last lines, and what to do about it.
pub(crate) fn run(command: &mut Command, log: &Path, what: &str, interrupt: &Interrupt) -> Result<()> {
    interrupt.check()?;
    let output = File::options().create(true).append(true).open(log).with_context(|| full(log))?;
    command.env("LC_ALL", "C").stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let tool = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {tool}"))?;
    interrupt.check()?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    if text.contains("No space left on device") {
        bail!("{what} fails: {}", full(log));
    }
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("rror")).collect();
    let last: Vec<&str> = text.lines().rev().take(12).collect();
    let shown: Vec<&str> =
        if errors.is_empty() { last.into_iter().rev().collect() } else { errors.into_iter().take(8).collect() };
    bail!("{what} fails; {tool} says:\n  {}", shown.join("\n  "))
}

fn full(log: &Path) -> String {
    let dir = log.parent().unwrap_or(log);
    format!(
        "the disk of {} is full: a tree's objects take about 60 MB; make room, or name another folder in PONTOON_KERNEL_CACHE",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(script: &str) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let outcome =
            run(Command::new("sh").args(["-c", script]), &dir.path().join("log"), "the build", &Interrupt::default());
        outcome.expect_err("it fails").to_string()
    }

    #[test]
    fn a_full_disk_is_named_with_the_remedy() {
        let text = failing("echo 'x.o: No space left on device' >&2; exit 1");
        assert!(text.contains("is full") && text.contains("PONTOON_KERNEL_CACHE"), "{text}");
    }

    #[test]
    fn errors_are_shown_before_other_lines() {
        let text = failing("echo CC a.o; echo 'a.c:1: error: x'; echo CC b.o; exit 1");
        assert!(text.contains("a.c:1: error: x") && !text.contains("CC b.o"), "{text}");
    }

    #[test]
    fn nothing_starts_after_an_interruption() {
        let interrupt = Interrupt::default();
        interrupt.set();
        let dir = tempfile::tempdir().expect("a folder");
        let outcome = run(&mut Command::new("true"), &dir.path().join("log"), "it", &interrupt);
        assert_eq!(outcome.expect_err("refused").to_string(), "interrupted; nothing is left behind");
    }
}
