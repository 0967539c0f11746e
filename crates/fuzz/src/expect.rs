//! What each ioctl must answer: a small model beside the driver, written from the interface and not from the driver.
//!
//! For each call the model collects what is *wrong* with it, each with its errno, and what *may* go wrong though nothing is
//! (memory is short, a queue was banned, time passed). A call with something wrong must fail, with an errno of what is wrong
//! or may go wrong; any other must succeed, or fail with what may. A name that is given out must be the lowest free one.
//!
//! The model follows names (files' VMs, queues, BOs, syncobjs; descriptors) and little else. It learns what a call did from
//! its answer, so that it stays right whatever may have gone wrong.
//!
//! `rules` has the ioctls of the driver, `core` those that all drivers have.

mod core;
mod rules;

use crate::device::Device;
use crate::layout::Kind;
use crate::place::{ARGUMENT, DESK, FIRST_FD};
use crate::sequence::{Ioctl, Sequence, Step};
use machine::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of the desk that arguments point into.
pub const DESK_BYTES: usize = 8192;

/// How a step was answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// The error; 0: none.
    pub errno: i32,
    /// The argument afterwards.
    pub out: Vec<u8>,
    /// The desk as the call found it.
    pub desk: Vec<u8>,
}

/// Whether every answer is one that may be. The first that is not: its step, and why.
pub fn judge(sequence: &Sequence, answers: &[Answer]) -> Result<(), (usize, String)> {
    let mut model = Model { device: sequence.device, ..Model::default() };
    for (number, (step, answer)) in sequence.steps.iter().zip(answers).enumerate() {
        match step {
            Step::Ioctl(ioctl) => model.ioctl(ioctl, answer).map_err(|what| (number, what))?,
            Step::Close(fd) => _ = model.fds.remove(fd),
            Step::Reopen(file) => {
                let closed = std::mem::take(&mut model.files[*file]);
                model.was_lost |= closed.is_lost;
            }
            Step::Put(_) | Step::Memory(_) | Step::Fork | Step::Reset(_) | Step::Sleep(_) => {}
        }
    }
    Ok(())
}

/// What the model knows.
#[derive(Default)]
struct Model {
    device: Device,
    /// Two a device.
    files: [Names; 4],
    fds: BTreeMap<i32, Passed>,
    /// A file that is closed by now may have given out others.
    was_lost: bool,
    next_bo: u64,
    /// Advice on whether contents are needed was given: BOs may refuse.
    purges: bool,
}

/// Names of one file.
#[derive(Default)]
struct Names {
    vms: BTreeMap<u32, Vm>,
    queues: BTreeMap<u32, Queue>,
    bos: BTreeMap<u32, Bo>,
    syncobjs: BTreeSet<u32>,
    /// Something happened that the model does not follow.
    is_lost: bool,
    /// VMs that there ever were.
    vms_made: u64,
}

#[derive(Clone, Copy)]
struct Vm {
    flags: u32,
    /// Distinguishes it from others of its name.
    serial: u64,
}

impl Vm {
    const fn is_long_running(self) -> bool {
        self.flags & 2 != 0
    }
    const fn has_faults(self) -> bool {
        self.flags & 4 != 0
    }
}

#[derive(Clone, Copy)]
struct Queue {
    vm: Vm,
    is_bind: bool,
}

#[derive(Clone, Copy)]
struct Bo {
    id: u64,
    /// Whose it is; the other device imports it.
    device: usize,
    size: u64,
    placement: u32,
    caching: u16,
    /// Nothing of it may be compressed.
    plain: bool,
    /// Serial of the VM that it belongs to, alone.
    vm: Option<u64>,
}

#[derive(Clone, Copy)]
enum Passed {
    Syncobj,
    SyncFile,
    DmaBuf(Bo),
}

impl Bo {
    /// What a file sees of it: of another device's BO nothing but its bytes.
    const fn seen_by(self, file: usize) -> Self {
        if self.device == file / 2 { self } else { Self { placement: 1, caching: 1, plain: true, ..self } }
    }
}

/// What there is to say of a call before it is made.
#[derive(Default)]
struct Expected {
    wrong: Vec<Errno>,
    may: Vec<Errno>,
    /// Nothing can be said.
    anything: bool,
}

impl Expected {
    /// `errno`, where that is wrong.
    fn wrong(&mut self, errno: Errno, is_wrong: bool) -> &mut Self {
        if is_wrong {
            self.wrong.push(errno);
        }
        self
    }
    /// `EINVAL`, unless that is right.
    fn require(&mut self, is_right: bool) -> &mut Self {
        self.wrong(Errno::EINVAL, !is_right)
    }
    fn may(&mut self, errnos: &[Errno]) -> &mut Self {
        self.may.extend(errnos);
        self
    }
    fn check(&self, errno: i32) -> Result<(), String> {
        let known = self.wrong.iter().chain(&self.may).any(|one| one.0 == errno);
        match (self.anything, self.wrong.is_empty(), errno) {
            (true, ..) | (_, true, 0) => Ok(()),
            (_, false, 0) => Err(format!("it succeeds, and should fail with {:?}", self.wrong)),
            _ if known => Ok(()),
            (_, true, _) => Err(format!("it fails with {:?}, and may fail with {:?} only", Errno(errno), self.may)),
            (_, false, _) => {
                Err(format!("it fails with {:?}, and should with {:?} or {:?}", Errno(errno), self.wrong, self.may))
            }
        }
    }
}

/// A call, and what it points to.
struct Asked<'a> {
    ioctl: &'a Ioctl,
    answer: &'a Answer,
}

impl Asked<'_> {
    fn get(&self, name: &str) -> u64 {
        self.ioctl.get(name)
    }
    fn get32(&self, name: &str) -> u32 {
        self.get(name) as u32
    }
    /// Whether all fields whose names begin so are 0.
    fn is_zero(&self, names: &[&str]) -> bool {
        self.ioctl.call.kind.is_zero(&self.ioctl.arg, names)
    }
    /// A number that the answer has.
    fn out(&self, name: &str) -> u64 {
        self.ioctl.call.kind.number(&self.answer.out, name)
    }
    /// Structs that the call points to; `None` where the model cannot see them.
    fn pointed(&self, kind: Kind, at: u64, count: u64) -> Option<Vec<Pointed>> {
        if count == 0 {
            return Some(Vec::new());
        }
        let size = kind.size() as u64;
        let from = at.checked_sub(DESK.start.0)?;
        let end = from.checked_add(count.checked_mul(size)?)?;
        let bytes = self.answer.desk.get(from as usize..usize::try_from(end).ok()?)?;
        Some(bytes.chunks_exact(kind.size()).map(|one| Pointed { kind, bytes: one.to_vec() }).collect())
    }
    /// Dwords that it points to.
    fn words(&self, at: u64, count: u64) -> Option<Vec<u32>> {
        let from = at.checked_sub(DESK.start.0)?;
        let end = from.checked_add(count.checked_mul(4)?)?;
        let bytes = self.answer.desk.get(from as usize..usize::try_from(end).ok()?)?;
        Some(bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
    }
}

/// A struct in memory.
struct Pointed {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Pointed {
    fn get(&self, name: &str) -> u64 {
        self.kind.number(&self.bytes, name)
    }
    fn is_zero(&self, names: &[&str]) -> bool {
        self.kind.is_zero(&self.bytes, names)
    }
}

impl Model {
    fn ioctl(&mut self, ioctl: &Ioctl, answer: &Answer) -> Result<(), String> {
        let Some(file) = ioctl.file() else { return self.passed(ioctl, answer) };
        if ioctl.request != ioctl.call.request || ioctl.at != ARGUMENT {
            // What fails changes nothing; what does not, something else than the model thinks.
            self.files[file].is_lost |= answer.errno == 0;
            return Ok(());
        }
        let asked = Asked { ioctl, answer };
        let mut expected = Expected { anything: self.files[file].is_lost, ..Expected::default() };
        self.say(file, &asked, &mut expected);
        expected.check(answer.errno).map_err(|what| format!("{}: {what}", ioctl.call.name))?;
        if answer.errno == 0 && !self.files[file].is_lost {
            self.learn(file, &asked).map_err(|what| format!("{}: {what}", ioctl.call.name))?;
        }
        Ok(())
    }

    /// On a descriptor that an ioctl gave out.
    fn passed(&mut self, ioctl: &Ioctl, answer: &Answer) -> Result<(), String> {
        let is_lost = ioctl.request != ioctl.call.request || ioctl.at != ARGUMENT;
        if answer.errno == 0 {
            let made = match ioctl.call.name {
                "DMA_BUF_EXPORT" if !is_lost => Some("fd"),
                "SYNC_MERGE" if !is_lost => Some("fence"),
                _ => None,
            };
            let asked = Asked { ioctl, answer };
            if let Some(field) = made {
                self.new_fd(asked.out(field) as i32, Passed::SyncFile)?;
            } else if is_lost {
                self.files.iter_mut().for_each(|file| file.is_lost = true);
            }
        }
        let what = self.fds.get(&ioctl.on);
        // What a file gave out that the model lost track of, it does not know.
        let is_lost = is_lost || self.lost_any();
        match (what, ioctl.call.name, answer.errno) {
            _ if is_lost => Ok(()),
            (None, name, errno) if errno != Errno::EBADF.0 => Err(format!("{name} on no descriptor gives {errno}")),
            (Some(Passed::Syncobj), name, errno) if errno != Errno::ENOTTY.0 => {
                Err(format!("{name} on a syncobj gives {errno}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether there may be descriptors that the model does not know.
    fn lost_any(&self) -> bool {
        self.was_lost || self.files.iter().any(|file| file.is_lost)
    }

    /// A descriptor was given out.
    fn new_fd(&mut self, fd: i32, passed: Passed) -> Result<(), String> {
        let lowest = (FIRST_FD..).find(|fd| !self.fds.contains_key(fd)).unwrap_or(-1);
        self.fds.insert(fd, passed);
        if fd == lowest || self.lost_any() {
            Ok(())
        } else {
            Err(format!("descriptor {fd} is given out, and {lowest} is free"))
        }
    }
}

/// The lowest name that is free.
fn lowest<'a>(taken: impl Iterator<Item = &'a u32>) -> u32 {
    let taken: BTreeSet<u32> = taken.copied().collect();
    (1..).find(|name| !taken.contains(name)).unwrap_or(0)
}

/// A name was given out.
fn is_lowest<'a>(name: u32, taken: impl Iterator<Item = &'a u32>) -> Result<(), String> {
    let free = lowest(taken);
    if name == free { Ok(()) } else { Err(format!("the name {name} is given out, and {free} is free")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, errno: i32) -> Result<(), (usize, String)> {
        let sequence = Sequence::parse(text).expect("a sequence");
        let last = sequence.steps.len() - 1;
        let answer = |(number, step): (usize, &Step)| {
            let Step::Ioctl(ioctl) = step else { return Answer::default() };
            let mut out = ioctl.arg.clone();
            if ioctl.call.kind == Kind::VmCreate {
                out[12] = 1;
            }
            Answer { errno: if number == last { errno } else { 0 }, out, desk: vec![0; DESK_BYTES] }
        };
        judge(&sequence, &sequence.steps.iter().enumerate().map(answer).collect::<Vec<_>>())
    }

    #[test]
    fn what_must_fail_may_not_succeed() {
        assert_eq!(verdict("VM_CREATE 0 flags=0x6\nVM_DESTROY 0 vm_id=1", 0), Ok(()));
        assert!(verdict("VM_CREATE 0 flags=0x6\nVM_DESTROY 0 vm_id=2", 0).is_err());
        assert_eq!(verdict("VM_CREATE 0 flags=0x6\nVM_DESTROY 0 vm_id=2", Errno::ENOENT.0), Ok(()));
        assert!(verdict("VM_CREATE 0 flags=0x6\nVM_DESTROY 0 vm_id=2", Errno::EINVAL.0).is_err());
        assert!(verdict("VM_CREATE 0 flags=0x6\nVM_DESTROY 0 vm_id=1", Errno::ENOENT.0).is_err());
    }

    #[test]
    fn a_name_must_be_the_lowest_free_one() {
        assert!(verdict("VM_CREATE 0 flags=0x6\nVM_CREATE 0 flags=0x6", 0).is_err(), "1 is taken");
    }
}
