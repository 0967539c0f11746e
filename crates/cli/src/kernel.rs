//! `pontoon kernel`: a kernel tree's own code, judged.

use crate::kernel_diff::Diff;
use crate::kernel_tree::{built, seeds};
use ::kernel::explore::{Accesses, LIMITS as LIMITS_EXPLORED, Search, scene};
use ::kernel::judge::{GRADE, LIMITS, Outcome, Verdict, chosen, not_made};
use ::kernel::{Built, Interrupt, Kit, Workshop, doctor, series};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Bring your own kernel: its SVM code, as it is, compiled for user space and run on the software GPU.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Say what can be judged of a tree here
    Doctor {
        /// A kernel tree; nothing is written into it
        #[arg(long, value_name = "DIR")]
        tree: PathBuf,
        /// One line of JSON a row
        #[arg(long)]
        json: bool,
    },
    /// Judge known defects on a tree as it is, or on each state of a series
    Judge(Judge),
    /// Explore interleavings of the tree's own code: fault workers, munmap, eviction, CPU faults
    Explore(Explore),
    /// Tell one schedule step by step, in columns by actor
    Explain(Explain),
    /// Compare the tree's engine with the project's own: the first thing that differs
    Diff(Diff),
}

/// What is run under schedules.
#[derive(Args)]
struct Subject {
    /// A kernel tree; nothing is written into it
    #[arg(long, value_name = "DIR")]
    tree: PathBuf,
    /// faults, munmap, evict, cpufault, gc, fork, late, mixed, queue, close, memory (what memory promises), or glue (what the glue promises)
    #[arg(long, value_name = "SCENE")]
    scene: String,
    /// Tiles of the device
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=2))]
    tiles: u64,
    /// An mbox, a patch, or a folder of patches: all of them applied first
    #[arg(long, value_name = "MBOX")]
    series: Option<PathBuf>,
    /// A scheduling point at every access of the engine's files, not at marked ones that the seed draws
    #[arg(long)]
    every_access: bool,
    /// One line of JSON a finding or step, and one of the whole
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Explore {
    #[command(flatten)]
    of: Subject,
    /// Seeds, the last one not among them
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// Go on behind the first finding
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
struct Explain {
    #[command(flatten)]
    of: Subject,
    /// The schedule
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    seed: u64,
}

impl Subject {
    /// A runner with scheduling points, of the tree as it is or with a series applied, and where it was made.
    fn built(&self, stop: &Interrupt) -> Result<(Workshop, Built)> {
        scene(&self.scene)?;
        built(&self.tree, self.series.as_deref(), stop, !self.json, Workshop::link_watched)
    }

    /// What each line for programs has.
    fn about(&self, shop: &Workshop, built: &Built) -> Value {
        let state = self.series.as_ref().map_or("as it is".to_owned(), |series| series.display().to_string());
        json!({
            "tree": shop.title(), "state": state, "scene": self.scene, "tiles": self.tiles, "every_access": self.every_access,
            "not_compiled": built.patched.not_compiled,
        })
    }

    fn points(&self) -> Accesses {
        if self.every_access { Accesses::Every } else { Accesses::Marked }
    }
}

#[derive(Args)]
struct Judge {
    /// A kernel tree; nothing is written into it
    #[arg(long, value_name = "DIR")]
    tree: PathBuf,
    /// A B C D1 D2 F; without, all of them
    #[arg(value_name = "DEFECT")]
    defects: Vec<String>,
    /// An mbox, a patch, or a folder of patches: judged patch by patch, each with those before it
    #[arg(long, value_name = "MBOX")]
    series: Option<PathBuf>,
    /// Also each subset of the series, of up to 5 patches
    #[arg(long, requires = "series")]
    subsets: bool,
    /// One line of JSON a verdict
    #[arg(long)]
    json: bool,
}

/// Exit status: 0 nothing found, 1 found, 2 something not judged (or an error).
pub fn run(options: &Options) -> Result<ExitCode> {
    let stop = Interrupt::install()?;
    match &options.what {
        What::Doctor { tree, json } => {
            let shop = Workshop::open(tree, Kit::xe(), &stop)?;
            let findings = doctor::look(&shop)?;
            if *json {
                say_all(&findings.json(&shop.title()));
            } else {
                for (what, how) in &findings.rows {
                    say!("{what:<18} {how}");
                }
                say!("\ntype:  pontoon kernel judge --tree {}", tree.display());
            }
            Ok(ExitCode::from(if findings.all { 0 } else { 2 }))
        }
        What::Judge(judge) => judge.run(&stop),
        What::Explore(explore) => explore.run(&stop),
        What::Explain(explain) => explain.run(&stop),
        What::Diff(diff) => diff.run(&stop),
    }
}

/// Lines for programs.
pub(crate) fn say_all(lines: &[Value]) {
    lines.iter().for_each(|line| say!("{line}"));
}

impl Explore {
    fn run(&self, stop: &Interrupt) -> Result<ExitCode> {
        let (shop, built) = self.of.built(stop)?;
        let Subject { tree, scene, tiles, series, every_access, json } = &self.of;
        let begun = Instant::now();
        let search =
            Search { scene, tiles: *tiles, seeds: self.seeds.clone(), all: self.all, points: self.of.points() };
        let explored = shop.explore(&built, &search)?;
        let seconds = begun.elapsed().as_secs_f64();
        if *json {
            say_all(&explored.json(&self.of.about(&shop, &built)));
            return Ok(exit_of(explored.outcome()));
        }
        say!(
            "{}  {scene}, {tiles} tile(s): {} schedules, {} points each, {:.0} schedules/s     evidence: {GRADE}",
            shop.title(),
            explored.runs,
            explored.points / explored.runs.max(1),
            explored.runs as f64 / seconds
        );
        for finding in &explored.found {
            say!("    FOUND in {} runs: {}", finding.runs, finding.text);
            say!(
                "        pontoon kernel explain --tree {}{}{} --scene {scene} --tiles {tiles} --seed {}",
                tree.display(),
                series.as_ref().map_or(String::new(), |series| format!(" --series {}", series.display())),
                if *every_access { " --every-access" } else { "" },
                finding.seed
            );
        }
        for (why, runs) in &explored.not_judged {
            say!("    NOT JUDGED in {runs} runs: {why}");
        }
        for (place, runs) in &explored.reached {
            say!("    {runs:>8} runs: {place}");
        }
        for place in &explored.missed {
            say!("    NOT JUDGED: no run came here: {place}");
        }
        say!("not judged by any of this: {LIMITS_EXPLORED}");
        Ok(exit_of(explored.outcome()))
    }
}

pub(crate) fn exit_of(outcome: Outcome) -> ExitCode {
    ExitCode::from(match outcome {
        Outcome::Clean => 0,
        Outcome::Found => 1,
        Outcome::NotJudged => 2,
    })
}

impl Explain {
    fn run(&self, stop: &Interrupt) -> Result<ExitCode> {
        let (shop, built) = self.of.built(stop)?;
        let seeds = self.seed..self.seed + 1;
        let told = shop.explain(&built, &self.of.scene, self.of.tiles, seeds, self.of.points())?;
        if self.of.json {
            let mut about = self.of.about(&shop, &built);
            about["seed"] = self.seed.into();
            say_all(&told.json(&about));
            return Ok(ExitCode::SUCCESS);
        }
        say!("{}  {} seed {}", shop.title(), self.of.scene, self.seed);
        say!("{}", told.actors.iter().map(|actor| format!("{actor:34}")).collect::<String>());
        for line in told.lines() {
            say!("{line}");
        }
        if let Some((points, hash)) = told.run {
            say!("{points} points, {hash}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Judge {
    fn run(&self, stop: &Interrupt) -> Result<ExitCode> {
        let ids = chosen(&self.defects)?;
        let series = self.series.as_deref().map(series::read).transpose()?;
        let begun = Instant::now();
        let shop = Workshop::open(&self.tree, Kit::xe(), stop)?;
        shop.build()?;
        let built = shop.link()?;
        let mut worst = Outcome::Clean;
        if !self.json {
            let ready = begun.elapsed().as_secs_f32();
            say!(
                "tree  {}   {} files as they are, ready in {ready:.1} s     evidence: {GRADE}",
                shop.title(),
                shop.files()
            );
        }
        for id in &ids {
            let verdict = shop.judge(&built, id)?;
            self.tell(&shop, "as it is", &[verdict], &mut worst);
        }
        if let Some(series) = series {
            shop.judge_series(&series, self.subsets, &ids, |state, verdicts| match verdicts {
                Ok(verdicts) => {
                    if !self.json {
                        say!("{state}");
                        verdicts
                            .iter()
                            .find_map(|verdict| verdict.patched.note())
                            .iter()
                            .for_each(|note| say!("    {note}"));
                    }
                    self.tell(&shop, state, &verdicts, &mut worst);
                }
                Err(error) => {
                    worst = worst.max(Outcome::NotJudged);
                    if self.json {
                        say!("{}", not_made(&shop.title(), state, &error));
                    } else {
                        say!("{state}\n    NOT JUDGED: {error:#}");
                    }
                }
            })?;
        }
        if !self.json {
            say!("not judged by any of this: {LIMITS}");
        }
        Ok(exit_of(worst))
    }

    fn tell(&self, shop: &Workshop, state: &str, verdicts: &[Verdict], worst: &mut Outcome) {
        for verdict in verdicts {
            *worst = (*worst).max(verdict.outcome);
            if self.json {
                say!("{}", verdict.json(&shop.title(), state));
            } else {
                say!("    {}", verdict.line());
            }
        }
    }
}
