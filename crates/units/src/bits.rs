//! Ranges of bits in sets that are kept as words.

use core::ops::Range;

/// The words of a bit set that `bits` lie in, each with a mask of those bits.
pub fn bit_words(bits: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let mut at = bits.start;
    core::iter::from_fn(move || {
        if at >= bits.end {
            return None;
        }
        let (word, low) = (at / 64, at % 64);
        let count = (64 - low).min(bits.end - at);
        at += count;
        Some((word, (!0 >> (64 - count)) << low))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_in_one_mask() {
        let masks: [_; 3] = core::array::from_fn(|n| bit_words(60..130).nth(n));
        assert_eq!(masks, [Some((0, 0xf << 60)), Some((1, !0)), Some((2, 0b11))]);
        assert_eq!(bit_words(60..130).count(), 3);
        assert_eq!(bit_words(64..128).next(), Some((1, !0)));
        assert_eq!(bit_words(5..5).next(), None);
    }
}
