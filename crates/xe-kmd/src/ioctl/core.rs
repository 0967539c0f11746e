//! The DRM core's ioctls: who the driver is, what it can do, who is master. The device has no display, so what is about one
//! is refused.
//!
//! Upstream: `drm_ioctl.c`, `drm_auth.c`, for a driver without `DRIVER_MODESET`.

use units::HostVa;
use xe_uapi::drm::{self, CLIENT_NAME_MAX, GetCap, Magic, SetClientName, SetVersion, Unique, Version};

use super::{Reply, require};
use crate::errno::Errno;
use crate::file::File;

/// What render nodes do not have (`EACCES`). Upstream: `drm_ioctl_permit`.
pub(super) fn reachable(file: &File) -> Result<&File, Errno> {
    if file.is_render() { Err(Errno::EACCES) } else { Ok(file) }
}

/// Major and minor version of the driver.
const DRIVER: (i32, i32) = (1, 1);
/// Of the DRM core's interface.
const INTERFACE: (i32, i32) = (1, 4);

/// VERSION: who the driver is.
pub(super) fn version(file: &File, args: &mut Version) -> Reply {
    (args.version_major, args.version_minor) = DRIVER;
    args.version_patchlevel = 0;
    args.name_len = text(file, "xe", args.name, args.name_len)?;
    args.date_len = text(file, "0", args.date, args.date_len)?;
    args.desc_len = text(file, "Intel Xe Graphics", args.desc, args.desc_len)?;
    Ok(0)
}

/// Copies as much of `text` as fits; its true length.
fn text(file: &File, text: &str, to: u64, capacity: u64) -> Result<u64, Errno> {
    let fits = text.len().min(usize::try_from(capacity).unwrap_or(usize::MAX));
    if fits > 0 && HostVa(to) != HostVa(0) {
        file.shared.copy_out(to, &text.as_bytes()[..fits])?;
    }
    Ok(text.len() as u64)
}

/// GET_CAP: what the core can do.
pub(super) fn get_cap(_file: &File, args: &mut GetCap) -> Reply {
    args.value = match args.capability {
        drm::CAP_TIMESTAMP_MONOTONIC | drm::CAP_SYNCOBJ | drm::CAP_SYNCOBJ_TIMELINE => 1,
        drm::CAP_PRIME => drm::PRIME_BOTH_WAYS,
        _ => {
            args.value = 0;
            return Err(Errno::EOPNOTSUPP);
        }
    };
    Ok(0)
}

/// SET_CLIENT_CAP: there are caps of displays only.
pub(super) fn set_client_cap(file: &File, _args: &mut GetCap) -> Reply {
    reachable(file).and(Err(Errno::EOPNOTSUPP))
}

/// SET_CLIENT_NAME: what `fdinfo` tells it as.
pub(super) fn set_client_name(file: &File, args: &mut SetClientName) -> Reply {
    require(args.name_len <= CLIENT_NAME_MAX)?;
    let mut name = vec![0; args.name_len as usize];
    if !name.is_empty() {
        file.shared.copy_in_bytes(HostVa(args.name), &mut name)?;
    }
    require(name.iter().all(u8::is_ascii_graphic))?;
    *file.client.who.name.lock() = String::from_utf8(name).ok().filter(|name| !name.is_empty());
    Ok(0)
}

/// SET_MASTER.
pub(super) fn set_master(file: &File) -> Reply {
    may_be_master(file)?;
    if !file.shared.master.take(file.client.who.id) {
        return Err(Errno::EBUSY);
    }
    file.was_master.store(true);
    file.client.who.authenticated.store(true);
    Ok(0)
}

/// DROP_MASTER.
pub(super) fn drop_master(file: &File) -> Reply {
    may_be_master(file)?;
    require(file.shared.master.give(file.client.who.id))?;
    Ok(0)
}

/// Upstream: `drm_master_check_perm`.
fn may_be_master(file: &File) -> Result<(), Errno> {
    let may = file.was_master.load() || file.shared.is_admin();
    if may { reachable(file).map(|_| ()) } else { Err(Errno::EACCES) }
}

/// What only the master has.
fn is_master(file: &File) -> Result<&File, Errno> {
    if file.shared.master.is(file.client.who.id) { reachable(file) } else { Err(Errno::EACCES) }
}

/// SET_VERSION: which version of the interface a program knows. The device's name on the bus, which it would set, is not told.
pub(super) fn set_version(file: &File, args: &mut SetVersion) -> Reply {
    is_master(file)?;
    let knows = |(major, minor), asked: (i32, i32)| asked.0 == -1 || asked.0 == major && (0..=minor).contains(&asked.1);
    let known = knows(INTERFACE, (args.di_major, args.di_minor)) && knows(DRIVER, (args.dd_major, args.dd_minor));
    ((args.di_major, args.di_minor), (args.dd_major, args.dd_minor)) = (INTERFACE, DRIVER);
    require(known)?;
    Ok(0)
}

/// GET_UNIQUE: the device has no name.
pub(super) fn get_unique(file: &File, args: &mut Unique) -> Reply {
    reachable(file)?;
    args.length = 0;
    Ok(0)
}

/// GET_MAGIC: a number that a master could be told, if there were something that it could allow.
pub(super) fn get_magic(file: &File, args: &mut Magic) -> Reply {
    reachable(file)?;
    args.magic = file.client.who.id as u32;
    file.client.who.magic.store(args.magic.into());
    Ok(0)
}

/// Whether a number is an ioctl of the core's that render nodes do not have, and this driver does not: of displays, and of old.
pub(super) const fn is_of_primary(number: u8) -> bool {
    matches!(number, 0x05 | 0x06 | 0x10..=0x13 | 0x27 | 0x28 | 0x2c | 0x3f) || is_of_displays(number)
}

const fn is_of_displays(number: u8) -> bool {
    matches!(number, 0x3a..=0x3c | 0xa0..=0xbe | 0xc6..=0xc9 | 0xce | 0xd0)
}

/// The answer to such a one.
pub(super) fn refuse(file: &File, number: u8) -> Reply {
    match number {
        0x10..=0x13 | 0x27 | 0x28 | 0x3f => is_master(file)?,
        0xa2 | 0xa3 | 0xa5 | 0xa8 | 0xa9 | 0xab | 0xb0 | 0xb1 | 0xb7 | 0xba..=0xbc | 0xc6..=0xc9 => is_master(file)?,
        _ => reachable(file)?,
    };
    Err(if is_of_displays(number) { Errno::EOPNOTSUPP } else { Errno::EINVAL })
}
