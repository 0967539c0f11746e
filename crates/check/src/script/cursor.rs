//! Reads the words of one line, from left to right.

use super::ScriptError;
use super::lex::{Word, words};
use machine::interconnect::{DeviceId, Node};
use units::TileId;

/// A line and how far it was read.
pub(super) struct Cursor<'a> {
    name: &'a str,
    line: usize,
    words: Vec<Word<'a>>,
    next: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a line without its comment; `line` counts from 1.
    pub fn new(name: &'a str, line: usize, text: &'a str) -> Self {
        Self { name, line, words: words(text), next: 0, end: text.trim_end().chars().count() + 1 }
    }

    /// The next word stays unread.
    pub fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).map(|word| word.text)
    }

    /// Takes the next word, which is `what`.
    pub fn word(&mut self, what: &str) -> Result<&'a str, ScriptError> {
        let word = self.peek().ok_or_else(|| self.error(format!("{what} is missing")))?;
        self.next += 1;
        Ok(word)
    }

    /// Takes the next word where it is this one.
    pub fn take(&mut self, text: &str) -> bool {
        let is_next = self.peek() == Some(text);
        self.next += usize::from(is_next);
        is_next
    }

    /// Takes this word.
    pub fn expect(&mut self, text: &str) -> Result<(), ScriptError> {
        if self.take(text) { Ok(()) } else { Err(self.error(format!("expected '{text}'"))) }
    }

    /// Takes a number.
    pub fn number(&mut self, what: &str) -> Result<u64, ScriptError> {
        let word = self.word(what)?;
        word.parse().map_err(|_| self.error_before(format!("expected {what}, a number, not '{word}'")))
    }

    /// Takes a size: a number of bytes, with K or M.
    pub fn size(&mut self) -> Result<u64, ScriptError> {
        let word = self.word("a size")?;
        let (digits, unit) = match word.strip_suffix('K') {
            Some(digits) => (digits, 1 << 10),
            None => word.strip_suffix('M').map_or((word, 1), |digits| (digits, 1 << 20)),
        };
        let bytes = digits.parse().ok().and_then(|n: u64| n.checked_mul(unit));
        bytes.ok_or_else(|| self.error_before(format!("expected a size such as 64K or 2M, not '{word}'")))
    }

    /// Takes `xN` where it is next.
    pub fn times(&mut self) -> Result<u32, ScriptError> {
        let Some(digits) = self.peek().and_then(|word| word.strip_prefix('x')) else { return Ok(1) };
        self.next += 1;
        let times = digits.parse().ok().filter(|times| (1..=200).contains(times));
        times.ok_or_else(|| self.error_before("expected x1 to x200".into()))
    }

    /// Nothing is left.
    pub fn end(&self) -> Result<(), ScriptError> {
        self.peek().map_or(Ok(()), |word| Err(self.error(format!("'{word}' is too much here"))))
    }

    /// An error at the next word.
    pub fn error(&self, message: String) -> ScriptError {
        self.error_at(self.words.get(self.next).map_or(self.end, |word| word.column), message)
    }

    /// An error at the word that was taken last.
    pub fn error_before(&self, message: String) -> ScriptError {
        self.error_at(self.words.get(self.next.wrapping_sub(1)).map_or(1, |word| word.column), message)
    }

    fn error_at(&self, column: usize, message: String) -> ScriptError {
        ScriptError { name: self.name.into(), line: self.line, column, message }
    }
}

/// The device of a word such as `card1`.
pub(super) fn card(word: &str) -> Option<DeviceId> {
    word.strip_prefix("card").and_then(number).map(DeviceId)
}

/// The tile of a word such as `tile1` or `vram1`, and in front of that its device, as in `card1.tile0`; else of the first one.
pub(super) fn node(word: &str, prefix: &str) -> Option<Node> {
    let (device, tile) = match word.split_once('.') {
        Some((device, tile)) => (card(device)?, tile),
        None => (DeviceId(0), word),
    };
    Some(Node { device, tile: TileId(number(tile.strip_prefix(prefix)?)?) })
}

fn number(digits: &str) -> Option<u8> {
    digits.parse().ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()))
}
