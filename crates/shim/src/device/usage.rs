//! What an open file uses, as `/proc/self/fdinfo` writes it.
//!
//! Upstream: `drm_show_fdinfo`, `drm_print_memory_stats`, `xe_drm_client_fdinfo`.

use crate::view;
use machine::Usage;
use std::fmt::Write;

/// The lines behind the kernel's own.
pub fn lines(usage: &Usage, device: u8) -> String {
    let slot = view::slot(device);
    let mut text = format!("drm-driver:\txe\ndrm-client-id:\t{}\ndrm-pdev:\t{slot}\n", usage.client);
    for of in &usage.memory {
        // Nothing here is told as purgeable.
        let (here, busy) = (of.resident, of.active);
        let all = [("total", of.total), ("shared", of.shared), ("active", busy), ("resident", here), ("purgeable", 0)];
        for (what, bytes) in all {
            let _ = writeln!(text, "drm-{what}-{}:\t{}", of.name, size(bytes));
        }
    }
    for of in &usage.engines {
        let _ = writeln!(text, "drm-cycles-{}:\t{}", of.name, of.cycles);
        let _ = writeln!(text, "drm-total-cycles-{}:\t{}", of.name, of.total_cycles);
        if of.capacity > 1 {
            let _ = writeln!(text, "drm-engine-capacity-{}:\t{}", of.name, of.capacity);
        }
    }
    text
}

/// Bytes in the largest unit that leaves no rest.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}
