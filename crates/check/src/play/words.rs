//! What the words of a scene's memory must hold.
//!
//! Every page has a word for each writer (an agent in a thread), which only that writer writes, and a counter that all may add
//! to. A writer numbers its steps, and leaves the step's number in its words: so of every word that is read, by whomever and
//! whenever, it is known whether it may hold what it does.
//!
//! A [`Model`] is what is known between two phases. A thread of a phase works on a [`View`]: the model of the phase's
//! beginning and what it did itself since. When the phase is over, all views are folded into the next model.

use crate::script::Piece;
use std::collections::{BTreeMap, BTreeSet};

/// A page by its place in its mapping.
pub(super) type Page = (Piece, usize);
/// Numbers of a writer's steps fit in these bits of a mark.
const SEQ_BITS: u32 = 18;
/// Pages of a piece likewise.
const PAGE_BITS: u32 = 10;

/// What a writer leaves in its word with its step of number `seq`: never 0, and different for each step.
pub(super) const fn mark(writer: usize, page: usize, seq: u32) -> u32 {
    (writer as u32 + 1) << (SEQ_BITS + PAGE_BITS) | (page as u32) << SEQ_BITS | seq
}

/// The number of the step in a mark.
pub(super) const fn step_of(mark: u64) -> u32 {
    (mark & ((1 << SEQ_BITS) - 1)) as u32
}

/// In the place of the last step that may have left a word: any later one, in whatever page it was when it was written.
const OPEN: u32 = (1 << SEQ_BITS) - 1;

/// The number of the step that left a value in that writer's word; none where it is no such value.
fn seq_of(writer: usize, page: usize, value: u64) -> Option<u32> {
    let seq = step_of(value);
    (value == u64::from(mark(writer, page, seq))).then_some(seq)
}

/// The same, whatever page the word was written to.
fn seq_in_any_page(writer: usize, value: u64) -> Option<u32> {
    let page = value >> SEQ_BITS & ((1 << PAGE_BITS) - 1);
    seq_of(writer, page as usize, value)
}

/// What is known of a word: a step of `low` to `high` left it, or it is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// 0: nobody wrote it, or it was emptied since.
    pub low: u32,
    pub high: u32,
    /// It may be 0 in any case.
    pub zero: bool,
    /// Pages that it moved down since it was written: a mark has the number of the page that it was written to.
    pub moved: isize,
}

impl Word {
    /// A word that is as one or the other of these.
    fn or(self, other: Self) -> Self {
        let (low, zero) = (self.low.min(other.low), self.zero || other.zero);
        let high = if self.moved == other.moved { self.high.max(other.high) } else { OPEN };
        Self { low, high, zero, moved: self.moved }
    }

    /// The last step that is known to have left it, else the first one that may have.
    fn step(self) -> u32 {
        if self.high == OPEN { self.low } else { self.high }
    }
}

/// What is known of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub low: u64,
    pub high: u64,
}

/// What is known between two phases.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    words: BTreeMap<(Page, usize), Word>,
    counts: BTreeMap<Page, Count>,
    /// Pages that are not mapped.
    gone: BTreeSet<Page>,
}

/// Pages that threads of a phase take away, found in the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// By thread of the phase: they may be empty afterwards.
    pub emptied: Vec<BTreeSet<Page>>,
    /// They are not mapped afterwards.
    pub gone: BTreeSet<Page>,
    /// By thread of the phase: pages that it changes in whatever way.
    pub touched: Vec<BTreeSet<Page>>,
    /// By thread of the phase, where any of them moves pages: words that it writes.
    pub written: Vec<BTreeSet<(Page, usize)>>,
}

impl Changes {
    fn all(&self) -> BTreeSet<Page> {
        self.emptied.iter().flatten().copied().collect()
    }

    fn by_others<T: Copy + Ord>(of: &[BTreeSet<T>], thread: usize) -> BTreeSet<T> {
        let others = of.iter().enumerate().filter(|(other, _)| *other != thread);
        others.flat_map(|(_, all)| all).copied().collect()
    }
}

/// A word that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub page: Page,
    /// Whose word; none for the counter.
    pub writer: Option<usize>,
    pub expected: u64,
    pub found: u64,
}

/// What one thread knows.
#[derive(Clone, Debug)]
pub(super) struct View<'m> {
    before: &'m Model,
    known: Known,
}

/// What a thread did itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Whether no other threads work at the same time.
    alone: bool,
    words: BTreeMap<(Page, usize), Word>,
    counts: BTreeMap<Page, Count>,
    /// Pages that other threads may empty.
    shared: BTreeSet<Page>,
    /// Pages that other threads change in whatever way.
    touched: BTreeSet<Page>,
    /// Words that other threads write, where any thread moves pages.
    written: BTreeSet<(Page, usize)>,
    /// Pages that this thread emptied.
    emptied: BTreeSet<Page>,
    gone: BTreeSet<Page>,
}

impl Model {
    /// What the main thread knows when it begins alone.
    pub fn view(&self) -> View<'_> {
        View { before: self, known: Known { alone: true, gone: self.gone.clone(), ..Known::default() } }
    }

    /// What a thread knows that begins beside others: that of this position in the phase.
    pub fn view_of(&self, changes: &Changes, position: usize) -> View<'_> {
        let by_others = |of: &[BTreeSet<Page>]| Changes::by_others(of, position);
        let (shared, touched, gone) = (by_others(&changes.emptied), by_others(&changes.touched), self.gone.clone());
        let written = Changes::by_others(&changes.written, position);
        View { before: self, known: Known { shared, touched, written, gone, ..Known::default() } }
    }

    fn known(&self) -> impl Iterator<Item = Page> + '_ {
        self.words.keys().map(|(page, _)| *page).chain(self.counts.keys().copied())
    }

    /// The next model, after steps of the main thread alone.
    pub fn after_alone(&self, known: Known) -> Self {
        let mut next = Self { gone: known.gone, ..self.clone() };
        next.words.extend(known.words);
        next.counts.extend(known.counts);
        next
    }

    /// The next model, after threads that ran beside each other.
    pub fn after(&self, changes: &Changes, all: Vec<Known>) -> Self {
        let mut next = self.clone();
        let emptied = changes.all();
        for (_, word) in next.words.iter_mut().filter(|((page, _), _)| emptied.contains(page)) {
            word.zero = true;
        }
        for (page, count) in &mut next.counts {
            count.low = if emptied.contains(page) { 0 } else { count.low };
        }
        next.gone.retain(|page| !emptied.contains(page));
        let mut words = BTreeMap::new();
        for known in all {
            for ((page, writer), mut word) in known.words {
                word.zero |= known.shared.contains(&page);
                words.entry((page, writer)).and_modify(|other: &mut Word| *other = other.or(word)).or_insert(word);
            }
            for (page, count) in known.counts {
                let sum = next.counts.entry(page).or_default();
                sum.low += if known.shared.contains(&page) { 0 } else { count.low };
                sum.high = sum.high.saturating_add(count.high);
            }
        }
        next.words.extend(words);
        next.gone.extend(changes.gone.iter().copied());
        next
    }
}

impl View<'_> {
    /// What this thread did.
    pub fn into_known(self) -> Known {
        self.known
    }

    /// Whether nobody else changes a page as long as this thread runs.
    fn is_alone_at(&self, page: Page) -> bool {
        self.known.alone || !self.known.touched.contains(&page)
    }

    fn word(&self, page: Page, writer: usize) -> Word {
        let own = self.known.words.get(&(page, writer));
        own.or_else(|| self.before.words.get(&(page, writer))).copied().unwrap_or_default()
    }

    /// A step of this thread wrote the word of `writer`; perhaps only, where its end is not known.
    pub fn wrote(&mut self, page: Page, writer: usize, seq: u32, surely: bool) {
        let low = if surely { seq } else { self.word(page, writer).low };
        self.known
            .words
            .insert((page, writer), Word { low, high: seq, zero: !surely && self.word(page, writer).zero, moved: 0 });
    }

    /// A step of this thread added to the counter.
    pub fn added(&mut self, page: Page, surely: bool) {
        let base = if self.known.alone { self.count(page) } else { Count::default() };
        let count = self.known.counts.entry(page).or_insert(base);
        count.high = count.high.saturating_add(1);
        count.low += u64::from(surely);
    }

    /// This thread emptied the page; it may come later where `lazily`.
    pub fn emptied(&mut self, page: Page, lazily: bool) {
        for writer in self.known_writers(page) {
            let word = self.word(page, writer);
            let is_own = self.is_alone_at(page) || self.known.words.contains_key(&(page, writer));
            if is_own {
                let perhaps = lazily || word.low != word.high;
                let word = if perhaps { Word { zero: true, ..word } } else { Word::default() };
                self.known.words.insert((page, writer), word);
            }
        }
        let count = self.count(page);
        self.known
            .counts
            .insert(page, Count { low: 0, high: if lazily || !self.is_alone_at(page) { count.high } else { 0 } });
        self.known.emptied.insert(page);
    }

    /// This thread unmapped the page.
    pub fn unmapped(&mut self, page: Page) {
        self.emptied(page, false);
        self.known.gone.insert(page);
    }

    /// This thread mapped the page anew: what it writes there since is its own.
    pub fn mapped(&mut self, page: Page) {
        self.known.gone.remove(&page);
        self.known.shared.remove(&page);
        self.known.emptied.insert(page);
    }

    /// This thread moved a page. What others write to it beside that went along, or stayed behind.
    pub fn moved(&mut self, from: Page, to: Page) {
        let may_be_empty = self.known.shared.contains(&from) || self.may_be_empty(from);
        for writer in self.known_writers(to) {
            self.known.words.insert((to, writer), Word::default());
        }
        for writer in self.known_writers(from) {
            let word = self.word(from, writer);
            let high = if self.known.written.contains(&(from, writer)) { OPEN } else { word.high };
            let moved = word.moved + from.1 as isize - to.1 as isize;
            self.known.words.insert((to, writer), Word { high, zero: word.zero || may_be_empty, moved, ..word });
        }
        let count = self.count(from);
        let high = if self.is_alone_at(from) { count.high } else { u64::MAX };
        self.known.counts.insert(to, Count { low: if may_be_empty { 0 } else { count.low }, high });
        self.known.gone.remove(&to);
    }

    fn known_writers(&self, page: Page) -> Vec<usize> {
        let all = self.before.words.keys().chain(self.known.words.keys()).chain(&self.known.written);
        let writers: BTreeSet<usize> = all.filter(|(at, _)| *at == page).map(|(_, writer)| *writer).collect();
        writers.into_iter().collect()
    }

    /// Pages of which something is known, but for those that are not mapped or may go.
    pub fn pages(&self) -> BTreeSet<Page> {
        let own = self.known.words.keys().map(|(page, _)| *page).chain(self.known.counts.keys().copied());
        let all = self.before.known().chain(own);
        all.filter(|page| !self.known.gone.contains(page) && !self.known.shared.contains(page)).collect()
    }

    /// What is known of the counter but for what others do beside this thread.
    fn count(&self, page: Page) -> Count {
        let own = self.known.counts.get(&page).copied();
        let before = self.before.counts.get(&page).copied().unwrap_or_default();
        match own {
            None => before,
            Some(own) if self.known.alone => own,
            Some(own) if self.known.emptied.contains(&page) => own,
            Some(own) => Count { low: before.low + own.low, high: before.high.saturating_add(own.high) },
        }
    }

    /// Whether other threads may take a page away.
    pub fn others_take(&self, page: Page) -> bool {
        self.known.shared.contains(&page)
    }

    /// Whether others may write what this thread reads.
    fn may_be_empty(&self, page: Page) -> bool {
        !self.is_alone_at(page) && (self.known.shared.contains(&page) || self.known.emptied.contains(&page))
    }

    /// Whether a value may be in that writer's word now; what should be there where it may not. `own`: the writer is an agent
    /// of this thread.
    pub fn judge_word(&self, page: Page, writer: usize, own: bool, found: u64) -> Option<Wrong> {
        let word = self.word(page, writer);
        let zero = word.zero || word.low == 0 || self.may_be_empty(page);
        let high = if own || self.is_alone_at(page) { word.high } else { u32::MAX };
        let written = page.1.saturating_add_signed(word.moved);
        let seq = if word.high == OPEN { seq_in_any_page(writer, found) } else { seq_of(writer, written, found) };
        let fits = match seq {
            Some(seq) => (word.low.max(1)..=high).contains(&seq),
            None => found == 0 && zero,
        };
        let expected = if word.step() == 0 { 0 } else { mark(writer, written, word.step()).into() };
        (!fits).then_some(Wrong { page, writer: Some(writer), expected, found })
    }

    /// The same for the counter.
    pub fn judge_count(&self, page: Page, found: u64) -> Option<Wrong> {
        let count = self.count(page);
        let low = if self.may_be_empty(page) { 0 } else { count.low };
        let high = if self.is_alone_at(page) { count.high } else { u64::MAX };
        (!(low..=high).contains(&found)).then_some(Wrong { page, writer: None, expected: low, found })
    }
}
