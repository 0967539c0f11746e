//! A scene as a C program that runs on a real Xe node, and under `pontoon run`, alike.
//!
//! The program has one file: our own headers of the Xe interface, a small runtime (`clients/scene.h`), then the scene's steps. Threads
//! are real ones, so a race happens by luck there; what needs none fails every time. Without a schedule nothing
//! can be injected, and buffers, fences and pins are not written yet: such a step is an error that names it.

use crate::script::{
    Action, Agent, Home, Memory, MemoryKind, Phase, Piece, Script, Span, Step, Thread, Touch, Verb, VmKind, Writer,
};
use std::fmt::Write;

const HEADERS: [&str; 3] = [
    include_str!("../../../clients/xe.h"),
    include_str!("../../../clients/gpu.h"),
    include_str!("../../../clients/scene.h"),
];

/// The program.
///
/// # Errors
/// A step, or a declaration, that no program can do.
pub fn c_program(script: &Script) -> Result<String, String> {
    if !script.injections.is_empty() || !script.buffers.is_empty() {
        return Err(format!("{}: what is injected, and buffers, cannot be written in C yet", script.name));
    }
    let mut c = format!("/*\n * {}: {}.\n *\n", script.name, script.shows.trim_end_matches('.'));
    c += " * cc -O1 -pthread FILE.c; then run it on a device with two tiles, or by `pontoon run`. Exit status: 0 ok, 1 data lost,\n";
    c += " * 2 a call failed, 3 a job was refused, or was not.\n */\n#define _GNU_SOURCE\n";
    for line in HEADERS.iter().flat_map(|header| header.lines()).filter(|line| !line.starts_with("#include \"")) {
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
        all.filter(|(_, memory)| !matches!(memory.kind, MemoryKind::Part { .. })).collect()
    }

    fn pieces(&mut self) {
        let roots: Vec<usize> = self.roots().into_iter().map(|(index, _)| index).collect();
        let names: Vec<String> = roots.iter().map(|index| format!("p{index}")).collect();
        let list: Vec<String> = names.iter().map(|name| format!("&{name}")).collect();
        let _ = writeln!(self.c, "\nstatic struct piece {};", names.join(", "));
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
        for (index, vm) in self.script.vms.iter().enumerate() {
            match vm.kind {
                VmKind::Mirror => self.line(1, &format!("gpu_open(&scene_vms[{index}]); /* {} */", vm.name)),
                VmKind::MirrorLater => {}
                VmKind::Plain => return Err(format!("vm {}: a plain VM cannot be written in C yet", vm.name)),
            }
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
            (Piece::Buffer(_), _) => String::new(),
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
        Ok(match &step.action {
            Action::Job { vm, tile, touches, waits: true, .. } => {
                let (writer, touches, count) = self.touches(Agent::Tile { vm: *vm, tile: *tile }, touches);
                let (alone, tile) = (u8::from(self.thread == 0), tile.0);
                let job = format!("job(&scene_vms[{vm}], {tile}, {writer}, {alone}, {touches}, {count})");
                vec![format!("must({job}, {}, \"{}\");", u8::from(step.fails), step.text)]
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
            Action::Prefetch(vm, span, home) => {
                let region = match home {
                    Home::System => "0".to_owned(),
                    Home::Vram(tile) => (1 + tile.0).to_string(),
                    Home::Default => "REGION_OF_DEFAULT".to_owned(),
                };
                each(span, &|run| format!("prefetch(&scene_vms[{vm}], {run}, {region});"))
            }
            Action::Open(vm) => vec![format!("gpu_open(&scene_vms[{vm}]);")],
            Action::Close(vm) => vec![format!("gpu_close(&scene_vms[{vm}]);")],
            _ => return Err(format!("'{}' cannot be written in C yet", step.text)),
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

fn map_call(index: usize, memory: &Memory) -> Option<String> {
    let MemoryKind::Mapping { huge, shared, filled } = memory.kind else { return None };
    let (pages, name) = (memory.pages, &memory.name);
    let [shared, huge, filled] = [shared, huge, filled].map(u8::from);
    Some(format!("piece_map(&p{index}, \"{name}\", {pages}, {shared}, {huge}, {filled});"))
}
