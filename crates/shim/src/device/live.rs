//! The live machine behind the face.

use super::{Caller, Change, Device, Errno, File, GtStats, Location, OfDevice, Passed, Refusal};
use crate::config::{Config, Mode};
use crate::libc_calls::{complain, signals};
use crate::minor::{Gt, Kind, Minor};
use crate::view;
use crate::{marks, outside};
use machine::ClassSchedule;
use machine::live::{EventKind, Live, LiveConfig, SharedWords, StartError, Travel};
use machine::report::Report;
use machine::wiring::Core;
use rustix::thread::CapabilitySet;
use std::path::Path;
use std::sync::Arc;
use units::{HostFrame, HostRange, HostVa, TileId};
use xe_uapi::exec::WaitUserFence;

/// Events of a recorded run that are kept.
const RECORDED: usize = 100_000;

struct Machine {
    live: Arc<Live>,
    is_hostile: bool,
    program: String,
}

struct OpenFile {
    file: Arc<machine::File>,
    live: Arc<Live>,
    device: u8,
}

/// Starts the machine of this process, and says on stderr what is limited.
pub fn start(config: &Config) -> Result<Arc<dyn Device>, Refusal> {
    let live = Live::start(&LiveConfig {
        devices: config.devices.clone(),
        behaviours: config.behaviour.clone(),
        travel: match config.mode {
            Mode::Auto => Travel::Move,
            Mode::NoMove => Travel::Copy,
        },
        shared: shared_words(),
    })
    .map_err(refusal)?;
    for device in live.cores().map(|core| core.device()) {
        device.ask_for_priority(|| has(CapabilitySet::SYS_NICE));
        device.ask_for_admin(|| has(CapabilitySet::SYS_ADMIN));
    }
    if config.records {
        live.cores().for_each(|core| core.ledger().keep_timeline(RECORDED));
    }
    if let Some(limits) = live.limits() {
        marks::say_limit("limits", limits);
    }
    Ok(Arc::new(Machine { live, is_hostile: config.hostile, program: program() }))
}

/// What the report calls the program. Who writes the report after the program's end may not ask the kernel any more.
fn program() -> String {
    let name = std::env::args_os().next().unwrap_or_default();
    Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the processes of this run share of the devices' VRAM; none where there is no run.
fn shared_words() -> Option<Arc<SharedWords>> {
    let file = view::shared_file("vram")?;
    let words = file.and_then(|file| {
        let map = || SharedWords::map(file, machine::pool::WORDS).map_err(rustix::io::Errno::from_raw_os_error);
        signals::within_file_limit(map).map_err(|errno| errno.to_string())
    });
    words.map(Arc::new).map_err(|why| marks::say_limit("vram", &format!("limited: VRAM is not shared: {why}"))).ok()
}

fn has(right: CapabilitySet) -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(right))
}

fn refusal(error: StartError) -> Refusal {
    let errno = match error {
        StartError::Refused(refused) if [libc::EMFILE, libc::ENFILE].contains(&refused.errno) => {
            let message = format!("no descriptor is left for {}: raise the limit (ulimit -n)", refused.what);
            return Refusal { errno: Errno(refused.errno), message };
        }
        StartError::Refused(refused) if refused.is_for_want_of_threads() || refused.is_for_want_of_room() => {
            libc::ENOMEM
        }
        StartError::Refused(_) => libc::EACCES,
        StartError::Processes => libc::ENFILE,
        StartError::Device(_) | StartError::Behaviour(_) | StartError::Probe(_) => libc::ENODEV,
    };
    Refusal { errno: Errno(errno), message: error.to_string() }
}

impl Machine {
    fn core(&self, device: u8) -> Option<&Arc<Core>> {
        self.live.cores().nth(device.into())
    }
}

impl Device for Machine {
    fn open(&self, minor: Minor) -> Result<Arc<dyn File>, Errno> {
        let device = self.core(minor.device).ok_or(Errno(libc::ENODEV))?.device();
        let file = if minor.kind == Kind::Render { device.open_render() } else { device.open() };
        Ok(Arc::new(OpenFile { file, live: self.live.clone(), device: minor.device }))
    }

    fn exclude(&self, range: HostRange) {
        self.live.exclude(range);
    }

    fn own(&self, range: HostRange) {
        self.live.mm().own(range);
    }

    fn begin(&self) {
        if self.is_hostile && self.live.begin_hostility().is_err() {
            complain("hostile mode has no thread: nothing migrates unasked");
        }
    }

    fn pieces(&self, range: HostRange) -> Vec<HostRange> {
        self.live.mm().alike_mappings(range)
    }

    fn around_change(&self, range: HostRange, change: Change, make: &mut dyn FnMut()) {
        match change {
            Change::Unmap => self.live.around_unmap(range, make),
            Change::Empty => self.live.around_emptying(make),
            Change::Remap => self.live.around_change(range, Some(EventKind::Unmap), make),
            Change::Protect | Change::Lock => self.live.around_change(range, None, make),
        }
    }

    fn fork_prepare(&self) -> bool {
        let is_home = self.live.fork_prepare();
        if !is_home {
            complain("some memory did not migrate back from VRAM before a fork, pinned perhaps: there is no child");
        }
        is_home
    }

    fn fork_parent(&self) {
        self.live.fork_parent();
    }

    fn own_fds(&self) -> Vec<i32> {
        self.live.descriptors()
    }

    fn relieve(&self, seen: u64, stopped: bool) -> u64 {
        self.live.mm().relieve(seen, stopped)
    }

    fn fd_of_locks(&self) -> Option<i32> {
        self.live.descriptor_of_locks()
    }

    fn gt_stats(&self, gt: Gt) -> GtStats {
        let tile = u8::try_from(gt.number).ok();
        let book = self
            .core(gt.device)
            .zip(tile)
            .map(|(core, tile)| core.ledger().look(|book| book.gt_stats.get(&tile).copied()));
        book.flatten().unwrap_or_default()
    }

    fn clear_gt_stats(&self, gt: Gt) {
        if let (Some(core), Ok(tile)) = (self.core(gt.device), u8::try_from(gt.number)) {
            core.ledger().clear_gt_stats(TileId(tile));
        }
    }

    fn vram(&self, gt: Gt) -> String {
        let vram = self.core(gt.device).zip(u8::try_from(gt.number).ok());
        let vram = vram.and_then(|(core, tile)| core.device().vram(TileId(tile)));
        vram.map(|vram| super::usage::vram(&vram)).unwrap_or_default()
    }

    fn told(&self, device: u8, what: OfDevice) -> String {
        let Some(driver) = self.core(device).map(|core| core.device()) else { return String::new() };
        match what {
            OfDevice::Clients => super::usage::clients(&driver.open_files(), device),
            OfDevice::Names => super::usage::names(&driver.named_bos()),
            OfDevice::System => driver.system_used().to_string(),
        }
    }

    fn set_schedule(&self, gt: Gt, class: &str, schedule: ClassSchedule) {
        if let (Some(core), Ok(tile)) = (self.core(gt.device), u8::try_from(gt.number)) {
            core.set_class_schedule(TileId(tile), class, schedule);
        }
    }

    fn finish_jobs(&self, range: HostRange) {
        self.live.cores().for_each(|core| core.device().finish_jobs(range));
    }

    fn reset_gt(&self, gt: Gt) {
        if let (Some(core), Ok(tile)) = (self.core(gt.device), u8::try_from(gt.number)) {
            core.device().reset_gt(TileId(tile));
        }
    }

    fn location(&self, device: u8, region: u16) -> Option<Location> {
        Some(self.core(device)?.device().location(region))
    }

    fn shutdown(&self) {
        if !self.live.shutdown() {
            complain("some memory did not migrate back from VRAM before the end, pinned perhaps");
        }
    }

    fn refused(&self) -> Option<(u8, u64, Errno)> {
        let first = |core: &Arc<Core>| core.ledger().look(|book| book.refused);
        let fault = self.live.cores().find_map(first)?;
        Some((fault.tile.0, fault.addr, Errno(fault.refusal()?.0)))
    }

    fn report(&self) -> String {
        let report = Report { process: outside::process(), program: self.program.clone(), ..self.live.report() };
        serde_json::to_string(&report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

impl File for OpenFile {
    fn usage(&self) -> String {
        super::usage::lines(&self.file.usage(), self.device)
    }

    fn ioctl(&self, command: u32, argument: HostVa, caller: &dyn Caller) -> Result<u32, Errno> {
        self.file.ioctl_for(caller, command, argument).map_err(|errno| Errno(errno.0))
    }

    fn ioctl_on(&self, passed: &Passed, command: u32, argument: HostVa, caller: &dyn Caller) -> Result<u32, Errno> {
        self.file.ioctl_on(passed, caller, command, argument).map_err(|errno| Errno(errno.0))
    }

    fn adopt(&self, fd: i32, caller: &dyn Caller) -> Result<Passed, Errno> {
        self.file.adopt(caller, fd).map_err(|errno| Errno(errno.0))
    }

    fn object_address(&self, object: HostFrame) -> Option<HostVa> {
        self.live.mm().object_address(object)
    }

    fn adopt_object(&self, file: i32, bytes: u64) -> Option<HostFrame> {
        self.live.mm().adopt_object(file, bytes / units::SZ_4K)
    }

    fn mmap(&self, offset: u64, bytes: u64) -> Result<Option<HostVa>, Errno> {
        let frame = self.file.mmap(offset, bytes).map_err(|errno| Errno(errno.0))?;
        frame.map(|frame| self.object_address(frame).ok_or(Errno(libc::EINVAL))).transpose()
    }

    fn wait_user_fence(&self, wait: &mut WaitUserFence) -> Result<u32, Errno> {
        self.file.wait_user_fence(wait).map_err(|errno| Errno(errno.0))
    }

    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), Errno> {
        self.live.copy_from_user(from, buf).map_err(|errno| Errno(errno.0))
    }

    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), Errno> {
        self.live.copy_to_user(to, bytes).map_err(|errno| Errno(errno.0))
    }

    fn close(&self) {
        self.file.close();
    }
}
