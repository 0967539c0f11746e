//! Ioctls: from a request's number to what it does.
//!
//! Every argument is copied in before the first lock and out after the last, as it may lie in memory that is in
//! VRAM. What a client may say is checked in upstream's order, so that a wrong call gets upstream's errno; nothing
//! that a client says can make the driver panic.
//!
//! | module | ioctls |
//! |---|---|
//! | [`core`] | VERSION, GET_CAP, SET_CLIENT_NAME, masters, what is of displays |
//! | [`query`] | DEVICE_QUERY |
//! | [`vm`] | VM_CREATE, VM_DESTROY, VM_GET_PROPERTY |
//! | [`bind`], [`ops`] | VM_BIND |
//! | [`attr`] | MADVISE, VM_QUERY_MEM_RANGE_ATTRS |
//! | [`exec_queue`] | EXEC_QUEUE_CREATE, _DESTROY, _GET_PROPERTY |
//! | [`exec`] | EXEC |
//! | [`wait`] | WAIT_USER_FENCE |
//! | [`gem`] | GEM_CREATE, GEM_MMAP_OFFSET, GEM_CLOSE |
//! | [`dumb`] | MODE_*_DUMB |
//! | [`share`] | PRIME_*, GEM_FLINK, GEM_OPEN |
//! | [`dma_buf`] | DMA_BUF_* |
//! | [`syncobj`], [`syncobj_wait`] | SYNCOBJ_* |
//! | [`sync_file`] | SYNC_IOC_* |
//! | [`extensions`] | the chains of those that make something |
//! | [`stub`] | what is not there |
//!
//! Locking: none here; each module says its own.
//!
//! Upstream: `drm_ioctl.c` (copying, sizes), `xe_device.c` (the table).

mod attr;
mod bind;
mod core;
mod dma_buf;
mod dumb;
mod exec;
mod exec_queue;
mod extensions;
mod gem;
mod ops;
mod query;
mod share;
mod stub;
mod sync;
mod sync_file;
mod syncobj;
mod syncobj_wait;
mod vm;
mod wait;

use units::HostVa;
use xe_uapi::exec::WaitUserFence;
use xe_uapi::ioctl::{self as nr, READ, WRITE};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::caller::{Caller, Kind, Nobody, Passed};
use crate::errno::Errno;
use crate::file::File;
use wait::wait_user_fence;

/// More than the argument of any ioctl that is refused whatever it says.
const LONGEST: usize = 128;

/// Result of an ioctl.
type Reply = Result<u32, Errno>;

impl File {
    /// One ioctl: `cmd` is the request's low 32 bits, `arg` its argument in the caller's memory. On `Ok` the call
    /// returns that number (0 so far). May sleep, and may touch the caller's memory; the caller holds no lock,
    /// and is not of the reader class.
    pub fn ioctl(&self, cmd: u32, arg: HostVa) -> Result<u32, Errno> {
        self.ioctl_for(&Nobody, cmd, arg)
    }

    /// The same for somebody: `EINTR` where a signal ends a wait.
    pub fn ioctl_for(&self, caller: &dyn Caller, cmd: u32, arg: HostVa) -> Result<u32, Errno> {
        dispatch(&Call { file: self, cmd, arg }, caller)
    }

    /// An ioctl on a descriptor that an ioctl of a file of this device gave out.
    pub fn ioctl_on(&self, passed: &Passed, caller: &dyn Caller, cmd: u32, arg: HostVa) -> Result<u32, Errno> {
        let call = Call { file: self, cmd, arg };
        match &passed.0 {
            Kind::SyncFile(fence) => sync_file::dispatch(&call, fence, caller),
            Kind::DmaBuf(bo) => dma_buf::dispatch(&call, bo, caller),
            Kind::Syncobj(_) => Err(Errno::ENOTTY),
        }
    }

    /// What a descriptor stands for that another process, or a parent, made of a BO. `EBADF`, `EINVAL`: as
    /// [`Caller::shared`] says; `ENOMEM`: there is no room for it.
    pub fn adopt(&self, caller: &dyn Caller, fd: i32) -> Result<Passed, Errno> {
        share::find(self, caller, fd).map(|bo| Passed(Kind::DmaBuf(bo)))
    }

    /// WAIT_USER_FENCE with an argument of the host's own, which is no memory that an ioctl may name.
    pub fn wait_user_fence(&self, args: &mut WaitUserFence) -> Result<u32, Errno> {
        wait_user_fence(self, args)
    }
}

/// Does what `cmd` asks.
fn dispatch(call: &Call<'_>, caller: &dyn Caller) -> Reply {
    let Call { file, cmd, .. } = *call;
    if nr::kind(cmd) != b'd' {
        return Err(Errno::ENOTTY);
    }
    let number = nr::number(cmd);
    let is = |request: u32| number == nr::number(request);
    match cmd {
        _ if is(nr::VERSION) => call.with(core::version),
        _ if is(nr::GET_CAP) => call.with(core::get_cap),
        _ if is(nr::SET_CLIENT_CAP) => call.with(core::set_client_cap),
        _ if is(nr::SET_CLIENT_NAME) => call.with(core::set_client_name),
        _ if is(nr::SET_MASTER) => core::set_master(file),
        _ if is(nr::DROP_MASTER) => core::drop_master(file),
        _ if is(nr::SET_VERSION) => call.with(core::set_version),
        _ if is(nr::GET_UNIQUE) => call.with(core::get_unique),
        _ if is(nr::GET_MAGIC) => call.with(core::get_magic),
        _ if is(nr::GEM_CLOSE) => call.with(gem::close),
        _ if is(nr::MODE_CREATE_DUMB) => call.with(dumb::create),
        _ if is(nr::MODE_MAP_DUMB) => call.with(dumb::map),
        _ if is(nr::MODE_DESTROY_DUMB) => call.with(dumb::destroy),
        _ if is(nr::GEM_FLINK) => call.with(share::flink),
        _ if is(nr::GEM_OPEN) => call.with(share::open),
        _ if is(nr::PRIME_HANDLE_TO_FD) => call.with(|file, args| share::handle_to_fd(file, args, caller)),
        _ if is(nr::PRIME_FD_TO_HANDLE) => call.with(|file, args| share::fd_to_handle(file, args, caller)),
        _ if is(nr::DEVICE_QUERY) => call.with(query::device_query),
        _ if is(nr::GEM_CREATE) => call.with(gem::create),
        _ if is(nr::GEM_MMAP_OFFSET) => call.with(gem::mmap_offset),
        _ if is(nr::VM_CREATE) => call.with(vm::create),
        _ if is(nr::VM_DESTROY) => call.with(vm::destroy),
        _ if is(nr::VM_BIND) => call.with(bind::vm_bind),
        _ if is(nr::EXEC_QUEUE_CREATE) => call.with(exec_queue::create),
        _ if is(nr::EXEC_QUEUE_DESTROY) => call.with(exec_queue::destroy),
        _ if is(nr::EXEC_QUEUE_GET_PROPERTY) => call.with(exec_queue::get_property),
        _ if is(nr::EXEC_QUEUE_SET_PROPERTY) => call.with(exec_queue::set_property_of),
        _ if is(nr::EXEC) => call.with(exec::exec),
        _ if is(nr::WAIT_USER_FENCE) => call.with(wait_user_fence),
        _ if is(nr::MADVISE) => call.with(|file, args| attr::madvise(file, args, caller)),
        _ if is(nr::VM_QUERY_MEM_RANGE_ATTRS) => call.with(attr::query),
        _ if is(nr::VM_GET_PROPERTY) => call.with(vm::get_property),
        _ if is(nr::OBSERVATION) => call.with(stub::observation),
        _ if core::is_of_primary(number) => call.with(|file, _: &mut [u8; LONGEST]| core::refuse(file, number)),
        _ => dispatch_syncobj(call, caller),
    }
}

/// Does what a SYNCOBJ ioctl asks.
fn dispatch_syncobj(call: &Call<'_>, caller: &dyn Caller) -> Reply {
    let number = nr::number(call.cmd);
    let is = |request: u32| number == nr::number(request);
    match call.cmd {
        _ if is(nr::SYNCOBJ_CREATE) => call.with(syncobj::create),
        _ if is(nr::SYNCOBJ_DESTROY) => call.with(syncobj::destroy),
        _ if is(nr::SYNCOBJ_HANDLE_TO_FD) => call.with(|file, args| syncobj::handle_to_fd(file, args, caller)),
        _ if is(nr::SYNCOBJ_FD_TO_HANDLE) => call.with(|file, args| syncobj::fd_to_handle(file, args, caller)),
        _ if is(nr::SYNCOBJ_WAIT) => call.with(|file, args| syncobj_wait::wait(file, args, caller)),
        _ if is(nr::SYNCOBJ_RESET) => call.with(syncobj::reset),
        _ if is(nr::SYNCOBJ_SIGNAL) => call.with(syncobj::signal),
        _ if is(nr::SYNCOBJ_TIMELINE_WAIT) => call.with(|file, args| syncobj_wait::timeline_wait(file, args, caller)),
        _ if is(nr::SYNCOBJ_QUERY) => call.with(syncobj::query),
        _ if is(nr::SYNCOBJ_TRANSFER) => call.with(|file, args| syncobj::transfer(file, args, caller)),
        _ if is(nr::SYNCOBJ_TIMELINE_SIGNAL) => call.with(syncobj::timeline_signal),
        _ if is(nr::SYNCOBJ_EVENTFD) => call.with(|file, args| syncobj::eventfd(file, args, caller)),
        _ => Err(Errno::EINVAL),
    }
}

/// One call of an ioctl.
struct Call<'a> {
    file: &'a File,
    cmd: u32,
    arg: HostVa,
}

impl Call<'_> {
    /// Copies the argument in, runs `body`, copies it out. A caller compiled with a shorter or longer struct is
    /// served: what is missing is zero. The argument is copied out after an error too, as upstream does.
    fn with<T: FromBytes + IntoBytes + Immutable>(&self, body: impl FnOnce(&File, &mut T) -> Reply) -> Reply {
        let shared = &self.file.shared;
        let mut value = T::new_zeroed();
        let size = nr::size(self.cmd).min(size_of::<T>());
        if nr::direction(self.cmd) & WRITE != 0 {
            shared.copy_in_bytes(self.arg, &mut value.as_mut_bytes()[..size])?;
        }
        let reply = body(self.file, &mut value);
        if nr::direction(self.cmd) & READ != 0 {
            shared.copy_out(self.arg.0, &value.as_bytes()[..size])?;
        }
        reply
    }
}

/// `Ok` where `condition` holds, `EINVAL` else.
const fn require(condition: bool) -> Result<(), Errno> {
    if condition { Ok(()) } else { Err(Errno::EINVAL) }
}

#[cfg(test)]
mod tests;
