//! A scene as a C program that runs on a real Xe node, and under `pontoon run`, alike.
//!
//! The program has one file: our own headers of the Xe interface, a small runtime (`clients/scene.h`), then the scene's steps. Threads
//! are real ones, so a race happens by luck there; what needs none fails every time. Without a schedule nothing
//! can be injected: such a scene is refused by name, as is a step that no program can do. What only the checker can see (`holds`,
//! `counts`, `rest`, `forgotten`, the errno of a refusal) is not looked at, and the program's head says in which lines.

use crate::script::{
    Action, Agent, Fails, Home, Memory, MemoryKind, Order, Phase, Piece, Script, Span, Step, Thread, Touch, Verb,
    VmKind, VmOn, Writer,
};
use machine::topology::Topology;
use std::fmt::Write;

const HEADERS: [&str; 3] = [
    include_str!("../../../clients/xe.h"),
    include_str!("../../../clients/gpu.h"),
    include_str!("../../../clients/scene.h"),
];
/// What VMs without faults need, buffers that fill VRAM, too.
const PLAIN: [&str; 2] = [include_str!("../../../clients/syncobj.h"), include_str!("../../../clients/plain.h")];

/// The program.
///
/// # Errors
/// A step, or a declaration, that no program can do.
pub fn c_program(script: &Script) -> Result<String, String> {
    if !script.injections.is_empty() {
        return Err(format!("{}: what is injected cannot be written in C", script.name));
    }
    if script.queues > 1 {
        return Err(format!("{}: more than one queue a tile cannot be written in C yet", script.name));
    }
    if script.devices != Topology::Two.platforms(&[]) {
        return Err(format!("{}: devices other than one of two tiles cannot be written in C yet", script.name));
    }
    let head = format!("{}: {}", script.name, script.shows.trim_end_matches('.')).replace("*/", "* /");
    let mut c = format!("/*\n * {head}.\n *\n");
    c += " * cc -O1 -pthread FILE.c; then run it on a device with two tiles, or by `pontoon run`. Exit status: 0 ok, 1 data lost,\n";
    c += " * 2 a call failed, 3 a job was refused, or was not.\n";
    let unseen: Vec<String> =
        script.steps().filter(|step| is_unseen(step)).map(|step| step.place.0.to_string()).collect();
    if !unseen.is_empty() {
        let _ =
            writeln!(c, " * Not looked at, as only the checker can see it: line {} of the scene.", unseen.join(", "));
    }
    c += " */\n#define _GNU_SOURCE\n";
    let plain: &[&str] = if needs_plain(script) { &PLAIN } else { &[] };
    let headers = HEADERS.iter().chain(plain);
    for line in headers.flat_map(|header| header.lines()).filter(|line| !line.starts_with("#include \"")) {
        let _ = writeln!(c, "{line}");
    }
    let mut program = Program { script, c: String::new(), thread: 0 };
    program.pieces();
    for thread in script.phases.iter().flat_map(threads) {
        program.thread_function(thread)?;
    }
    program.main_function()?;
    Ok(c + &program.c)
}

/// Whether only the checker can see what a step says, or a part of it.
fn is_unseen(step: &Step) -> bool {
    let looks = matches!(step.action, Action::Holds(..) | Action::Counts(_) | Action::Rest | Action::Forgotten(_));
    looks || matches!(step.fails, Fails::With(_))
}

/// Whether there is anything in it that lies in buffers.
fn needs_plain(script: &Script) -> bool {
    let fills = |step: &Step| matches!(step.action, Action::Fill(_) | Action::Drain(_));
    script.vms.iter().any(|vm| vm.kind == VmKind::Plain) || !script.buffers.is_empty() || script.steps().any(fills)
}

fn threads(phase: &Phase) -> &[Thread] {
    match phase {
        Phase::Together(threads) => threads,
        Phase::Alone(_) => &[],
    }
}

struct Program<'s> {
    script: &'s Script,
    c: String,
    /// The thread whose steps are written; 0: the main one.
    thread: usize,
}

impl Program<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        let _ = writeln!(self.c, "{}{text}", "    ".repeat(indent));
    }

    /// Pieces that are mappings of their own.
    fn roots(&self) -> Vec<(usize, &Memory)> {
        let all = self.script.memories.iter().enumerate();
        all.filter(|(_, memory)| !matches!(memory.kind, MemoryKind::Part { .. } | MemoryKind::Userptr { .. })).collect()
    }

    fn pieces(&mut self) {
        let roots: Vec<usize> = self.roots().into_iter().map(|(index, _)| index).collect();
        let names: Vec<String> = roots.iter().map(|index| format!("p{index}")).collect();
        let buffers = 0..self.script.buffers.len();
        let list: Vec<String> = names.iter().map(|name| format!("&{name}")).collect();
        let list: Vec<String> = list.into_iter().chain(buffers.map(|index| format!("&b{index}.piece"))).collect();
        self.c.push('\n');
        names.iter().for_each(|name| self.line(0, &format!("static struct piece {name};")));
        if !self.script.memories.is_empty() {
            self.line(0, &format!("static struct gpu scene_vms[{}];", self.script.vms.len()));
        }
        for (index, buffer) in self.script.buffers.iter().enumerate() {
            self.line(0, &format!("static struct buffer b{index}; /* {} */", buffer.name));
        }
        for (index, vm) in self.script.vms.iter().enumerate().filter(|(_, vm)| vm.kind == VmKind::Plain) {
            self.line(0, &format!("static struct plain v{index}; /* {} */", vm.name));
        }
        for (index, fence) in self.script.fences.iter().enumerate() {
            self.line(0, &format!("static uint32_t f{index}; /* {fence} */"));
        }
        let _ = writeln!(self.c, "static struct piece *const pieces[] = {{{}}};\n", list.join(", "));
    }

    fn thread_function(&mut self, thread: &Thread) -> Result<(), String> {
        self.thread = thread.number;
        let _ = writeln!(self.c, "static void *thread{}(void *nothing) {{ /* {} */", thread.number, thread.name);
        self.line(1, &format!("for (int turn = 0; turn < {}; turn++) {{", thread.times));
        for step in &thread.steps {
            self.step(2, step)?;
        }
        self.c += "    }\n    return nothing;\n}\n\n";
        self.thread = 0;
        Ok(())
    }

    fn main_function(&mut self) -> Result<(), String> {
        self.c += "int main(void) {\n";
        self.line(1, &format!("scene_writers = {};", self.script.writers.len()));
        for (index, buffer) in self.script.buffers.iter().enumerate() {
            let place = 1u32 << buffer.vram.map_or(0, |tile| 1 + tile.0);
            let (name, pages) = (&buffer.name, buffer.pages);
            self.line(1, &format!("buffer_open(&b{index}, {index}, \"{name}\", {pages}, {place});"));
        }
        for (index, vm) in self.script.vms.iter().enumerate() {
            match vm.kind {
                // There is nothing to mirror.
                VmKind::Mirror if self.script.memories.is_empty() => {}
                VmKind::Mirror => self.line(1, &format!("gpu_open(&scene_vms[{index}]); /* {} */", vm.name)),
                VmKind::MirrorLater => {}
                VmKind::Plain if vm.scratch => {
                    return Err(format!("vm {}: a scratch page cannot be written in C yet", vm.name));
                }
                VmKind::Plain => self.line(1, &format!("plain_open(&v{index});")),
                VmKind::AutoReset => {
                    return Err(format!("vm {}: MADVISE_AUTORESET cannot be written in C yet", vm.name));
                }
            }
        }
        for index in 0..self.script.fences.len() {
            self.line(1, &format!("f{index} = syncobj_new(plain_open_device(), 0);"));
        }
        let maps: Vec<String> =
            self.roots().into_iter().filter_map(|(index, memory)| map_call(index, memory)).collect();
        maps.iter().for_each(|call| self.line(1, call));
        let script = self.script;
        for phase in &script.phases {
            match phase {
                Phase::Alone(steps) => steps.iter().try_for_each(|step| self.step(1, step))?,
                Phase::Together(threads) => self.together(threads),
            }
        }
        self.line(1, &format!("return scene_end(\"{}\", pieces, sizeof pieces / sizeof *pieces);", self.script.name));
        self.c += "}\n";
        Ok(())
    }

    /// Threads that run at the same time; what they take away from each other is not judged any more.
    fn together(&mut self, threads: &[Thread]) {
        let spans = threads.iter().flat_map(|thread| &thread.steps).filter_map(|step| match &step.action {
            Action::Unmap(span) | Action::DontNeed(span) | Action::Free(span) | Action::Move { from: span, .. } => {
                Some(span)
            }
            _ => None,
        });
        let calls: Vec<String> = spans.flat_map(|span| self.runs(span)).map(|run| format!("unsure({run});")).collect();
        calls.iter().for_each(|call| self.line(1, call));
        self.line(
            1,
            &format!("pthread_t threads[{}];", threads.len()).replace("threads[", &format!("of{}[", threads[0].number)),
        );
        for (n, thread) in threads.iter().enumerate() {
            let (group, number) = (threads[0].number, thread.number);
            self.line(1, &format!("if ((errno = pthread_create(&of{group}[{n}], NULL, thread{number}, NULL)))"));
            self.line(2, "die(\"pthread_create\");");
        }
        for n in 0..threads.len() {
            self.line(1, &format!("pthread_join(of{}[{n}], NULL);", threads[0].number));
        }
    }

    /// The runs of a span as arguments: piece, first page, end.
    fn runs(&self, span: &Span) -> Vec<String> {
        let run = |pages: &std::ops::Range<usize>| match self.script.root(span.of, pages.start) {
            (Piece::Memory(root), first) => format!("&p{root}, {first}, {}", first + pages.len()),
            (Piece::Buffer(index), first) => format!("&b{index}.piece, {first}, {}", first + pages.len()),
        };
        span.pages.iter().map(run).collect()
    }

    fn step(&mut self, indent: usize, step: &Step) -> Result<(), String> {
        self.line(indent, &format!("/* {} */", step.text.replace("*/", "")));
        if step.times > 1 {
            self.line(indent, &format!("for (int time = 0; time < {}; time++) {{", step.times));
        }
        for call in self.calls(step)? {
            self.line(indent + usize::from(step.times > 1), &call);
        }
        if step.times > 1 {
            self.line(indent, "}");
        }
        Ok(())
    }

    fn calls(&self, step: &Step) -> Result<Vec<String>, String> {
        let each = |span: &Span, call: &dyn Fn(String) -> String| self.runs(span).into_iter().map(call).collect();
        let is_job = matches!(step.action, Action::Job { .. });
        if step.fails.is_wanted() && !is_job {
            return Err(format!("'{}' cannot be written in C: only a job can be refused there", step.text));
        }
        Ok(match &step.action {
            Action::Job { vm, tile, touches, order, .. } if self.script.vms[*vm].kind == VmKind::Plain => {
                let (writer, touches, count) = self.touches(Agent::Tile { vm: *vm, tile: *tile }, touches);
                let (tile, order, fails) = (tile.tile.0, order_of(*order), u8::from(step.fails.is_wanted()));
                let job = format!("plain_job(&v{vm}, {tile}, {writer}, {touches}, {count}, {order})");
                let mut calls = vec![format!("must({job}, {fails}, \"{}\");", step.text)];
                calls.extend(step.fails.is_wanted().then(|| format!("plain_replace(&v{vm}, {tile});")));
                calls
            }
            Action::Bind { vm, buffer, over: None, apart: false, order } => {
                vec![format!("bind_buffer(&v{vm}, &b{buffer}, {});", order_of(*order))]
            }
            Action::Unbind { vm, buffer, apart: false, order } => {
                let buffer = buffer.map_or("NULL".into(), |buffer| format!("&b{buffer}"));
                vec![format!("unbind_buffer(&v{vm}, {buffer}, {});", order_of(*order))]
            }
            Action::Wait(fence) => vec![format!("wait_for(f{fence}, \"wait for {}\");", self.script.fences[*fence])],
            Action::Fill(tile) => vec![format!("fill({});", tile.tile.0)],
            Action::Drain(tile) => vec![format!("drain({});", tile.tile.0)],
            Action::Tables { .. } => return Err("a program cannot use up page tables".into()),
            Action::Holds(..) => Vec::new(),
            Action::Process { .. } => return Err("another process takes VRAM: start two programs".into()),
            Action::Pin(span) => each(span, &|run| format!("pin({run});")),
            Action::Unpin(span) => each(span, &|run| format!("unpin({run});")),
            Action::Prefer(VmOn { vm, .. }, span, home) => {
                let (value, region) = match home {
                    Home::System => ("PREFER_SYSTEM".to_owned(), 0),
                    Home::Default => ("PREFER_DEVICE".to_owned(), 0),
                    Home::Vram(node) => (format!("scene_vms[{vm}].fd"), 1 + node.tile.0),
                };
                let advice = format!("ADVISE_PREFERRED_LOC, (uint32_t){value}, {region}");
                each(span, &|run| format!("gpu_advise(&scene_vms[{vm}], {run}, {advice});"))
            }
            Action::Pat(VmOn { vm, .. }, span, index) => {
                each(span, &|run| format!("gpu_advise(&scene_vms[{vm}], {run}, ADVISE_PAT, {index}, 0);"))
            }
            Action::Job { vm, tile, touches, waits: true, .. } => {
                let (writer, touches, count) = self.touches(Agent::Tile { vm: *vm, tile: *tile }, touches);
                let (alone, tile) = (u8::from(self.thread == 0), tile.tile.0);
                let job = format!("job(&scene_vms[{vm}], {tile}, {writer}, {alone}, {touches}, {count})");
                vec![format!("must({job}, {}, \"{}\");", u8::from(step.fails.is_wanted()), step.text)]
            }
            Action::Cpu(touches) => {
                let (writer, touches, count) = self.touches(Agent::Cpu, touches);
                vec![format!("cpu({writer}, {}, {touches}, {count});", u8::from(self.thread == 0))]
            }
            Action::Unmap(span) => each(span, &|run| format!("unmap({run});")),
            Action::Map(span) => each(span, &|run| format!("piece_map_pages({run}, MAP_PRIVATE);")),
            Action::DontNeed(span) => each(span, &|run| format!("advise({run}, MADV_DONTNEED), emptied({run});")),
            Action::Free(span) => each(span, &|run| format!("advise({run}, MADV_FREE), unsure({run});")),
            Action::Protect { span, write } => each(span, &|run| format!("protect({run}, {});", u8::from(*write))),
            Action::Move { from, to, shift, keep, .. } => {
                let name = &self.script.memories[*to].name;
                each(from, &|run| format!("move({run}, &p{to}, \"{name}\", {shift}, {});", u8::from(*keep)))
            }
            Action::Fork { late: false } => vec!["fork_and_look(pieces, sizeof pieces / sizeof *pieces);".into()],
            Action::Prefetch(VmOn { vm, .. }, span, home) => {
                let region = match home {
                    Home::System => "0".to_owned(),
                    Home::Vram(node) => (1 + node.tile.0).to_string(),
                    Home::Default => "REGION_OF_DEFAULT".to_owned(),
                };
                each(span, &|run| format!("prefetch(&scene_vms[{vm}], {run}, {region});"))
            }
            Action::Open(vm) => vec![format!("gpu_open(&scene_vms[{vm}]);")],
            Action::Close(vm) if self.script.vms[*vm].kind == VmKind::Plain => {
                return Err(format!("'{}': a plain VM stays open in C", step.text));
            }
            Action::Close(vm) => vec![format!("gpu_close(&scene_vms[{vm}]);")],
            // What is counted and compared is the checker's to see.
            Action::Counts(_) | Action::Rest | Action::Forgotten(_) => Vec::new(),
            _ => return Err(format!("'{}' cannot be written in C", step.text)),
        })
    }

    /// The writer's number, the touches as a compound literal, and how many there are.
    fn touches(&self, agent: Agent, touches: &[Touch]) -> (i64, String, usize) {
        let own = Writer { agent, thread: self.thread };
        let writer = self.script.writers.iter().position(|writer| *writer == own).map_or(-1, |n| n as i64);
        let verb = |touch: &Touch| match touch.verb {
            Verb::Read => "READ",
            Verb::Write => "WRITE",
            Verb::Add => "ADD",
        };
        let all =
            touches.iter().flat_map(|touch| self.runs(&touch.span).into_iter().map(move |run| (verb(touch), run)));
        let all: Vec<String> = all.map(|(verb, run)| format!("{{{verb}, {run}}}")).collect();
        (writer, format!("(struct touch[]){{{}}}", all.join(", ")), all.len())
    }
}

/// Fences of a step.
fn order_of(order: Order) -> String {
    let fence = |fence: Option<usize>| fence.map_or("0".into(), |fence| format!("f{fence}"));
    format!("(struct order){{{}, {}}}", fence(order.behind), fence(order.signals))
}

fn map_call(index: usize, memory: &Memory) -> Option<String> {
    let MemoryKind::Mapping { huge, shared, filled, .. } = memory.kind else { return None };
    let (pages, name) = (memory.pages, &memory.name);
    let [shared, huge, filled] = [shared, huge, filled].map(u8::from);
    Some(format!("piece_map(&p{index}, \"{name}\", {pages}, {shared}, {huge}, {filled});"))
}
