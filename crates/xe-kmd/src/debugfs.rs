//! What debugfs tells of a device as a whole, as values: whoever shows the files gives them their form.
//!
//! Locking: leaves, and each BO's lock by itself.
//!
//! Upstream: `drm_debugfs.c` (`drm_clients_info`, `drm_gem_name_info`).

use crate::share::SharedBos;
use crate::shared::Shared;

/// An open file of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenFile {
    /// Its number: no other of the device has it.
    pub id: u64,
    /// Of the render node.
    pub is_render: bool,
    /// It is the device's master.
    pub is_master: bool,
    /// Its program administrates the system, or it was ever master.
    pub authenticated: bool,
    /// The number that GET_MAGIC told; 0: nobody asked.
    pub magic: u64,
    /// What the program calls it.
    pub name: Option<String>,
}

/// A BO that has a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedBo {
    /// The number.
    pub name: u32,
    /// Its bytes.
    pub size: u64,
    /// Its handles, in all files.
    pub handles: u64,
    /// Its owners, as the kernel counts them.
    pub owners: u64,
}

/// The open files, the oldest first.
pub(crate) fn open_files(shared: &Shared) -> Vec<OpenFile> {
    let all = shared.open_files.all();
    let tell = all.iter().map(|who| OpenFile {
        id: who.id,
        is_render: who.is_render,
        is_master: shared.master.is(who.id),
        authenticated: who.authenticated.load(),
        magic: who.magic.load(),
        name: who.name.lock().clone(),
    });
    tell.collect()
}

/// The BOs that have a number.
pub(crate) fn named_bos(bos: &SharedBos) -> Vec<NamedBo> {
    let tell = bos.numbered().into_iter().map(|(name, bo)| NamedBo {
        name,
        size: bo.config.size,
        handles: bo.handles(),
        owners: bo.owners(),
    });
    tell.collect()
}
