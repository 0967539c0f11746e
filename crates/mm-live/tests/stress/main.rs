//! Everything at once, without an engine: nothing may be lost and nothing may hang.
//!
//! Two readers; two "GPUs" that migrate chunks system -> VRAM 0 -> VRAM 1 -> system and count in them; three CPU
//! threads that count in the same pages and verify each word; and beside them, on memory of their own that the
//! GPUs migrate as well: mmap at the same place, munmap, DONTNEED, mremap (moving and growing), two threads that use an
//! address in turn, buffer objects that come and go, fork, dlopen, and a timer signal whose handler touches memory that may be in VRAM. A watchdog prints the state and aborts
//! when a thread stands still for 10 s.
//!
//! `PONTOON_STRESS_SECONDS` (default 10) says how long at least: it goes on until enough has happened. One test does it by
//! copying, one with a kernel that is short of memory (`shortage`; `PONTOON_STRESS_SEED`), one while pages are brought home from outside, and one shows that losses
//! would be seen. They run beside each other.
#![allow(
    unsafe_code,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests play the program: raw memory, threads of its own"
)]

mod gpu;
mod program;
mod shortage;
#[path = "../world/mod.rs"]
mod world;

use gpu::gpu;
use hostmm::*;
use mm_live::{Config, LiveMm, Transport};
use program::{PLACE, dropper, forker, grower, loader, mapper, objects, owner, remapper};
use shortage::Short;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use units::{HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K};
use world::*;

const COUNTERS: u64 = 8;
/// Longer than any load makes a thread wait.
const STALL: Duration = Duration::from_secs(120);
const ROLES: [&str; 14] = [
    "cpu0", "cpu1", "cpu2", "gpu0", "gpu1", "mapper", "dropper", "remapper", "forker", "loader", "grower", "owner0",
    "owner1", "objects",
];
/// What a run must have reached, however long it takes: moves each way, and addresses that changed their owner.
const ENOUGH: u64 = 10_000;
const ENOUGH_OWNERS: u64 = 200;
const ENOUGH_RESCUED: u64 = 10_000;
/// Between two rescues.
const RESCUE_PAUSE: Duration = Duration::from_millis(15);

/// One area that GPUs migrate: where it is now, and how long.
struct Area {
    start: AtomicU64,
    len: AtomicU64,
}

/// How often each thing happened.
#[derive(Default, Debug)]
struct Counts {
    lost: AtomicU64,
    device_adds: AtomicU64,
    evictions: AtomicU64,
    forks: AtomicU64,
    maps: AtomicU64,
    drops: AtomicU64,
    remaps: AtomicU64,
    grown: AtomicU64,
    /// Times that an address changed its owner.
    owners: AtomicU64,
    raw_remaps_refused: AtomicU64,
    loads: AtomicU64,
    objects: AtomicU64,
}

struct Stage {
    mm: Arc<LiveMm>,
    vram: [Arc<Vram>; 2],
    counters: HostRange,
    constant: HostRange,
    signal: HostRange,
    areas: Vec<Area>,
    stop: AtomicBool,
    beats: [AtomicU64; ROLES.len()],
    counts: Counts,
    /// Whose turn it is with the address that two threads use.
    turn: AtomicU64,
    /// Per GPU: inside of a VRAM access.
    in_flight: [AtomicU32; 2],
    /// One a mirror; each GPU has its own.
    notifiers: [std::sync::OnceLock<NotifierId>; 2],
    plan: Plan,
}

/// How a run is.
struct Plan {
    seconds: u64,
    transport: Transport,
    /// Migrations copy while the program goes on writing.
    lossy: bool,
    short: Option<Arc<Short>>,
    /// Pages are brought home from outside, while all goes on.
    rescues: bool,
}

impl Plan {
    fn new(transport: Transport) -> Self {
        Self { seconds: seconds(), transport, lossy: false, short: None, rescues: false }
    }
    fn config(&self) -> Config {
        Config { readers: Some(2), transport: self.transport, ..Config::default() }
    }
}

/// Waits for the VRAM accesses in flight: a TLB flush's drain.
struct Drain(std::sync::Weak<Stage>);

impl NotifierOps for Drain {
    fn invalidate(&self, _: &MmEvent) {
        let Some(stage) = self.0.upgrade() else { return };
        for flag in &stage.in_flight {
            while flag.load(SeqCst) != 0 {
                std::thread::yield_now();
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

impl Stage {
    fn beat(&self, role: usize) -> bool {
        self.beats[role].fetch_add(1, SeqCst);
        !self.stop.load(SeqCst)
    }
    fn lose(&self, what: &str, va: HostVa, got: u64, expected: u64) {
        if self.counts.lost.fetch_add(1, SeqCst) < 5 && !self.plan.lossy {
            eprintln!("LOST {what} at {va}: {got} for {expected}, {:?}", self.mm.device_page(va));
        }
    }
    fn area(&self, index: usize) -> HostRange {
        let area = &self.areas[index];
        HostRange::sized(HostVa(area.start.load(SeqCst)), area.len.load(SeqCst))
    }
}

/// A thread that calls the API keeps its own stack out of migration, and out of signal handlers' hands.
fn guard(stage: &Stage) {
    block_signals();
    stage.mm.exclude_own_thread();
}

/// API callers take no signals whose handlers touch migratable memory: the handler would wait for a fault whose
/// service may need the very lock that its thread holds.
fn block_signals() {
    set_mask(!(1 << (libc::SIGSEGV - 1) | 1 << (libc::SIGBUS - 1)));
}

/// The calling thread's blocked signals, one bit a signal.
fn set_mask(blocked: u64) {
    // SAFETY: the kernel reads eight bytes of mask.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const blocked, 0, 8) };
}

/// Counts in its own word of random pages, by plain loads and stores.
fn cpu(stage: &Stage, number: usize) {
    let pages = stage.counters.pages();
    let mut expected = vec![0u64; pages];
    let mut random = Random(1 + number as u64);
    while stage.beat(number) {
        for _ in 0..256 {
            let i = random.below(pages as u64) as usize;
            let word = page(stage.counters, i).add(8 * number as u64);
            for _ in 0..4 {
                let got = load(word);
                if got != expected[i] {
                    stage.lose("cpu", word, got, expected[i]);
                    expected[i] = got;
                }
                expected[i] += 1;
                store(word, expected[i]);
            }
        }
    }
    for (i, &expected) in expected.iter().enumerate() {
        let word = page(stage.counters, i).add(8 * number as u64);
        if load(word) != expected {
            stage.lose("cpu at the end", word, load(word), expected);
        }
    }
}

fn verify(stage: &Stage, what: &str, va: HostVa, expected: u64) {
    let got = load(va);
    if got != expected {
        stage.lose(what, va, got, expected);
    }
}

static SIGNAL_WORD: AtomicU64 = AtomicU64::new(0);
static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_alarm(_: i32) {
    SIGNALS.fetch_add(1, SeqCst);
    // SAFETY: the word is mapped for the whole test; it may be in VRAM.
    unsafe { AtomicU64::from_ptr(SIGNAL_WORD.load(SeqCst) as *mut u64) }.fetch_add(1, SeqCst);
}

fn start_signals(at: HostVa) {
    SIGNAL_WORD.store(at.0, SeqCst);
    // SAFETY: all zeros is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_alarm as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: a handler that only adds to words; the timer is stopped at the end.
    unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
    set_timer(3000);
}

fn set_timer(us: i64) {
    let every = libc::timeval { tv_sec: 0, tv_usec: us };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the kernel reads one itimerval.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}

fn run(plan: Plan) -> Option<Arc<Stage>> {
    let mm = match &plan.short {
        Some(short) => start_on(short.clone(), plan.config()),
        None => start(plan.config()),
    }?;
    block_signals();
    let vram = [Vram::insert(&mm, PagemapId(0), 16, SZ_2M), Vram::insert(&mm, PagemapId(1), 16, SZ_64K)];
    let counters = map(COUNTERS * SZ_2M);
    madvise(HostRange::sized(counters.start, COUNTERS / 2 * SZ_2M), libc::MADV_HUGEPAGE);
    let constant = map(SZ_2M);
    (0..512).for_each(|i| store(page(constant, i), 7 + i as u64));
    let areas = (0..4).map(|_| Area { start: AtomicU64::new(map(SZ_2M).start.0), len: AtomicU64::new(SZ_2M) });
    let mut areas: Vec<Area> = areas.collect();
    let signal = map(SZ_2M);
    areas.push(Area { start: AtomicU64::new(signal.start.0), len: AtomicU64::new(SZ_2M) });
    areas.push(Area { start: AtomicU64::new(PLACE.start.0), len: AtomicU64::new(PLACE.len()) });
    let stage = Arc::new(Stage {
        mm,
        vram,
        counters,
        constant,
        signal,
        areas,
        stop: AtomicBool::new(false),
        beats: Default::default(),
        counts: Counts::default(),
        turn: AtomicU64::new(0),
        in_flight: Default::default(),
        notifiers: Default::default(),
        plan,
    });
    let everything = HostRange::new(HostVa(SZ_4K), HostVa(1 << 47));
    for notifier in &stage.notifiers {
        let id = stage.mm.notifier_insert(everything, Arc::new(Drain(Arc::downgrade(&stage)))).unwrap();
        notifier.set(id).unwrap();
    }
    play(&stage);
    Some(stage)
}

fn rest(stage: &Stage, role: usize) {
    while stage.beat(role) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn play(stage: &Arc<Stage>) {
    let mut roles: [fn(&Stage); ROLES.len()] = [
        |stage| cpu(stage, 0),
        |stage| cpu(stage, 1),
        |stage| cpu(stage, 2),
        |stage| gpu(stage, 0),
        |stage| gpu(stage, 1),
        mapper,
        dropper,
        remapper,
        forker,
        loader,
        grower,
        |stage| owner(stage, 0),
        |stage| owner(stage, 1),
        objects,
    ];
    if stage.plan.transport == Transport::Copy {
        // Without UFFDIO_MOVE a page's source is dropped by its address (docs/soundness.md).
        roles[5] = |stage| rest(stage, 5);
        roles[7] = |stage| rest(stage, 7);
        roles[10] = |stage| rest(stage, 10);
        roles[11] = |stage| rest(stage, 11);
        roles[12] = |stage| rest(stage, 12);
    }
    let threads: Vec<_> = roles
        .into_iter()
        .zip(ROLES)
        .map(|(role, name)| {
            let stage = Arc::clone(stage);
            let body = move || {
                if name.starts_with("cpu") || name == "mapper" || name == "dropper" || name.starts_with("owner") {
                    set_mask(0);
                }
                role(&stage);
            };
            std::thread::Builder::new().name(name.into()).spawn(body).unwrap()
        })
        .collect();
    start_signals(stage.signal.start);
    let rescuer = stage.plan.rescues.then(|| {
        let stage = Arc::clone(stage);
        std::thread::spawn(move || rescue(&stage))
    });
    watch(stage, &threads);
    stage.stop.store(true, SeqCst);
    set_timer(0);
    let end = Instant::now() + STALL;
    while !threads.iter().all(|thread| thread.is_finished()) {
        if Instant::now() > end {
            stalled(stage, "the end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    threads.into_iter().chain(rescuer).for_each(|thread| thread.join().expect("a role ends well"));
}

/// What the process outside does when a debugger has stopped all others, at any moment of what they do.
fn rescue(stage: &Stage) {
    guard(stage);
    while !stage.stop.load(SeqCst) {
        std::thread::sleep(RESCUE_PAUSE);
        stage.mm.bring_home_now();
    }
}

/// Whether the run, which began then, has reached what it must. A loaded machine takes longer; only who stands still is at fault.
fn is_enough(stage: &Stage, begun: Instant) -> bool {
    let (stats, plan) = (stage.mm.stats(), &stage.plan);
    if plan.lossy {
        return stage.counts.lost.load(SeqCst) > 0 || begun.elapsed() > STALL;
    }
    let owners = stage.counts.owners.load(SeqCst) >= ENOUGH_OWNERS || plan.transport == Transport::Copy;
    let owners = owners && (!plan.rescues || stats.rescued >= ENOUGH_RESCUED);
    let moved = owners && stats.to_device >= ENOUGH && stats.to_system >= ENOUGH && stats.across > 0;
    moved && plan.short.as_ref().is_none_or(|short| short.refused.is_enough(plan.transport))
}

fn watch(stage: &Stage, threads: &[std::thread::JoinHandle<()>]) {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(stage.plan.seconds);
    let mut seen = [(0, Instant::now()); ROLES.len()];
    let mut report = Instant::now();
    while Instant::now() < end || !is_enough(stage, begun) {
        std::thread::sleep(Duration::from_millis(100));
        for (role, (beat, since)) in seen.iter_mut().enumerate() {
            let now = stage.beats[role].load(SeqCst);
            if now != *beat {
                (*beat, *since) = (now, Instant::now());
            } else if since.elapsed() > STALL {
                stalled(stage, ROLES[role]);
            }
            assert!(!threads[role].is_finished(), "{} ended early", ROLES[role]);
        }
        if report.elapsed() > Duration::from_secs(60) {
            report = Instant::now();
            eprintln!("lost {} {:?}", stage.counts.lost.load(SeqCst), stage.mm.stats());
        }
    }
}

fn stalled(stage: &Stage, who: &str) -> ! {
    eprintln!("STALL: {who} stands still\n{}", stage.mm.dump());
    eprintln!(
        "{}",
        std::fs::read_to_string("/proc/self/maps")
            .unwrap_or_default()
            .lines()
            .find(|line| line.contains("/"))
            .unwrap_or_default()
    );
    let beats: Vec<_> = ROLES.iter().zip(&stage.beats).map(|(role, beat)| (role, beat.load(SeqCst))).collect();
    eprintln!("{beats:?}, in flight {:?}", stage.in_flight);
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let file = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default().trim().to_owned();
        eprintln!(
            "{} {} wchan {} syscall {}\n{}",
            task.path().display(),
            file("comm"),
            file("wchan"),
            file("syscall"),
            file("stack")
        );
    }
    if let Ok(seconds) = std::env::var("PONTOON_STRESS_LINGER") {
        std::thread::sleep(Duration::from_secs(seconds.parse().unwrap_or(0)));
    }
    std::process::abort();
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn seconds() -> u64 {
    number("PONTOON_STRESS_SECONDS", 10)
}

fn seed() -> u64 {
    number("PONTOON_STRESS_SEED", 1)
}

#[test]
fn nothing_is_lost_and_nothing_hangs() {
    if let Some(stage) = run(Plan::new(Transport::Move)) {
        judge(&stage);
    }
}

fn judge(stage: &Stage) {
    let mm = &stage.mm;
    assert!(mm.migrate_all_back());
    mm.thaw();
    mm.settle();
    let stats = mm.stats();
    eprintln!("{stats:#?}\n{:?}, signals {}", stage.counts, SIGNALS.load(SeqCst));
    let beats: Vec<_> = ROLES.iter().zip(&stage.beats).map(|(role, beat)| (role, beat.load(SeqCst))).collect();
    eprintln!("{beats:?}");
    assert_eq!(load(stage.signal.start), SIGNALS.load(SeqCst), "every signal counted, once");
    for vram in &stage.vram {
        // A reader that has answered a fault may still be giving frames back, one after the other.
        let end = Instant::now() + STALL;
        while vram.free_frames() < 16 * SLOT && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(mm.resident_frames(vram.id), mm.mincore_frames(vram.id));
        assert_eq!((mm.mincore_frames(vram.id), vram.free_frames()), (0, 16 * SLOT), "all frames are empty and free");
    }
    assert_eq!(stage.counts.lost.load(SeqCst), 0, "lost writes");
    let never = [stats.stranded, stats.unexpected, stats.stale, stats.conflicts, stats.orphaned];
    assert_eq!(never, [0; 5], "{stats:?}");
    assert!(mm.stop());
}

/// In a process of its own, because it leaves a world behind.
#[test]
#[ignore = "run by a test below, in a process of its own"]
fn rescuing_world() {
    let Some(stage) = run(Plan { rescues: true, ..Plan::new(Transport::Move) }) else { return };
    judge(&stage);
}

/// Pages that are brought home from outside, at any moment of a migration, an access or a change.
#[test]
fn nothing_is_lost_when_pages_are_brought_home() {
    let (good, text) = run_in_a_process("rescuing_world");
    assert!(good, "{text}");
}

/// In a process of its own, because it leaves a world behind.
#[test]
#[ignore = "run by a test below, in a process of its own"]
fn copying_world() {
    let Some(stage) = run(Plan::new(Transport::Copy)) else { return };
    judge(&stage);
}

/// By the copying path, with everything that it promises: not with mappings that come and go at the same addresses.
#[test]
fn nothing_is_lost_by_copying() {
    let (good, text) = run_in_a_process("copying_world");
    assert!(good, "{text}");
}

fn short(transport: Transport) {
    let Some(kernel) = kernel(transport) else { return };
    let short = Arc::new(Short::new(kernel, seed()));
    let Some(stage) = run(Plan { short: Some(short.clone()), ..Plan::new(transport) }) else { return };
    short.end();
    judge(&stage);
    eprintln!("seed {}, {:?}", seed(), short.refused);
}

/// In a process of its own, because it leaves a world behind.
#[test]
#[ignore = "run by a test below, in a process of its own"]
fn short_world() {
    short(Transport::Move);
}

/// In a process of its own, because it leaves a world behind.
#[test]
#[ignore = "run by a test below, in a process of its own"]
fn short_copying_world() {
    short(Transport::Copy);
}

/// With a kernel that is short of memory: what it refuses stays where it is, or goes later.
#[test]
fn nothing_is_lost_when_memory_is_short() {
    for world in ["short_world", "short_copying_world"] {
        let (good, text) = run_in_a_process(world);
        assert!(good, "{world}: {text}");
    }
}

/// In a process of its own, because it leaves a world behind.
#[test]
#[ignore = "run by a test below, in a process of its own"]
fn lossy_world() {
    let Some(stage) = run(Plan { seconds: 2, lossy: true, ..Plan::new(Transport::Move) }) else { return };
    println!("LOSSES {}", stage.counts.lost.load(SeqCst));
    assert!(stage.mm.stop());
}

/// The stress can fail: with migrations that copy while the program goes on writing, it sees the losses.
#[test]
fn losses_would_be_seen() {
    let (_, text) = run_in_a_process("lossy_world");
    if text.contains("SKIPPED") {
        return;
    }
    let losses = text.lines().find_map(|line| line.split("LOSSES ").nth(1)?.trim().parse::<u64>().ok());
    assert!(losses.is_some_and(|losses| losses > 0), "losses {losses:?}\n{text}");
    eprintln!("losses seen: {losses:?}");
}

/// Whether it passed, and what it said.
fn run_in_a_process(test: &str) -> (bool, String) {
    let own = std::env::current_exe().unwrap();
    let output = std::process::Command::new(own).args([test, "--exact", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.contains("SKIPPED")).for_each(say);
    (output.status.success(), text)
}
