//! What can be seen of an engine while it does [`acts`](crate::acts), in words that are the same for every engine: after each act
//! what the kernel was told, what was flushed, copied and mapped, and then where pages are, which ranges there are, and which leaves.
//!
//! Key types: [`Stream`], which takes what is seen in any order within an act and puts it into one.

use crate::acts::{Act, BLOCK, PAGES};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use units::SZ_4K;
use xe_hw::Translation;

/// What an event is about: those of an act are told in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A fault was answered.
    Answer,
    /// Notifiers were told.
    Notice,
    /// Translations were flushed.
    Flush,
    /// A copy engine copied pages.
    Copy,
    /// An engine wrote, or read, where no mapping is.
    Stray,
}

/// A line, and where in the engine's code it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What, in words that engines are compared by.
    pub text: String,
    /// File and line, or an address.
    pub at: String,
}

/// A range of the mirror.
#[derive(Clone, Copy, Debug)]
pub struct RangeState {
    /// First address.
    pub start: u64,
    /// Behind the last.
    pub end: u64,
    /// Tiles that translate it, a bit each.
    pub tiles: u8,
    /// Its mapping is gone, at least in part.
    pub unmapped: bool,
    /// Its pages are mapped for the device.
    pub mapped: bool,
}

/// All that has been seen.
#[derive(Default)]
pub struct Stream {
    lines: Vec<Line>,
    /// Of the act that is under way.
    seen: Vec<(Kind, Line)>,
    /// Pages that each tile translated before it, a bit each.
    translated: BTreeMap<u8, u64>,
    /// Of these, those that it flushed, and where the first time.
    flushed: BTreeMap<u8, (u64, String)>,
    /// Bytes that each tile wrote, or read, where no mapping is.
    strayed: BTreeMap<(u8, bool), u64>,
}

/// Pages of the block that an address range has; `None` where it has none.
pub fn pages(start: u64, end: u64) -> Option<Range<u64>> {
    let (start, end) = (start.max(BLOCK), end.min(BLOCK + PAGES * SZ_4K));
    (start < end).then(|| (start - BLOCK) / SZ_4K..(end - BLOCK).div_ceil(SZ_4K))
}

/// A bit for each page.
fn bits(pages: &Range<u64>) -> u64 {
    pages.clone().map(|page| 1 << page).sum()
}

/// What a place in VRAM is called: by its tile, which has the highest base below.
pub fn owner(bases: impl Iterator<Item = u64>, dpa: u64) -> String {
    let below = bases.enumerate().filter(|(_, base)| *base <= dpa).max_by_key(|(_, base)| *base);
    below.map_or_else(|| "nowhere".to_owned(), |(tile, _)| format!("vram{tile}"))
}

impl Stream {
    /// Something happened.
    pub fn saw(&mut self, kind: Kind, text: String, at: String) {
        self.seen.push((kind, Line { text, at }));
    }

    /// A fault, or an access, was answered by an errno or 0.
    pub fn answered(&mut self, errno: i64, at: String) {
        self.saw(Kind::Answer, format!("answer {errno}"), at);
    }

    /// Notifiers were told of a change there.
    pub fn noticed(&mut self, kind: &str, start: u64, end: u64, at: String) {
        if let Some(pages) = pages(start, end) {
            self.saw(Kind::Notice, format!("notice {kind} {}..{}", pages.start, pages.end), at);
        }
    }

    /// Translations of a tile were flushed. It counts once an act, and for pages that had a leaf before: how much more an engine
    /// flushes is its own affair.
    pub fn flushed(&mut self, tile: u8, start: u64, end: u64, at: String) {
        let Some(pages) = pages(start, end) else { return };
        let mattered = bits(&pages) & self.translated.get(&tile).copied().unwrap_or(0);
        if mattered != 0 {
            self.flushed.entry(tile).or_insert((0, at)).0 |= mattered;
        }
    }

    /// The copy engine of a tile carried pages.
    pub fn copied(&mut self, tile: u8, from: &str, to: &str, count: u64, at: String) {
        self.saw(Kind::Copy, format!("tile {} copies {count} pages from {from} to {to}", tile), at);
    }

    /// A tile wrote, or read, bytes where no mapping covers a bus address: they are nowhere, and no copy.
    pub fn strayed(&mut self, tile: u8, write: bool, bytes: u64) {
        *self.strayed.entry((tile, write)).or_default() += bytes;
    }

    /// An act is over.
    pub fn act(&mut self, act: Act, value: u64) {
        let text = match act {
            Act::Tile { write: false, .. } | Act::Cpu { write: false, .. } => format!("{act}: {value:#x}"),
            _ => act.to_string(),
        };
        self.lines.push(Line { text, at: String::new() });
        for (tile, (pages, at)) in std::mem::take(&mut self.flushed) {
            self.saw(Kind::Flush, format!("tile {tile} flushes pages {pages:016b}"), at);
        }
        for ((tile, write), bytes) in std::mem::take(&mut self.strayed) {
            let (verb, pages) = (if write { "writes" } else { "reads" }, bytes.div_ceil(SZ_4K));
            self.saw(Kind::Stray, format!("tile {tile} {verb} {pages} pages where nothing is"), String::new());
        }
        // Stable: what is of one kind keeps its order.
        self.seen.sort_by_key(|(kind, _)| *kind);
        self.lines.extend(self.seen.drain(..).map(|(_, line)| Line { text: format!("  {}", line.text), ..line }));
    }

    /// Something is so, after the act.
    pub fn is(&mut self, what: &str, how: &str) {
        self.lines.push(Line { text: format!("  {what}: {how}"), at: String::new() });
    }

    /// These ranges are there. One whose memory is gone and that no tile translates is none: when it is collected is the engine's affair.
    pub fn ranges(&mut self, ranges: &[RangeState]) {
        let mut text = String::new();
        for range in ranges.iter().filter(|range| !range.unmapped || range.tiles != 0) {
            let Some(pages) = pages(range.start, range.end) else { continue };
            let _ = write!(text, " {}..{} on {:02b}", pages.start, pages.end, range.tiles);
            text.push_str(if range.unmapped { " unmapped" } else { "" });
            text.push_str(if range.mapped { " mapped" } else { "" });
        }
        self.is("ranges", text.trim_start());
    }

    /// These leaves are there, on a tile. Those that follow each other and are alike are one run.
    pub fn leaves(&mut self, tile: u8, leaves: &[Translation], owner: impl Fn(u64) -> String) {
        let mut runs: Vec<(Range<u64>, String)> = Vec::new();
        self.translated.remove(&tile);
        for leaf in leaves {
            let Some(pages) = pages(leaf.span.start.0, leaf.span.end.0) else { continue };
            *self.translated.entry(tile).or_default() |= bits(&pages);
            let place = if leaf.leaf.device { owner(leaf.leaf.addr) } else { "ram".to_owned() };
            let rights = if leaf.leaf.write { "rw" } else { "ro" };
            let size = if leaf.leaf.ps64 { "64K" } else { "4K" };
            let how = format!("{place} {rights} by {}", if pages.end - pages.start > 1 { "more" } else { size });
            match runs.last_mut() {
                Some((run, same)) if run.end == pages.start && *same == how => run.end = pages.end,
                _ => runs.push((pages, how)),
            }
        }
        let text: Vec<String> = runs.iter().map(|(run, how)| format!("{}..{} {how}", run.start, run.end)).collect();
        self.is(&format!("leaves of tile {}", tile), &text.join(", "));
    }

    /// All lines.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// A hash of their texts (FNV-1a).
    pub fn hash(&self) -> u64 {
        let bytes = self.lines.iter().flat_map(|line| line.text.bytes().chain([b'\n']));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_act_did_is_told_by_kind_and_where_it_comes_from_is_not_compared() {
        let mut streams = [Stream::default(), Stream::default()];
        let act = Act::Cpu { page: 3, write: true };
        for (stream, at) in streams.iter_mut().zip(["a.c:1", "b.rs:2"]) {
            stream.saw(Kind::Copy, "a copy".to_owned(), at.to_owned());
            stream.saw(Kind::Notice, "notice 0..1".to_owned(), at.to_owned());
            stream.act(act, 0);
            stream.is("pages", "r");
        }
        let texts: Vec<&str> = streams[0].lines().iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["the CPU writes page 3", "  notice 0..1", "  a copy", "  pages: r"]);
        assert_eq!(streams[0].hash(), streams[1].hash());
        streams[1].is("pages", "n");
        assert_ne!(streams[0].hash(), streams[1].hash());
    }

    #[test]
    fn a_flush_counts_for_what_had_a_leaf_and_once() {
        let mut stream = Stream::default();
        stream.translated.insert(0, 0b0110);
        stream.flushed(0, BLOCK, BLOCK + 2 * SZ_4K, "first".to_owned());
        stream.flushed(0, 0, u64::MAX, "second".to_owned());
        stream.flushed(1, 0, u64::MAX, "nothing there".to_owned());
        stream.act(Act::Evict { tile: 0 }, 0);
        let line = Line { text: format!("  tile 0 flushes pages {:016b}", 0b0110), at: "first".to_owned() };
        assert_eq!(stream.lines()[1..], [line]);
    }

    #[test]
    fn what_goes_astray_is_told_once_an_act_and_is_no_copy() {
        let mut stream = Stream::default();
        stream.strayed(1, true, SZ_4K);
        stream.copied(0, "ram", "vram0", 2, String::new());
        stream.strayed(1, true, 2 * SZ_4K);
        stream.act(Act::Evict { tile: 0 }, 0);
        stream.act(Act::Evict { tile: 0 }, 0);
        let texts: Vec<&str> = stream.lines().iter().map(|line| line.text.trim_start()).collect();
        assert_eq!(texts[1..3], ["tile 0 copies 2 pages from ram to vram0", "tile 1 writes 3 pages where nothing is"]);
        assert_eq!(texts.len(), 4);
    }

    #[test]
    fn addresses_are_pages_of_the_block() {
        assert_eq!(pages(BLOCK + SZ_4K, BLOCK + 3 * SZ_4K), Some(1..3));
        assert_eq!(pages(0, u64::MAX), Some(0..PAGES));
        assert_eq!(pages(0, BLOCK), None);
    }
}
