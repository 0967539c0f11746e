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

/// The numbers of the bits that are set, in order.
pub fn set_bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_in_order() {
        assert_eq!(core::array::from_fn(|n| set_bits(1 | 1 << 7 | 1 << 63).nth(n)), [Some(0), Some(7), Some(63)]);
        assert_eq!(set_bits(0).next(), None);
    }

    #[test]
    fn every_bit_is_in_one_mask() {
        let masks: [_; 3] = core::array::from_fn(|n| bit_words(60..130).nth(n));
        assert_eq!(masks, [Some((0, 0xf << 60)), Some((1, !0)), Some((2, 0b11))]);
        assert_eq!(bit_words(60..130).count(), 3);
        assert_eq!(bit_words(64..128).next(), Some((1, !0)));
        assert_eq!(bit_words(5..5).next(), None);
    }
}
