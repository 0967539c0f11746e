//! What the process' memory promises an engine, as one table of small cases: notices, areas, migrations, walks, faults of the CPU. It
//! is played on the tree's own files, under the glue, and on a model of them (`crates/kernel/tests/memory.rs`); both must give the
//! answers that stand there, line by line.
//!
//! A case is a name, and steps with what each answers, told in the order in which it comes. What is so after a step (pages, which
//! may be written, areas) is told where it changed. Pages are numbers in [`BLOCK`]; nothing is mapped at first.
//!
//! Key types: [`Case`], [`Step`]; [`Answers`], which a player fills.

use crate::acts::BLOCK;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use units::SZ_4K;

const TABLE: &str = include_str!("../cases/memory.txt");

/// What is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Its steps, each with its answers.
    pub steps: Vec<(Step, Vec<String>)>,
}

/// A step, as it stands in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub what: What,
    /// Pages that it is done to.
    pub pages: Range<u8>,
    /// VRAM that it is about; of a walk: of which owner its pages are shown.
    pub vram: Option<u8>,
    /// Words behind it.
    words: Vec<String>,
    text: String,
}

/// What a step does. In the order of `KFACE_DO_*` in `c/kface.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// mmap: private, anonymous, readable and writable.
    Map,
    /// munmap.
    Unmap,
    /// mprotect, `ro` or `rw`.
    Protect,
    /// madvise, MADV_DONTNEED.
    DontNeed,
    /// A CPU `reads` or `writes` the word at the start of a page; what is written is the step's number.
    Cpu,
    /// A page is pinned.
    Pin,
    /// The pin ends.
    Unpin,
    /// A migration to VRAM, from its begin to its end.
    Migrate,
    /// A migration to VRAM begins: what it collects is copied.
    Begin,
    /// Somebody holds a page that is in the migration, until that ends.
    Hold,
    /// The pages of the migration change places.
    Commit,
    /// The migration ends.
    End,
    /// A migration back, of what a range has in VRAM of the first owner.
    Back,
    /// All pages of a VRAM go to system memory, by page.
    Evict,
    /// A sequence is read.
    Look,
    /// A look at pages: `fault`, `write`; `since`: by the sequence that was read, and once only.
    Walk,
}

const WORDS: &[(&str, What)] = &[
    ("map", What::Map),
    ("unmap", What::Unmap),
    ("protect", What::Protect),
    ("dontneed", What::DontNeed),
    ("cpu", What::Cpu),
    ("pin", What::Pin),
    ("unpin", What::Unpin),
    ("migrate", What::Migrate),
    ("begin", What::Begin),
    ("hold", What::Hold),
    ("commit", What::Commit),
    ("end", What::End),
    ("back", What::Back),
    ("evict", What::Evict),
    ("look", What::Look),
    ("walk", What::Walk),
];

impl Step {
    /// Reads one.
    fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let (_, what) = WORDS.iter().find(|(word, _)| words.first() == Some(word))?;
        let span = |word: &&str| {
            let (first, end) = word.split_once("..")?;
            Some(first.parse().ok()?..end.parse().ok()?)
        };
        let page = |word: &&str| word.parse().ok().map(|page: u8| page..page + 1);
        let pages = words.iter().find_map(span).or_else(|| words.iter().find_map(page)).unwrap_or_default();
        let vram = words.iter().find_map(|word| word.strip_prefix("vram")?.parse().ok());
        let words = words.into_iter().map(str::to_owned).collect();
        Some(Self { what: *what, pages, vram, words, text: text.to_owned() })
    }

    /// Whether a word stands in it.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|have| have == word)
    }

    /// Whether it writes, or may write afterwards.
    pub fn writes(&self) -> bool {
        ["rw", "writes", "write"].iter().any(|word| self.has(word))
    }
}

/// The table.
///
/// # Panics
/// Where it is no table.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let depth = line.len() - line.trim_start().len();
        match (depth, cases.last_mut()) {
            (0, _) => cases.push(Case { name: line.to_owned(), steps: Vec::new() }),
            (2, Some(case)) => {
                let step = Step::read(line.trim_start()).unwrap_or_else(|| panic!("no step: {line}"));
                case.steps.push((step, Vec::new()));
            }
            (4, Some(Case { steps, .. })) if !steps.is_empty() => {
                steps.last_mut().expect("one").1.push(line.trim_start().to_owned());
            }
            _ => panic!("neither case nor step nor answer: {line}"),
        }
    }
    cases
}

/// How a page is, after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// A letter: `.` nothing, `r` system memory, `m` one that moves, or the number of a VRAM.
    pub place: char,
    /// Whether a store needs no fault, but for where it is.
    pub write: bool,
}

/// What one who plays a case has to say.
#[derive(Default, Debug)]
pub struct Answers {
    /// Of the step that is under way.
    now: Vec<String>,
    freed: BTreeSet<(u8, u8)>,
    state: [String; 3],
}

/// A range of addresses, in pages of the block.
pub fn span(start: u64, end: u64) -> String {
    let page = |addr: u64| (addr as i64 - BLOCK as i64) / SZ_4K as i64;
    format!("{}..{}", page(start), page(end))
}

/// Numbers as runs.
fn runs(numbers: impl Iterator<Item = u8>) -> String {
    let mut runs: Vec<Range<u8>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    let texts: Vec<_> = runs.iter().map(|run| format!("{}..{}", run.start, run.end)).collect();
    texts.join(", ")
}

impl Answers {
    /// Something is answered.
    pub fn say(&mut self, text: impl Into<String>) {
        self.now.push(text.into());
    }

    /// Notifiers are told; of a change that is no migration, how the pages are at that moment.
    pub fn noticed(&mut self, kind: &str, start: u64, end: u64, places: &str) {
        let mut text = format!("notice {kind} {}", span(start, end));
        if kind != "migrate" {
            let _ = write!(text, " of {places}");
        }
        self.say(text);
    }

    /// A page of VRAM was freed.
    pub fn freed(&mut self, vram: u8, page: u8) {
        self.freed.insert((vram, page));
    }

    /// The step is over; how pages and areas are now: start, end, whether they may be written.
    pub fn end(&mut self, pages: &[Page], areas: &[(u64, u64, bool)]) -> Vec<String> {
        for vram in 0..3 {
            let pages = runs(self.freed.iter().filter(|(of, _)| *of == vram).map(|(_, page)| *page));
            if !pages.is_empty() {
                self.say(format!("frees {pages} of vram{vram}"));
            }
        }
        self.freed.clear();
        let rights = |write| if write { "rw" } else { "ro" };
        let areas = areas.iter().map(|(start, end, write)| format!("{} {}", span(*start, *end), rights(*write)));
        let state = [
            pages.iter().map(|page| page.place).collect(),
            runs((0..).zip(pages).filter(|(_, page)| page.write).map(|(page, _)| page)),
            areas.collect::<Vec<_>>().join(", "),
        ];
        let was = std::mem::replace(&mut self.state, state);
        for (at, what) in ["pages", "writable", "areas"].into_iter().enumerate() {
            let is_first = was[at].is_empty() && self.state[at].chars().all(|letter| letter == '.');
            if was[at] != self.state[at] && !is_first {
                self.say(format!("{what} {}", self.state[at]).trim_end().to_owned());
            }
        }
        std::mem::take(&mut self.now)
    }
}

/// What a player said otherwise than a case has it; empty where it keeps the case.
pub fn differences(case: &Case, said: &[Vec<String>]) -> Vec<String> {
    let steps = case.steps.iter().enumerate();
    let differ = steps.filter(|(at, (_, promised))| said.get(*at) != Some(promised));
    differ
        .map(|(at, (step, promised))| {
            let said = said.get(at).map_or("nothing".to_owned(), |said| said.join("; "));
            format!("{} [{at}] {}: promised: {}, said: {said}", case.name, step.text, promised.join("; "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acts::PAGES;

    #[test]
    fn the_table_can_be_read_and_no_name_stands_twice() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.iter().all(|case| !case.steps.is_empty()));
        let pages = cases.iter().flat_map(|case| &case.steps).map(|(step, _)| &step.pages);
        assert!(pages.clone().all(|pages| pages.start <= pages.end && u64::from(pages.end) <= PAGES));
    }

    #[test]
    fn a_step_is_read_and_what_is_none_is_not() {
        let step = Step::read("walk 2..6 of vram0 fault write").expect("a step");
        assert_eq!((step.what, step.pages.clone(), step.vram), (What::Walk, 2..6, Some(0)));
        assert!(step.writes() && step.has("fault") && !step.has("since"));
        assert_eq!(Step::read("cpu reads 3").expect("a step").pages, 3..4);
        assert_eq!(Step::read("jump 3"), None);
    }

    #[test]
    fn a_state_is_told_where_it_changed() {
        let mut answers = Answers::default();
        let page = |place, write| Page { place, write };
        let none = [page('.', false), page('.', false)];
        assert!(answers.end(&none, &[]).is_empty());
        answers.freed(0, 2);
        answers.freed(0, 1);
        let said = answers.end(&[page('r', true), page('1', true)], &[(BLOCK, BLOCK + 2 * SZ_4K, true)]);
        assert_eq!(said, ["frees 1..3 of vram0", "pages r1", "writable 0..2", "areas 0..2 rw"]);
        assert!(answers.end(&[page('r', true), page('1', true)], &[(BLOCK, BLOCK + 2 * SZ_4K, true)]).is_empty());
    }

    #[test]
    fn what_was_said_otherwise_is_told_with_its_step() {
        let step = Step::read("map 0..2").expect("a step");
        let case = Case { name: "a case".to_owned(), steps: vec![(step, vec!["areas 0..2 rw".to_owned()])] };
        assert!(differences(&case, &[vec!["areas 0..2 rw".to_owned()]]).is_empty());
        let wrong = differences(&case, &[vec!["areas 0..1 rw".to_owned()]]);
        assert_eq!(wrong, ["a case [0] map 0..2: promised: areas 0..2 rw, said: areas 0..1 rw"]);
        assert_eq!(differences(&case, &[]).len(), 1);
    }
}
