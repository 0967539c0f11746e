//! Scheduling properties of engine classes in sysfs, and limits of a GT's frequency: what may be written there.
//!
//! The kernel takes a number, in the notation of C, and keeps a value between its minimum and its maximum, and these two between
//! the bounds that it was built with; anything else it refuses, and the old one stays. Queues that are made afterwards are made
//! so ([`schedule`]); the time to preempt has no effect, since contexts take turns at every command (`docs/coverage.md`).
//!
//! A limit of the frequency is a number, too, and has no effect, and so has the power profile.
//!
//! Upstream: xe_hw_engine_class_sysfs, xe_gt_freq, `pc_set_min_freq`, `xe_guc_pc_set_power_profile`, kstrtou32.

use libc::{EINVAL, ERANGE};
use machine::ClassSchedule;

/// Megahertz that a GT has at most.
pub const HIGHEST_MHZ: u32 = 1600;
/// Megahertz that a GT has at least.
pub const LOWEST_MHZ: u32 = 900;
/// Limits of the frequency.
pub const LIMITS: [&str; 2] = ["min_freq", "max_freq"];
/// The file of the power profile.
pub const PROFILE: &str = "power_profile";
/// Power profiles: the name, and the file where that one is chosen.
pub const PROFILES: [(&str, &str); 2] =
    [("base", "[base]    power_saving\n"), ("power_saving", "base    [power_saving]\n")];

/// The limit that `text` sets. One below the other is no error.
pub fn limit(text: &[u8]) -> Result<u32, i32> {
    number(text).and_then(|mhz| if (LOWEST_MHZ..=HIGHEST_MHZ).contains(&mhz) { Ok(mhz) } else { Err(EINVAL) })
}

/// What the file has where `text` chooses a power profile: by its beginning.
pub fn profile(text: &[u8]) -> Result<&'static str, i32> {
    PROFILES.iter().find(|(name, _)| text.starts_with(name.as_bytes())).map(|(_, shown)| *shown).ok_or(EINVAL)
}

/// One of the three files of a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Value,
    Min,
    Max,
}

/// A file, its default, and its property.
pub struct File {
    pub name: &'static str,
    pub default: u32,
    kind: Kind,
    property: usize,
}

const fn file(name: &'static str, default: u32, kind: Kind, property: usize) -> File {
    File { name, default, kind, property }
}

/// All files, as the kernel's defaults have them.
pub const FILES: &[File] = &[
    file("job_timeout_ms", 5000, Kind::Value, 0),
    file("job_timeout_min", 1, Kind::Min, 0),
    file("job_timeout_max", 10000, Kind::Max, 0),
    file("preempt_timeout_us", 640_000, Kind::Value, 1),
    file("preempt_timeout_min", 1, Kind::Min, 1),
    file("preempt_timeout_max", 10_000_000, Kind::Max, 1),
    file("timeslice_duration_us", 1000, Kind::Value, 2),
    file("timeslice_duration_min", 1, Kind::Min, 2),
    file("timeslice_duration_max", 10_000_000, Kind::Max, 2),
];

impl File {
    fn sibling(&self, kind: Kind) -> Option<&'static File> {
        FILES.iter().find(|file| file.property == self.property && file.kind == kind)
    }

    /// The value that `text` sets, where `now` gives the values of the files; or the kernel's errno.
    pub fn accept(&self, text: &[u8], now: impl Fn(&File) -> Option<u32>) -> Result<u32, i32> {
        let value = number(text)?;
        let bound = |kind| {
            let file = self.sibling(kind)?;
            // A bound is bounded itself by what it was at first, towards the outside.
            if self.kind == kind { Some(file.default) } else { now(file) }
        };
        let (min, max) = (bound(Kind::Min).unwrap_or(0), bound(Kind::Max).unwrap_or(u32::MAX));
        if (min..=max).contains(&value) { Ok(value) } else { Err(EINVAL) }
    }
}

/// What queues are made with, where `value` reads the files; `None` where one is not there.
pub fn schedule(value: impl Fn(&str) -> Option<u32>) -> Option<ClassSchedule> {
    Some(ClassSchedule {
        job_timeout_ms: value("job_timeout_ms")?,
        timeslice_us: value("timeslice_duration_us")?,
        timeslice_min_us: value("timeslice_duration_min")?,
        timeslice_max_us: value("timeslice_duration_max")?,
    })
}

/// A number as the kernel reads it: decimal, octal or hexadecimal, a plus before it, one newline behind it.
pub fn number(text: &[u8]) -> Result<u32, i32> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let (digits, base) = match text {
        [b'0', b'x' | b'X', rest @ ..] => (rest, 16),
        [b'0', rest @ ..] if !rest.is_empty() => (rest, 8),
        _ => (text, 10),
    };
    if digits.is_empty() {
        return Err(EINVAL);
    }
    digits.iter().try_fold(0u32, |value, byte| {
        let digit = char::from(*byte).to_digit(base).ok_or(EINVAL)?;
        value.checked_mul(base).and_then(|value| value.checked_add(digit)).ok_or(ERANGE)
    })
}

/// Yes or no, as the kernel takes it for an order in debugfs.
pub fn truth(text: &[u8]) -> Result<bool, i32> {
    match text {
        [b'y' | b'Y' | b't' | b'T' | b'1', ..] | [b'o' | b'O', b'n' | b'N', ..] => Ok(true),
        [b'n' | b'N' | b'f' | b'F' | b'0', ..] | [b'o' | b'O', b'f' | b'F', ..] => Ok(false),
        _ => Err(EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        let good =
            [("0", 0), ("10\n", 10), ("+7", 7), ("0x1f", 31), ("017\n", 15), ("4294967295", u32::MAX), ("5\0x", 5)];
        assert!(good.iter().all(|(text, value)| number(text.as_bytes()) == Ok(*value)));
        for bad in ["", "\n", "garbage", "1 ", " 1", "-1", "0x", "1\n\n", "089", "1.5"] {
            assert_eq!(number(bad.as_bytes()), Err(EINVAL), "{bad:?}");
        }
        assert_eq!(number(b"4294967296"), Err(ERANGE));
    }

    #[test]
    fn a_value_stays_between_its_bounds_and_bounds_between_theirs() {
        let of = |name| FILES.iter().find(|file| file.name == name).expect("a file");
        let now = |file: &File| {
            Some(match file.kind {
                Kind::Value => 640,
                Kind::Min => 100,
                Kind::Max => 1000,
            })
        };
        let takes = |name, text: &str| of(name).accept(text.as_bytes(), now);
        assert_eq!(
            [99, 100, 1000, 1001].map(|n| takes("preempt_timeout_us", &n.to_string()).is_ok()),
            [false, true, true, false]
        );
        assert_eq!(
            [0, 1, 1000, 1001].map(|n| takes("preempt_timeout_min", &n.to_string()).is_ok()),
            [false, true, true, false]
        );
        assert_eq!(
            [99, 100, 10_000_000, 10_000_001].map(|n| takes("preempt_timeout_max", &n.to_string()).is_ok()),
            [false, true, true, false]
        );
        assert_eq!(takes("job_timeout_ms", "many"), Err(EINVAL));
    }

    #[test]
    fn orders_are_yes_or_no() {
        let answers = ["1", "1\n", "yes", "on", "0", "off", "n"].map(|text| truth(text.as_bytes()));
        assert_eq!(answers, [true, true, true, true, false, false, false].map(Ok));
        assert_eq!(["", "2", "o", " 1"].map(|text| truth(text.as_bytes())), [Err(EINVAL); 4]);
    }
}
