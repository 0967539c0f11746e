//! What the processes of a run ask each other: each has a part of the device that is one to them. Whoever may read
//! `/proc/PID/fdinfo/N` sees what is behind that descriptor, whichever process has it; and whoever may read or write the files of a
//! GT in debugfs sees what all have counted, or resets the GT of all.
//!
//! A process has a socket in the run's folder, by its number; a thread answers each datagram. (A connection would cost a descriptor
//! here: `accept` keeps a low number, which is the program's, for as long as it waits.) An open file is known to both sides by the
//! inode of the node's memory file. Whether it may look, the asker was told by the kernel: it has opened the real file before it
//! asks. A process that is stopped, or too busy, tells nothing; an order that it does not confirm has failed.
//!
//! Locking: that of the table of descriptors, and what [`File::usage`] and a reset take; none of them while the other side is waited for.
//!
//! Upstream: `drm_show_fdinfo`, `xe_gt_stats_print_info` and their kin, which the kernel calls for whoever reads.
//!
//! [`File::usage`]: crate::device::File::usage

use crate::device::{Device, OfDevice};
use crate::minor::Gt;
use crate::nodes::{self, Entry};
use crate::{libc_calls, outside, session, view};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
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
/// Name of a socket, before the number of the process.
const PREFIX: &str = "fdinfo.";

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

/// What one process asks of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    /// What its open files use.
    Files,
    /// Of a GT in debugfs.
    Of(Gt, OfGt),
    /// Of a device there, by its number.
    OfDevice(u8, OfDevice),
}

/// What is asked of a GT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OfGt {
    /// Its counters.
    Stats,
    /// That they begin anew.
    Clear,
    /// How much of its tile's VRAM is used.
    Vram,
    /// That it is reset.
    Reset,
}

impl Question {
    const OF_GT: [OfGt; 4] = [OfGt::Stats, OfGt::Clear, OfGt::Vram, OfGt::Reset];

    fn bytes(self) -> [u8; 3] {
        match self {
            Self::Files => [0; 3],
            Self::Of(gt, what) => [what as u8 + 1, gt.device, gt.number as u8],
            Self::OfDevice(device, what) => [(1 + Self::OF_GT.len()) as u8 + what as u8, device, 0],
        }
    }

    fn of_bytes([kind, device, number]: [u8; 3]) -> Option<Self> {
        match kind.checked_sub(1) {
            None => Some(Self::Files),
            Some(what) => {
                let (gt, what) = (Gt { device, number: number.into() }, usize::from(what));
                let of_gt = Self::OF_GT.get(what).map(|what| Self::Of(gt, *what));
                let file = || OfDevice::FILES.get(what - Self::OF_GT.len());
                of_gt.or_else(|| file().map(|(what, _)| Self::OfDevice(device, *what)))
            }
        }
    }

    fn answer(self) -> String {
        match (self, session::running()) {
            (Self::Files, _) => open_files(),
            (Self::Of(gt, what), Some(device)) => of_gt(&*device, gt, what),
            (Self::OfDevice(device, what), Some(running)) => running.told(device, what),
            (Self::Of(..) | Self::OfDevice(..), None) => String::new(),
        }
    }
}

/// What a device answers that is asked of a GT.
fn of_gt(device: &dyn Device, gt: Gt, what: OfGt) -> String {
    match what {
        OfGt::Stats => return device.gt_stats(gt).text(),
        OfGt::Vram => return device.vram(gt),
        OfGt::Clear => device.clear_gt_stats(gt),
        OfGt::Reset => device.reset_gt(gt),
    }
    String::new()
}

/// What all processes of the run have counted of a GT.
pub fn stats(gt: Gt) -> String {
    let mut sum = session::running().map(|device| device.gt_stats(gt)).unwrap_or_default();
    others(Question::Of(gt, OfGt::Stats)).0.iter().for_each(|text| sum.add_text(text));
    sum.text()
}

/// How much of a tile's VRAM is used, as any process knows it; nothing where none has the device.
pub fn vram(gt: Gt) -> String {
    let others = || others(Question::Of(gt, OfGt::Vram)).0.into_iter().find(|text| !text.is_empty());
    session::running().map(|device| device.vram(gt)).or_else(others).unwrap_or_default()
}

/// What a file of a device in debugfs has, of all processes, and the system memory that buffers may take.
pub fn of_device(device: u8, what: OfDevice, system_bytes: u64) -> String {
    let mut told = others(Question::OfDevice(device, what)).0;
    told.extend(session::running().map(|running| running.told(device, what)));
    what.text(&told, system_bytes)
}

/// Has all processes do it. EIO where one does not answer.
pub fn order(gt: Gt, what: OfGt) -> Result<(), i32> {
    if let Some(device) = session::running() {
        of_gt(&*device, gt, what);
    }
    if others(Question::Of(gt, what)).1 { Ok(()) } else { Err(libc::EIO) }
}

/// What the other processes of the run answer, and whether all did that there are.
fn others(question: Question) -> (Vec<String>, bool) {
    let (mut answers, mut all) = (Vec::new(), true);
    let listed = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder =
        view::shared_folder().map(|folder| rustix::fs::openat(&folder, ".", listed, Mode::empty()).and_then(Dir::new));
    let entries = folder.and_then(Result::ok);
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|number| number.parse::<u32>().ok());
        let Some(process) = process.filter(|process| *process != outside::process()) else { continue };
        match answer_of(process, question) {
            Ok(answer) => answers.push(String::from_utf8_lossy(&answer).into_owned()),
            // It has ended.
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::CONNRESET) => {}
            Err(_) => all = false,
        }
    }
    (answers, all)
}

/// What the open file behind the descriptor of another process uses, as lines of its fdinfo.
pub fn ask(process: u32, fd: i32) -> Option<String> {
    let node = rustix::fs::stat(format!("/proc/{process}/fd/{fd}").as_str()).ok()?;
    let answer = answer_of(process, Question::Files).ok()?;
    let all = String::from_utf8(answer).ok()?;
    let number = format!("{}\n", node.st_ino);
    all.split(HEAD).find_map(|part| part.strip_prefix(&number)).map(str::to_owned)
}

fn name(process: u32) -> String {
    format!("{PREFIX}{process}")
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
        let mut asked = [0u8; 3];
        match rustix::net::recvfrom(socket, &mut asked, RecvFlags::empty()) {
            Ok((_, _, Some(asker))) => {
                let answer = Question::of_bytes(asked).map(Question::answer).unwrap_or_default();
                let _ = rustix::net::sendto(socket, answer.as_bytes(), SendFlags::DONTWAIT, &asker);
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

fn answer_of(process: u32, question: Question) -> rustix::io::Result<Vec<u8>> {
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
    rustix::net::send(&socket, &question.bytes(), SendFlags::NOSIGNAL)?;
    let mut answer = vec![0; ROOM];
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}
