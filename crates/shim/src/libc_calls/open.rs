//! open and its kin, fopen, opendir, scandir.
//!
//! The real function opens the path (of the tree, where it is shown); then [`adopt`] looks at what was opened, and
//! replaces the descriptor where it is special.

use super::real::{self, Compare, Select};
use super::{c_string, complain, fail, inside, interpose, look, set_errno, signals};
use crate::device::Errno;
use crate::fdinfo;
use crate::minor::Minor;
use crate::nodes::{self, Behind, Entry, MAX_FD};
use crate::session;
use crate::view::{self, Look, Of, Special};
use core::ffi::{CStr, c_char, c_int, c_uint};
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{AT_FDCWD, DIR, FILE, O_CLOEXEC, O_PATH, dirent64};
use rustix::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags};
use std::mem::MaybeUninit;

interpose! {
    fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path, flags| unsafe { real::open(path, flags, mode) };
        // SAFETY: the program's own path.
        unsafe { open_at(AT_FDCWD, path, flags, real) }
    }
    fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { open(path, flags, mode) }
    }
    fn __open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { open(path, flags, mode) }
    }
    fn __open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { open(path, flags, mode) }
    }
    fn __open_2(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the program's own arguments; this form never creates, so there is no mode.
        unsafe { open(path, flags, 0) }
    }
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: as for __open_2.
        unsafe { open(path, flags, 0) }
    }
    fn openat(dirfd: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path, flags| unsafe { real::openat(dirfd, path, flags, mode) };
        // SAFETY: the program's own path.
        unsafe { open_at(dirfd, path, flags, real) }
    }
    fn openat64(dirfd: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { openat(dirfd, path, flags, mode) }
    }
    fn __openat_2(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: as for __open_2.
        unsafe { openat(dirfd, path, flags, 0) }
    }
    fn __openat64_2(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int {
        // SAFETY: as for __open_2.
        unsafe { openat(dirfd, path, flags, 0) }
    }
    fn creat(path: *const c_char, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { open(path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode) }
    }
    fn creat64(path: *const c_char, mode: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { creat(path, mode) }
    }
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
        // SAFETY: the program's own arguments.
        if matches!(unsafe { look(AT_FDCWD, path) }, Look::Foreign) && unsafe { fdinfo(AT_FDCWD, path) }.is_none() {
            // SAFETY: the program's own arguments.
            return unsafe { real::fopen(path, mode) };
        }
        // SAFETY: a C string of the program.
        let Some(flags) = unsafe { c_string(mode) }.and_then(open_flags) else {
            set_errno(libc::EINVAL);
            return core::ptr::null_mut();
        };
        // SAFETY: the program's path; the mode is what fopen creates files with.
        let fd = unsafe { open(path, flags, 0o666) };
        if fd < 0 {
            return core::ptr::null_mut();
        }
        // SAFETY: a descriptor just opened, and the program's mode.
        unsafe { libc::fdopen(fd, mode) }
    }
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
        // SAFETY: the program's own arguments.
        unsafe { fopen(path, mode) }
    }
    fn opendir(path: *const c_char) -> *mut DIR {
        // SAFETY: the program's own arguments.
        match unsafe { look(AT_FDCWD, path) } {
            // SAFETY: a path of the tree.
            Look::Shown(shown) => mark(unsafe { real::opendir(shown.as_ptr()) }),
            // SAFETY: the program's own arguments.
            Look::Inside => mark(unsafe { real::opendir(path) }),
            // SAFETY: the program's own arguments.
            Look::Foreign | Look::Node(..) => unsafe { real::opendir(path) },
        }
    }
    fn scandir(path: *const c_char, list: *mut *mut *mut dirent64, select: Select, compare: Compare) -> c_int {
        // SAFETY: the program's own arguments.
        match unsafe { look(AT_FDCWD, path) } {
            // SAFETY: a path of the tree, and the program's functions.
            Look::Shown(shown) => unsafe { real::scandir64(shown.as_ptr(), list, select, compare) },
            // SAFETY: the program's own arguments.
            _ => unsafe { real::scandir64(path, list, select, compare) },
        }
    }
    fn scandir64(path: *const c_char, list: *mut *mut *mut dirent64, select: Select, compare: Compare) -> c_int {
        // SAFETY: the program's own arguments; the two forms are one where off_t has 64 bits.
        unsafe { scandir(path, list, select, compare) }
    }
}

/// # Safety
/// `path` is the program's own; `real` opens what it is given.
unsafe fn open_at(
    dirfd: c_int,
    path: *const c_char,
    flags: c_int,
    real: impl Fn(*const c_char, c_int) -> c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    if let Some(of) = unsafe { fdinfo(dirfd, path) } {
        return info_over(real(path, flags), of, flags);
    }
    // SAFETY: the caller's contract.
    let look = unsafe { look(dirfd, path) };
    let path = match &look {
        Look::Foreign => return real(path, flags),
        Look::Node(minor) => return open_node(*minor, flags),
        Look::Shown(shown) => shown.as_ptr(),
        Look::Inside => path,
    };
    // SAFETY: the program's path, or one of the tree.
    if is_writing(flags) && unsafe { is_read_only(dirfd, path) } {
        return fail(libc::EACCES);
    }
    // Files of sysfs are not emptied, and have no end to write at.
    let kept = if flags & O_PATH == 0 { flags & !(libc::O_TRUNC | libc::O_APPEND) } else { flags };
    adopt(real(path, kept), flags)
}

/// The descriptor of a node, of this process or perhaps of another one, whose `fdinfo` a path leads to.
///
/// # Safety
/// `path` is the program's own.
unsafe fn fdinfo(dirfd: c_int, path: *const c_char) -> Option<Of> {
    // SAFETY: the caller's contract.
    let bytes = unsafe { c_string(path) }?;
    let is_node = |of: &Of| of.process.is_some() || matches!(nodes::entry(of.fd), Entry::Node(_));
    view::fdinfo(dirfd, bytes).filter(is_node)
}

/// `fd`, just opened, becomes a file with what the kernel says of a descriptor, and what the device says; it stays as it is where the
/// device says nothing.
fn info_over(fd: c_int, of: Of, flags: c_int) -> c_int {
    if fd < 0 || flags & O_PATH != 0 {
        return fd;
    }
    finish(inside(|_| {
        // SAFETY: the descriptor was just opened, and its number is not the program's yet.
        let opened = unsafe { OwnedFd::from_raw_fd(fd) };
        let told = match of.process {
            None => usage(of.fd),
            Some(process) => is_node_of(process, of.fd).then(|| fdinfo::ask(process, of.fd)).flatten(),
        };
        let Some(told) = told else { return Ok(opened.into_raw_fd()) };
        let mut text = vec![0; 4096];
        let length = rustix::io::read(&opened, &mut text).map_err(errno_of)?;
        text.truncate(length);
        text.extend_from_slice(told.as_bytes());
        content_over(opened, c"/proc/self/fdinfo", &text, flags)
    }))
}

fn usage(fd: c_int) -> Option<String> {
    let (file, epoch) = nodes::file(fd)?;
    session::is_alive(epoch).then(|| file.usage())
}

/// Whether another process's descriptor is one of a node. Not by std, whose readlink is our own.
fn is_node_of(process: u32, fd: c_int) -> bool {
    let mut room = [MaybeUninit::uninit(); 64];
    let path = format!("/proc/{process}/fd/{fd}");
    let name = rustix::fs::readlinkat_raw(CWD, path.as_str(), &mut room);
    name.is_ok_and(|(name, _)| nodes::of_name(name).is_some())
}

/// `opened`'s number becomes a file of these bytes.
fn content_over(opened: OwnedFd, name: &CStr, bytes: &[u8], flags: c_int) -> Result<c_int, Errno> {
    let content = memory_file(name, flags)?;
    // A fresh memfd takes a page or two in one piece, from any position: the reader's own is still at the start.
    signals::within_file_limit(|| rustix::io::pwrite(&content, bytes, 0)).map_err(errno_of)?;
    Ok(replace(opened, content, flags)?.into_raw_fd())
}

fn is_writing(flags: c_int) -> bool {
    flags & O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// Whether nobody may write a file of the tree: root may not, either, in sysfs.
///
/// # Safety
/// A path of the program, or of the tree.
unsafe fn is_read_only(dirfd: c_int, path: *const c_char) -> bool {
    let mut stat = core::mem::MaybeUninit::<libc::stat64>::zeroed();
    // SAFETY: the caller's path, and room for the answer.
    let found = unsafe { real::fstatat64(dirfd, path, stat.as_mut_ptr(), 0) };
    // SAFETY: zeroed before, and zeros are a valid one.
    let mode = unsafe { stat.assume_init() }.st_mode;
    found == 0 && mode & libc::S_IFMT == libc::S_IFREG && mode & 0o222 == 0
}

/// Looks at what the real function opened, and makes it what it shall be.
fn adopt(fd: c_int, flags: c_int) -> c_int {
    if fd < 0 || flags & O_PATH != 0 {
        return fd;
    }
    finish(inside(|_| {
        // SAFETY: the descriptor was just opened, and its number is not the program's yet.
        let opened = unsafe { OwnedFd::from_raw_fd(fd) };
        let Ok(stat) = rustix::fs::fstat(&opened) else { return Ok(opened.into_raw_fd()) };
        match view::special(stat.st_dev, stat.st_ino) {
            Some(Special::Node(minor)) => node_over(opened, minor, flags),
            Some(Special::Stats(gt)) if !is_writing(flags) => {
                content_over(opened, c"/sys/kernel/debug/stats", fdinfo::stats(gt).as_bytes(), flags)
            }
            Some(Special::Vram(gt)) => {
                content_over(opened, c"/sys/kernel/debug/vram_mm", fdinfo::vram(gt).as_bytes(), flags)
            }
            Some(Special::Device(device, what)) => {
                let text = fdinfo::of_device(device, what, view::system_bytes(device));
                content_over(opened, c"/sys/kernel/debug/dri", text.as_bytes(), flags)
            }
            Some(Special::Property(..) | Special::Limit | Special::Profile | Special::Reset(_) | Special::Stats(_)) => {
                if is_writing(flags) {
                    nodes::mark_checked(fd);
                }
                Ok(opened.into_raw_fd())
            }
            None => {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    nodes::mark_dir(fd);
                }
                Ok(opened.into_raw_fd())
            }
        }
    }))
}

/// A new open file of a node, as `/proc/self/fd/N` of a node gives.
fn open_node(minor: Minor, flags: c_int) -> c_int {
    finish(inside(|_| memory_file(minor.path(), flags).and_then(|fd| node_over(fd, minor, flags))))
}

fn finish(result: Result<c_int, Errno>) -> c_int {
    result.unwrap_or_else(|Errno(errno)| fail(errno))
}

/// `opened`'s number becomes a file of the machine: a memfd, which can be duplicated, polled and inherited.
fn node_over(opened: OwnedFd, minor: Minor, flags: c_int) -> Result<c_int, Errno> {
    if opened.as_raw_fd() as usize >= MAX_FD {
        return Err(Errno(libc::EMFILE));
    }
    let (file, epoch) = session::open(minor)?;
    let opened = replace(opened, node_file(minor, flags)?, flags)?;
    let fd = opened.into_raw_fd();
    nodes::install(fd, minor, file, epoch);
    Ok(fd)
}

/// A memory file that is open as the program asks: for reading, for writing, without waiting.
fn node_file(minor: Minor, flags: c_int) -> Result<OwnedFd, Errno> {
    let file = memory_file(minor.path(), flags)?;
    let kept = OFlags::from_bits_retain((flags & (libc::O_ACCMODE | libc::O_NONBLOCK | O_CLOEXEC)) as c_uint);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(path.as_str(), kept, Mode::empty()).unwrap_or(file))
}

/// A memory file; its name is for those who read `/proc`.
fn memory_file(name: &CStr, flags: c_int) -> Result<OwnedFd, Errno> {
    let close = if flags & O_CLOEXEC != 0 { MemfdFlags::CLOEXEC } else { MemfdFlags::empty() };
    rustix::fs::memfd_create(name, close).map_err(|errno| {
        say_refused(errno);
        errno_of(errno)
    })
}

/// A filter of system calls forbids what a descriptor of the device is made of.
fn say_refused(errno: rustix::io::Errno) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if matches!(errno, rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) && !SAID.swap(true, Ordering::AcqRel) {
        complain(&format!(
            "the device cannot be opened: memfd_create is refused ({errno}): a filter of system calls (docker run \
             --security-opt seccomp=unconfined lifts docker's)"
        ));
    }
}

/// `new` takes the number of `old`.
fn replace(mut old: OwnedFd, new: OwnedFd, flags: c_int) -> Result<OwnedFd, Errno> {
    let close = if flags & O_CLOEXEC != 0 { rustix::io::DupFlags::CLOEXEC } else { rustix::io::DupFlags::empty() };
    rustix::io::dup3(new.as_fd(), &mut old, close).map_err(errno_of)?;
    Ok(old)
}

fn errno_of(errno: rustix::io::Errno) -> Errno {
    Errno(errno.raw_os_error())
}

fn mark(dir: *mut DIR) -> *mut DIR {
    if !dir.is_null() {
        // SAFETY: a directory stream that was just opened.
        nodes::mark_dir(unsafe { libc::dirfd(dir) });
    }
    dir
}

/// open(2)'s flags of an fopen mode; `None` where the mode has no meaning.
fn open_flags(mode: &[u8]) -> Option<c_int> {
    let plus = mode.contains(&b'+');
    let access = |alone| if plus { libc::O_RDWR } else { alone };
    let base = match mode.first()? {
        b'r' => access(libc::O_RDONLY),
        b'w' => access(libc::O_WRONLY) | libc::O_CREAT | libc::O_TRUNC,
        b'a' => access(libc::O_WRONLY) | libc::O_CREAT | libc::O_APPEND,
        _ => return None,
    };
    Some(base | if mode.contains(&b'e') { O_CLOEXEC } else { 0 })
}

/// The descriptor is gone (or about to go): its open file is closed with the last one.
pub fn forget(fd: c_int) {
    if nodes::entry(fd) == Entry::Foreign {
        return;
    }
    inside(|_| end(nodes::forget(fd)));
}

/// Ends what lost its last descriptor.
fn end(gone: Option<(Behind, u32)>) {
    match gone {
        Some((Behind::File(file), epoch)) if session::is_alive(epoch) => file.close(),
        Some((Behind::Passed(passed, file), epoch)) if session::is_alive(epoch) => drop((passed, file)),
        gone => nodes::leak(gone),
    }
}

/// A call on an open file: the file stays open until it returns, whoever closes the descriptor meanwhile. Upstream: `fdget`.
pub struct Call(usize);

impl Call {
    /// The call begins; `None` where there is no open file of ours.
    pub fn begin(fd: c_int) -> Option<Self> {
        nodes::begin_call(fd).map(Self)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        end(nodes::end_call(self.0));
    }
}
