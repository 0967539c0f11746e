//! The tree itself: what Xe devices show in `/dev/dri`, sysfs and debugfs.
//!
//! All files are regular ones and all links relative, so the kernel resolves, lists and reads them by itself. The
//! files that are more than that (nodes, statistics) are known by their inode, see [`super::Special`]. Here all are planned; `made`
//! makes them.
//!
//! Upstream: xe_device_sysfs, xe_hw_engine_class_sysfs, xe_gt_freq, xe_gt_throttle, xe_gt_idle, xe_debugfs, xe_gt_debugfs.

use super::made::{Entry, Plan, What};
use super::property;
use crate::device::{Identity, OfDevice};
use crate::minor::{Gt, Kind, Minor};
use core::cell::RefCell;
use rustix::fs::{Mode, OFlags};
use rustix::io;

/// Number of the first device's bus. Each device has a root port of its own, on the bus below its own; the next device's are
/// [`BUS_STEP`] higher.
const BUS: u8 = 0x4d;
const BUS_STEP: u8 = 0x10;
/// What may hold a GT back, and whether anything does.
const THROTTLES: [&str; 9] = [
    "status",
    "reason_pl1",
    "reason_pl2",
    "reason_pl4",
    "reason_thermal",
    "reason_prochot",
    "reason_ratl",
    "reason_vr_thermalert",
    "reason_vr_tdc",
];

/// Files of a GT in debugfs that reset it. The second returns when that is done; so does the first, here.
pub const RESETS: [&str; 2] = ["force_reset", "force_reset_sync"];

/// Where a device is on the PCI bus.
struct Pci {
    /// Its bus.
    bus: u8,
    /// Its slot.
    slot: String,
    /// The folder of its function.
    dir: String,
    /// The slot of the root port above it.
    port_slot: String,
    /// The folder of that.
    port: String,
}

impl Pci {
    fn of(device: u8) -> Self {
        let bus = BUS + device * BUS_STEP;
        let (slot, port_slot) = (slot(device), format!("0000:{:02x}:01.0", bus - 1));
        let port = format!("sys/devices/pci0000:{:02x}/{port_slot}", bus - 1);
        Self { bus, dir: format!("{port}/{slot}"), slot, port_slot, port }
    }
}

/// PCI slot of a device.
pub fn slot(device: u8) -> String {
    format!("0000:{:02x}:00.0", BUS + device * BUS_STEP)
}

/// The folder of an engine class.
pub fn engines(gt: Gt, class: &str) -> String {
    let (dir, number) = (Pci::of(gt.device).dir, gt.number);
    format!("{dir}/tile{number}/gt{number}/engines/{class}")
}

/// The folder of a GT's frequencies.
pub fn frequencies(gt: Gt) -> String {
    let (dir, number) = (Pci::of(gt.device).dir, gt.number);
    format!("{dir}/tile{number}/gt{number}/freq0")
}

/// The folder of a device's debugfs.
pub fn debugfs(device: u8) -> String {
    format!("sys/kernel/debug/dri/{device}")
}

/// The folder of a tile there.
pub fn tile_debugfs(gt: Gt) -> String {
    format!("{}/tile{}", debugfs(gt.device), gt.number)
}

/// The folder of a GT there, below its tile's.
pub fn gt_debugfs(gt: Gt) -> String {
    format!("{}/gt{}", tile_debugfs(gt), gt.number)
}

/// All that the tree has.
pub fn plan(identities: &[Identity]) -> io::Result<Plan> {
    let tree = Tree { plan: RefCell::default() };
    for dir in ["dev/dri/by-path", "dev/char", "sys/dev/char", "sys/class/drm", "sys/bus/pci/devices"] {
        tree.dir(dir)?;
    }
    tree.text("sys/class/drm/version", "drm 1.1.0 20060810")?;
    tree.dir("sys/bus/pci/drivers/xe")?;
    for (device, identity) in (0..).zip(identities) {
        tree.device(device, identity)?;
    }
    MERGED.iter().try_for_each(|dir| tree.merge(dir))?;
    Ok(tree.plan.into_inner())
}

/// Directories that show what the real ones have, and ours besides.
const MERGED: [&str; 3] = ["sys/class", "sys/bus/pci/devices", "sys/bus/pci/drivers"];

struct Tree {
    plan: RefCell<Plan>,
}

impl Tree {
    fn add(&self, path: &str, what: What) -> io::Result<()> {
        let before = self.plan.borrow_mut().insert(path.to_string(), Entry::new(what));
        if before.is_some() { Err(io::Errno::EXIST) } else { Ok(()) }
    }

    /// A directory, and those above it.
    fn dir(&self, path: &str) -> io::Result<()> {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.dir(above)?;
        }
        if self.plan.borrow().contains_key(path) { Ok(()) } else { self.add(path, What::Folder) }
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
        self.add(path, What::File(content.as_ref().to_vec(), mode))
    }

    /// Read-only text with its newline, as in sysfs.
    fn text(&self, path: &str, text: &str) -> io::Result<()> {
        self.file(path, format!("{text}\n"), 0o444)
    }

    fn link(&self, path: &str, to: &str) -> io::Result<()> {
        self.add(path, What::Link(to.to_string()))
    }

    /// All files of a device.
    fn device(&self, device: u8, identity: &Identity) -> io::Result<()> {
        let pci = Pci::of(device);
        self.pci_device(&pci, identity)?;
        self.root_port(&pci)?;
        for (minor, kind) in [Kind::Card, Kind::Render].map(|kind| (Minor { device, kind }, kind)) {
            self.node(&pci, minor, if kind == Kind::Card { "card" } else { "render" })?;
        }
        for number in 0..identity.tiles {
            self.tile(&pci, identity, Gt { device, number })?;
        }
        self.debugfs(&pci, device, identity)
    }

    fn node(&self, pci: &Pci, minor: Minor, kind: &str) -> io::Result<()> {
        let path = minor.path().to_string_lossy();
        let name = path.trim_start_matches("/dev/dri/");
        let (minor, dir) = (minor.number(), format!("{}/drm/{name}", pci.dir));
        self.file(&format!("dev/dri/{name}"), "", 0o666)?;
        self.link(&format!("dev/dri/by-path/pci-{}-{kind}", pci.slot), &format!("../{name}"))?;
        self.link(&format!("dev/char/226:{minor}"), &format!("../dri/{name}"))?;
        self.link_to(&format!("sys/dev/char/226:{minor}"), &dir)?;
        self.link_to(&format!("sys/class/drm/{name}"), &dir)?;
        self.dir(&dir)?;
        self.link(&format!("{dir}/device"), &format!("../../../{}", pci.slot))?;
        self.link_to(&format!("{dir}/subsystem"), "sys/class/drm")?;
        self.text(&format!("{dir}/dev"), &format!("226:{minor}"))?;
        let uevent = format!("MAJOR=226\nMINOR={minor}\nDEVNAME=dri/{name}\nDEVTYPE=drm_minor");
        self.text(&format!("{dir}/uevent"), &uevent)
    }

    /// A link to a path of the tree, both below `sys`, as sysfs writes them.
    fn link_to(&self, path: &str, to: &str) -> io::Result<()> {
        let up = "../".repeat(path.matches('/').count() - 1);
        self.link(path, &format!("{up}{}", &to["sys/".len()..]))
    }

    /// Shows what the real directory of that name has and the tree's has not: links to the real things.
    fn merge(&self, dir: &str) -> io::Result<()> {
        let real = format!("/{dir}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(listed) = rustix::fs::open(real.as_str(), flags, Mode::empty()) else { return Ok(()) };
        for entry in rustix::fs::Dir::read_from(listed)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            let path = format!("{dir}/{name}");
            if name != "." && name != ".." && !self.plan.borrow().contains_key(&path) {
                self.link(&path, &format!("{real}/{name}"))?;
            }
        }
        Ok(())
    }

    fn pci_device(&self, pci: &Pci, identity: &Identity) -> io::Result<()> {
        let Pci { dir, slot, .. } = pci;
        self.dir(dir)?;
        self.link_to(&format!("sys/bus/pci/devices/{slot}"), dir)?;
        self.link_to(&format!("sys/bus/pci/drivers/xe/{slot}"), dir)?;
        self.link_to(&format!("{dir}/subsystem"), "sys/bus/pci")?;
        self.link_to(&format!("{dir}/driver"), "sys/bus/pci/drivers/xe")?;
        let (devid, revid) = (identity.devid, identity.revid);
        for (name, text) in [
            ("vendor", "0x8086".to_string()),
            ("device", format!("{devid:#06x}")),
            ("revision", format!("{revid:#04x}")),
            ("subsystem_vendor", "0x8086".to_string()),
            ("subsystem_device", "0x0000".to_string()),
            ("class", "0x038000".to_string()),
        ] {
            self.text(&format!("{dir}/{name}"), &text)?;
        }
        self.pci_function(dir)?;
        let uevent = format!(
            "DRIVER=xe\nPCI_CLASS=38000\nPCI_ID=8086:{devid:04X}\nPCI_SUBSYS_ID=8086:0000\nPCI_SLOT_NAME={slot}\n\
             MODALIAS=pci:v00008086d{devid:08X}sv00008086sd00000000bc03sc80i00"
        );
        self.text(&format!("{dir}/uevent"), &uevent)?;
        self.file(&format!("{dir}/config"), config_space(identity), 0o644)
    }

    /// What every PCI function has: resources (there are none), interrupt, CPUs nearby (all), its link.
    fn pci_function(&self, dir: &str) -> io::Result<()> {
        let none = "0x0000000000000000 0x0000000000000000 0x0000000000000000";
        let cpus = online_cpus();
        for (name, text) in [
            ("resource", vec![none; 13].join("\n").as_str()),
            ("numa_node", "-1"),
            ("enable", "1"),
            ("irq", "0"),
            ("local_cpulist", &cpus),
            ("local_cpus", &cpu_mask(&cpus)),
            ("max_link_speed", "32.0 GT/s PCIe"),
            ("max_link_width", "16"),
            ("current_link_speed", "32.0 GT/s PCIe"),
            ("current_link_width", "16"),
        ] {
            self.text(&format!("{dir}/{name}"), text)?;
        }
        Ok(())
    }

    /// The port above the device: of a host of that time.
    fn root_port(&self, pci: &Pci) -> io::Result<()> {
        let Pci { bus, port, port_slot, .. } = pci;
        self.link_to(&format!("sys/bus/pci/devices/{port_slot}"), port)?;
        self.link_to(&format!("{port}/subsystem"), "sys/bus/pci")?;
        for (name, text) in [
            ("vendor", "0x8086"),
            ("device", "0x352a"),
            ("revision", "0x04"),
            ("subsystem_vendor", "0x8086"),
            ("subsystem_device", "0x0000"),
            ("class", "0x060400"),
            ("secondary_bus_number", &bus.to_string()),
            ("subordinate_bus_number", &bus.to_string()),
        ] {
            self.text(&format!("{port}/{name}"), text)?;
        }
        self.pci_function(port)?;
        let uevent = format!("PCI_CLASS=60400\nPCI_ID=8086:352A\nPCI_SUBSYS_ID=8086:0000\nPCI_SLOT_NAME={port_slot}");
        self.text(&format!("{port}/uevent"), &uevent)?;
        self.file(&format!("{port}/config"), port_config_space(*bus), 0o644)
    }

    /// A tile has one GT of the same number.
    fn tile(&self, pci: &Pci, identity: &Identity, of: Gt) -> io::Result<()> {
        let tile = of.number;
        let gt = format!("{}/tile{tile}/gt{tile}", pci.dir);
        self.dir(&format!("{gt}/gtidle"))?;
        self.text(&format!("{gt}/gtidle/name"), &format!("gt{tile}-rc"))?;
        self.text(&format!("{gt}/gtidle/idle_status"), "gt-c0")?;
        self.text(&format!("{gt}/gtidle/idle_residency_ms"), "0")?;
        self.frequencies(&frequencies(of))?;
        for class in &identity.engine_classes {
            let engines = engines(of, class);
            self.dir(&format!("{engines}/.defaults"))?;
            for property::File { name, default, .. } in property::FILES {
                self.file(&format!("{engines}/{name}"), format!("{default}\n"), 0o644)?;
                self.text(&format!("{engines}/.defaults/{name}"), &default.to_string())?;
            }
        }
        Ok(())
    }

    /// Frequencies of a GT, and why they are less than they could be.
    fn frequencies(&self, dir: &str) -> io::Result<()> {
        self.dir(&format!("{dir}/throttle"))?;
        let (highest, lowest) = (property::HIGHEST_MHZ, property::LOWEST_MHZ);
        for (name, mhz) in
            [("rp0", highest), ("rpa", highest), ("act", highest), ("cur", highest), ("rpe", lowest), ("rpn", lowest)]
        {
            self.text(&format!("{dir}/{name}_freq"), &mhz.to_string())?;
        }
        for (name, mhz) in property::LIMITS.into_iter().zip([lowest, highest]) {
            self.file(&format!("{dir}/{name}"), format!("{mhz}\n"), 0o644)?;
        }
        self.file(&format!("{dir}/{}", property::PROFILE), property::PROFILES[0].1, 0o644)?;
        self.text(&format!("{dir}/throttle/reasons"), "none")?;
        THROTTLES.iter().try_for_each(|name| self.text(&format!("{dir}/throttle/{name}"), "0"))
    }

    fn debugfs(&self, pci: &Pci, device: u8, identity: &Identity) -> io::Result<()> {
        let (dir, slot, number) = (debugfs(device), &pci.slot, device.to_string());
        self.dir(&dir)?;
        self.link(&format!("sys/kernel/debug/dri/{}", 128 + u32::from(device)), &number)?;
        self.link(&format!("sys/kernel/debug/dri/{slot}"), &number)?;
        self.text(&format!("{dir}/name"), &format!("xe dev={slot} unique={slot}"))?;
        let is_dgfx = if identity.has_vram { "yes" } else { "no" };
        let Identity { devid, revid, tiles, kind, graphics_verx100, vm_max_level, .. } = identity;
        let info = format!(
            "graphics_verx100 {graphics_verx100}\nmedia_verx100 0\nis_dgfx {is_dgfx}\nplatform {kind}\ndevid {devid:#x}\nrevid {revid}\n\
             tile_count {tiles}\nvm_max_level {vm_max_level}\nforce_execlist no\nhas_flat_ccs no\nhas_usm yes"
        );
        self.text(&format!("{dir}/info"), &info)?;
        self.file(&format!("{dir}/forcewake_all"), "", 0o644)?;
        for (_, name) in OfDevice::FILES {
            self.file(&format!("{dir}/{name}"), "", 0o444)?;
        }
        (0..*tiles).try_for_each(|number| self.debugfs_of_tile(Gt { device, number }, identity))
    }

    /// What is of a tile and its GT; links where older tools look for it.
    fn debugfs_of_tile(&self, of: Gt, identity: &Identity) -> io::Result<()> {
        let (tile, gt, number) = (tile_debugfs(of), gt_debugfs(of), of.number);
        self.dir(&gt)?;
        if identity.has_vram {
            self.file(&format!("{tile}/vram_mm"), "", 0o444)?;
            self.link(&format!("{}/vram{number}_mm", debugfs(of.device)), &format!("tile{number}/vram_mm"))?;
        }
        self.link(&format!("{}/gt{number}", debugfs(of.device)), &format!("tile{number}/gt{number}"))?;
        self.file(&format!("{gt}/stats"), "", 0o644)?;
        self.file(&format!("{gt}/pat"), &identity.pat, 0o444)?;
        self.file(&format!("{gt}/mocs"), &identity.mocs, 0o444)?;
        RESETS.iter().try_for_each(|name| self.file(&format!("{gt}/{name}"), "", 0o644))
    }
}

/// The process' umask, which only a change of it tells otherwise; all of it where it cannot be read.
pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    umask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}

/// The host's CPUs that are on line, as a list.
fn online_cpus() -> String {
    let read = || {
        let path = "/sys/devices/system/cpu/online";
        let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = [0; 256];
        let length = io::read(&file, &mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..length]).trim().to_string())
    };
    read().unwrap_or_else(|| "0".into())
}

/// A list of CPUs as a mask: words of 32 bits, the highest first.
fn cpu_mask(list: &str) -> String {
    let mut words = vec![0u32];
    for span in list.split(',') {
        let mut ends = span.split('-').map_while(|number| number.trim().parse::<usize>().ok());
        let Some(first) = ends.next() else { continue };
        for cpu in first..=ends.next().unwrap_or(first).min(first + 4096) {
            if words.len() <= cpu / 32 {
                words.resize(cpu / 32 + 1, 0);
            }
            words[cpu / 32] |= 1 << (cpu % 32);
        }
    }
    words.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(",")
}

/// The head of a bridge's configuration space: ids, class, and the buses on both sides.
fn port_config_space(bus: u8) -> [u8; 64] {
    let mut space = [0; 64];
    space[0..2].copy_from_slice(&0x8086u16.to_le_bytes());
    space[2..4].copy_from_slice(&0x352au16.to_le_bytes());
    space[8] = 4;
    space[10..12].copy_from_slice(&0x0604u16.to_le_bytes());
    space[14] = 1;
    space[24..27].copy_from_slice(&[bus - 1, bus, bus]);
    space
}

/// The head of PCI configuration space: ids, revision, class; the rest is zeros.
fn config_space(identity: &Identity) -> [u8; 64] {
    let mut space = [0; 64];
    space[0..2].copy_from_slice(&0x8086u16.to_le_bytes());
    space[2..4].copy_from_slice(&identity.devid.to_le_bytes());
    space[8] = identity.revid;
    space[10..12].copy_from_slice(&0x0380u16.to_le_bytes());
    space[44..46].copy_from_slice(&0x8086u16.to_le_bytes());
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_words_of_a_mask() {
        let cases = [("0-1", "00000003"), ("0,2-3", "0000000d"), ("33", "00000002,00000000"), ("", "00000000")];
        for (list, mask) in cases {
            assert_eq!(cpu_mask(list), mask, "{list}");
        }
    }
}
