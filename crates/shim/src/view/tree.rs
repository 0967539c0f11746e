//! The tree itself: what a Xe device of two tiles shows in `/dev/dri`, sysfs and debugfs.
//!
//! All files are regular ones and all links relative, so the kernel resolves, lists and reads them by itself. The
//! files that are more than that (nodes, statistics) are known by their inode, see [`super::Special`].
//!
//! Upstream: xe_device_sysfs, xe_hw_engine_class_sysfs, xe_debugfs, xe_gt_debugfs.

use super::property;
use crate::device::Identity;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io;

/// PCI slot of the device.
pub const SLOT: &str = "0000:4d:00.0";
const PCI: &str = "sys/devices/pci0000:4c/0000:4d:00.0";

/// The folder of an engine class.
pub fn engines(tile: u32, class: &str) -> String {
    format!("{PCI}/tile{tile}/gt{tile}/engines/{class}")
}

/// Makes the tree in an empty directory, by its descriptor. Nothing is written but what was just made.
pub fn build(root: BorrowedFd<'_>, identity: &Identity) -> io::Result<()> {
    let tree = Tree { root };
    tree.nodes()?;
    tree.pci_device(identity)?;
    for tile in 0..identity.tiles {
        tree.tile(identity, tile)?;
    }
    tree.debugfs(identity)
}

struct Tree<'a> {
    root: BorrowedFd<'a>,
}

impl Tree<'_> {
    /// A directory, and those above it.
    fn dir(&self, path: &str) -> io::Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            match rustix::fs::mkdirat(self.root, &path[..end], Mode::RWXU) {
                Ok(()) => rustix::fs::chmodat(self.root, &path[..end], Mode::from(0o755), AtFlags::empty())?,
                Err(io::Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.root, path, flags, Mode::RUSR)?;
        let mut rest = content.as_ref();
        while !rest.is_empty() {
            rest = &rest[io::write(&file, rest)?..];
        }
        rustix::fs::fchmod(&file, Mode::from(mode))
    }

    /// Read-only text with its newline, as in sysfs.
    fn text(&self, path: &str, text: &str) -> io::Result<()> {
        self.file(path, format!("{text}\n"), 0o444)
    }

    fn link(&self, path: &str, to: &str) -> io::Result<()> {
        rustix::fs::symlinkat(to, self.root, path)
    }

    fn nodes(&self) -> io::Result<()> {
        for dir in ["dev/dri", "dev/char", "sys/dev/char", "sys/class/drm", "sys/bus/pci/devices"] {
            self.dir(dir)?;
        }
        for (minor, name) in [(0, "card0"), (128, "renderD128")] {
            self.file(&format!("dev/dri/{name}"), "", 0o666)?;
            self.link(&format!("dev/char/226:{minor}"), &format!("../dri/{name}"))?;
            self.link(&format!("sys/dev/char/226:{minor}"), &format!("../../devices/{}/drm/{name}", &PCI[12..]))?;
            self.link(&format!("sys/class/drm/{name}"), &format!("../../devices/{}/drm/{name}", &PCI[12..]))?;
        }
        self.text("sys/class/drm/version", "drm 1.1.0 20060810")?;
        self.link(&format!("sys/bus/pci/devices/{SLOT}"), &format!("../../../devices/{}", &PCI[12..]))
    }

    fn pci_device(&self, identity: &Identity) -> io::Result<()> {
        self.dir("sys/bus/pci/drivers/xe")?;
        self.dir(PCI)?;
        self.link(&format!("sys/bus/pci/drivers/xe/{SLOT}"), &format!("../../../../devices/{}", &PCI[12..]))?;
        self.link(&format!("{PCI}/subsystem"), "../../../bus/pci")?;
        self.link(&format!("{PCI}/driver"), "../../../bus/pci/drivers/xe")?;
        let (devid, revid) = (identity.devid, identity.revid);
        for (name, text) in [
            ("vendor", "0x8086".to_string()),
            ("device", format!("{devid:#06x}")),
            ("revision", format!("{revid:#04x}")),
            ("subsystem_vendor", "0x8086".to_string()),
            ("subsystem_device", "0x0000".to_string()),
            ("class", "0x038000".to_string()),
            ("numa_node", "-1".to_string()),
            ("enable", "1".to_string()),
        ] {
            self.text(&format!("{PCI}/{name}"), &text)?;
        }
        let uevent = format!(
            "DRIVER=xe\nPCI_CLASS=38000\nPCI_ID=8086:{devid:04X}\nPCI_SUBSYS_ID=8086:0000\nPCI_SLOT_NAME={SLOT}\n\
             MODALIAS=pci:v00008086d{devid:08X}sv00008086sd00000000bc03sc80i00"
        );
        self.text(&format!("{PCI}/uevent"), &uevent)?;
        self.file(&format!("{PCI}/config"), config_space(identity), 0o644)?;
        for (minor, name) in [(0, "card0"), (128, "renderD128")] {
            self.drm_minor(minor, name)?;
        }
        Ok(())
    }

    fn drm_minor(&self, minor: u32, name: &str) -> io::Result<()> {
        let dir = format!("{PCI}/drm/{name}");
        self.dir(&dir)?;
        self.link(&format!("{dir}/device"), "../../../0000:4d:00.0")?;
        self.link(&format!("{dir}/subsystem"), "../../../../../class/drm")?;
        self.text(&format!("{dir}/dev"), &format!("226:{minor}"))?;
        let uevent = format!("MAJOR=226\nMINOR={minor}\nDEVNAME=dri/{name}\nDEVTYPE=drm_minor");
        self.text(&format!("{dir}/uevent"), &uevent)
    }

    /// A tile has one GT of the same number.
    fn tile(&self, identity: &Identity, tile: u32) -> io::Result<()> {
        let gt = format!("{PCI}/tile{tile}/gt{tile}");
        self.dir(&format!("{gt}/gtidle"))?;
        self.text(&format!("{gt}/gtidle/name"), &format!("gt{tile}-rc"))?;
        self.text(&format!("{gt}/gtidle/idle_status"), "gt-c0")?;
        for class in identity.engine_classes {
            let engines = engines(tile, class);
            self.dir(&format!("{engines}/.defaults"))?;
            for property::File { name, default, .. } in property::FILES {
                self.file(&format!("{engines}/{name}"), format!("{default}\n"), 0o644)?;
                self.text(&format!("{engines}/.defaults/{name}"), &default.to_string())?;
            }
        }
        Ok(())
    }

    fn debugfs(&self, identity: &Identity) -> io::Result<()> {
        let dri = "sys/kernel/debug/dri";
        self.dir(&format!("{dri}/0"))?;
        self.link(&format!("{dri}/128"), "0")?;
        self.link(&format!("{dri}/{SLOT}"), "0")?;
        self.text(&format!("{dri}/0/name"), &format!("xe dev={SLOT} unique={SLOT}"))?;
        let Identity { devid, revid, tiles, vm_max_level, .. } = identity;
        let info = format!(
            "graphics_verx100 1260\nmedia_verx100 0\nis_dgfx yes\nplatform PVC\ndevid {devid:#x}\nrevid {revid}\n\
             tile_count {tiles}\nvm_max_level {vm_max_level}\nforce_execlist no\nhas_flat_ccs no\nhas_usm yes"
        );
        self.text(&format!("{dri}/0/info"), &info)?;
        for name in ["clients", "gem_names", "gtt_mm", "forcewake_all"] {
            self.file(&format!("{dri}/0/{name}"), "", 0o644)?;
        }
        for tile in 0..*tiles {
            self.file(&format!("{dri}/0/vram{tile}_mm"), "", 0o444)?;
            self.dir(&format!("{dri}/0/gt{tile}"))?;
            self.file(&format!("{dri}/0/gt{tile}/stats"), "", 0o644)?;
        }
        Ok(())
    }
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
