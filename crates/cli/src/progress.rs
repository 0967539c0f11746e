//! How far a long command is: one line on a terminal, which is gone when the command has its answer. Nothing where the standard error
//! is no terminal.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Milliseconds from one line to the next.
const EVERY_MS: u64 = 100;
/// Characters of a bar.
const BAR: u64 = 30;

/// When the command began, and when the last line was written.
static BEGAN: OnceLock<Instant> = OnceLock::new();
static LAST_MS: AtomicU64 = AtomicU64::new(0);

/// So many cells of a table are computed.
pub fn cells(done: usize, of: usize) {
    tell(done as u64, Some(of as u64), "cells");
}

/// So many schedules were run; `of` so many, where that is known.
pub fn runs(done: u64, of: Option<u64>) {
    tell(done, of, "schedules");
}

/// So many rounds of a measurement were made; what is measured waits for none of this.
pub fn rounds(done: usize, of: usize) {
    tell(done as u64, Some(of as u64), "rounds");
}

/// So many parts of a measurement are done, of which each takes seconds.
pub fn parts(done: usize, of: usize) {
    if std::io::stderr().is_terminal() {
        show(&line(done as u64, Some(of as u64), "parts", elapsed_ms()));
    }
}

fn tell(done: u64, of: Option<u64>, what: &str) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let ms = elapsed_ms();
    let last = LAST_MS.load(Ordering::Relaxed);
    let due = ms >= last + EVERY_MS;
    if !due || LAST_MS.compare_exchange(last, ms, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    show(&line(done, of, what, ms));
}

fn elapsed_ms() -> u64 {
    BEGAN.get_or_init(Instant::now).elapsed().as_millis() as u64
}

fn show(line: &str) {
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
}

fn line(done: u64, of: Option<u64>, what: &str, ms: u64) -> String {
    let rate = done * 1000 / ms.max(1);
    match of {
        None => format!("{done} {what}, {rate} a second"),
        Some(of) => {
            let full = (done.min(of) * BAR / of.max(1)) as usize;
            format!("[{}{}] {done} of {of} {what}, {rate} a second", "#".repeat(full), ".".repeat(BAR as usize - full))
        }
    }
}

/// The line goes.
pub fn end() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(line(5, Some(10), "cells", 1000), "[###############...............] 5 of 10 cells, 5 a second");
        assert_eq!(line(7, Some(0), "cells", 0).matches('.').count(), 30);
        assert_eq!(line(2000, None, "schedules", 500), "2000 schedules, 4000 a second");
    }
}
