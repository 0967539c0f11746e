//! A line cut into words: names, numbers and signs, each with its column.

/// A word of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub text: &'a str,
    /// From 1.
    pub column: usize,
}

/// The part of a line before its comment.
pub(super) fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

/// Its words. A sign (`[ ] , = .. ->`) is a word of its own; all else runs to the next space or sign.
pub(super) fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(first) = line[at..].chars().next() {
        let rest = &line[at..];
        let len = if first.is_whitespace() { first.len_utf8() } else { sign(rest).unwrap_or_else(|| run(rest)) };
        if !first.is_whitespace() {
            words.push(Word { text: &rest[..len], column: line[..at].chars().count() + 1 });
        }
        at += len;
    }
    words
}

fn sign(rest: &str) -> Option<usize> {
    ["..", "->", "[", "]", ",", "="].into_iter().find(|sign| rest.starts_with(sign)).map(str::len)
}

fn run(rest: &str) -> usize {
    let ends = |(at, c): (usize, char)| (at > 0 && (c.is_whitespace() || sign(&rest[at..]).is_some())).then_some(at);
    rest.char_indices().find_map(ends).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_words_and_columns_count_characters() {
        let texts: Vec<_> = words("  v2.tile0 write b[0..16,20] -> done").iter().map(|w| (w.text, w.column)).collect();
        let expected = [
            ("v2.tile0", 3),
            ("write", 12),
            ("b", 18),
            ("[", 19),
            ("0", 20),
            ("..", 21),
            ("16", 23),
            (",", 25),
            ("20", 26),
            ("]", 28),
            ("->", 30),
            ("done", 33),
        ];
        assert_eq!(texts, expected);
        assert_eq!(words("é x").iter().map(|w| w.column).collect::<Vec<_>>(), [1, 3]);
        assert!(words(without_comment("  # nothing")).is_empty());
    }
}
