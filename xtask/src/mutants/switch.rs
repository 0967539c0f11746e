//! All mistakes in one build: a function that has some is there once as it is and once with each, and a number says which runs.
//!
//! `if units::mutant(7) { BODY WITH THE MISTAKE } else { BODY }`: so the copy is built once, and a mutant is a variable of the
//! environment, read when the search begins. What is no such function (one that gives an `impl Trait`, a table of functions) is
//! built by itself.

use super::Mutant;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// The variable.
pub const VARIABLE: &str = "MUTANT";
/// Where the number is kept: a crate that all others see.
const UNITS: &str = "crates/units/src/lib.rs";
const SWITCH: &str = "
static MUTANT: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(usize::MAX);
pub fn mutant(number: usize) -> bool { MUTANT.load(core::sync::atomic::Ordering::Relaxed) == number }
pub fn set_mutant(number: usize) { MUTANT.store(number, core::sync::atomic::Ordering::Relaxed) }
";
/// Who sets it.
const SEARCH: &str = "crates/check/examples/mutant.rs";

/// Puts all mistakes that can be switched into the copy at `tree`; the others, by their number in the list.
pub fn plant(root: &Path, tree: &Path, mutants: &[Mutant]) -> Result<Vec<usize>> {
    let mut files: BTreeMap<&str, Vec<(usize, &Mutant)>> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate() {
        files.entry(&mutant.file).or_default().push((number, mutant));
    }
    let mut left = Vec::new();
    for (file, planted) in files {
        let text = fs::read_to_string(root.join(file))?;
        put(tree, file, &switched(&text, &planted, &mut left))?;
    }
    put(tree, UNITS, &(fs::read_to_string(root.join(UNITS))? + SWITCH))?;
    let search = fs::read_to_string(root.join(SEARCH))?;
    let set = format!("std::env::var(\"{VARIABLE}\").ok().and_then(|n| n.parse().ok()).map(units::set_mutant);");
    let (head, body) = search.split_once("fn main() {").context("the search has no main")?;
    put(tree, SEARCH, &format!("{head}fn main() {{ {set}{body}"))?;
    Ok(left)
}

fn put(tree: &Path, file: &str, text: &str) -> Result<()> {
    let place = tree.join(file);
    if fs::read_to_string(&place).ok().as_deref() != Some(text) {
        fs::write(place, text)?;
    }
    Ok(())
}

/// A mistake in a function: its number, where its text stands, and what takes its place.
type Mistake<'m> = (usize, Range<usize>, &'m str);

/// A file with its mistakes behind their numbers.
fn switched(text: &str, planted: &[(usize, &Mutant)], left: &mut Vec<usize>) -> String {
    let functions = functions(text);
    let mut by_function: BTreeMap<usize, Vec<Mistake<'_>>> = BTreeMap::new();
    for (number, mutant) in planted {
        let at = text.find(&mutant.old).unwrap_or(0);
        let place = at..at + mutant.old.len();
        let around = functions.iter().enumerate().filter(|(_, function)| function.encloses(&place));
        match around.max_by_key(|(_, function)| function.body.start) {
            Some((index, function)) if !function.gives_impl(text) => {
                by_function.entry(index).or_default().push((*number, place, &mutant.new));
            }
            _ => left.push(*number),
        }
    }
    let mut out = text.to_owned();
    for (index, mistakes) in by_function.iter().rev() {
        let Function { name, body } = &functions[*index];
        let mut branches = String::new();
        for (number, place, new) in mistakes {
            let (before, after) = (&text[body.start..place.start], &text[place.end..body.end]);
            branches += &format!("if units::mutant({number}) {{{before}{new}{after}}} else ");
        }
        out.replace_range(body.clone(), &format!("\n{branches}{{{}}}\n", &text[body.clone()]));
        // What asks for a number is no constant.
        let line = text[..*name].rfind('\n').map_or(0, |at| at + 1);
        if let Some(at) = text[line..*name].find("const ") {
            out.replace_range(line + at..line + at + "const ".len(), "");
        }
    }
    // A function around one that has mistakes too was written over it.
    let is_lost = |number: &usize| !out.contains(&format!("units::mutant({number})")) && !left.contains(number);
    let lost: Vec<usize> = planted.iter().map(|(number, _)| *number).filter(is_lost).collect();
    left.extend(lost);
    out
}

/// A function with a body.
struct Function {
    /// Where its `fn` stands.
    name: usize,
    /// What is between its braces.
    body: Range<usize>,
}

impl Function {
    fn encloses(&self, place: &Range<usize>) -> bool {
        self.body.start <= place.start && place.end <= self.body.end
    }

    /// The branches would be of different types.
    fn gives_impl(&self, text: &str) -> bool {
        text[self.name..self.body.start].rsplit_once("->").is_some_and(|(_, gives)| gives.contains("impl "))
    }
}

/// The functions of a file, by where they begin.
fn functions(text: &str) -> Vec<Function> {
    let code = code(text);
    let mut found = Vec::new();
    for (name, _) in code.match_indices("fn ").filter(|(at, _)| code[..*at].ends_with([' ', '\n', '('])) {
        let mut depth = 0;
        let open = code[name..].bytes().position(|byte| {
            depth += i32::from(matches!(byte, b'(' | b'[')) - i32::from(matches!(byte, b')' | b']'));
            depth == 0 && matches!(byte, b'{' | b';')
        });
        let Some(open) = open.map(|at| name + at).filter(|at| code.as_bytes()[*at] == b'{') else { continue };
        let mut depth = 0;
        let close = code[open..].bytes().position(|byte| {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            depth == 0
        });
        found.extend(close.map(|close| Function { name, body: open + 1..open + close }));
    }
    found
}

/// The text with blanks in the place of comments and of what is quoted.
fn code(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while at < out.len() {
        let rest = &text.as_bytes()[at..];
        let len = match rest {
            [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'"', ..] => quoted(rest, b'"'),
            [b'\'', b'\\', ..] => quoted(rest, b'\''),
            [b'\'', _, b'\'', ..] => 3,
            _ => 0,
        };
        out[at..at + len].fill(b' ');
        at += len.max(1);
    }
    // Every byte that is left of a longer character is one of a name, which nobody looks at.
    out.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b' ');
    String::from_utf8(out).unwrap_or_default()
}

/// Length of what is quoted, with both quotes.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_there_once_with_each_mistake_and_once_without() {
        let text = "/// fn in { a comment\nconst fn one(x: [u8; 2]) -> bool {\n    f(\"}\") && g('{')\n}\n\
                    fn two() -> impl Iterator {\n    three()\n}\n";
        let mutant = |old: &str, new: &str| {
            let section = format!("a/b\nfile f\nwhat w\n---\n{old}\n+++\n{new}\n");
            super::super::section(&section).unwrap()
        };
        let (and, or, iter) = (mutant("&& g", "|| g"), mutant("f(\"", "!f(\""), mutant("three", "four"));
        let mut left = Vec::new();
        let out = switched(text, &[(4, &and), (5, &or), (6, &iter)], &mut left);
        assert_eq!(left, [6]);
        let expected = "/// fn in { a comment\nfn one(x: [u8; 2]) -> bool {\nif units::mutant(4) {\n    f(\"}\") || g('{')\n} \
                        else if units::mutant(5) {\n    !f(\"}\") && g('{')\n} else {\n    f(\"}\") && g('{')\n}\n}\n\
                        fn two() -> impl Iterator {\n    three()\n}\n";
        assert_eq!(out, expected);
    }
}
