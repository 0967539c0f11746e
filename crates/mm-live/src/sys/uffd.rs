//! userfaultfd: the descriptor, its ioctls and its messages (about what the `userfaultfd` crate has, plus MOVE).

use super::descriptor::Fd;
use super::{Access, Errno, call, check, ioctl, open};
use crate::kernel::{Message, Progress, Watch};
use core::cell::UnsafeCell;
use linux_raw_sys::general as raw;
use units::{HostRange, HostVa};

/// What a descriptor shall do.
pub(crate) mod feature {
    use linux_raw_sys::general as raw;
    /// munmap, mremap and DONTNEED are reported.
    pub const EVENTS: u64 =
        (raw::UFFD_FEATURE_EVENT_REMAP | raw::UFFD_FEATURE_EVENT_REMOVE | raw::UFFD_FEATURE_EVENT_UNMAP) as u64;
    /// A fault says which thread it is of.
    pub const THREAD: u64 = raw::UFFD_FEATURE_THREAD_ID as u64;
    /// A missing page raises SIGBUS at once instead of a message.
    pub const SIGBUS: u64 = raw::UFFD_FEATURE_SIGBUS as u64;
    /// UFFDIO_MOVE (Linux 6.8).
    pub const MOVE: u64 = raw::UFFD_FEATURE_MOVE as u64;
    /// UFFDIO_POISON (Linux 6.6).
    pub const POISON: u64 = raw::UFFD_FEATURE_POISON as u64;
    /// Write protection faults.
    pub const WP: u64 = raw::UFFD_FEATURE_PAGEFAULT_FLAG_WP as u64;
}

/// How a descriptor was had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// /dev/userfaultfd.
    Device,
    /// userfaultfd(2), with privilege or the sysctl.
    Syscall,
    /// userfaultfd(2) with UFFD_USER_MODE_ONLY.
    UserModeOnly,
}

/// A userfaultfd.
#[derive(Debug)]
pub(crate) struct Uffd {
    fd: Fd,
}

const fn iowr(nr: u32, size: usize) -> u32 {
    0xc000_0000 | ((size as u32) << 16) | (raw::UFFDIO << 8) | nr
}
const fn ior(nr: u32, size: usize) -> u32 {
    0x8000_0000 | ((size as u32) << 16) | (raw::UFFDIO << 8) | nr
}
const API: u32 = iowr(raw::_UFFDIO_API, 24);
const REGISTER: u32 = iowr(raw::_UFFDIO_REGISTER, 32);
const UNREGISTER: u32 = ior(raw::_UFFDIO_UNREGISTER, 16);
const WAKE: u32 = ior(raw::_UFFDIO_WAKE, 16);
const COPY: u32 = iowr(raw::_UFFDIO_COPY, 40);
const ZEROPAGE: u32 = iowr(raw::_UFFDIO_ZEROPAGE, 32);
const MOVE: u32 = iowr(raw::_UFFDIO_MOVE, 40);
const WRITEPROTECT: u32 = iowr(raw::_UFFDIO_WRITEPROTECT, 24);
const POISON: u32 = iowr(raw::_UFFDIO_POISON, 32);
const _: () = assert!(MOVE == 0xc028_aa05 && API == 0xc018_aa3f);

const MODE_DONTWAKE: u64 = 1;
const WP_MODE_WP: u64 = 1;
const WP_MODE_DONTWAKE: u64 = 2;

impl Uffd {
    /// A new descriptor, non-blocking: by the device node, by the system call, or for user-mode faults only.
    pub fn open(features: u64) -> Result<(Self, Source), Errno> {
        let mut refused = Errno::PERM;
        for source in [Source::Device, Source::Syscall, Source::UserModeOnly] {
            match Self::open_by(source) {
                Ok(fd) => {
                    let uffd = Self { fd: fd.raised() };
                    return uffd.handshake(features).map(|()| (uffd, source));
                }
                Err(errno) => refused = errno,
            }
        }
        Err(refused)
    }

    fn open_by(source: Source) -> Result<Fd, Errno> {
        const USERFAULTFD_IOC_NEW: usize = 0xaa00;
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
        let ret = match source {
            Source::Device => {
                let device = open(c"/dev/userfaultfd", Access::ReadWrite)?;
                // SAFETY: this ioctl takes flags by value.
                unsafe { call(libc::SYS_ioctl, [device.raw() as usize, USERFAULTFD_IOC_NEW, flags, 0, 0, 0]) }
            }
            // SAFETY: the call takes flags by value.
            Source::Syscall => unsafe { call(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]) },
            Source::UserModeOnly => {
                let flags = flags | raw::UFFD_USER_MODE_ONLY as usize;
                // SAFETY: the call takes flags by value.
                unsafe { call(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]) }
            }
        };
        check(ret).map(|fd| Fd::new(fd as i32))
    }

    fn handshake(&self, features: u64) -> Result<(), Errno> {
        let mut api = raw::uffdio_api { api: raw::UFFD_API as u64, features, ioctls: 0 };
        // SAFETY: UFFDIO_API takes this struct.
        unsafe { ioctl(&self.fd, API, &mut api) }.map(drop)
    }

    /// The descriptor's number, for poll.
    pub fn raw(&self) -> i32 {
        self.fd.raw()
    }

    /// Reports faults of `range` here from now on. Splits the VMA at the range's ends. 1.3 us.
    pub fn register(&self, range: HostRange, watch: Watch) -> Result<(), Errno> {
        let mode = match watch {
            Watch::Missing => raw::UFFDIO_REGISTER_MODE_MISSING,
            Watch::MissingAndProtected => raw::UFFDIO_REGISTER_MODE_MISSING | raw::UFFDIO_REGISTER_MODE_WP,
        } as u64;
        let mut arg = raw::uffdio_register { range: of(range), mode, ioctls: 0 };
        // SAFETY: UFFDIO_REGISTER takes this struct.
        unsafe { ioctl(&self.fd, REGISTER, &mut arg) }.map(drop)
    }

    /// Ends that, and wakes who waits. 0.8 us.
    pub fn unregister(&self, range: HostRange) -> Result<(), Errno> {
        // SAFETY: UFFDIO_UNREGISTER takes this struct.
        unsafe { ioctl(&self.fd, UNREGISTER, &mut of(range)) }.map(drop)
    }

    /// Lets every thread that waits in `range` look again.
    pub fn wake(&self, range: HostRange) {
        // SAFETY: UFFDIO_WAKE takes this struct.
        let _ = unsafe { ioctl(&self.fd, WAKE, &mut of(range)) };
    }

    /// Moves pages; nobody is woken. A hole ends it with ENOENT.
    ///
    /// Linux 6.18 forgets to reset its error after a transient EAGAIN inside of its loop. What follows is done,
    /// but does not count: pages that moved are met again and give EEXIST; and with ALLOW_SRC_HOLES a hole is
    /// met again for ever, in the kernel, until the process is killed. So that mode is never used, and who gets
    /// EEXIST looks where the page is.
    pub fn move_pages(&self, dst: u64, src: u64, len: u64) -> Progress {
        let mode = MODE_DONTWAKE;
        let mut arg = raw::uffdio_move { dst, src, len, mode, move_: 0 };
        // SAFETY: UFFDIO_MOVE takes this struct; both ranges are bytes that no reference names.
        let ret = unsafe { ioctl(&self.fd, MOVE, &mut arg) };
        progress(ret, arg.move_)
    }

    /// Copies bytes into missing pages; nobody is woken. Works into read-only mappings too.
    pub fn copy(&self, dst: u64, src: u64, len: u64) -> Progress {
        let mut arg = raw::uffdio_copy { dst, src, len, mode: MODE_DONTWAKE, copy: 0 };
        // SAFETY: UFFDIO_COPY takes this struct; both ranges are bytes that no reference names.
        let ret = unsafe { ioctl(&self.fd, COPY, &mut arg) };
        progress(ret, arg.copy)
    }

    /// Maps zero pages where pages are missing; nobody is woken.
    pub fn zero(&self, range: HostRange) -> Progress {
        let mut arg = raw::uffdio_zeropage { range: of(range), mode: MODE_DONTWAKE, zeropage: 0 };
        // SAFETY: UFFDIO_ZEROPAGE takes this struct.
        let ret = unsafe { ioctl(&self.fd, ZEROPAGE, &mut arg) };
        progress(ret, arg.zeropage)
    }

    /// Makes a missing page raise SIGBUS when touched.
    pub fn poison(&self, range: HostRange) {
        let mut arg = raw::uffdio_poison { range: of(range), mode: 0, updated: 0 };
        // SAFETY: UFFDIO_POISON takes this struct.
        let _ = unsafe { ioctl(&self.fd, POISON, &mut arg) };
    }

    /// Makes writes to present pages of `range` fault (or not any more; then nobody is woken).
    pub fn protect(&self, range: HostRange, protect: bool) -> Result<(), Errno> {
        let mode = if protect { WP_MODE_WP } else { WP_MODE_DONTWAKE };
        let mut arg = raw::uffdio_writeprotect { range: of(range), mode };
        // SAFETY: UFFDIO_WRITEPROTECT takes this struct.
        unsafe { ioctl(&self.fd, WRITEPROTECT, &mut arg) }.map(drop)
    }

    /// Whether an event is unread, or the thread that raised the last one has not run again: the kernel refuses
    /// every MOVE, COPY and ZEROPAGE before it looks at their arguments, so an invalid COPY tells. 0.2 us.
    pub fn event_pending(&self) -> bool {
        self.copy(0, 0, 0).error == Some(Errno::AGAIN)
    }

    /// Reads as many messages as are there, at most `room` and what the inbox has; does not block.
    pub fn read_into(&self, inbox: &Inbox, room: usize) -> usize {
        // SAFETY: the inbox has room for so many, and no reference names them.
        unsafe { self.read_to(inbox.at(0), room.min(Inbox::ROOM)) }
    }

    /// Reads as many messages as are there, at most `out.len()`; does not block.
    pub fn read(&self, out: &mut [RawMessage]) -> usize {
        // SAFETY: the slice has room for so many, and every bit pattern is a RawMessage.
        unsafe { self.read_to(out.as_mut_ptr(), out.len()) }
    }

    /// # Safety
    /// There is room for so many messages.
    unsafe fn read_to(&self, at: *mut RawMessage, room: usize) -> usize {
        let bytes = room * size_of::<RawMessage>();
        // SAFETY: the kernel writes whole messages, at most as many as there is room for, as the caller says.
        let ret = unsafe { call(libc::SYS_read, [self.fd.raw() as usize, at as usize, bytes, 0, 0, 0]) };
        check(ret).map_or(0, |got| got / size_of::<RawMessage>())
    }
}

/// Where one thread at a time reads messages to, and others look whether any came.
#[derive(Debug)]
pub(crate) struct Inbox(UnsafeCell<[RawMessage; Self::ROOM]>);

// SAFETY: its bytes are read and written by the kernel and by volatile accesses only; which thread's turn it is, the users see to.
unsafe impl Sync for Inbox {}

impl Inbox {
    const ROOM: usize = 16;

    /// Empty.
    pub const fn new() -> Self {
        Self(UnsafeCell::new([RawMessage([0; 4]); Self::ROOM]))
    }

    fn at(&self, index: usize) -> *mut RawMessage {
        self.0.get().cast::<RawMessage>().wrapping_add(index.min(Self::ROOM - 1))
    }

    /// A message.
    pub fn get(&self, index: usize) -> RawMessage {
        // SAFETY: within the array, and every bit pattern is a message.
        unsafe { self.at(index).read_volatile() }
    }

    /// Nothing came: no message begins with a zero.
    pub fn empty(&self) {
        // SAFETY: within the array.
        (0..Self::ROOM).for_each(|index| unsafe { self.at(index).write_volatile(RawMessage::default()) });
    }

    /// Whether something came that is no page fault.
    pub fn has_events(&self) -> bool {
        let kind = |index: usize| u32::from(self.get(index).0[0] as u8);
        (0..Self::ROOM).any(|index| !matches!(kind(index), 0 | raw::UFFD_EVENT_PAGEFAULT))
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.get(0).0[0] as u8 == 0
    }
}

/// `struct uffd_msg`, as four words: event byte, then three arguments.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RawMessage([u64; 4]);

impl RawMessage {
    /// What it says.
    pub fn parse(self) -> Message {
        let [head, a, b, c] = self.0;
        match u32::from(head as u8) {
            raw::UFFD_EVENT_PAGEFAULT => Message::Fault {
                addr: HostVa(b & !0xfff),
                write: a & raw::UFFD_PAGEFAULT_FLAG_WRITE as u64 != 0,
                protected: a & raw::UFFD_PAGEFAULT_FLAG_WP as u64 != 0,
                thread: c as u32,
            },
            raw::UFFD_EVENT_REMAP => Message::Remap { from: HostRange::sized(HostVa(a), c), to: HostVa(b) },
            raw::UFFD_EVENT_REMOVE => Message::Remove(HostRange::new(HostVa(a), HostVa(b))),
            raw::UFFD_EVENT_UNMAP => Message::Unmap(HostRange::new(HostVa(a), HostVa(b))),
            other => Message::Other(other as u8),
        }
    }
}

fn of(range: HostRange) -> raw::uffdio_range {
    raw::uffdio_range { start: range.start.0, len: range.len() }
}

/// These ioctls report bytes done, or a negative errno in the same place.
fn progress(ret: Result<usize, Errno>, done: i64) -> Progress {
    Progress { bytes: done.max(0) as u64, error: ret.err() }
}
