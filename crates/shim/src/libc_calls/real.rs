//! The functions behind ours: the next definition in the search order, usually libc's.
//!
//! Found at first use. A variadic function is called through a type of fixed arity: on the Linux ABIs of x86-64,
//! aarch64 and riscv64 integer arguments travel in the same registers either way.

use super::loading;
use super::programs::Strings;
use super::threads::Body;
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::{DIR, FILE, dirent64, off64_t, pthread_attr_t, pthread_t, size_t, ssize_t};

/// A function's address, looked up once.
pub struct Symbol {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Symbol {
    /// The function of that name.
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Its address. Ends the process where libc has no such function: a program that calls it could not have been
    /// linked.
    pub fn get(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Acquire);
        if !known.is_null() {
            return known;
        }
        // SAFETY: a symbol name that is a C string; RTLD_NEXT is allowed in a loaded library.
        let found = unsafe { loading::look_up(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            super::complain("libc lacks a function that this program calls:");
            super::complain(self.name.to_str().unwrap_or("?"));
            std::process::abort();
        }
        self.address.store(found, Ordering::Release);
        found
    }
}

/// `scandir`'s choice of entries.
pub type Select = Option<unsafe extern "C" fn(*const dirent64) -> c_int>;
/// `scandir`'s order of entries.
pub type Compare = Option<unsafe extern "C" fn(*mut *const dirent64, *mut *const dirent64) -> c_int>;

/// What is called at the end of the process.
pub type AtExit = Option<unsafe extern "C" fn(*mut c_void)>;
/// A handler of fork.
pub type Handler = Option<unsafe extern "C" fn()>;

macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => { $(
        /// libc's function of this name.
        ///
        /// # Safety
        /// As libc's manual says.
        pub unsafe fn $name($($argument: $type),*) $(-> $result)? {
            static SYMBOL: Symbol = Symbol::new(
                match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name with a NUL"),
                }
            );
            // SAFETY: the function of this name has this type in libc's headers.
            let function: unsafe extern "C" fn($($type),*) $(-> $result)? = unsafe { mem::transmute(SYMBOL.get()) };
            // SAFETY: the caller keeps libc's contract.
            unsafe { function($($argument),*) }
        }
    )* };
}

functions! {
    fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    fn openat(dirfd: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
    fn read(fd: c_int, bytes: *mut c_void, count: size_t) -> ssize_t;
    fn __read_chk(fd: c_int, bytes: *mut c_void, count: size_t, room: size_t) -> ssize_t;
    fn readv(fd: c_int, parts: *const libc::iovec, count: c_int) -> ssize_t;
    fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t;
    fn pwrite64(fd: c_int, bytes: *const c_void, count: size_t, offset: off64_t) -> ssize_t;
    fn writev(fd: c_int, parts: *const libc::iovec, count: c_int) -> ssize_t;
    fn ftruncate64(fd: c_int, length: off64_t) -> c_int;
    fn fflush(file: *mut FILE) -> c_int;
    fn setvbuf(file: *mut FILE, buffer: *mut c_char, how: c_int, size: size_t) -> c_int;
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE;
    fn fclose(file: *mut FILE) -> c_int;
    fn opendir(path: *const c_char) -> *mut DIR;
    fn closedir(dir: *mut DIR) -> c_int;
    fn scandir64(path: *const c_char, list: *mut *mut *mut dirent64, select: Select, compare: Compare) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    fn dup(fd: c_int) -> c_int;
    fn dup2(old: c_int, new: c_int) -> c_int;
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    fn ioctl(fd: c_int, request: usize, argument: *mut c_void) -> c_int;
    fn poll(polled: *mut libc::pollfd, count: libc::nfds_t, timeout_ms: c_int) -> c_int;
    fn ppoll(
        polled: *mut libc::pollfd,
        count: libc::nfds_t,
        timeout: *const libc::timespec,
        mask: *const libc::sigset_t
    ) -> c_int;
    fn select(
        end: c_int,
        read: *mut libc::fd_set,
        write: *mut libc::fd_set,
        other: *mut libc::fd_set,
        wait: *mut libc::timeval
    ) -> c_int;
    fn pselect(
        end: c_int,
        read: *mut libc::fd_set,
        write: *mut libc::fd_set,
        other: *mut libc::fd_set,
        wait: *const libc::timespec,
        mask: *const libc::sigset_t
    ) -> c_int;
    fn epoll_ctl(set: c_int, what: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int;
    fn recvmsg(socket: c_int, message: *mut libc::msghdr, flags: c_int) -> ssize_t;
    fn recvmmsg(
        socket: c_int,
        messages: *mut libc::mmsghdr,
        count: c_uint,
        flags: c_int,
        wait: *mut libc::timespec
    ) -> c_int;
    fn stat64(path: *const c_char, out: *mut libc::stat64) -> c_int;
    fn lstat64(path: *const c_char, out: *mut libc::stat64) -> c_int;
    fn fstat64(fd: c_int, out: *mut libc::stat64) -> c_int;
    fn fstatat64(dirfd: c_int, path: *const c_char, out: *mut libc::stat64, flags: c_int) -> c_int;
    fn __xstat64(version: c_int, path: *const c_char, out: *mut libc::stat64) -> c_int;
    fn __lxstat64(version: c_int, path: *const c_char, out: *mut libc::stat64) -> c_int;
    fn __fxstat64(version: c_int, fd: c_int, out: *mut libc::stat64) -> c_int;
    fn __fxstatat64(version: c_int, dirfd: c_int, path: *const c_char, out: *mut libc::stat64, flags: c_int) -> c_int;
    fn statx(dirfd: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut libc::statx) -> c_int;
    fn statfs64(path: *const c_char, out: *mut libc::statfs64) -> c_int;
    fn fstatfs64(fd: c_int, out: *mut libc::statfs64) -> c_int;
    fn access(path: *const c_char, mode: c_int) -> c_int;
    fn euidaccess(path: *const c_char, mode: c_int) -> c_int;
    fn faccessat(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int;
    fn readlink(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t;
    fn readlinkat(dirfd: c_int, path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t;
    fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char;
    fn getxattr(path: *const c_char, name: *const c_char, out: *mut c_void, size: size_t) -> ssize_t;
    fn lgetxattr(path: *const c_char, name: *const c_char, out: *mut c_void, size: size_t) -> ssize_t;
    fn listxattr(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t;
    fn llistxattr(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t;
    fn chdir(path: *const c_char) -> c_int;
    fn fchdir(fd: c_int) -> c_int;
    fn getcwd(out: *mut c_char, size: size_t) -> *mut c_char;
    fn lseek64(fd: c_int, offset: off64_t, from: c_int) -> off64_t;
    fn mmap64(at: *mut c_void, length: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off64_t) -> *mut c_void;
    fn mprotect(at: *mut c_void, length: size_t, prot: c_int) -> c_int;
    fn pkey_mprotect(at: *mut c_void, length: size_t, prot: c_int, key: c_int) -> c_int;
    fn munmap(at: *mut c_void, length: size_t) -> c_int;
    fn mremap(at: *mut c_void, old: size_t, new: size_t, flags: c_int, to: *mut c_void) -> *mut c_void;
    fn madvise(at: *mut c_void, length: size_t, advice: c_int) -> c_int;
    fn shmat(id: c_int, at: *const c_void, flags: c_int) -> *mut c_void;
    fn mlock(at: *const c_void, length: size_t) -> c_int;
    fn mlock2(at: *const c_void, length: size_t, flags: c_uint) -> c_int;
    fn mlockall(flags: c_int) -> c_int;
    fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn __sysv_signal(signal: c_int, handler: usize) -> usize;
    fn unlink(path: *const c_char) -> c_int;
    fn unlinkat(dirfd: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn rmdir(path: *const c_char) -> c_int;
    fn remove(path: *const c_char) -> c_int;
    fn chmod(path: *const c_char, mode: c_uint) -> c_int;
    fn fchmodat(dirfd: c_int, path: *const c_char, mode: c_uint, flags: c_int) -> c_int;
    fn chown(path: *const c_char, user: c_uint, group: c_uint) -> c_int;
    fn lchown(path: *const c_char, user: c_uint, group: c_uint) -> c_int;
    fn fchownat(dirfd: c_int, path: *const c_char, user: c_uint, group: c_uint, flags: c_int) -> c_int;
    fn truncate(path: *const c_char, length: c_long) -> c_int;
    fn truncate64(path: *const c_char, length: c_long) -> c_int;
    fn utimensat(dirfd: c_int, path: *const c_char, times: *const c_void, flags: c_int) -> c_int;
    fn mkdir(path: *const c_char, mode: c_uint) -> c_int;
    fn mkdirat(dirfd: c_int, path: *const c_char, mode: c_uint) -> c_int;
    fn mknod(path: *const c_char, mode: c_uint, device: u64) -> c_int;
    fn mknodat(dirfd: c_int, path: *const c_char, mode: c_uint, device: u64) -> c_int;
    fn symlink(target: *const c_char, path: *const c_char) -> c_int;
    fn symlinkat(target: *const c_char, dirfd: c_int, path: *const c_char) -> c_int;
    fn rename(old: *const c_char, new: *const c_char) -> c_int;
    fn renameat(old_dirfd: c_int, old: *const c_char, new_dirfd: c_int, new: *const c_char) -> c_int;
    fn renameat2(old_dirfd: c_int, old: *const c_char, new_dirfd: c_int, new: *const c_char, flags: c_uint) -> c_int;
    fn link(old: *const c_char, new: *const c_char) -> c_int;
    fn linkat(old_dirfd: c_int, old: *const c_char, new_dirfd: c_int, new: *const c_char, flags: c_int) -> c_int;
    fn pthread_create(thread: *mut pthread_t, with: *const pthread_attr_t, body: Body, argument: *mut c_void) -> c_int;
    fn __register_atfork(prepare: Handler, parent: Handler, child: Handler, library: *mut c_void) -> c_int;
    fn __cxa_atexit(function: AtExit, argument: *mut c_void, library: *mut c_void) -> c_int;
    fn fork() -> libc::pid_t;
    fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int;
    fn _exit(status: c_int) -> !;
    fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int;
    fn execv(path: *const c_char, arguments: Strings) -> c_int;
    fn execvp(name: *const c_char, arguments: Strings) -> c_int;
    fn execvpe(name: *const c_char, arguments: Strings, environment: Strings) -> c_int;
    fn posix_spawn(
        process: *mut libc::pid_t,
        path: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: Strings,
        environment: Strings
    ) -> c_int;
    fn posix_spawnp(
        process: *mut libc::pid_t,
        name: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: Strings,
        environment: Strings
    ) -> c_int;
}
