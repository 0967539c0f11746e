//! What the GPUs do: they migrate, evict, and count by place.

use super::*;

/// Counts in its own word too, by place as a device does, and migrates.
pub(super) fn gpu(stage: &Stage, number: usize) {
    guard(stage);
    let pages = stage.counters.pages();
    let mut expected = vec![0u64; pages];
    let mut random = Random(100 + number as u64);
    while stage.beat(3 + number) {
        let chunk = random.below(COUNTERS + stage.areas.len() as u64 + 1);
        let range = match chunk {
            n if n < COUNTERS => HostRange::sized(stage.counters.start.add(n * SZ_2M), SZ_2M),
            n if n == COUNTERS => stage.constant,
            n => stage.area((n - COUNTERS - 1) as usize),
        };
        let part = match random.below(4) {
            0 => HostRange::sized(range.start.add(random.below(range.len() / SZ_64K) * SZ_64K), SZ_64K),
            1 => HostRange::sized(range.start.add(random.below(range.len() / SZ_4K) * SZ_4K), SZ_4K),
            _ => range,
        };
        match random.below(6) {
            0 | 1 if stage.plan.lossy => lossy(stage, part),
            0..3 => drop(migrate_to(&stage.mm, &stage.vram[random.below(2) as usize], part)),
            3 => drop(migrate_back(&*stage.mm, &*stage.mm, part)),
            4 => evict(stage, &mut random),
            _ => {}
        }
        for _ in 0..64 {
            let i = random.below(pages as u64) as usize;
            if let Some(old) = device_add(stage, number, i) {
                if old != expected[i] {
                    stage.lose("gpu", page(stage.counters, i).add(64 + 8 * number as u64), old, expected[i]);
                    expected[i] = old;
                }
                expected[i] += 1;
            }
        }
    }
    for (i, &expected) in expected.iter().enumerate() {
        let word = page(stage.counters, i).add(64 + 8 * number as u64);
        if load(word) != expected {
            stage.lose("gpu at the end", word, load(word), expected);
        }
    }
}

/// One atomic addition by place, with the protocol of a device: translate, check, access, all under the drain.
fn device_add(stage: &Stage, number: usize, index: usize) -> Option<u64> {
    let mm = &stage.mm;
    let id = *stage.notifiers[number].get()?;
    let range = HostRange::sized(page(stage.counters, index), SZ_4K);
    for _ in 0..100 {
        let seq = mm.read_begin(id);
        let walk =
            Walk { range, valid_since: Some((id, seq)), vma: None, fault: true, write: true, owner: Some(OWNER) };
        let mut found = Vec::new();
        if mm.walk(&walk, &mut found).is_err() {
            continue;
        }
        let offset = 64 + 8 * number;
        let done = match found[0].run.place {
            Some(Place::Device(device)) => {
                stage.in_flight[number].store(1, SeqCst);
                let done =
                    (!mm.read_retry(id, seq)).then(|| mm.atomic(Place::Device(device), offset, 8, AtomicOp::Add(1)));
                stage.in_flight[number].store(0, SeqCst);
                done
            }
            Some(Place::Host(frame)) => Some(mm.atomic(Place::Host(frame), offset, 8, AtomicOp::Add(1))),
            None => None,
        };
        match done {
            Some(Ok(old)) => {
                stage.counts.device_adds.fetch_add(1, SeqCst);
                return Some(old);
            }
            Some(Err(AccessError::Fault)) => panic!("page {index} is mapped"),
            Some(Err(AccessError::Again)) | None => {}
            // The drain makes this impossible; `stale` is asserted at the end.
            Some(Err(AccessError::Empty)) => {}
        }
    }
    None
}

fn evict(stage: &Stage, random: &mut Random) {
    let vram = &stage.vram[random.below(2) as usize];
    let first = random.below(16 * 512 - 64);
    let pages = DeviceRun { first: DevicePage { pagemap: vram.id, frame: first }, pages: 64 };
    let mut migration = Migration::default();
    if stage.mm.claim_device(&[pages], &mut migration).is_err() {
        return;
    }
    if stage.mm.stage(&mut migration).is_ok() {
        hostmm::conformance::transfer(&*stage.mm, &mut migration);
        // Some are wanted back: abort must be exact too.
        for index in (0..migration.parts.len()).rev() {
            let part = migration.parts[index];
            let odd = part.from.and_then(Place::device).is_some_and(|page| page.frame % 7 == 0);
            match part.pages() {
                1 if odd => migration.parts[index].outcome = Outcome::Failed,
                1 => {}
                pages => {
                    migration.split(index, pages / 2);
                    migration.parts[index + usize::from(odd)].outcome = Outcome::Failed;
                }
            }
        }
        stage.mm.commit(&mut migration);
        stage.counts.evictions.fetch_add(migration.carried() as u64, SeqCst);
    }
    stage.mm.finish(&mut migration);
}

/// What a migration must not be: bytes are copied while the program goes on writing. They are read before the claim: who reads memory
/// that it has claimed itself, and that was dropped since, waits for its own claim to end.
fn lossy(stage: &Stage, range: HostRange) {
    let range = HostRange::sized(range.start, SZ_4K);
    let mut bytes = [0; SZ_4K as usize];
    if stage.mm.copy_from_user(range.start, &mut bytes).is_err() {
        return;
    }
    let Some(frames) = stage.vram[0].alloc(1) else { return };
    let device = DevicePage { pagemap: stage.vram[0].id, frame: frames[0] };
    let request = ClaimRequest { range, owner: OWNER, toward: Toward::Vram(device.pagemap), fault: None };
    let mut migration = Migration::default();
    if stage.mm.claim(&request, &mut migration) == Ok(Claimed::Begun) {
        migration.aim(range, device);
        let is_here = migration.parts.first().is_some_and(|part| matches!(part.from, Some(Place::Host(_))));
        if is_here && stage.mm.stage(&mut migration).is_ok() {
            migration.parts.iter_mut().for_each(|part| part.outcome = Outcome::Copied);
            stage.mm.commit(&mut migration);
            if migration.carried() > 0 {
                let _ = stage.mm.write(Place::Device(device), 0, &bytes);
            }
        }
        stage.mm.finish(&mut migration);
    }
    if migration.carried() == 0 {
        stage.vram[0].release(frames);
    }
}
