//! Where the tour's memory is, drawn on a terminal while the client goes its way: its steps are read as it prints them. Elsewhere
//! nothing is drawn; the lines that follow say the same.

use crate::colour;
use std::io::Write;
use std::time::Duration;

/// How long a picture stays at least, for whoever looks.
const STAYS: Duration = Duration::from_millis(60);
const WIDTH: usize = 18;
const LINES: usize = 5;
const NAMES: [&str; 3] = ["system memory", "VRAM of tile 0", "VRAM of tile 1"];

/// The picture, and the place in which the memory was last.
pub struct Picture {
    at: usize,
    is_drawn: bool,
}

impl Picture {
    /// One, where there is a terminal.
    pub fn on_terminal() -> Option<Self> {
        colour::is_drawn_on().then_some(Self { at: 0, is_drawn: false })
    }

    /// The client has printed a line.
    #[allow(clippy::disallowed_methods, reason = "the tour is outside of what the checker controls")]
    pub fn step(&mut self, line: &str) {
        let Some((to, caption)) = meaning(line) else { return };
        let up = if self.is_drawn { format!("\x1b[{LINES}A") } else { String::new() };
        let lines = frame(self.at, to, &caption).map(|line| format!("\x1b[K{line}\n")).concat();
        let _ = write!(std::io::stdout(), "{up}{lines}").and_then(|()| std::io::stdout().flush());
        (self.at, self.is_drawn) = (to, true);
        std::thread::sleep(STAYS);
    }
}

/// Where a step of the client finds or takes its memory, and what it does there. A compare by the CPU migrates it back.
fn meaning(line: &str) -> Option<(usize, String)> {
    let mut words = line.strip_prefix("STEP ")?.split(' ');
    let (size, what) = words.next()?.split_once('.')?;
    let verdict = words.next()?;
    Some(match what.split_once("run-on-tile") {
        Some((_, tile)) => (
            1 + tile.parse::<usize>().ok().filter(|tile| *tile < 2)?,
            format!("{size}: tile {tile} stores and counts in every page"),
        ),
        None if what == "cpu-fill" => (0, format!("{size}: the CPU writes every byte")),
        None => (0, format!("{size}: the CPU compares every byte: {verdict}")),
    })
}

/// Three places side by side, one of which has the memory, and arrows over the way that it came.
fn frame(from: usize, to: usize, caption: &str) -> [String; LINES] {
    let arrow = |gap: usize| match () {
        () if from <= gap && gap < to => " --> ",
        () if to <= gap && gap < from => " <-- ",
        () => "     ",
    };
    let row = |cell: &dyn Fn(usize) -> String, gap: &dyn Fn(usize) -> &'static str| {
        format!("   {}{}{}{}{}", cell(0), gap(0), cell(1), gap(1), cell(2))
    };
    let blank = |_| "     ";
    let edge = |_| format!("+{}+", "-".repeat(WIDTH));
    let filled = |place| format!("|{}|", if place == to { "#" } else { " " }.repeat(WIDTH));
    let name = |place: usize| format!(" {:<WIDTH$} ", NAMES[place]);
    [row(&name, &blank), row(&edge, &blank), row(&filled, &arrow), row(&edge, &blank), format!("   {caption}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_say_where_the_memory_is() {
        let place = |line| meaning(line).map(|(place, _)| place);
        assert_eq!(place("STEP 64K.pass3.run-on-tile1 ok bytes=0"), Some(2));
        assert_eq!(place("STEP 2M.after-tile0 ok bytes=2097152"), Some(0));
        assert_eq!(place("STEP version ok bytes=2"), None);
        assert_eq!(place("TOUR ok"), None);
        assert!(meaning("STEP 2M.to-and-fro BAD bytes=9").is_some_and(|(_, caption)| caption.ends_with(": BAD")));
    }

    #[test]
    fn one_place_has_the_memory_and_arrows_point_there() {
        let lines = frame(0, 2, "x");
        assert!(lines.iter().all(|line| line.len() <= 79), "{lines:?}");
        assert_eq!((lines[2].matches('#').count(), lines[2].matches("-->").count()), (WIDTH, 2));
        assert!(lines[2].ends_with(&format!("|{}|", "#".repeat(WIDTH))));
        assert_eq!(frame(2, 1, "x")[2].matches("<--").count(), 1);
        assert_eq!(frame(1, 1, "x")[2].matches("--").count(), 0);
    }
}
