//! Playing a scene: a process of its own, because the kernel's state is global and its bugs may end it.

#![allow(clippy::disallowed_methods, reason = "it waits for another process, and no checker schedules that")]

use crate::command::Interrupt;
use crate::facts::Facts;
use anyhow::{Context, Result};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A scene that takes longer hangs where no look at memory is made, and cannot be judged.
const PATIENCE: Duration = Duration::from_secs(120);

/// Plays `scene`, with a number for it.
pub(crate) fn play(runner: &Path, scene: &str, parameter: u64, stop: &Interrupt) -> Result<Facts> {
    play_with(runner, scene, &[parameter.to_string()], stop)
}

/// The same, with more words for it.
pub(crate) fn play_with(runner: &Path, scene: &str, words: &[String], stop: &Interrupt) -> Result<Facts> {
    let mut command = Command::new(runner);
    command.arg(scene).args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", runner.display()))?;
    let mut output = child.stdout.take().context("the runner has an output")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.read_to_end(&mut text);
        text
    });
    let begun = Instant::now();
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        late = begun.elapsed() > PATIENCE;
        if late || stop.check().is_err() {
            child.kill()?;
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    stop.check()?;
    let text = reader.join().unwrap_or_default();
    Ok(Facts::read(&String::from_utf8_lossy(&text), status.code(), late))
}
