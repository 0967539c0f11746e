//! Starting tools: their output goes to a log, an interruption ends them and all that they started, a full disk is named.

#![allow(clippy::disallowed_methods, reason = "it waits for other processes, and no checker schedules that")]

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether somebody wants this to end (Ctrl-C).
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT and SIGTERM set it.
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
    // A group of its own: make, and what it starts, end together.
    let mut child = command.process_group(0).spawn().with_context(|| format!("cannot start {tool}"))?;
    let status = wait(&mut child, interrupt)?;
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

/// Waits for a tool, or ends it and what it started.
fn wait(child: &mut Child, interrupt: &Interrupt) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt.check().is_err() {
            let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            group.map(|group| kill_process_group(group, Signal::KILL));
            return Ok(child.wait()?);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An error of a full disk, with the remedy.
pub(crate) fn explain_full(error: anyhow::Error, dir: &Path) -> anyhow::Error {
    let is_full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull;
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(is_full)) {
        return error.context(full(&dir.join("log")));
    }
    error
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
    fn an_interruption_ends_a_tool_and_what_it_started() {
        let interrupt = Interrupt::default();
        let dir = tempfile::tempdir().expect("a folder");
        let (started, end) = (dir.path().join("started"), interrupt.clone());
        let script = format!("sleep 1000 & echo $! > '{0}.half'; mv '{0}.half' '{0}'; wait", started.display());
        let begun = std::time::Instant::now();
        let waits = started.clone();
        let other = std::thread::spawn(move || {
            while !waits.is_file() {
                std::thread::yield_now();
            }
            end.set();
        });
        let outcome = run(Command::new("sh").args(["-c", &script]), &dir.path().join("log"), "it", &interrupt);
        other.join().expect("ended");
        assert_eq!(outcome.expect_err("ended").to_string(), "interrupted; nothing is left behind");
        assert!(begun.elapsed() < Duration::from_secs(100), "it waited for nothing");
        let sleeper = std::fs::read_to_string(started).expect("a number");
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", sleeper.trim())).unwrap_or_default();
        let has_ended = |stat: &str| stat.is_empty() || stat.contains(") Z");
        // The signal was sent; when it is obeyed is up to the system.
        while !has_ended(&stat()) && begun.elapsed() < Duration::from_secs(100) {
            std::thread::yield_now();
        }
        assert!(has_ended(&stat()), "what it started has ended: {}", stat());
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
