//! Tables of the device that tools read in debugfs: what the driver wrote to its registers.
//!
//! Upstream: `xe_pat_dump`, `xe_mocs_dump`.

use machine::profile::mocs::{self, Kind};
use machine::profile::pat::{self, Layout};
use std::fmt::Write;

/// The PAT.
pub fn pat(table: &pat::Table) -> String {
    let entries = (0..).zip(table.entries());
    match table.layout {
        Layout::XeHpc => entries.fold("PAT table:\n".into(), |text, (index, entry): (u32, _)| {
            let value = entry.map_or(0, |entry| entry.value);
            let (kind, class) = (pat::memory_type(value), pat::class(value));
            text + &format!("PAT[{index:>2}] = [ {kind}, {class} ] ({})\n", register(value))
        }),
        Layout::Xe2 => {
            let mut text =
                entries.fold(String::from("PAT table: (* = reserved entry)\n"), |text, (index, entry): (u32, _)| {
                    let mark = if entry.is_none() { " *" } else { "" };
                    text + &xe2(&format!("PAT[{index:>2}] "), entry.map_or(0, |entry| entry.value), mark)
                });
            text += "Page Table Access:\n";
            text += &xe2("PTA_MODE", pat::XE2_TABLES, "");
            text += "PCIe ATS/PASID:\n";
            text + &xe2("PAT_ATS ", pat::XE2_ATS, "")
        }
    }
}

fn xe2(label: &str, value: u32, mark: &str) -> String {
    let fields = pat::xe2(value).map(|field| field.to_string()).join(", ");
    format!("{label}= [ {fields} ]  ({}){mark}\n", register(value))
}

/// The MOCS registers. The kernel names four fields of a global one and writes three.
pub fn mocs(table: &mocs::Table) -> String {
    match table.kind {
        Kind::L3 => {
            let mut text = String::from("LNCFCMOCS[idx] = [ L3CC ] (value)\n\n");
            for first in (0..table.count).step_by(2) {
                let pair = [first, first + 1].map(|index| table.entry(index));
                let value = register(pair[0] | pair[1] << 16);
                for (index, entry) in (first..).zip(pair) {
                    let _ = writeln!(text, "LNCFCMOCS[{index:>2}] = [ {} ] ({value})", mocs::l3_cacheability(entry));
                }
            }
            text
        }
        Kind::Global => {
            let mut text = String::from(
                "Global mocs table configuration:\n\
                 GLOB_MOCS[idx] = [IG_PAT, L3_CLOS, L3_CACHE_POLICY, L4_CACHE_POLICY] (value)\n\n",
            );
            for index in 0..table.count {
                let entry = table.entry(index);
                let ignores = u32::from(entry & mocs::IGNORE_PAT != 0);
                let (class, l4, value) = (mocs::l3_class(entry), mocs::l4_policy(entry), register(entry));
                let _ = writeln!(text, "GLOB_MOCS[{index:>2}] = [{ignores}, {class}, {l4}]  ({value})");
            }
            text
        }
    }
}

/// As the kernel prints a register: no prefix before zero.
fn register(value: u32) -> String {
    let text = if value == 0 { "0".into() } else { format!("{value:#x}") };
    format!("{text:>8}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pvc_tells_both_fields_of_each_entry() {
        let text = pat(&pat::PVC);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[..2], ["PAT table:", "PAT[ 0] = [ 0, 0 ] (       0)"]);
        assert_eq!(lines[7], "PAT[ 6] = [ 2, 2 ] (     0xa)");
        let text = mocs(&mocs::PVC);
        let ends = ["LNCFCMOCS[ 1] = [ 1 ] (0x100030)\n", "LNCFCMOCS[ 3] = [ 3 ] (0x300030)\n"];
        assert!(text.starts_with("LNCFCMOCS[idx] = [ L3CC ] (value)\n\nLNCFCMOCS[ 0] = [ 3 ] (0x100030)\n"));
        assert!(text.contains(ends[0]) && text.ends_with(ends[1]));
    }

    #[test]
    fn battlemage_marks_what_is_reserved() {
        let text = pat(&pat::BATTLEMAGE);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 28 + 4);
        assert_eq!(lines[12], "PAT[11] = [ 1, 1, 0, 1, 3, 0 ]  (   0x61c)");
        assert_eq!(lines[17], "PAT[16] = [ 0, 0, 0, 0, 0, 0 ]  (       0) *");
        assert_eq!(
            lines[30..],
            [
                "PTA_MODE= [ 0, 0, 0, 0, 3, 0 ]  (     0xc)",
                "PCIe ATS/PASID:",
                "PAT_ATS = [ 0, 0, 0, 0, 3, 3 ]  (     0xf)"
            ]
        );
        let text = mocs(&mocs::XE2);
        assert_eq!(text.lines().count(), 3 + 16);
        assert!(
            text.ends_with("GLOB_MOCS[15] = [1, 0, 0]  (   0x100)\n") && text.contains("[ 2] = [1, 0, 0]  (   0x130)")
        );
    }
}
