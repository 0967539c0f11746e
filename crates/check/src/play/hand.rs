//! A thread of a scene: its place in the program, its memory for jobs, and what it knows of the words.

use super::desk::Desk;
use super::stage::Stage;
use super::words::{Page, View, Wrong, mark};
use crate::script::{Agent, Script, Writer};
use machine::program::Program;

/// A thread.
pub(super) struct Hand<'m> {
    /// Its files, a device each.
    pub programs: Vec<Program>,
    pub view: View<'m>,
    pub desk: Option<Desk>,
    /// Number of the thread in the scene.
    thread: usize,
    /// Number of the step that its agent does.
    pub seq: u32,
}

impl<'m> Hand<'m> {
    pub const fn new(programs: Vec<Program>, thread: usize, view: View<'m>) -> Self {
        Self { programs, view, desk: None, thread, seq: 0 }
    }

    /// An agent of this thread begins a step: the number of its writer, where it ever writes.
    pub fn begin_step(&mut self, stage: &Stage, agent: Agent) -> Option<usize> {
        let writer = self.writer(&stage.script, agent);
        self.seq = writer.map_or(0, |writer| stage.next_seq(writer));
        writer
    }

    /// Which of a tile's queues its jobs go to.
    pub fn lane(&self, script: &Script) -> usize {
        self.thread % script.queues
    }

    /// The number of an agent of this thread among the writers.
    pub fn writer(&self, script: &Script, agent: Agent) -> Option<usize> {
        let own = Writer { agent, thread: self.thread };
        script.writers.iter().position(|writer| *writer == own)
    }

    /// What the step of now leaves in a word.
    pub fn mark(&self, writer: Option<usize>, page: usize) -> u32 {
        writer.map_or(0, |writer| mark(writer, page, self.seq))
    }

    /// Whether a word that was read just now is wrong.
    pub fn judge(&self, script: &Script, page: Page, writer: Option<usize>, found: u64) -> Option<Wrong> {
        match writer {
            None => self.view.judge_count(page, found),
            Some(writer) => {
                let own = script.writers[writer].thread == self.thread;
                self.view.judge_word(page, writer, own, found)
            }
        }
    }
}
