//! `pontoon kernel diff`: the project's own engine and a kernel tree's do the same acts; the first thing seen that differs.

use crate::kernel::{exit_of, say_all};
use crate::kernel_tree::{built, seeds};
use ::kernel::diff::acts::{Act, BLOCK, PAGES};
use ::kernel::diff::stream::{Line, RangeState, Stream, owner};
use ::kernel::diff::{Comparison, Difference, known};
use ::kernel::judge::Outcome;
use ::kernel::{Interrupt, Workshop};
use anyhow::{Result, anyhow};
use clap::Args;
use machine::behaviour::Behaviours;
use machine::serial::{At, Happened, Serial};
use machine::story::{CopyDirection, OtherSide};
use serde_json::json;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const PAGE: u64 = 4096;

#[derive(Args)]
pub(crate) struct Diff {
    /// A kernel tree; nothing is written into it
    #[arg(long, value_name = "DIR")]
    tree: PathBuf,
    /// faults, munmap, evict; without, all of them
    #[arg(long, value_name = "SCENE")]
    scene: Option<String>,
    /// Tiles of the device
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    tiles: u8,
    /// Seeds, the last one not among them
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// Go on behind the first difference, and tell one of each kind
    #[arg(long)]
    all: bool,
    /// An mbox, a patch, or a folder of patches: all of them applied to the tree first
    #[arg(long, value_name = "MBOX")]
    series: Option<PathBuf>,
    /// Variants of the project's own rules, for example a=upstream,b=upstream
    #[arg(long, value_name = "KEY=VARIANT,...", default_value = "", hide_default_value = true, value_parser = crate::behaviours)]
    behaviour: String,
    /// One line of JSON a difference, and one a scene
    #[arg(long)]
    json: bool,
}

impl Diff {
    /// Exit status: 0 no difference, 1 some, or the tree's run says something beside, 2 something not judged.
    pub(crate) fn run(&self, stop: &Interrupt) -> Result<ExitCode> {
        self.scene.as_deref().map_or(Ok(()), known)?;
        let behaviours = machine::behaviour::parse(&self.behaviour).map_err(|why| anyhow!(why))?;
        let (shop, built) = built(&self.tree, self.series.as_deref(), stop, !self.json, Workshop::link)?;
        let all = ::kernel::diff::acts::SCENES;
        let scenes: Vec<&str> = self.scene.as_deref().map_or_else(|| all.to_vec(), |scene| vec![scene]);
        let mut worst = Outcome::Clean;
        for scene in scenes {
            let begun = Instant::now();
            let asked = Comparison { scene, tiles: self.tiles, seeds: self.seeds.clone(), all: self.all };
            let tiles = self.tiles;
            let compared = shop.compare(&built, &asked, &|acts| ours(tiles, behaviours, acts))?;
            worst = worst.max(compared.outcome());
            if self.json {
                say_all(&compared.json(&json!({
                    "tree": shop.title(), "scene": scene, "tiles": self.tiles, "behaviour": self.behaviour,
                    "not_compiled": built.patched.not_compiled,
                })));
                continue;
            }
            say!(
                "{}  {scene}, {} tile(s): {} seeds, {} differ, {:.0} seeds/s",
                shop.title(),
                self.tiles,
                compared.seeds,
                compared.different,
                compared.seeds as f64 / begun.elapsed().as_secs_f64()
            );
            compared.differences.iter().for_each(tell);
            for (why, seeds) in &compared.not_judged {
                say!("    NOT JUDGED in {seeds} seeds: {why}");
            }
            for (what, seeds) in &compared.said {
                say!("    beside that the tree's run says in {seeds} seeds: {what}");
            }
        }
        Ok(exit_of(worst))
    }
}

fn tell(difference: &Difference) {
    say!("    DIFFERS at seed {} ({} seeds that were looked at):", difference.seed, difference.seeds);
    difference.before.iter().for_each(|line| say!("        {}", line.text));
    let side = |who: &str, line: &Option<Line>| match line {
        Some(Line { text, at }) => say!("      {who} {text}    {at}"),
        None => say!("      {who} (nothing more)"),
    };
    side("theirs", &difference.theirs);
    side("ours  ", &difference.ours);
}

/// What is seen of the project's own engine.
fn ours(tiles: u8, behaviours: Behaviours, acts: &[Act]) -> Result<Stream> {
    let acts = acts.to_vec();
    let played = Serial::play(tiles, BLOCK, behaviours, move |machine| {
        for page in 0..PAGES {
            let addr = BLOCK + page * PAGE;
            // What the stage of the tree's scenes writes first.
            let _ = machine.cpu(addr, Some(0x5eed_0000_0000_0000 | addr));
        }
        let _ = machine.happened();
        let mut stream = Stream::default();
        for (act, value) in acts.iter().zip(1..) {
            perform(machine, &mut stream, *act, value, tiles);
        }
        stream
    });
    played.map_err(|why| anyhow!("the project's own engine does not play this: {why}"))
}

fn perform(machine: &Serial, stream: &mut Stream, act: Act, value: u64, tiles: u8) {
    let addr = |page: u8| BLOCK + u64::from(page) * PAGE;
    let done = match act {
        Act::Tile { tile, page, write } => machine.tile(tile, addr(page), write.then_some(value)),
        Act::Cpu { page, write } => machine.cpu(addr(page), write.then_some(value)).inspect_err(|errno| {
            stream.answered(-errno, String::new());
        }),
        Act::Unmap { first, pages } => {
            machine.unmap(addr(first), u64::from(pages) * PAGE);
            Ok(0)
        }
        Act::Map { first, pages } => {
            machine.map(addr(first), u64::from(pages) * PAGE);
            Ok(0)
        }
        Act::Evict { tile } => {
            machine.evict(tile);
            Ok(0)
        }
    };
    machine.happened().into_iter().for_each(|(happened, at)| saw(machine, stream, happened, at));
    stream.act(act, done.unwrap_or(0));
    stream.is("pages", &machine.places(BLOCK, PAGES));
    let ranges = machine.ranges().into_iter().map(|range| RangeState {
        start: range.span.start.0,
        end: range.span.end.0,
        tiles: range.tiles,
        unmapped: range.unmapped,
        mapped: !range.chunks.is_empty(),
    });
    stream.ranges(&ranges.collect::<Vec<_>>());
    for tile in 0..tiles {
        stream.leaves(tile, &machine.leaves(tile), |dpa| owner(machine.bases(), dpa));
    }
    stream.is("mapped for the device", &format!("{} pages", machine.mapped_pages()));
}

fn saw(machine: &Serial, stream: &mut Stream, happened: Happened, at: At) {
    let at = at.map_or(String::new(), |at| format!("{}:{}", at.file(), at.line()));
    match happened {
        Happened::Answer(errno) => stream.answered(errno, at),
        Happened::Notice(kind, start, end) => stream.noticed(kind, start, end, at),
        Happened::Flush(tile, start, end) => stream.flushed(tile, start, end, at),
        Happened::Copy(tile, direction, remote, pages) => {
            let remote = match remote {
                OtherSide::Bus(_) => "ram".to_owned(),
                OtherSide::Vram(dpa) => owner(machine.bases(), dpa.0),
            };
            let own = format!("vram{tile}");
            let (from, to) = if direction == CopyDirection::ToVram { (&remote, &own) } else { (&own, &remote) };
            stream.copied(tile, from, to, pages, at);
        }
        Happened::Stray(tile, write, bytes) => stream.strayed(tile, write, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::kernel::diff::acts::{SCENES, acts};

    #[test]
    fn the_same_acts_are_the_same_stream() {
        let mut placed = 0;
        for scene in SCENES {
            for seed in 0..8 {
                let [once, again] =
                    [(); 2].map(|()| ours(1, Behaviours::CORRECT, &acts(scene, 1, seed)).expect("played"));
                assert_eq!(once.lines(), again.lines());
                placed +=
                    once.lines().iter().filter(|line| line.text.contains("flushes") && !line.at.is_empty()).count();
            }
        }
        assert!(placed > 0, "some flush says where it comes from");
    }
}
