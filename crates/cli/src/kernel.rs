//! `pontoon kernel`: a kernel tree's own code, judged.

use ::kernel::judge::{GRADE, LIMITS, Outcome, Verdict, chosen};
use ::kernel::{Interrupt, Kit, Workshop, doctor, series};
use anyhow::Result;
use clap::{Args, Subcommand};
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
    },
    /// Judge known defects on a tree as it is, or on each state of a series
    Judge(Judge),
}

#[derive(Args)]
struct Judge {
    /// A kernel tree; nothing is written into it
    #[arg(long, value_name = "DIR")]
    tree: PathBuf,
    /// A B C D1 D2; without, all of them
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
        What::Doctor { tree } => {
            let shop = Workshop::open(tree, Kit::xe(), &stop)?;
            let findings = doctor::look(&shop)?;
            for (what, how) in &findings.rows {
                say!("{what:<18} {how}");
            }
            say!("\ntype:  pontoon kernel judge --tree {}", tree.display());
            Ok(ExitCode::from(if findings.all { 0 } else { 2 }))
        }
        What::Judge(judge) => judge.run(&stop),
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
        let mut worst = Worst::default();
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
                    }
                    self.tell(&shop, state, &verdicts, &mut worst);
                }
                Err(error) => {
                    worst.not_judged = true;
                    say!("{state}\n    NOT JUDGED: {error:#}");
                }
            })?;
        }
        if !self.json {
            say!("not judged by any of this: {LIMITS}");
        }
        Ok(worst.exit())
    }

    fn tell(&self, shop: &Workshop, state: &str, verdicts: &[Verdict], worst: &mut Worst) {
        for verdict in verdicts {
            worst.found |= verdict.outcome == Outcome::Found;
            worst.not_judged |= verdict.outcome == Outcome::NotJudged;
            if self.json {
                say!("{}", verdict.json(&shop.title(), state));
            } else {
                say!("    {}", verdict.line());
            }
        }
    }
}

#[derive(Default)]
struct Worst {
    found: bool,
    not_judged: bool,
}

impl Worst {
    fn exit(&self) -> ExitCode {
        ExitCode::from(match (self.found, self.not_judged) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        })
    }
}
