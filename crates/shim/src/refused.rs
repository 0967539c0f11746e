//! One line that says why a fault of the GPU was refused: there was no VRAM, or an atomic needs its memory there, as on this hardware, and
//! some memory can never be there.
//!
//! Locking: none.

use crate::device::{Device, Errno};
use crate::libc_calls;
use core::sync::atomic::{AtomicBool, Ordering};

/// A job ended with EIO. Says once why, where the reason is one of these.
pub fn explain(device: &dyn Device) {
    static SAID: AtomicBool = AtomicBool::new(false);
    let Some((tile, addr, errno)) = device.refused() else { return };
    if SAID.swap(true, Ordering::AcqRel) {
        return;
    }
    if errno == Errno(libc::ENOMEM) {
        return libc_calls::complain(&format!(
            "EIO: a fault of tile {tile} at {addr:#x} found no VRAM: what there is is in use, or has a process that does not answer"
        ));
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let what = what_is_at(addr, &maps);
    libc_calls::complain(&format!(
        "EIO, as on hardware: an atomic of tile {tile} at {addr:#x} needs its memory in VRAM, and {what}"
    ));
}

/// The end of the sentence.
fn what_is_at(addr: u64, maps: &str) -> &'static str {
    let holds = |line: &&str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let [start, end] =
            range.map_or([None; 2], |(start, end)| [start, end].map(|at| u64::from_str_radix(at, 16).ok()));
        start.zip(end).is_some_and(|(start, end)| (start..end).contains(&addr))
    };
    let Some(line) = maps.lines().find(holds) else { return "nothing is mapped there" };
    let fields: Vec<&str> = line.split_whitespace().collect();
    match (fields.get(1), fields.get(4), fields.get(5)) {
        (_, _, Some(&"[stack]")) => "the main stack never migrates",
        (Some(rights), _, _) if rights.ends_with('s') => "shared memory cannot be there",
        (_, Some(inode), _) if **inode != *"0" => "memory of a file cannot be there",
        _ => "a block of 64K that leaves its mapping, or is pinned, cannot be there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_tells_the_reason() {
        let maps = "1000-2000 rw-s 00000000 00:01 77 /dev/zero (deleted)\n\
                    2000-3000 rw-p 00000000 fe:00 12 /lib/libc.so.6\n\
                    3000-4000 rw-p 00000000 00:00 0 \n\
                    4000-5000 rw-p 00000000 00:00 0                          [stack]\n";
        let reasons = [0x1800, 0x2000, 0x3fff, 0x4000, 0x5000].map(|at| what_is_at(at, maps));
        for (reason, word) in reasons.iter().zip(["shared", "file", "64K", "stack", "nothing"]) {
            assert!(reason.contains(word), "{reason}: {word}");
        }
    }
}
