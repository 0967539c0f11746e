//! close, dup, fcntl, ioctl and their kin.
//!
//! Descriptors of this library are hidden ([`nodes::is_hidden`]): the program gets EBADF for them. So a program that
//! closes all numbers that it does not know closes none of ours.

use super::open::{Call, forget};
use super::passed::Process;
use super::signals::{Held, Pending};
use super::{fail, inside, interpose, real, received, shared, wait, writes};
use crate::device::{Errno, File, Passed};
use crate::nodes::{self, Entry};
use crate::{refused, session};
use core::ffi::{c_int, c_uint, c_void};
use libc::{DIR, EBADF, FILE};
use std::sync::Arc;
use units::HostVa;
use xe_uapi::dma_buf;
use xe_uapi::ioctl::WAIT_USER_FENCE;

interpose! {
    fn close(fd: c_int) -> c_int {
        if nodes::is_hidden(fd) {
            return fail(EBADF);
        }
        forget(fd);
        // SAFETY: the program's own argument.
        unsafe { real::close(fd) }
    }
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
        if first > last {
            return fail(libc::EINVAL);
        }
        let keeps_open = flags & libc::CLOSE_RANGE_CLOEXEC as c_int != 0;
        let mut start = first;
        for fd in nodes::ours_in(first, last) {
            if nodes::is_hidden(fd) {
                // SAFETY: a part of the program's own range.
                if fd as c_uint > start && unsafe { real::close_range(start, fd as c_uint - 1, flags) } != 0 {
                    return -1;
                }
                start = fd as c_uint + 1;
            } else if !keeps_open {
                forget(fd);
            }
        }
        if start > last {
            return 0;
        }
        // SAFETY: a part of the program's own range.
        unsafe { real::close_range(start, last, flags) }
    }
    fn closefrom(first: c_int) {
        // SAFETY: the program's own argument; closing descriptors cannot fail but where the range is wrong.
        unsafe { close_range(first.max(0) as c_uint, c_uint::MAX, 0) };
    }
    fn fclose(file: *mut FILE) -> c_int {
        // SAFETY: the program's own stream, still open.
        let fd = unsafe { libc::fileno(file) };
        let is_checked = nodes::entry(fd) == Entry::Checked;
        // SAFETY: the program's own stream, still open.
        let flushed = if is_checked { unsafe { writes::flush(file) } } else { None };
        forget(fd);
        // SAFETY: the program's own argument.
        let closed = unsafe { real::fclose(file) };
        if let Some(Err(errno)) = flushed { fail(errno) } else { closed }
    }
    fn closedir(dir: *mut DIR) -> c_int {
        if !dir.is_null() {
            // SAFETY: the program's own directory stream, still open.
            forget(unsafe { libc::dirfd(dir) });
        }
        // SAFETY: the program's own argument.
        unsafe { real::closedir(dir) }
    }
    fn dup(fd: c_int) -> c_int {
        if nodes::is_hidden(fd) {
            return fail(EBADF);
        }
        // SAFETY: the program's own argument.
        shared(fd, unsafe { real::dup(fd) })
    }
    fn dup2(old: c_int, new: c_int) -> c_int {
        if nodes::is_hidden(old) || nodes::is_hidden(new) {
            return fail(EBADF);
        }
        // SAFETY: the program's own arguments.
        replaced(old, unsafe { real::dup2(old, new) })
    }
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
        if nodes::is_hidden(old) || nodes::is_hidden(new) {
            return fail(EBADF);
        }
        // SAFETY: the program's own arguments.
        replaced(old, unsafe { real::dup3(old, new, flags) })
    }
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
        if nodes::is_hidden(fd) {
            return fail(EBADF);
        }
        // SAFETY: the program's own arguments; one that was not given is not looked at by this command.
        let result = unsafe { real::fcntl(fd, command, argument) };
        match command {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => shared(fd, result),
            _ => result,
        }
    }
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { fcntl(fd, command, argument) }
    }
    fn ioctl(fd: c_int, request: usize, argument: *mut c_void) -> c_int {
        // Programs with an `int` request give it sign-extended.
        let command = request as u32;
        match nodes::entry(fd) {
            Entry::Node(_) if (command >> 8) & 0xff == u32::from(b'd') => device_ioctl(fd, command, argument),
            Entry::Machine | Entry::Library => fail(EBADF),
            Entry::Passed => passed_ioctl(fd, command, argument),
            Entry::Buffer => buffer_ioctl(fd, command, argument),
            Entry::Foreign if (command >> 8) as u8 == dma_buf::KIND && shared::is_shown(fd) => {
                buffer_ioctl(fd, command, argument)
            }
            Entry::Foreign if (command >> 8) as u8 == b'd' && received::adopt(fd) => device_ioctl(fd, command, argument),
            // SAFETY: the program's own arguments.
            _ => unsafe { real::ioctl(fd, request, argument) },
        }
    }
}

/// The driver's own ioctls.
fn device_ioctl(fd: c_int, command: u32, argument: *mut c_void) -> c_int {
    until_done(|signals| machine_ioctl(fd, command, argument, signals))
}

/// Waits end for a signal as the kernel's do: again where all its handlers restart.
fn until_done(ioctl: impl Fn(&Held) -> Result<u32, Errno>) -> c_int {
    loop {
        let (result, pending) = inside(|signals| (ioctl(signals), signals.pending()));
        // The handlers have run by now.
        match result {
            Err(Errno(libc::EINTR)) if pending == Pending::Restarts => {}
            Err(Errno(errno)) => return fail(errno),
            Ok(value) => return value as c_int,
        }
    }
}

/// An ioctl on what an ioctl gave out.
fn passed_ioctl(fd: c_int, command: u32, argument: *mut c_void) -> c_int {
    ioctl_on(command, argument, |_| {
        let epoch = session::epoch();
        let (passed, file) =
            nodes::passed(fd, epoch).filter(|_| session::is_alive(epoch)).ok_or(Errno(libc::ENODEV))?;
        Ok((passed, file, epoch))
    })
}

/// An ioctl on a dma-buf.
fn buffer_ioctl(fd: c_int, command: u32, argument: *mut c_void) -> c_int {
    ioctl_on(command, argument, |signals| shared::find(fd, signals))
}

type Found = (Passed, Arc<dyn File>, u32);

fn ioctl_on(command: u32, argument: *mut c_void, find: impl Fn(&Held) -> Result<Found, Errno>) -> c_int {
    until_done(|signals| {
        let (passed, file, epoch) = find(signals)?;
        file.ioctl_on(&passed, command, HostVa(argument as u64), &Process { signals, file: &file, epoch })
    })
}

fn machine_ioctl(fd: c_int, command: u32, argument: *mut c_void, signals: &Held) -> Result<u32, Errno> {
    let _open = Call::begin(fd);
    let (file, epoch) = session::file(fd)?;
    let result = match command {
        WAIT_USER_FENCE => wait::wait_user_fence(file.as_ref(), HostVa(argument as u64), signals),
        _ => file.ioctl(command, HostVa(argument as u64), &Process { signals, file: &file, epoch }),
    };
    if result == Err(Errno(libc::EIO))
        && let Some(device) = session::running()
    {
        refused::explain(device.as_ref());
    }
    result
}

/// After a dup: the new number is what the old one is.
fn shared(old: c_int, new: c_int) -> c_int {
    if new >= 0 && nodes::entry(old) != Entry::Foreign {
        inside(|_| nodes::share(old, new));
    }
    new
}

/// After a dup onto a number that may have been ours.
fn replaced(old: c_int, new: c_int) -> c_int {
    if new >= 0 && new != old {
        forget(new);
    }
    let new = if new == old { new } else { shared(old, new) };
    if new == libc::STDOUT_FILENO {
        writes::output_changed();
    }
    new
}
