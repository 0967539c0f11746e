//! What an open file uses, as `/proc/self/fdinfo` writes it; what debugfs tells of a device.
//!
//! Upstream: `drm_show_fdinfo`, `drm_print_memory_stats`, `xe_drm_client_fdinfo`; `drm_clients_info`, `drm_gem_name_info`.

use crate::minor::{Kind, Minor};
use crate::{outside, view};
use machine::{NamedBo, OpenFile, Usage, Vram};
use std::fmt::Write;

/// What is told of a device as a whole: each process tells its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfDevice {
    /// Its open files.
    Clients,
    /// Its buffers that have a number (FLINK).
    Names,
    /// System memory that its buffers take.
    System,
}

impl OfDevice {
    /// All of them, and their files' names.
    pub const FILES: [(Self, &str); 3] =
        [(Self::Clients, "clients"), (Self::Names, "gem_names"), (Self::System, "gtt_mm")];

    /// The file's text, of what the processes told and the system memory that there is.
    pub fn text(self, told: &[String], system_bytes: u64) -> String {
        // Both kinds of rows are in the order of a number.
        let column = match self {
            Self::Clients => |row: &&str| row.split_whitespace().next_back().and_then(|id| id.parse::<u64>().ok()),
            Self::Names => |row: &&str| row.split_whitespace().next().and_then(|name| name.parse::<u64>().ok()),
            Self::System => {
                let used = told.iter().filter_map(|used| used.parse::<u64>().ok()).sum();
                return system(system_bytes, used);
            }
        };
        let mut rows: Vec<_> = told.iter().flat_map(|rows| rows.lines()).collect();
        rows.sort_by_key(column);
        let head = if self == Self::Clients { clients_head() } else { "  name     size handles refcount\n".into() };
        rows.iter().fold(head, |text, row| text + row + "\n")
    }
}

/// Rows of this process' open files.
pub fn clients(files: &[OpenFile], device: u8) -> String {
    let command = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    files.iter().map(|file| client_row(file, device, command.trim_end())).collect()
}

/// Rows of buffers that have a number.
pub fn names(bos: &[NamedBo]) -> String {
    let row = |bo: &NamedBo| format!("{:>6} {:>8} {:>7} {:>8}\n", bo.name, bo.size, bo.handles, bo.owners);
    bos.iter().map(row).collect()
}

/// Columns of a client's name.
const NAME_WIDTH: usize = 64;

fn clients_head() -> String {
    format!(
        "{:>20} {:>5} {:>3} master a {:>5} {:>10} {:>NAME_WIDTH$} {:>20}\n",
        "command", "tgid", "dev", "uid", "magic", "name", "id"
    )
}

fn client_row(file: &OpenFile, device: u8, command: &str) -> String {
    let kind = if file.is_render { Kind::Render } else { Kind::Card };
    let (process, minor) = (outside::process(), Minor { device, kind }.number());
    let [master, authenticated] = [file.is_master, file.authenticated].map(|is| if is { 'y' } else { 'n' });
    let (user, magic, id) = (rustix::process::geteuid().as_raw(), file.magic, file.id);
    let name = file.name.as_deref().unwrap_or("<unset>");
    format!(
        "{command:>20} {process:>5} {minor:>3}   {master}    {authenticated} {user:>5} {magic:>10} {name:>NAME_WIDTH$} {id:>20}\n"
    )
}

/// System memory that buffers may take, and take.
///
/// Upstream: `ttm_resource_manager_debug`, for a manager that counts pages in one line and bytes in the next.
fn system(size: u64, used: u64) -> String {
    let pages = size >> units::PAGE_SHIFT;
    format!("  use_type: 1\n  use_tt: 1\n  size: {pages}\n  usage: {used}\n")
}

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
