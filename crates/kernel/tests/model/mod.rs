//! The table's cases on the model of the kernel's memory (`crates/mm-sim`), by an engine that does no more than the table says.

#![allow(clippy::disallowed_types, reason = "outside of what the checker controls")]

use hostmm::conformance::{carry_back, moved, transfer};
use hostmm::{
    ClaimRequest, Claimed, CpuFault, DevicePage, DeviceRun, EventKind, FaultOutcome, HostMemory, HostMm, Migration,
    MmError, MmEvent, NotifierId, NotifierOps, OwnerId, PagemapId, PagemapOps, Part, Place, Seq, Toward, Walk,
};
use kface::acts::{BLOCK, PAGES};
use kface::memory::{Answers, Case, Page, Step, What};
use mm_sim::{Config, MapKind, Sim};
use std::sync::{Arc, Mutex, Weak};
use units::{HostRange, HostVa, SZ_4K};

/// As many as the driver of the glue has.
const VRAMS: u16 = 3;

/// What hears of changes, and serves faults of the CPU: a page alone migrates back.
struct Driver {
    sim: Weak<Sim>,
    answers: Mutex<Answers>,
}

struct Player {
    sim: Arc<Sim>,
    driver: Arc<Driver>,
    notifier: NotifierId,
    looked: Seq,
    migration: Migration,
    range: HostRange,
}

fn block() -> HostRange {
    HostRange::sized(HostVa(BLOCK), PAGES * SZ_4K)
}

/// Whose pages those of a VRAM are.
fn owner(vram: u8) -> OwnerId {
    OwnerId(u32::from(vram / 2) + 1)
}

fn letter(place: Option<Place>) -> char {
    match place {
        Some(Place::Host(_)) => 'r',
        Some(Place::Device(page)) => char::from(b'0' + page.pagemap.0 as u8),
        None => '.',
    }
}

fn letters(sim: &Sim, range: HostRange) -> String {
    let pages = sim.pages(range).into_iter().enumerate();
    let letter = |(at, (place, _))| if sim.is_moving(range.page_at(at)) { 'm' } else { letter(place) };
    pages.map(letter).collect()
}

impl Driver {
    fn say(&self, text: impl Into<String>) {
        self.answers.lock().expect("whole").say(text);
    }
}

impl NotifierOps for Driver {
    fn invalidate(&self, event: &MmEvent) {
        let Some(sim) = self.sim.upgrade() else { return };
        let kind = match event.kind {
            EventKind::Unmap => "unmap",
            EventKind::Clear => "clear",
            EventKind::Protection => "protection",
            EventKind::Migrate(_) => "migrate",
            EventKind::Release => "release",
        };
        let places = event.range.intersect(block()).map_or(String::new(), |range| letters(&sim, range));
        let mut answers = self.answers.lock().expect("whole");
        answers.noticed(kind, event.range.start.0, event.range.end.0, &places);
    }
}

impl PagemapOps for Driver {
    fn migrate_to_ram(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome {
        self.say(format!("vram{} is asked for page {}", fault.page.pagemap.0, fault.page.frame));
        let Some(sim) = self.sim.upgrade() else { return FaultOutcome::Fatal };
        let range = HostRange::sized(fault.addr.page(), SZ_4K);
        let owner = owner(fault.page.pagemap.0 as u8);
        let request = ClaimRequest { range, owner, toward: Toward::Ram, fault: Some(fault.addr) };
        carry_back(mm, &*sim, &request).map_or(FaultOutcome::Fatal, |_| FaultOutcome::Retry)
    }

    fn folio_free(&self, first: DevicePage, pages: usize) {
        let mut answers = self.answers.lock().expect("whole");
        (0..pages as u64).for_each(|page| answers.freed(first.pagemap.0 as u8, (first.frame + page) as u8));
    }
}

/// What the model says to a case.
pub fn play(case: &Case) -> Vec<Vec<String>> {
    let sim = Sim::new(Config::default());
    let driver = Arc::new(Driver { sim: Arc::downgrade(&sim), answers: Mutex::default() });
    for vram in 0..VRAMS {
        sim.pagemap_insert(PagemapId(vram), owner(vram as u8), PAGES, driver.clone());
    }
    let notifier = sim.notifier_insert(block(), driver.clone()).expect("inserted");
    let range = HostRange::new(HostVa(0), HostVa(0));
    let mut player = Player { sim, driver, notifier, looked: Seq(0), migration: Migration::default(), range };
    let said = case.steps.iter().zip(1..).map(|((step, _), number)| player.step(step, number)).collect();
    player.sim.check().expect("the books balance");
    said
}

impl Player {
    fn step(&mut self, step: &Step, number: u64) -> Vec<String> {
        let at = |page: u8| block().page_at(page.into());
        let range = HostRange::new(at(step.pages.start), at(step.pages.end));
        let vram = step.vram.unwrap_or(0);
        match step.what {
            What::Map => self.sim.mmap_at(range, MapKind::Anonymous).expect("free"),
            What::Unmap => self.sim.munmap(range),
            What::Protect if step.writes() => self.sim.protect_read_write(range),
            What::Protect => self.sim.protect_read_only(range),
            What::DontNeed => self.sim.madvise_dontneed(range),
            What::Cpu => self.cpu(range.start, step.writes().then_some(number)),
            What::Pin => drop(self.sim.pin(range.start).expect("pinned")),
            What::Unpin => assert!(self.sim.unpin(range.start)),
            What::Migrate => {
                self.begin(range, vram);
                self.commit();
                self.end();
            }
            What::Begin => self.begin(range, vram),
            What::Hold => assert!(self.sim.inject_race(range.start)),
            What::Commit => self.commit(),
            What::End => self.end(),
            What::Back => self.back(range),
            What::Evict => self.evict(vram),
            What::Look => self.looked = self.sim.read_begin(self.notifier),
            What::Walk => self.walk(step, range),
        }
        self.told()
    }

    fn told(&self) -> Vec<String> {
        let places = letters(&self.sim, block());
        let rights = self.sim.pages(block()).into_iter().map(|(_, protected)| !protected);
        let pages =
            places.chars().zip(rights).map(|(place, write)| Page { place, write: write && !".m".contains(place) });
        let mut areas = Vec::new();
        let mut at = block().start;
        while let Some(vma) = self.sim.next_vma(at).filter(|vma| vma.range.start < block().end) {
            areas.push((vma.range.start.0, vma.range.end.0, vma.write));
            at = vma.range.end;
        }
        self.driver.answers.lock().expect("whole").end(&pages.collect::<Vec<_>>(), &areas)
    }

    fn cpu(&self, at: HostVa, value: Option<u64>) {
        let done = match value {
            Some(value) => self.sim.store_u64(at, value),
            None => self.sim.load_u64(at).map(|word| self.driver.say(format!("value {word}"))),
        };
        if done.is_err() {
            self.driver.say("signal SEGV");
        }
    }

    /// What was collected of a range, page by page.
    fn collected(&self, range: HostRange) {
        let part = |at: HostVa| self.migration.parts.iter().find(|part| part.range.contains(at));
        let is = |part: &Part, at| letter(part.from_at(part.range.page_index(at)));
        let letters =
            (0..range.pages()).map(|page| range.page_at(page)).map(|at| match part(at).map(|part| is(part, at)) {
                Some('.') => 'h',
                Some(letter) => letter,
                None => '-',
            });
        self.driver.say(format!("collects {}", letters.collect::<String>()));
    }

    fn claim(&mut self, range: HostRange, toward: Toward) {
        let request = ClaimRequest { range, owner: owner(0), toward, fault: None };
        let owner = if let Toward::Vram(pagemap) = toward { owner(pagemap.0 as u8) } else { request.owner };
        match self.sim.claim(&ClaimRequest { owner, ..request }, &mut self.migration) {
            Ok(claimed) => {
                assert_eq!(claimed, Claimed::Begun, "the table has no migration to where all is");
                self.range = range;
                self.collected(range);
            }
            Err(MmError::NoVma) => self.driver.say("refused no area"),
            Err(why) => {
                self.driver.say(format!("refused {}", if why == MmError::Stale { "an area ends there" } else { "" }))
            }
        }
    }

    fn begin(&mut self, range: HostRange, vram: u8) {
        self.claim(range, Toward::Vram(PagemapId(vram.into())));
        if self.migration.id.is_some() {
            self.migration.aim(block(), DevicePage { pagemap: PagemapId(vram.into()), frame: 0 });
            self.migration.parts.retain(|part| part.from != part.to);
            self.stage();
        }
    }

    fn stage(&mut self) {
        self.sim.stage(&mut self.migration).expect("staged");
        transfer(&*self.sim as &dyn HostMemory, &mut self.migration);
    }

    fn commit(&mut self) {
        if self.migration.id.is_none() {
            return;
        }
        self.sim.commit(&mut self.migration);
        let moved = moved(&self.migration, self.range);
        self.driver
            .say(format!("moves {}", moved.iter().map(|moved| if *moved { '+' } else { '-' }).collect::<String>()));
    }

    fn end(&mut self) {
        self.sim.finish(&mut self.migration);
    }

    fn back(&mut self, range: HostRange) {
        self.claim(range, Toward::Ram);
        if self.migration.id.is_some() {
            self.stage();
        }
        self.commit();
        self.end();
    }

    /// By page of VRAM, which has the number of its page in the block.
    fn evict(&mut self, vram: u8) {
        let first = DevicePage { pagemap: PagemapId(vram.into()), frame: 0 };
        let all = [DeviceRun { first, pages: PAGES as usize }];
        self.sim.claim_device(&all, &mut self.migration).expect("begun");
        self.range = block();
        self.collected(block());
        self.stage();
        self.commit();
        self.end();
    }

    fn walk(&self, step: &Step, range: HostRange) {
        let mut runs = Vec::new();
        let done = loop {
            let seq = if step.has("since") { self.looked } else { self.sim.read_begin(self.notifier) };
            let walk = Walk {
                range,
                valid_since: Some((self.notifier, seq)),
                vma: None,
                fault: step.has("fault"),
                write: step.has("write"),
                owner: step.vram.map(owner),
            };
            match self.sim.walk(&walk, &mut runs) {
                Err(MmError::Stale) if !step.has("since") => {}
                done => break done,
            }
        };
        let answer = match done {
            Ok(()) => {
                let pages =
                    || runs.iter().flat_map(|run| (0..run.run.pages()).map(|at| (run.run.place_at(at), run.write)));
                self.driver.say(format!("shows {}", pages().map(|(place, _)| letter(place)).collect::<String>()));
                let writes = pages().map(|(place, write)| if write && place.is_some() { '+' } else { '-' });
                return self.driver.say(format!("lets write {}", writes.collect::<String>()));
            }
            Err(MmError::Stale) => "EBUSY",
            Err(MmError::Denied) => "EPERM",
            Err(MmError::NoVma) => "EFAULT",
            Err(MmError::NoMemory | MmError::Gone) => "other",
        };
        self.driver.say(format!("answer {answer}"));
    }
}
