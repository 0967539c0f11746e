//! The search that `cargo xtask mutants` runs on a planted mistake: all built-in scenes in both manners, seed by seed.
//!
//! `mutant SEEDS [SCENE|FILE.scene]...` prints a line after each few seeds in which nothing was found (`clean SEEDS`), and ends
//! with the first finding: `found`, its scene, manner, seed and kind, and the finding itself, parted by tabs.

use check::Manner;
use check::explore::{Search, search};
use check::plan::Explore;
use check::scenes;
use check::script::Script;
use std::sync::Arc;

/// Seeds between two lines.
const STEP: u64 = 5;

fn main() {
    let mut args = std::env::args().skip(1);
    let seeds = args.next().and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    let named: Vec<Arc<Script>> = args.map(|name| scene(&name)).collect();
    let scripts = if named.is_empty() { scenes::all() } else { named };
    if let Err(blind) = machine::trial::trial() {
        println!("found\ttrial\t\t0\ttrial\t{blind}");
        return;
    }
    let manners = vec![Manner::Linux, Manner::Userfaultfd];
    for first in (0..seeds).step_by(STEP as usize) {
        let end = seeds.min(first + STEP);
        let search = search(&Search {
            scripts: scripts.clone(),
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

fn scene(name: &str) -> Arc<Script> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let name = path.rsplit('/').next().and_then(|file| file.strip_suffix(".scene")).unwrap_or(path);
        Script::parse(name, &text).map(Arc::new).map_err(|error| error.to_string())
    };
    let script = if name.ends_with(".scene") { read(name) } else { scenes::named(name) };
    script.unwrap_or_else(|error| panic!("{error}"))
}
