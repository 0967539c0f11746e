//! Chains of extensions: structs of the program's that point to one another, each of which sets a property of what is made.
//!
//! Upstream: `gem_create_user_extensions`, `__exec_queue_user_extensions`.

use xe_uapi::{EXTENSION_SET_PROPERTY, ExtSetProperty, UserExtension};

use super::require;
use crate::errno::Errno;
use crate::file::File;

/// Extensions in one chain.
const MAX_EXTENSIONS: usize = 16;

/// Calls `set` with each extension of the chain that begins at `next`; 0 is the chain of none.
pub(super) fn for_each(
    file: &File,
    mut next: u64,
    mut set: impl FnMut(&ExtSetProperty) -> Result<(), Errno>,
) -> Result<(), Errno> {
    for _ in 0..MAX_EXTENSIONS {
        if next == 0 {
            return Ok(());
        }
        let ext = read(file, next)?;
        require(ext.pad == 0)?;
        set(&ext)?;
        next = ext.base.next_extension;
    }
    if next == 0 { Ok(()) } else { Err(Errno::E2BIG) }
}

/// Reads an extension once, whole: the program may change it meanwhile. One of another kind may be shorter, and be the
/// last before memory ends: so its head is judged by itself where the whole cannot be read.
fn read(file: &File, at: u64) -> Result<ExtSetProperty, Errno> {
    let is_known = |head: &UserExtension| require(head.pad == 0 && head.name == EXTENSION_SET_PROPERTY);
    let ext: Result<ExtSetProperty, Errno> = file.shared.copy_in(at);
    match ext {
        Ok(ext) => is_known(&ext.base).map(|()| ext),
        Err(error) => file.shared.copy_in(at).and_then(|head| is_known(&head)).and(Err(error)),
    }
}

/// Whether something may have a type of protected content: of these platforms none has any (`has_pxp`).
///
/// Upstream: `gem_create_set_pxp_type`, `exec_queue_set_pxp_type`.
pub(super) const fn check_protection(kind: u64) -> Result<(), Errno> {
    match kind {
        xe_uapi::PXP_TYPE_NONE => Ok(()),
        xe_uapi::PXP_TYPE_HWDRM => Err(Errno::ENODEV),
        _ => Err(Errno::EINVAL),
    }
}
