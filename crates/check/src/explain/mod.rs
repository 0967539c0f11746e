//! The smallest failing run, told for a mail: a column per actor, a line per thing that happened, at most 75 characters wide; or
//! as a page with a time line.
//!
//! [`rows`] puts a story into words; [`tell`] lays the rows out for a mail, [`html::page`] for a browser.

pub mod html;
mod words;

use crate::script::Script;
use machine::story::Line;
use std::collections::BTreeMap;
use units::HostRange;

/// The widest line of a mail.
const WIDTH: usize = 75;
/// What stands in the place of a function where the device noticed something.
const NOTICED: &str = "!!";
/// Lines of one kind that follow each other and are told; the others are counted.
const TOLD: usize = 2;

/// What is needed to name addresses and actors.
pub struct Names<'a> {
    /// The scene.
    pub script: &'a Script,
    /// Where its memory lay.
    pub places: &'a [(String, HostRange)],
}

/// A story in words.
pub struct Rows {
    /// Names of the actors, a column each.
    pub actors: Vec<&'static str>,
    /// What they did.
    pub rows: Vec<Row>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Column of the actor.
    pub column: usize,
    /// The scheduling point.
    pub step: u64,
    /// What.
    pub text: String,
    /// Lines of one kind are counted rather than told again and again: the kernel's function that they stand for.
    pub function: &'static str,
}

impl Row {
    /// Whether the device noticed it.
    pub fn is_noticed(&self) -> bool {
        self.function == NOTICED
    }

    /// What happened, and where in the kernel.
    fn sentence(&self) -> String {
        if self.function.is_empty() || self.is_noticed() {
            return self.text.clone();
        }
        format!("{} ({})", self.text, self.function)
    }
}

/// Puts a story into words.
pub fn rows(names: &Names<'_>, lines: &[Line]) -> Rows {
    let told = |line: &Line| names.words(&line.told).map(|(text, function)| (line.clone(), text, function));
    let told: Vec<(Line, String, &'static str)> = lines.iter().filter_map(told).collect();
    let mut actors: Vec<(u32, &'static str)> =
        told.iter().map(|(line, ..)| (line.here.serial, line.here.name)).collect();
    actors.sort_unstable();
    actors.dedup();
    let column = |serial| actors.iter().position(|(known, _)| *known == serial);
    let (mut rows, mut known): (Vec<Row>, Vec<(u32, Vec<&'static str>)>) = (Vec::new(), Vec::new());
    let mut own = Own::default();
    for (line, mut text, function) in told {
        let step = line.here.step;
        known.retain(|(serial, _)| *serial != line.here.serial);
        if function != NOTICED && !function.is_empty() {
            text += &own.holding(&line);
        }
        for (serial, locks) in line.held.into_iter().filter(|(serial, _)| *serial != line.here.serial) {
            let Some(column) = column(serial).filter(|_| !known.contains(&(serial, locks.clone()))) else { continue };
            let text = format!("is stopped and holds {}", locks.join(", "));
            rows.push(Row { column, step, text, function: "" });
            known.retain(|(other, _)| *other != serial);
            known.push((serial, locks));
        }
        rows.push(Row { column: column(line.here.serial).unwrap_or(0), step, text, function });
    }
    let name = |name| if name == "root" { "main thread" } else { name };
    Rows { actors: actors.into_iter().map(|(_, actor)| name(actor)).collect(), rows }
}

/// Which locks each actor held when it did something last, by its number.
#[derive(Default)]
struct Own(BTreeMap<u32, Vec<&'static str>>);

impl Own {
    /// What the actor of a line holds, in words; nothing where that is what it held before.
    fn holding(&mut self, line: &Line) -> String {
        let serial = line.here.serial;
        let held =
            line.held.iter().find(|(other, _)| *other == serial).map_or_else(Vec::new, |(_, locks)| locks.clone());
        let told = if held.is_empty() { "no lock".into() } else { held.join(", ") };
        let is_new = self.0.insert(serial, held.clone()).unwrap_or_default() != held;
        if is_new { format!(", holding {told}") } else { String::new() }
    }
}

/// The story as lines of text.
pub fn tell(told: &Rows) -> Vec<String> {
    let mut out = header(&told.actors);
    let alike = |a: &Row, b: &Row| a.column == b.column && a.function == b.function && !a.function.is_empty();
    for group in told.rows.chunk_by(alike) {
        let lay = |text: &str| laid_out(told.actors.len(), group[0].column, text);
        let shown = if group.len() > TOLD + 1 { TOLD } else { group.len() };
        out.extend(group[..shown].iter().flat_map(|row| lay(&row.sentence())));
        if shown < group.len() {
            out.extend(lay(&format!("... and {} more of these", group.len() - shown)));
        }
    }
    out
}

fn letter(n: usize) -> char {
    (b'a' + (n % 26) as u8) as char
}

fn header(actors: &[&'static str]) -> Vec<String> {
    let mut out = Vec::new();
    let mut line = String::new();
    for (n, name) in actors.iter().enumerate() {
        let item = format!("{} {name}", letter(n));
        if !line.is_empty() && line.len() + item.len() + 3 > WIDTH {
            out.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push_str("   ");
        }
        line.push_str(&item);
    }
    out.extend([line, String::new()]);
    out
}

/// One line: a mark in the actor's column, then the text, wrapped.
fn laid_out(actors: usize, column: usize, text: &str) -> Vec<String> {
    let gutter: String = (0..actors).flat_map(|n| [if n == column { letter(n) } else { '.' }, ' ']).collect();
    let blank: String = (0..actors).flat_map(|_| ['.', ' ']).collect();
    let lead = |n: usize| if n == 0 { gutter.as_str() } else { blank.as_str() };
    let rows = fill(text, WIDTH.saturating_sub(gutter.len() + 1).max(20));
    rows.iter().enumerate().map(|(n, row)| format!("{} {row}", lead(n)).trim_end().to_owned()).collect()
}

/// A text in lines of a mail; all but the first begin with `indent`.
pub fn wrap(text: &str, indent: &str) -> Vec<String> {
    let rows = fill(text, WIDTH - indent.len());
    rows.iter().enumerate().map(|(n, row)| if n == 0 { row.clone() } else { format!("{indent}{row}") }).collect()
}

fn fill(text: &str, room: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in text.split_whitespace() {
        let line = rows.last_mut().filter(|line| line.is_empty() || line.len() + 1 + word.len() <= room);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => rows.push(word.to_owned()),
        }
    }
    rows
}
