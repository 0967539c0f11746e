//! The joint's Rust side: functions that the C half calls, and what it is called by. All `unsafe` of the crate is here; what it
//! relies on, and why that holds, is argued in docs/soundness.md ("kface").
//!
//! The C half is one task on one thread; it calls in with pointers that it owns, which stay valid for the call, or for the process
//! where that is said. Signals: an undefined instruction is a warning of the kernel's, and the run goes on behind it; an access to
//! an address of the trap range is a symbol that is not modelled.
#![allow(unsafe_code, reason = "the one module of this crate that has it")]
#![allow(clippy::disallowed_types, reason = "statics of a process of its own, which has one thread and no checker")]

use crate::device::{Device, Vram};
use crate::evidence::Line;
use crate::runs::{self as plans, DIED, NOT_JUDGED, Plan, Seeded};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::OnceLock;
use sync::sim::Limits;
use units::{Dpa, GpuVa, HostFrame, Iova, SZ_4K, TileId};
use xe_spec::fault::Asid;

mod compare;
mod conform;
pub(crate) mod runs;
pub(crate) mod snapshot;
mod tasks;

/// Bytes that C reserved and never gives back.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    start: usize,
    len: usize,
}

/// Reservations of system memory: what bus addresses may lead to.
static SYSTEM: OnceLock<std::sync::Mutex<Vec<Memory>>> = OnceLock::new();

impl Memory {
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// The page of system memory at `address`, where something was reserved there.
    pub(crate) fn system(address: u64) -> Option<Self> {
        let page = Self { start: usize::try_from(address).ok()?, len: SZ_4K as usize };
        let all = SYSTEM.get()?.lock().ok()?;
        let inside = |whole: &Self| page.start >= whole.start && page.start - whole.start + page.len <= whole.len;
        all.iter().any(inside).then_some(page)
    }

    /// The pointer to `len` bytes from `offset` on.
    fn at(self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "the device leaves memory that it was lent");
        std::ptr::with_exposed_provenance_mut(self.start + offset)
    }

    pub(crate) fn read(self, offset: usize, buf: &mut [u8]) {
        let from = self.at(offset, buf.len());
        // SAFETY: `from` is inside a reservation that stays; `buf` is Rust's own memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) }
    }

    pub(crate) fn write(self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: as in `read`; no Rust reference to reserved memory exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// One aligned load of 64 bits.
    pub(crate) fn word(self, offset: usize) -> u64 {
        let from = self.at(offset & !7, 8).cast::<u64>();
        // SAFETY: inside a reservation that stays, aligned to 8 because reservations are page-aligned.
        unsafe { from.read_volatile() }
    }
}

thread_local! {
    static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
    static LINE: RefCell<Option<Line>> = const { RefCell::new(None) };
}

/// What the device does for C is one step: nobody else goes on meanwhile.
fn device<R>(then: impl FnOnce(&Device) -> R) -> R {
    DEVICE.with_borrow(|device| match device {
        Some(device) => sync::unscheduled(|| then(device)),
        None => give_up("the device is used before it is made"),
    })
}

fn has_device() -> bool {
    DEVICE.with_borrow(Option::is_some)
}

fn give_up(why: &str) -> ! {
    Line::new("gave_up").with("why", why).write();
    runs::end(NOT_JUDGED)
}

/// A C string.
///
/// # Safety
/// `text` is null or points to a string that ends with 0 and stays for as long as the result is used.
unsafe fn text<'a>(text: *const c_char) -> std::borrow::Cow<'a, str> {
    if text.is_null() {
        return "".into();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}

/// What the C half hands over when it starts: its functions, and the names of symbols that are not modelled, in the order of the
/// trap range's pages.
#[repr(C)]
#[derive(Clone, Copy)]
struct CHalf {
    scene: unsafe extern "C" fn(*const c_char, c_long) -> c_int,
    scene_name: unsafe extern "C" fn(c_int) -> *const c_char,
    bug: unsafe extern "C" fn(c_ulong) -> c_int,
    traps: *const *const c_char,
    trap_count: u64,
    trap_base: u64,
}

// SAFETY: the names are never written.
unsafe impl Send for CHalf {}
// SAFETY: the same.
unsafe impl Sync for CHalf {}

static C_HALF: OnceLock<CHalf> = OnceLock::new();

/// Bytes of the trap range for each symbol.
const TRAP_BYTES: u64 = 1 << 16;

/// The symbol whose trap `address` is in.
fn trapped(address: u64) -> Option<String> {
    let half = C_HALF.get()?;
    let index = address.checked_sub(half.trap_base)? / TRAP_BYTES;
    if index >= half.trap_count {
        return None;
    }
    // SAFETY: there are `trap_count` names, one behind the other.
    let place = unsafe { half.traps.add(index as usize) };
    // SAFETY: the same; they are never written.
    let name = unsafe { *place };
    // SAFETY: each is a string of the runner.
    Some(unsafe { text(name) }.into_owned())
}

#[unsafe(no_mangle)]
extern "C" fn kface_event(event: *const c_char) {
    // SAFETY: C passes strings that stay for the call.
    let event = unsafe { text(event) };
    LINE.set(plans::is_told(&event).then(|| Line::new(&event)));
}

#[unsafe(no_mangle)]
extern "C" fn kface_is_told(event: *const c_char) -> c_int {
    // SAFETY: C passes strings that stay for the call.
    plans::is_told(&unsafe { text(event) }).into()
}

fn field(field: *const c_char, value: serde_json::Value) {
    LINE.with_borrow_mut(|line| {
        if let Some(line) = line {
            // SAFETY: C passes strings that stay for the call.
            line.set(&unsafe { text(field) }, value);
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn kface_number(name: *const c_char, value: u64) {
    field(name, value.into());
}

#[unsafe(no_mangle)]
extern "C" fn kface_signed(name: *const c_char, value: c_long) {
    field(name, value.into());
}

#[unsafe(no_mangle)]
extern "C" fn kface_text(name: *const c_char, value: *const c_char) {
    if LINE.with_borrow(Option::is_none) {
        return;
    }
    // SAFETY: C passes strings that stay for the call.
    let value = unsafe { text(value) };
    field(name, value.into_owned().into());
}

#[unsafe(no_mangle)]
extern "C" fn kface_event_end() {
    if let Some(line) = LINE.take() {
        line.write();
    }
}

#[unsafe(no_mangle)]
extern "C" fn kface_give_up(why: *const c_char) -> ! {
    // SAFETY: C passes strings that stay for the call.
    give_up(&unsafe { text(why) })
}

#[unsafe(no_mangle)]
extern "C" fn kface_not_modelled(symbol: *const c_char) -> ! {
    // SAFETY: C passes strings that stay for the call.
    not_modelled(&unsafe { text(symbol) })
}

fn not_modelled(symbol: &str) -> ! {
    Line::new("not_modelled").with("symbol", symbol).write();
    runs::end(NOT_JUDGED)
}

#[unsafe(no_mangle)]
extern "C" fn kface_reserve(address: c_ulong, bytes: c_ulong) -> *mut c_void {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let wanted = std::ptr::without_provenance_mut(address as usize);
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: a new mapping that replaces none.
    let mapped = unsafe { mmap_anonymous(wanted, bytes as usize, ProtFlags::READ | ProtFlags::WRITE, flags) };
    let Ok(memory) = mapped else { give_up("address space for the model's memory cannot be had") };
    let reserved = Memory { start: memory.expose_provenance(), len: bytes as usize };
    let all = SYSTEM.get_or_init(|| std::sync::Mutex::new(Vec::new()));
    if let Ok(mut all) = all.lock() {
        all.push(reserved);
    }
    memory
}

/// A tile, as C describes it.
#[repr(C)]
struct TileOfC {
    base: u64,
    bytes: u64,
    memory: *mut u8,
}

#[unsafe(no_mangle)]
extern "C" fn kface_gpu_new(tiles: *const TileOfC, count: c_int, needs_64k: c_int, va_bits: c_int) {
    // SAFETY: C passes `count` tiles that stay for the call.
    let tiles = unsafe { std::slice::from_raw_parts(tiles, count as usize) };
    let vram = tiles.iter().map(|tile| {
        let memory = Memory { start: tile.memory.expose_provenance(), len: tile.bytes as usize };
        Vram { base: Dpa(tile.base), memory }
    });
    let made = Device::new(vram.collect(), needs_64k != 0, va_bits as u8);
    DEVICE.set(Some(made));
}

fn tile(tile: c_int) -> TileId {
    TileId(tile as u8)
}

#[unsafe(no_mangle)]
extern "C" fn kface_gpu_root(number: c_int, asid: c_uint, root: u64, needs_64k: c_int) {
    device(|device| device.root(tile(number), Asid(asid), Dpa(root), needs_64k != 0));
}

#[unsafe(no_mangle)]
extern "C" fn kface_gpu_flush(number: c_int, asid: c_uint, start: u64, end: u64) {
    device(|device| device.flush(tile(number), Asid(asid), GpuVa(start), GpuVa(end)));
}

#[unsafe(no_mangle)]
extern "C" fn kface_gpu_batch(number: c_int, asid: c_uint, batch: u64) -> c_int {
    if device(|device| device.batch(tile(number), Asid(asid), GpuVa(batch))) { 0 } else { -1 }
}

#[unsafe(no_mangle)]
extern "C" fn kface_gpu_access(number: c_int, asid: c_uint, addr: u64, write: c_int, value: *mut u64) -> c_int {
    // SAFETY: C passes a word of its own.
    let value = unsafe { &mut *value };
    let store = (write != 0).then_some(*value);
    match device(|device| device.access(tile(number), Asid(asid), GpuVa(addr), store)) {
        Some(loaded) => {
            if write == 0 {
                *value = loaded;
            }
            0
        }
        None => -1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn kface_iommu_map(frame: u64, pages: c_ulong, write: c_int) -> u64 {
    device(|device| device.map(HostFrame(frame), pages as usize, write != 0)).0
}

#[unsafe(no_mangle)]
extern "C" fn kface_iommu_unmap(iova: u64, pages: c_ulong) {
    device(|device| device.unmap(Iova(iova), pages as usize));
}

#[unsafe(no_mangle)]
extern "C" fn kface_iommu_mapped() -> u64 {
    device(Device::mapped_pages)
}

#[unsafe(no_mangle)]
extern "C" fn kface_gpu_records() {
    if has_device() {
        device(Device::tell_records);
    }
}

/// Handles what the processor refuses. Everything it calls runs on the stack of the code that was interrupted, which is the
/// kernel's own code or the glue, never Rust's allocator or a lock of Rust's.
extern "C" fn refused(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the context of the interrupted thread to a handler with SA_SIGINFO.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let ip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    if let (libc::SIGILL, Some(half)) = (signal, C_HALF.get()) {
        // SAFETY: it reads a table of the runner.
        match unsafe { (half.bug)(*ip as c_ulong) } {
            // The instruction has two bytes.
            1 => return *ip += 2,
            2 => runs::end(DIED),
            _ => {}
        }
    }
    // SAFETY: the kernel passes what it knows of the signal.
    let info = unsafe { &*info };
    // SAFETY: a signal of this kind has an address.
    let address = unsafe { info.si_addr() } as u64;
    if signal == libc::SIGSEGV && snapshot::saved(address as usize) {
        return;
    }
    if let Some(symbol) = trapped(address) {
        not_modelled(&symbol);
    }
    // As a return address: behind where it is.
    let at = *ip + 1;
    let mut crash = Line::new("crash").with("signal", signal).with("address", format!("{address:#x}")).with("ip", at);
    // An address that no memory can have: the processor does not say which, but registers do.
    if let Some(poison) = poison(&context.uc_mcontext.gregs).or_else(|| poison(&[address as i64])) {
        crash = crash.with("poison", poison);
    }
    crash.write();
    runs::end(DIED)
}

/// What memory that was freed holds, and memory that nobody has filled in: `K_POISON_FREED` and `K_POISON_NEW` of `k.h`.
const POISON: &[(u64, &str)] = &[(0x6b6b_6b6b_6b6b_6b6b, "freed"), (0x5a5a_5a5a_5a5a_5a5a, "not filled in")];

/// What a register holds that was read from such memory, give or take the place of a field.
fn poison(registers: &[i64]) -> Option<&'static str> {
    let near = |word: u64| registers.iter().any(|register| (*register as u64).wrapping_sub(word) < SZ_4K);
    POISON.iter().find(|(word, _)| near(*word)).map(|(_, name)| *name)
}

/// Installs [`refused`]. Where there is a snapshot it has a stack of its own: then an overflow of a task's stack is told, too.
fn catch_refusals() {
    for signal in [libc::SIGILL, libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: all zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = refused as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
        // SAFETY: the handler is of the form that SA_SIGINFO asks for.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
}

/// The runner's `main`, which C calls: the name of a scene, and a number for it; without, the names.
#[unsafe(no_mangle)]
extern "C" fn kface_main(half: *const CHalf) -> c_int {
    // SAFETY: C passes what it hands over, filled in.
    let half = *C_HALF.get_or_init(|| unsafe { *half });
    let arguments: Vec<String> = std::env::args().collect();
    runs::end_with_parent();
    catch_refusals();
    let Some(scene) = arguments.get(1) else {
        for index in 0.. {
            // SAFETY: C answers null behind the last name; names are never freed.
            let name = unsafe { (half.scene_name)(index) };
            if name.is_null() {
                break;
            }
            // SAFETY: the same.
            Line::new("scene").with("name", unsafe { text(name) }.into_owned()).write();
        }
        return 0;
    };
    let parameter = arguments.get(2).and_then(|number| number.parse().ok()).unwrap_or(0);
    if let Some(plan) = arguments.get(3..).and_then(Plan::read) {
        plans::plan(plan);
    }
    let Ok(name) = CString::new(scene.as_str()) else { return NOT_JUDGED };
    let limits = Limits { steps: u64::MAX, ..Limits::default() };
    let report = sync::sim::run(&mut Seeded::default(), limits, move || {
        // SAFETY: the name stays for the call; the C half is called by this thread alone.
        let known = unsafe { (half.scene)(name.as_ptr(), parameter) };
        if known != 0 {
            give_up("there is no such scene");
        }
        plans::scene_ended();
        Line::new("end").write();
        // Tasks that serve others are not to be unwound: they are in the middle of C.
        runs::end(0)
    });
    give_up(&report.outcome.to_string())
}
