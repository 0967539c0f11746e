//! The open files of one process, told to the others of its run: whoever may read `/proc/PID/fdinfo/N` sees what is behind that
//! descriptor, whichever process has it.
//!
//! A process has a socket in the run's folder, by its number; a thread answers each datagram with what all open files use. (A
//! connection would cost a descriptor here: `accept` keeps a low number, which is the program's, for as long as it waits.)
//! Both sides know an open file by the inode of the node's memory file. Whether it may look, the asker was told by the kernel: it has
//! opened the real file before it asks. A process that is stopped, or too busy, tells nothing.
//!
//! Locking: that of the table of descriptors, and what [`File::usage`] takes; none of them while the other side is waited for.
//!
//! Upstream: `drm_show_fdinfo`, which the kernel calls for whoever reads.
//!
//! [`File::usage`]: crate::device::File::usage

use crate::nodes::{self, Entry};
use crate::{libc_calls, outside, session, view};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most that an answer may have: what a datagram holds by default. With more open files nothing is told.
const ROOM: usize = 200 << 10;
/// How long the thread pauses where the kernel gives it nothing.
const PAUSE_NS: u64 = 10_000_000;
/// What the part of an open file begins with, before the inode.
const HEAD: &str = "inode ";

/// Answers others from now on, where there is a run. Without a socket or a thread they see what the kernel tells.
pub fn begin() {
    let Some(folder) = view::shared_folder() else { return };
    let Ok(socket) = listen(folder.as_fd()) else { return };
    let socket = libc_calls::raise(socket);
    let number = socket.as_raw_fd();
    nodes::mark_machine(number);
    if sync::try_spawn_daemon("pontoon-fdinfo", move || serve(&socket)).is_err() {
        nodes::unmark(number);
        libc_calls::close_quietly(number);
    }
}

/// This process ends: nobody finds it any more.
pub fn end() {
    if let Some(folder) = view::shared_folder() {
        let _ = rustix::fs::unlinkat(&folder, name(outside::process()), AtFlags::empty());
    }
}

/// What the open file behind the descriptor of another process uses, as lines of its fdinfo.
pub fn ask(process: u32, fd: i32) -> Option<String> {
    let node = rustix::fs::stat(format!("/proc/{process}/fd/{fd}").as_str()).ok()?;
    let answer = answer_of(process).ok()?;
    let all = String::from_utf8(answer).ok()?;
    let number = format!("{}\n", node.st_ino);
    all.split(HEAD).find_map(|part| part.strip_prefix(&number)).map(str::to_owned)
}

fn name(process: u32) -> String {
    format!("fdinfo.{process}")
}

/// A process's socket. A path may be longer than a socket's address: the folder is named by its descriptor.
fn address(folder: BorrowedFd<'_>, process: u32) -> rustix::io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), name(process)))
}

fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

fn listen(folder: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let (socket, process) = (socket()?, std::process::id());
    // Another process had this number, and was killed.
    let _ = rustix::fs::unlinkat(folder, name(process), AtFlags::empty());
    rustix::net::bind(&socket, &address(folder, process)?)?;
    rustix::fs::chmodat(folder, name(process), Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    Ok(socket)
}

fn serve(socket: &OwnedFd) {
    loop {
        match rustix::net::recvfrom(socket, &mut [0u8; 1], RecvFlags::empty()) {
            Ok((_, _, Some(asker))) => {
                let _ = rustix::net::sendto(socket, open_files().as_bytes(), SendFlags::DONTWAIT, &asker);
            }
            Ok((_, _, None)) | Err(Errno::INTR) => {}
            Err(Errno::NOBUFS | Errno::NOMEM) => sync::time::sleep_ns(PAUSE_NS),
            Err(_) => return,
        }
    }
}

/// What each open file uses, behind the inode of its node's memory file.
fn open_files() -> String {
    let (mut text, mut told) = (String::new(), BTreeSet::new());
    for fd in nodes::ours_in(0, u32::MAX).filter(|fd| matches!(nodes::entry(*fd), Entry::Node(_))) {
        let Some((file, epoch)) = nodes::file(fd) else { continue };
        let Some(inode) = nodes::inode(fd).filter(|_| session::is_alive(epoch)) else { continue };
        if told.insert(inode) {
            let _ = write!(text, "{HEAD}{}\n{}", inode.1, file.usage());
        }
    }
    text
}

fn answer_of(process: u32) -> rustix::io::Result<Vec<u8>> {
    let folder = view::shared_folder().ok_or(Errno::NOENT)?;
    if machine::live::is_stopped(process) {
        return Err(Errno::AGAIN);
    }
    let socket = socket()?;
    for way in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, way, Some(PATIENCE))?;
    }
    // Under a name that the kernel gives, by which it is answered.
    rustix::net::bind(&socket, &SocketAddrUnix::new_unnamed())?;
    rustix::net::connect(&socket, &address(folder.as_fd(), process)?)?;
    rustix::net::send(&socket, &[0], SendFlags::NOSIGNAL)?;
    let mut answer = vec![0; ROOM];
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}
