//! What an open file uses, as `/proc/self/fdinfo` writes it; what of a tile's VRAM is used, as debugfs does.
//!
//! Upstream: `drm_show_fdinfo`, `drm_print_memory_stats`, `xe_drm_client_fdinfo`.

use crate::view;
use machine::{Usage, Vram};
use std::fmt::Write;

/// The lines behind the kernel's own.
pub fn lines(usage: &Usage, device: u8) -> String {
    let slot = view::slot(device);
    let mut text = format!("drm-driver:\txe\ndrm-client-id:\t{}\ndrm-pdev:\t{slot}\n", usage.client);
    if let Some(name) = &usage.name {
        let _ = writeln!(text, "drm-client-name:\t{name}");
    }
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

/// A tile's VRAM, as debugfs writes it.
///
/// Upstream: `ttm_resource_manager_debug`, `xe_ttm_vram_mgr_debug`.
pub fn vram(vram: &Vram) -> String {
    let Vram { size, used, page } = *vram;
    let (page, left, all) = (page >> 10, (size - used.min(size)) >> 20, size >> 20);
    format!(
        "  use_type: 1\n  use_tt: 0\n  size: {size}\n  usage: {used}\ndefault_page_size: {page}KiB\n\
         visible_avail: {left}MiB\nvisible_size: {all}MiB\n"
    )
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
