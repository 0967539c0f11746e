//! DRM core: versions, handles, syncobjs, PRIME.

use super::{Asked, Expected, Model, Passed, is_lowest};
use crate::layout::Kind;
use crate::place::EVENT_FD;
use machine::Errno;

impl Model {
    /// What there is to say of a call that all drivers have.
    pub(super) fn say_of_core(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        let (names, is_render) = (&self.files[file], file & 1 == 1);
        let handle = asked.get32("handle");
        let has_bo = names.bos.contains_key(&handle);
        match asked.ioctl.call.name {
            "VERSION" => _ = e.may(&[Errno::EFAULT]),
            "GET_CAP" => {
                let is_known = matches!(asked.get("capability"), 5 | 6 | 0x13 | 0x14);
                e.wrong(Errno::EOPNOTSUPP, !is_known);
            }
            "SET_CLIENT_CAP" if is_render => _ = e.wrong(Errno::EACCES, true),
            "SET_CLIENT_CAP" => _ = e.wrong(Errno::EOPNOTSUPP, true),
            // Whether it is master the model does not follow: a dup may keep an older file that is.
            "SET_MASTER" => _ = e.wrong(Errno::EACCES, is_render).may(&[Errno::EACCES, Errno::EBUSY]),
            "DROP_MASTER" => _ = e.wrong(Errno::EACCES, is_render).may(&[Errno::EACCES, Errno::EINVAL]),
            "GEM_CLOSE" => _ = e.require(has_bo),
            "GEM_FLINK" => _ = e.wrong(Errno::EACCES, is_render).wrong(Errno::ENOENT, !has_bo),
            "GEM_OPEN" => _ = e.wrong(Errno::EACCES, is_render).may(&[Errno::ENOENT]),
            "PRIME_HANDLE_TO_FD" => {
                let flags = asked.get("flags");
                e.require(flags & !0o2_000_002 == 0).wrong(Errno::ENOENT, !has_bo);
                e.wrong(Errno::EPERM, names.bos.get(&handle).is_some_and(|bo| bo.vm.is_some()));
                e.may(&[Errno::EMFILE]);
                self.may_be_purged(e);
            }
            "PRIME_FD_TO_HANDLE" => {
                let fd = asked.get("fd") as i32;
                let buffer = match self.fds.get(&fd) {
                    Some(Passed::DmaBuf(bo)) => Some(bo),
                    _ => None,
                };
                e.wrong(Errno::EBADF, buffer.is_none()).may(if buffer.is_some() { &[] } else { &[Errno::EINVAL] });
                // Its bytes may not be had.
                e.may(if buffer.is_some_and(|bo| bo.device != file / 2) { &[Errno::ENOMEM] } else { &[] });
                e.anything |= self.lost_any();
            }
            _ => self.say_of_syncobj(file, asked, e),
        }
    }

    /// A BO whose contents are not needed, or gone, may be refused.
    pub(super) fn may_be_purged(&self, e: &mut Expected) {
        e.may(if self.purges { &[Errno::EINVAL, Errno::EBUSY] } else { &[] });
    }

    fn say_of_syncobj(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        let names = &self.files[file];
        let is = |name: &str| names.syncobjs.contains(&asked.get32(name));
        let (flags, fd) = (asked.get("flags"), asked.get("fd") as i32);
        match asked.ioctl.call.name {
            "SYNCOBJ_CREATE" => _ = e.require(flags & !1 == 0),
            "SYNCOBJ_DESTROY" => _ = e.require(asked.is_zero(&["pad"])).require(is("handle")),
            "SYNCOBJ_HANDLE_TO_FD" => {
                e.require(asked.is_zero(&["pad"])).require(flags & !3 == 0);
                e.require(asked.get("point") == 0 || flags & 1 != 0);
                e.wrong(Errno::ENOENT, !is("handle")).require(is("handle"));
                e.may(if flags & 1 != 0 { &[Errno::EMFILE, Errno::EINVAL] } else { &[Errno::EMFILE] });
                e.may(if asked.get("point") != 0 { &[Errno::EINVAL] } else { &[] });
            }
            "SYNCOBJ_FD_TO_HANDLE" => {
                e.require(asked.is_zero(&["pad"])).require(flags & !3 == 0);
                e.require(asked.get("point") == 0 || flags & 1 != 0);
                let right = match self.fds.get(&fd) {
                    Some(Passed::Syncobj) => flags & 1 == 0,
                    Some(Passed::SyncFile) => flags & 1 != 0,
                    _ => false,
                };
                e.require(right).wrong(Errno::ENOENT, flags & 1 != 0 && !is("handle"));
                e.anything |= self.lost_any();
                e.may(if asked.get("point") != 0 { &[Errno::EINVAL] } else { &[] });
            }
            "SYNCOBJ_EVENTFD" => {
                e.require(asked.is_zero(&["pad"])).require(flags & !4 == 0).wrong(Errno::ENOENT, !is("handle"));
                e.wrong(Errno::EBADF, fd != EVENT_FD).require(fd == EVENT_FD);
            }
            "SYNCOBJ_TRANSFER" => {
                e.require(asked.is_zero(&["pad"])).require(flags & !2 == 0);
                e.wrong(Errno::ENOENT, !is("src_handle") || !is("dst_handle"));
                e.may(&[Errno::EINVAL, Errno::ETIME]);
            }
            name => self.say_of_arrays(file, asked, name, e),
        }
    }

    fn say_of_arrays(&self, file: usize, asked: &Asked<'_>, name: &str, e: &mut Expected) {
        let (flags, count) = (asked.get("flags"), asked.get("count_handles"));
        let is_wait = matches!(name, "SYNCOBJ_WAIT" | "SYNCOBJ_TIMELINE_WAIT");
        let known_flags = match name {
            "SYNCOBJ_WAIT" => 1 | 2 | 8,
            "SYNCOBJ_TIMELINE_WAIT" => 1 | 2 | 4 | 8,
            "SYNCOBJ_QUERY" => 1,
            _ => 0,
        };
        let has_flags = asked.ioctl.call.kind != Kind::SyncobjArray;
        e.require(!has_flags || flags & !known_flags == 0).require(has_flags || asked.is_zero(&["pad"]));
        if count == 0 {
            e.require(is_wait);
            return;
        }
        e.may(if is_wait { &[Errno::ETIME, Errno::EINVAL] } else { &[] });
        e.may(&[Errno::EFAULT]);
        match asked.words(asked.get("handles"), count) {
            None => e.may.extend([Errno::ENOENT, Errno::ENOMEM, Errno::EINVAL]),
            Some(handles) => {
                let unknown = handles.iter().any(|handle| !self.files[file].syncobjs.contains(handle));
                e.wrong(Errno::ENOENT, unknown);
            }
        }
    }

    /// What a call did.
    pub(super) fn learn_of_core(&mut self, file: usize, asked: &Asked<'_>) -> Result<(), String> {
        let handle = asked.get32("handle");
        match asked.ioctl.call.name {
            "GEM_CLOSE" => _ = self.files[file].bos.remove(&handle),
            "GEM_OPEN" => {
                let new = asked.out("handle") as u32;
                is_lowest(new, self.files[file].bos.keys())?;
                // Which one it is the model does not follow.
                self.files[file].is_lost = true;
            }
            "PRIME_HANDLE_TO_FD" => {
                if let Some(bo) = self.files[file].bos.get(&handle).copied() {
                    self.new_fd(asked.out("fd") as i32, Passed::DmaBuf(bo))?;
                }
            }
            "PRIME_FD_TO_HANDLE" => {
                let (new, fd) = (asked.out("handle") as u32, asked.get("fd") as i32);
                let passed = self.fds.get(&fd).copied();
                let names = &mut self.files[file];
                let Some(Passed::DmaBuf(bo)) = passed else {
                    names.is_lost = true;
                    return Ok(());
                };
                if names.bos.get(&new).is_none_or(|known| known.id != bo.id) {
                    is_lowest(new, names.bos.keys())?;
                    names.bos.insert(new, bo);
                }
            }
            "SYNCOBJ_CREATE" => {
                let new = asked.out("handle") as u32;
                is_lowest(new, self.files[file].syncobjs.iter())?;
                self.files[file].syncobjs.insert(new);
            }
            "SYNCOBJ_DESTROY" => _ = self.files[file].syncobjs.remove(&handle),
            "SYNCOBJ_HANDLE_TO_FD" => {
                let is_fence = asked.get("flags") & 1 != 0;
                let passed = if is_fence { Passed::SyncFile } else { Passed::Syncobj };
                self.new_fd(asked.out("fd") as i32, passed)?;
            }
            "SYNCOBJ_FD_TO_HANDLE" if asked.get("flags") & 1 == 0 => {
                let new = asked.out("handle") as u32;
                is_lowest(new, self.files[file].syncobjs.iter())?;
                self.files[file].syncobjs.insert(new);
            }
            _ => {}
        }
        Ok(())
    }
}
