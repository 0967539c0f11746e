//! What the kernel takes out of memory. Pages that it has swapped out are no holes: they go along with their bytes. What
//! the program gave up by MADV_FREE may be gone, in VRAM too, and is zeros then.
//!
//! Needs a swap, or root to make a small one for the time of the test; and root's right to a memory cgroup (v1), which
//! can be emptied.
#![allow(
    unsafe_code,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests play the program: raw memory, threads of its own"
)]

mod world;

use hostmm::*;
use mm_live::{Config, LiveMm};
use std::ffi::CString;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use units::{HostRange, SZ_2M, SZ_4K};
use world::*;

/// A swap file of ours, off again with its owner.
struct Swap(CString);

impl Swap {
    /// 32M of swap: the header is version 1, the last page's number, and a signature at the end of the page.
    fn on() -> Option<Self> {
        const PAGES: u32 = 8192;
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("swap-{}", std::process::id()));
        let name = CString::new(path.to_str()?).ok()?;
        let mut file = std::fs::File::create(&path).ok()?;
        let mut head = [0u8; SZ_4K as usize];
        head[1024..1028].copy_from_slice(&1u32.to_le_bytes());
        head[1028..1032].copy_from_slice(&(PAGES - 1).to_le_bytes());
        head[4086..].copy_from_slice(b"SWAPSPACE2");
        let zeros = vec![0u8; (PAGES as usize - 1) * SZ_4K as usize];
        let written = file.write_all(&head).and_then(|()| file.write_all(&zeros)).and_then(|()| file.sync_all());
        let swap = Self(name);
        // SAFETY: the path is a string that outlives the call.
        (written.is_ok() && unsafe { libc::swapon(swap.0.as_ptr(), 0) } == 0).then_some(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: as above; an error says that it never was on.
        unsafe { libc::swapoff(self.0.as_ptr()) };
        let _ = std::fs::remove_file(self.0.to_str().unwrap_or_default());
    }
}

/// A memory cgroup of ours, this process in it: what it holds, the swap cache too, can be thrown out of memory. Where
/// that cannot be, pages are swapped out and in memory at once, which is the easier case.
struct Group(Option<PathBuf>);

impl Group {
    fn enter() -> Self {
        let path = Path::new("/sys/fs/cgroup/memory").join(format!("pontoon-{}", std::process::id()));
        let entered = std::fs::create_dir(&path)
            .and_then(|()| std::fs::write(path.join("cgroup.procs"), std::process::id().to_string()));
        Self(entered.is_ok().then_some(path))
    }

    /// False where it could not be tried.
    fn empty(&self) -> bool {
        // Pages that are being written to the swap cannot go.
        std::thread::sleep(std::time::Duration::from_millis(100));
        self.0.as_ref().is_some_and(|path| std::fs::write(path.join("memory.force_empty"), "0").is_ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::write("/sys/fs/cgroup/memory/cgroup.procs", std::process::id().to_string());
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Pages of `range` that are swapped out.
fn swapped(range: HostRange) -> usize {
    const SWAPPED: u64 = 1 << 62;
    let mut words = vec![0u8; range.pages() * 8];
    let mut pagemap = std::fs::File::open("/proc/self/pagemap").expect("our own");
    pagemap.seek(SeekFrom::Start(range.start.page_number() * 8)).expect("a place in it");
    pagemap.read_exact(&mut words).expect("a word a page");
    words.chunks(8).filter(|word| u64::from_le_bytes((*word).try_into().unwrap()) & SWAPPED != 0).count()
}

/// Pages that MADV_FREE gave up and the kernel takes back while they are in VRAM: the device and the CPU read what was
/// there or zeros, and what they write stays.
fn given_up(mm: &LiveMm, vram: &Vram, group: &Group) {
    let range = map(SZ_2M);
    (0..range.pages()).for_each(|i| store(page(range, i), 1000 + i as u64));
    assert_eq!(madvise(range, libc::MADV_FREE), 0);
    assert_eq!(migrate_to(mm, vram, range), 512);
    let emptied = group.empty();
    if !emptied {
        say("SKIPPED: no memory cgroup (v1) to empty, so nothing of MADV_FREE is taken back");
    }
    for i in (0..range.pages()).step_by(2) {
        let device = mm.device_page(page(range, i)).expect("in VRAM");
        let mut word = [0; 8];
        while mm.read(Place::Device(device), 0, &mut word) == Err(AccessError::Again) {}
        let word = u64::from_le_bytes(word);
        assert!(word == 0 || word == 1000 + i as u64, "page {i}: {word}");
        assert_eq!(mm.write(Place::Device(device), 8, &[7]), Ok(()));
    }
    for i in 0..range.pages() {
        let word = load(page(range, i));
        assert!(word == 0 || word == 1000 + i as u64, "page {i}: {word}");
        assert_eq!(load(page(range, i).add(8)), if i % 2 == 0 { 7 } else { 0 }, "page {i}");
    }
    assert!(!emptied || mm.stats().reclaimed > 0, "nothing was taken back");
    assert_eq!(mm.stats().stale, 0);
}

const MADV_PAGEOUT: i32 = 21;
/// Swaps that may end while their pages are looked for.
const TRIES: usize = 10;

fn paged_out(bytes: u64) -> HostRange {
    let range = map(bytes);
    (0..range.pages()).for_each(|i| store(page(range, i), 1000 + i as u64));
    madvise(range, MADV_PAGEOUT);
    range
}

fn reads_back(range: HostRange) {
    (0..range.pages()).for_each(|i| assert_eq!(load(page(range, i)), 1000 + i as u64, "page {i}"));
}

#[test]
fn what_is_swapped_out_goes_along() {
    let Some(mm) = start(Config::default()) else { return };
    let has_swap = std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1);
    // The swap that is there may be another test's, and end with it.
    let own = Swap::on();
    if !has_swap && own.is_none() {
        assert!(mm.stop());
        return say("SKIPPED: no swap, and none can be made here");
    }
    let group = Group::enter();
    let vram = Vram::insert(&mm, PagemapId(0), 8, SZ_2M);
    given_up(&mm, &vram, &group);
    let mut tries = (0..TRIES).map(|_| {
        let (range, emptied) = (paged_out(SZ_2M), group.empty());
        (range, emptied, swapped(range))
    });
    let (range, emptied, out) = tries.find(|(_, _, out)| *out > 0).expect("pages are swapped out");
    eprintln!("{out} of {} pages are swapped out, swap cache emptied: {emptied}", range.pages());
    let moved = migrate_to(&mm, &vram, range);
    eprintln!("{moved} pages moved");
    assert!(moved > 0);
    for va in (0..range.pages()).map(|i| page(range, i)) {
        let Some(device) = mm.device_page(va) else { continue };
        let mut word = [0; 8];
        mm.read(Place::Device(device), 0, &mut word).expect("a page in VRAM");
        assert_eq!(u64::from_le_bytes(word), 1000 + range.page_index(va) as u64, "{va}");
        mm.write(Place::Device(device), 8, &[7]).expect("a page in VRAM");
    }
    reads_back(range);
    assert_eq!((0..range.pages()).filter(|&i| load(page(range, i).add(8)) == 7).count(), moved);

    // Back again, to a place whose neighbours are swapped out; and a look by a device.
    let range = paged_out(SZ_2M);
    let part = HostRange::sized(range.start, 16 * SZ_4K);
    migrate_to(&mm, &vram, part);
    madvise(range, MADV_PAGEOUT);
    group.empty();
    migrate_back(&*mm, &*mm, range);
    let walk = Walk { range, valid_since: None, vma: None, fault: true, write: true, owner: Some(OWNER) };
    let mut found = Vec::new();
    assert_eq!(mm.walk(&walk, &mut found), Ok(()));
    assert!(found.iter().all(|run| matches!(run.run.place, Some(Place::Host(_)))));
    reads_back(range);
    assert!(mm.stop());
}
