//! The search that `cargo xtask mutants` runs on a planted mistake: all built-in scenes in both manners, seed by seed.
//!
//! `mutant SEEDS` prints a line after each few seeds in which nothing was found (`clean SEEDS`), and ends with the first
//! finding: `found`, its scene, manner, seed and kind, and the finding itself, parted by tabs.

use check::Manner;
use check::explore::{Search, search};
use check::plan::Explore;
use check::scenes;

/// Seeds between two lines.
const STEP: u64 = 5;

fn main() {
    let seeds = std::env::args().nth(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    let manners = vec![Manner::Linux, Manner::Userfaultfd];
    for first in (0..seeds).step_by(STEP as usize) {
        let end = seeds.min(first + STEP);
        let search = search(&Search {
            scripts: scenes::all(),
            explore: Explore::Pct,
            seeds: first..end,
            behaviours: String::new(),
            manners: manners.clone(),
        });
        if let Some(caught) = search.caught {
            let (scene, seed, kind) = (&caught.script.name, caught.plan.seed, caught.finding.kind());
            println!("found\t{scene}\t{:?}\t{seed}\t{kind}\t{}", caught.manner, caught.finding);
            return;
        }
        println!("clean\t{end}");
    }
}
