//! The lines of a scene: declarations, and the heads of phases and threads. Indented lines are steps.

use super::cursor::{Cursor, card, node};
use super::lex::without_comment;
use super::{Buffer, Injected, Memory, MemoryKind, Phase, Script, ScriptError, Thread, Vm, VmKind, steps};
use crate::play::reach;
use machine::interconnect::DeviceId;
use machine::profile::MAX_DEVICES;
use machine::topology::{Topology, small};
use units::SZ_4K;

/// The most pages of one piece: that of 4M.
const MOST_PAGES: u64 = 1024;
/// The most buffers: each is bound at an address of its own.
const MOST_BUFFERS: usize = 16;
/// A search notes by a bit each whether a run met it.
const MOST_INJECTIONS: usize = 64;
/// The most queues of a VM on a tile: a tile has so many engines for them.
pub(crate) const MOST_QUEUES: usize = 2;
/// The most threads, those of all phases together.
const MOST_THREADS: usize = 24;

/// Reads a scene.
pub(super) fn script(name: &str, text: &str) -> Result<Script, ScriptError> {
    let mut script = empty(name, text);
    let mut count = Count::default();
    let (mut last, mut races) = (0, None);
    for (index, raw) in text.lines().enumerate() {
        let line = without_comment(raw);
        last = index + 1;
        let mut at = Cursor::new(name, last, line);
        if at.peek().is_none() {
            continue;
        }
        if line.starts_with(char::is_whitespace) {
            let thread = threads_now(&script, count.threads);
            let step = steps::step(&mut at, &mut script, thread)?.with_text(last, line);
            match script.phases.last_mut() {
                Some(Phase::Alone(steps)) => steps.push(step),
                Some(Phase::Together(group)) => group.last_mut().map_or((), |thread| thread.steps.push(step)),
                None => return Err(at.error_before("a step belongs below 'first' or 'thread NAME'".into())),
            }
        } else {
            head(&mut at, line, &mut script, &mut count)?;
            races = races.or(script.races_time.then_some(last));
        }
    }
    if script.phases.is_empty() {
        let message = "the scene does nothing: it needs 'first' or 'thread NAME', and steps below it".into();
        return Err(ScriptError { name: name.into(), line: last + 1, column: 1, message });
    }
    if let (Some(line), true) = (races, script.vms.iter().any(|vm| vm.kind == VmKind::Plain)) {
        let message = "jobs of a plain VM have a timeout: where time races, one that is merely slow is killed".into();
        return Err(ScriptError { name: name.into(), line, column: 1, message });
    }
    Ok(script)
}

/// What was declared so far.
#[derive(Default)]
struct Count {
    devices: usize,
    threads: usize,
}

fn empty(name: &str, text: &str) -> Script {
    Script {
        name: name.into(),
        source: text.into(),
        shows: String::new(),
        devices: Topology::Two.platforms(&[]),
        memories: Vec::new(),
        vms: vec![Vm { name: "vm".into(), kind: VmKind::Mirror, scratch: false }],
        buffers: Vec::new(),
        fences: Vec::new(),
        writers: Vec::new(),
        injections: Vec::new(),
        meets: Vec::new(),
        queues: 1,
        races_time: false,
        phases: Vec::new(),
    }
}

/// The number of the thread that the next step belongs to.
fn threads_now(script: &Script, threads: usize) -> usize {
    if matches!(script.phases.last(), Some(Phase::Together(_))) { threads } else { 0 }
}

fn head(at: &mut Cursor<'_>, line: &str, script: &mut Script, count: &mut Count) -> Result<(), ScriptError> {
    match at.word("a word")? {
        "shows" => {
            script.shows = line.trim_start_matches("shows").trim().into();
            return Ok(());
        }
        "device" => device(at, script, count)?,
        "memory" => memory(at, script)?,
        "userptr" => userptr(at, script)?,
        "vm" => {
            let name = at.word("the VM's name")?.to_owned();
            let kind = match at.peek() {
                Some("later") => VmKind::MirrorLater,
                Some("plain") => VmKind::Plain,
                Some("autoreset") => VmKind::AutoReset,
                _ => VmKind::Mirror,
            };
            if kind != VmKind::Mirror {
                at.word("its kind")?;
            }
            is_new(at, script, &name)?;
            let scratch = kind == VmKind::Plain && at.take("scratch");
            script.vms.push(Vm { name, kind, scratch });
        }
        "buffer" => buffer(at, script)?,
        "inject" => inject(at, script)?,
        "meets" => {
            script.meets.push(moment(at, line.trim_start_matches("meets").trim())?);
            return Ok(());
        }
        "queues" => {
            script.queues = at.number("how many queues")? as usize;
            if !(1..=MOST_QUEUES).contains(&script.queues) {
                return Err(at.error_before(format!("a VM has 1 to {MOST_QUEUES} queues a tile")));
            }
        }
        "races" => {
            at.expect("time")?;
            script.races_time = true;
        }
        "first" | "then" => script.phases.push(Phase::Alone(Vec::new())),
        "thread" => {
            count.threads += 1;
            if count.threads > MOST_THREADS {
                return Err(at.error_before(format!("a scene has at most {MOST_THREADS} threads")));
            }
            let name = at.word("the thread's name")?;
            steps::may_be_named(at, name)?;
            let name = Box::leak(name.to_owned().into_boxed_str());
            let thread = Thread { name, number: count.threads, times: at.times()?, steps: Vec::new() };
            match script.phases.last_mut() {
                Some(Phase::Together(group)) => group.push(thread),
                _ => script.phases.push(Phase::Together(vec![thread])),
            }
        }
        word => {
            let known = "shows, device, memory, userptr, vm, buffer, inject, meets, queues, races, first, then, thread (steps are indented)";
            return Err(at.error_before(format!("'{word}' begins no line of a scene; there are: {known}")));
        }
    }
    at.end()
}

/// `device pvc-1t [no-p2p] [xN]`
fn device(at: &mut Cursor<'_>, script: &mut Script, count: &mut Count) -> Result<(), ScriptError> {
    let name = at.word("the device's name")?;
    let known = small(name, true).map_err(|error| at.error_before(error))?;
    let platform = if at.take("no-p2p") { small(name, false).unwrap_or(known) } else { known };
    if !script.phases.is_empty() || !script.buffers.is_empty() {
        return Err(at.error_before("devices stand before buffers and steps".into()));
    }
    if count.devices == 0 {
        script.devices.clear();
    }
    count.devices += at.times()? as usize;
    if count.devices > MAX_DEVICES {
        return Err(at.error_before(format!("a scene has at most {MAX_DEVICES} devices")));
    }
    script.devices.resize(count.devices, platform);
    Ok(())
}

fn memory(at: &mut Cursor<'_>, script: &mut Script) -> Result<(), ScriptError> {
    let name = at.word("the memory's name")?.to_owned();
    is_new(at, script, &name)?;
    let memory = if at.take("=") {
        let (of, pages) = part(at, script)?;
        Memory { name, pages: pages.len(), kind: MemoryKind::Part { of, first: pages.start } }
    } else {
        let pages = size_in_pages(at)?;
        let (mut huge, mut shared, mut filled, mut far) = (false, false, true, false);
        loop {
            match at.peek() {
                Some("huge") => huge = true,
                Some("shared") => shared = true,
                Some("empty") => filled = false,
                Some("far") => far = true,
                _ => break,
            }
            at.word("a kind")?;
        }
        Memory { name, pages, kind: MemoryKind::Mapping { huge, shared, filled, far } }
    };
    script.memories.push(memory);
    Ok(())
}

/// One run of pages of another piece.
fn part(at: &mut Cursor<'_>, script: &Script) -> Result<(usize, std::ops::Range<usize>), ScriptError> {
    let of = at.word("another piece of memory")?;
    let of = steps::memory_named(at, script, of)?;
    match steps::pages(at, script.memories[of].pages)?.as_slice() {
        [pages] => Ok((of, pages.clone())),
        _ => Err(at.error_before("a part is one run: b[0..16]".into())),
    }
}

fn userptr(at: &mut Cursor<'_>, script: &mut Script) -> Result<(), ScriptError> {
    let name = at.word("the userptr's name")?.to_owned();
    is_new(at, script, &name)?;
    at.expect("=")?;
    let (of, pages) = part(at, script)?;
    let shift = steps::shift(at)?;
    let kind = MemoryKind::Userptr { of, first: pages.start, shift };
    script.memories.push(Memory { name, pages: pages.len(), kind });
    Ok(())
}

fn size_in_pages(at: &mut Cursor<'_>) -> Result<usize, ScriptError> {
    let bytes = at.size()?;
    let fits = bytes > 0 && bytes.is_multiple_of(SZ_4K) && bytes / SZ_4K <= MOST_PAGES;
    if !fits {
        return Err(at.error_before("memory has whole pages of 4K, at least one and at most 4M".into()));
    }
    Ok((bytes / SZ_4K) as usize)
}

fn buffer(at: &mut Cursor<'_>, script: &mut Script) -> Result<(), ScriptError> {
    let name = at.word("the buffer's name")?.to_owned();
    is_new(at, script, &name)?;
    let pages = size_in_pages(at)?;
    let vram = match at.peek() {
        None => None,
        Some("system") => at.word("a place").map(|_| None)?,
        Some(word) => {
            let tile = node(word, "vram").filter(|node| node.device == DeviceId(0));
            at.word("a place")?;
            let known = tile.filter(|node| script.nodes().any(|other| other == *node));
            let wrong =
                || at.error_before("a buffer is in system memory, or in vram0 or vram1 of the first device".into());
            Some(known.ok_or_else(wrong)?.tile)
        }
    };
    if !pages.is_multiple_of(16) {
        return Err(at.error_before("the size of a buffer is a multiple of 64K".into()));
    }
    if script.buffers.len() == MOST_BUFFERS {
        return Err(at.error_before(format!("a scene has at most {MOST_BUFFERS} buffers")));
    }
    script.buffers.push(Buffer { name, pages, vram });
    Ok(())
}

fn inject(at: &mut Cursor<'_>, script: &mut Script) -> Result<(), ScriptError> {
    let word = at.word("what goes wrong")?;
    let known = Injected::ALL.iter().find(|(name, _)| *name == word);
    let (_, what) = *known.ok_or_else(|| {
        let names: Vec<&str> = Injected::ALL.iter().map(|(name, _)| *name).collect();
        at.error_before(format!("'{word}' cannot be injected; there are: {}", names.join(", ")))
    })?;
    if script.injections.len() == MOST_INJECTIONS {
        return Err(at.error_before(format!("a scene has at most {MOST_INJECTIONS} injections")));
    }
    script.injections.push((what, at.number("how often")?));
    Ok(())
}

/// The number of a moment.
fn moment(at: &Cursor<'_>, name: &str) -> Result<usize, ScriptError> {
    reach::named(name).ok_or_else(|| {
        let names: Vec<&str> = reach::MOMENTS.iter().map(|(name, _)| *name).collect();
        at.error(format!("'{name}' is no moment that is counted; there are: {}", names.join(", ")))
    })
}

fn is_new(at: &Cursor<'_>, script: &Script, name: &str) -> Result<(), ScriptError> {
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.contains('.');
    let mut all = (script.memories.iter().map(|memory| &memory.name))
        .chain(script.vms.iter().map(|vm| &vm.name))
        .chain(script.buffers.iter().map(|buffer| &buffer.name));
    steps::may_be_named(at, name)?;
    if fits && !all.any(|other| other == name) && !steps::WORDS.contains(&name) && card(name).is_none() {
        return Ok(());
    }
    Err(at.error_before(format!("'{name}' is taken, or no name: a name begins with a letter and has no dot")))
}

#[cfg(test)]
mod tests {
    use super::super::{Action, Home, Script, VmOn};
    use super::*;
    use machine::interconnect::Node;
    use units::TileId;

    fn error(text: &str) -> String {
        Script::parse("s", text).expect_err(text).to_string()
    }

    #[test]
    fn errors_name_line_and_column_and_what_would_be_right() {
        let cases = [
            ("", "s:1:1: the scene does nothing"),
            ("memory b 64K\n", "s:2:1: the scene does nothing"),
            ("memroy b 64K", "s:1:1: 'memroy' begins no line of a scene"),
            ("memory b", "s:1:9: a size is missing"),
            ("memory b 5", "s:1:10: memory has whole pages of 4K"),
            ("memory b 99999999999999999999K", "s:1:10: expected a size"),
            ("memory b 64K\nmemory b 64K", "s:2:8: 'b' is taken"),
            ("memory cpu 64K", "s:1:8: 'cpu' is taken"),
            ("memory bbbbbbbbbbbbbbbbbbbbb 64K", "s:1:8: a name has 20 letters at most"),
            ("thread ttttttttttttttttttttt", "s:1:8: a name has 20 letters at most"),
            (
                "memory b 64K\nfirst\n  cpu write b fails EGREGIOUS",
                "s:3:21: the driver refuses nothing with 'EGREGIOUS'",
            ),
            ("  cpu read b", "s:1:12: there is no memory 'b'"),
            ("memory b 64K\n    fork", "s:2:5: a step belongs below 'first'"),
            ("memory b 64K\nfirst\n  tile0 write b[16]", "s:3:17: no such pages: there are 16"),
            ("memory b 64K\nfirst\n  tile0 write b[3..2]", "s:3:20: no such pages"),
            ("memory b 64K\nfirst\n  tile2 write b", "s:3:3: there is no 'tile2'"),
            ("memory b 64K\nfirst\n  w.tile0 write b", "s:3:3: there is no VM 'w'"),
            ("memory b 64K\nfirst\n  munmap b[0,5]", "s:3:15: this step takes one run"),
            ("memory b 64K\nfirst\n  cpu write b x0", "s:3:15: expected x1 to x200"),
            ("memory b 64K\nfirst\n  cpu write b please", "s:3:15: 'please' is too much here"),
            ("vm p plain\nfirst\n  wait f", "s:3:8: no step before this one signals 'f'"),
            ("buffer d 64K\nfirst\n  cpu write d", "s:3:13: this step takes memory"),
            ("vm p plain\nraces time\nfirst\n  fork", "s:2:1: jobs of a plain VM have a timeout"),
            ("device dg2", "s:1:8: 'dg2' is no device of the checker: there are pvc-2t, pvc-1t, pvc-4t, bmg, lnl"),
            ("device pvc-1t x5", "s:1:15: a scene has at most 4 devices"),
            ("first\n  rest\ndevice pvc-1t", "s:3:8: devices stand before buffers and steps"),
            ("memory b 64K\nfirst\n  card1.tile0 write b", "s:3:3: there is no 'card1.tile0'"),
            ("device pvc-1t x2\nmemory b 64K\nfirst\n  card1.tile1 read b", "s:4:3: there is no 'card1.tile1'"),
            ("device pvc-1t x2\nmemory b 64K\nfirst\n  prefer b card2.vram0", "s:4:12: there is no 'card2.vram0'"),
            ("device pvc-1t x2\nvm p plain\nbuffer d 64K\nfirst\n  p.card1.tile0 write d", "s:5:3: a plain VM"),
            ("device pvc-1t x2\nfirst\n  close card2", "s:3:9: there is no 'card2'"),
            (
                "vm p plain\nbuffer d 1M\nfirst\n  p.tile0 write d",
                "s:4:17: a job of a plain VM writes at most 255 pages",
            ),
            ("memory b 64K\nfirst\n  pat b 4294967296", "s:3:9: no PAT table has such an entry"),
            ("queues 3", "s:1:8: a VM has 1 to 2 queues a tile"),
            ("thread a*/", "s:1:8: 'a*/' is no name: letters, digits, - and _"),
            ("memory b\" 4K", "s:1:8: 'b\"' is no name"),
            ("inject thunder 1", "s:1:8: 'thunder' cannot be injected"),
            ("meets luck\nfirst\n  rest", "s:1:7: 'luck' is no moment that is counted; there are: binds overtaken,"),
            ("first\n  counts luck 1", "s:2:10: 'luck' is not counted"),
            ("first\n  counts faults 3..1", "s:2:20: nothing happens 3 times at least and 1 at most"),
            ("vm p plain\nbuffer d 64K\nbuffer e 128K\nfirst\n  bind p d over e", "s:5:17: a buffer is bound over"),
        ];
        for (text, expected) in cases {
            let error = error(text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        let many = "inject busy 1\n".repeat(MOST_INJECTIONS + 1);
        assert!(error(&many).starts_with("s:65:8: a scene has at most 64 injections"), "{}", error(&many));
    }

    #[test]
    fn steps_name_the_devices_that_a_scene_has() {
        let text = "device pvc-2t\ndevice pvc-1t no-p2p\nmemory b 64K\nvm g\nfirst\n  tile1 read b\n  \
                    g.card1.tile0 read b\n  prefer g.card1 b card0.vram1\n  close card1\n";
        let script = Script::parse("s", text).unwrap();
        assert_eq!(
            script.devices.iter().map(|device| (device.tiles.len(), device.p2p)).collect::<Vec<_>>(),
            [(2, true), (1, false)]
        );
        let at = |device, tile| Node { device: DeviceId(device), tile: TileId(tile) };
        let steps: Vec<&Action> = script.steps().map(|step| &step.action).collect();
        assert!(matches!(steps[0], Action::Job { vm: 0, tile, .. } if *tile == at(0, 1)));
        assert!(matches!(steps[1], Action::Job { vm: 1, tile, .. } if *tile == at(1, 0)));
        let on = VmOn { vm: 1, device: DeviceId(1) };
        assert!(matches!(steps[2], Action::Prefer(vm, _, Home::Vram(home)) if *vm == on && *home == at(0, 1)));
        assert_eq!(*steps[3], Action::CloseDevice(DeviceId(1)));
        let three = Script::parse("s", "device pvc-1t x3\nfirst\n  rest").unwrap();
        assert_eq!(three.nodes().collect::<Vec<_>>(), [at(0, 0), at(1, 0), at(2, 0)]);
    }

    #[test]
    fn a_scene_is_read_as_it_is_written() {
        let text = "memory all 128K\nmemory b = all[16..32]\nthread t x3\n  tile1 begin write b[0,2..4], add b # so\n";
        let script = Script::parse("s", text).unwrap();
        let Phase::Together(threads) = &script.phases[0] else { panic!("a thread") };
        assert_eq!((threads[0].times, threads[0].number), (3, 1));
        let Action::Job { waits: false, touches, .. } = &threads[0].steps[0].action else { panic!("a job") };
        assert_eq!(touches[0].span.each().collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(script.root(touches[0].span.of, 2), (super::super::Piece::Memory(0), 18));
        assert_eq!(threads[0].steps[0].text, "tile1 begin write b[0,2..4], add b");
    }
}
