//! Planted mistakes: how many of them does the check alone find?
//!
//! `crates/check/mutants.txt` lists the mutants, one a section: a file, a text that stands there once, and what a careless
//! programmer writes in its place. All of them are put into a copy of the tree below `target/`, each behind a [`switch`], and built
//! once; the few that cannot be switched are put there and built one by one. Each is
//! searched as `pontoon check` does: all built-in scenes, both manners, a fixed number of seeds, a limit of time. Where a race is known
//! to need more seeds, the list names the scene, which is played first, with some thousands.
//!
//! Nothing of it is in what ships. docs/mutants.md has the results.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "chores are outside of what the checker controls"
)]

mod switch;

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Where the mutants are.
const LIST: &str = "crates/check/mutants.txt";
/// What of the tree is copied: all that a build of the check needs.
const COPIED: [&str; 6] = ["Cargo.toml", "Cargo.lock", "clients", "crates", "scenes", "xtask"];
/// The check at a fair speed, built in seconds, without the assertions of debug builds: what ships has none.
const PROFILE: [&str; 4] = ["opt-level=1", "debug=0", "debug-assertions=false", "overflow-checks=false"];
/// Seeds of each scene in each manner.
const SEEDS: u64 = 150;
/// Those of the scene that a mutant names: a race that is found by one seed in some thousands moves with the code.
const SEEDS_OF_ITS_SCENE: u64 = 5000;
/// Those that are played to an equivalent one, which has a proof.
const SEEDS_OF_EQUIVALENT: u64 = 40;
/// Searches at the same time.
const LANES: usize = 2;
/// How long a search may say nothing: a few seeds take a second, so it has no end then.
const LIMIT: Duration = Duration::from_secs(300);

/// A mistake.
struct Mutant {
    /// `layer/name`.
    name: String,
    file: String,
    what: String,
    /// The scene that finds it, if that is known to be one of many seeds.
    scene: Option<String>,
    /// Why the check does not find it.
    survives: Option<String>,
    /// Why nothing could find it: a proof that it changes nothing.
    equivalent: Option<String>,
    old: String,
    new: String,
}

/// How many ended how.
#[derive(Default)]
struct Counts {
    found: u32,
    survived: u32,
    equivalent: u32,
    unbuilt: u32,
}

/// How a mutant ended.
enum Verdict {
    Found(String),
    Survived(String),
    DoesNotBuild,
}

/// `cargo xtask mutants [--list] [LAYER | LAYER/NAME]...`: runs those that are named, or all.
pub fn run(root: &Path, args: &[&str]) -> Result<()> {
    let mutants = read(&fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?)?;
    let names: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--list").collect();
    let is_named = |mutant: &Mutant| names.is_empty() || names.iter().any(|name| mutant.is(name));
    let chosen: Vec<usize> = (0..mutants.len()).filter(|number| is_named(&mutants[*number])).collect();
    ensure!(!chosen.is_empty(), "no mutant has such a name");
    mutants.iter().try_for_each(|mutant| mutant.applied(root).map(drop))?;
    if args.contains(&"--list") {
        chosen.iter().for_each(|number| println!("{}: {}", mutants[*number].name, mutants[*number].what));
        return Ok(());
    }
    let counts = Mutex::new(Counts::default());
    let bench = Bench::new(root)?;
    let apart = switch::plant(root, &bench.tree, &mutants)?;
    ensure!(bench.build()?, "the tree with all mutants does not build: try one of them");
    if let Verdict::Found(finding) = bench.search(SEEDS, None, None)? {
        bail!("the check finds something without a mutant: {finding}");
    }
    let (alone, switched): (Vec<usize>, Vec<usize>) = chosen.into_iter().partition(|number| apart.contains(number));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || bench.work(&mutants, &switched, &next, &counts);
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(work)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().expect("a lane that does not panic"))
    })?;
    bench.mirror()?;
    for number in alone {
        let verdict = bench.judge_alone(&mutants[number])?;
        counts.lock().expect("no lane panicked").note(&mutants[number], verdict);
    }
    let Counts { found, survived, equivalent, unbuilt } = counts.into_inner().expect("no lane panicked");
    println!(
        "mutants: {found} of {} found, {found} of {} that are not equivalent; {survived} survived, {unbuilt} do not build",
        found + survived + equivalent,
        found + survived
    );
    ensure!(unbuilt == 0, "a mutant that does not build is none");
    Ok(())
}

impl Counts {
    /// Counts a mutant, and prints its line.
    fn note(&mut self, mutant: &Mutant, verdict: Verdict) {
        let name = &mutant.name;
        match verdict {
            Verdict::Found(finding) => {
                self.found += 1;
                let listed = match (&mutant.survives, &mutant.equivalent) {
                    (None, None) => "",
                    (Some(_), _) => "; it is listed as a survivor",
                    (None, Some(_)) => "; it is listed as EQUIVALENT",
                };
                println!("{name}: found by {finding}{listed}");
            }
            Verdict::Survived(_) if mutant.equivalent.is_some() => {
                self.equivalent += 1;
                println!("{name}: equivalent: {}", mutant.equivalent.as_deref().unwrap_or_default());
            }
            Verdict::Survived(how) => {
                self.survived += 1;
                println!("{name}: SURVIVED {how}: {}", mutant.survives.as_deref().unwrap_or("nobody knows why"));
            }
            Verdict::DoesNotBuild => {
                self.unbuilt += 1;
                println!("{name}: does not build");
            }
        }
    }
}

/// Reads the list: sections of `== NAME`, lines `file`, `what`, `scene`, `survives` and `equivalent`, then the text behind `---`, and what
/// takes its place behind `+++`.
fn read(text: &str) -> Result<Vec<Mutant>> {
    let sections = text.split("\n== ").skip(1);
    let mutants: Vec<Mutant> = sections.map(section).collect::<Result<_>>()?;
    for (index, mutant) in mutants.iter().enumerate() {
        ensure!(
            mutants[..index].iter().all(|other| other.name != mutant.name),
            "two mutants are called {}",
            mutant.name
        );
    }
    Ok(mutants)
}

fn section(text: &str) -> Result<Mutant> {
    let (head, texts) = text.split_once("\n---\n").with_context(|| format!("no line --- in: {text}"))?;
    let (old, new) = texts.split_once("\n+++\n").with_context(|| format!("no line +++ in: {text}"))?;
    let (name, facts) = head.split_once('\n').with_context(|| format!("only a name in: {head}"))?;
    let fact = |key: &str| facts.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(String::from);
    let needed = |key| fact(key).with_context(|| format!("mutant {name} has no line '{key}'"));
    Ok(Mutant {
        name: name.into(),
        file: needed("file")?,
        what: needed("what")?,
        scene: fact("scene"),
        survives: fact("survives"),
        equivalent: fact("equivalent"),
        old: old.into(),
        new: new.trim_end_matches('\n').into(),
    })
}

impl Mutant {
    /// Whether that names it, or its layer.
    fn is(&self, name: &str) -> bool {
        self.name == name || self.name.split_once('/').is_some_and(|(layer, _)| layer == name)
    }

    /// Its file with the mistake in it.
    fn applied(&self, root: &Path) -> Result<String> {
        let text =
            fs::read_to_string(root.join(&self.file)).with_context(|| format!("{}: {}", self.name, self.file))?;
        match text.matches(&self.old).count() {
            1 => Ok(text.replacen(&self.old, &self.new, 1)),
            0 => {
                bail!("mutant {}: {} has changed, its text is not there any more:\n{}", self.name, self.file, self.old)
            }
            many => bail!("mutant {}: its text stands in {} {many} times:\n{}", self.name, self.file, self.old),
        }
    }
}

/// The copy of the tree, and its builds.
struct Bench {
    tree: PathBuf,
    target: PathBuf,
    root: PathBuf,
}

impl Bench {
    /// Brings the copy up to date.
    fn new(root: &Path) -> Result<Self> {
        let place = |what: &str| root.join(format!("target/mutants/{what}"));
        let bench = Self { tree: place("tree"), target: place("target"), root: root.into() };
        bench.mirror()?;
        Ok(bench)
    }

    fn mirror(&self) -> Result<()> {
        fs::create_dir_all(&self.tree)?;
        COPIED.iter().try_for_each(|name| mirror(&self.root.join(name), &self.tree.join(name)))
    }

    /// What one lane does: takes the next mutant, until there is none.
    fn work(&self, mutants: &[Mutant], todo: &[usize], next: &AtomicUsize, counts: &Mutex<Counts>) -> Result<()> {
        while let Some(number) = todo.get(next.fetch_add(1, Relaxed)) {
            let verdict = self.search_for(&mutants[*number], Some(*number))?;
            counts.lock().expect("no lane panicked").note(&mutants[*number], verdict);
        }
        Ok(())
    }

    /// Applies a mutant to the copy as it is, searches, and takes it back.
    fn judge_alone(&self, mutant: &Mutant) -> Result<Verdict> {
        let place = self.tree.join(&mutant.file);
        fs::write(&place, mutant.applied(&self.root)?)?;
        let verdict = match self.build() {
            Ok(true) => self.search_for(mutant, None),
            Ok(false) => Ok(Verdict::DoesNotBuild),
            Err(error) => Err(error),
        };
        fs::write(&place, fs::read(self.root.join(&mutant.file))?)?;
        verdict
    }

    /// Whether it builds.
    fn build(&self) -> Result<bool> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--offline", "--package", "pontoon-check", "--example", "mutant"]);
        cargo.args(PROFILE.iter().flat_map(|entry| ["--config".into(), format!("profile.dev.{entry}")]));
        cargo.arg("--target-dir").arg(&self.target).current_dir(&self.tree).env("RUSTFLAGS", "--cap-lints=warn");
        let status = cargo.stderr(Stdio::null()).status().context("cannot start cargo")?;
        Ok(status.success())
    }

    /// Searches the scene that is known to find it, then all of them.
    fn search_for(&self, mutant: &Mutant, number: Option<usize>) -> Result<Verdict> {
        if let Some(scene) = &mutant.scene
            && let found @ Verdict::Found(_) = self.search(SEEDS_OF_ITS_SCENE, Some(scene), number)?
        {
            return Ok(found);
        }
        self.search(if mutant.equivalent.is_some() { SEEDS_OF_EQUIVALENT } else { SEEDS }, None, number)
    }

    /// Searches one scene or all, with the mutant of that number, until something is found, all seeds are through, or time is up.
    fn search(&self, seeds: u64, scene: Option<&str>, number: Option<usize>) -> Result<Verdict> {
        let mut search = Command::new(self.target.join("debug/examples/mutant"));
        search.arg(seeds.to_string()).args(scene).stdout(Stdio::piped()).stderr(Stdio::null());
        search.envs(number.map(|number| (switch::VARIABLE, number.to_string())));
        let mut child = search.spawn().context("cannot start the search")?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let (send, told) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut clean = 0;
        let verdict = loop {
            match told.recv_timeout(LIMIT) {
                Ok(line) => match line.split_once('\t') {
                    Some(("clean", seeds)) => clean = seeds.parse().unwrap_or(clean),
                    _ => break Verdict::Found(line.trim_start_matches("found\t").replace('\t', ", ")),
                },
                Err(RecvTimeoutError::Timeout) => break Verdict::Found("no end of a run".into()),
                Err(RecvTimeoutError::Disconnected) if clean >= seeds => {
                    break Verdict::Survived(format!("{clean} seeds"));
                }
                Err(RecvTimeoutError::Disconnected) => break Verdict::Found("the death of the search".into()),
            }
        };
        let _ = child.kill();
        child.wait()?;
        Ok(verdict)
    }
}

/// Makes `to` what `from` is; a file that is the same stays as it is, for the build's sake.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        let new = fs::read(from)?;
        if fs::read(to).ok().as_ref() != Some(&new) {
            fs::write(to, new)?;
        }
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        mirror(&from.join(&name), &to.join(&name))?;
    }
    for entry in fs::read_dir(to)? {
        let old = entry?.path();
        if old.file_name().is_some_and(|name| !from.join(name).exists()) {
            if old.is_dir() { fs::remove_dir_all(&old)? } else { fs::remove_file(&old)? }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mutant whose text is gone, or stands twice, is none.
    #[test]
    fn every_mutant_can_be_applied() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mutants = read(&fs::read_to_string(root.join(LIST)).unwrap()).unwrap();
        assert!(mutants.len() > 200);
        for mutant in &mutants {
            let changed = mutant.applied(root).unwrap();
            assert!(changed.contains(&mutant.new) && !mutant.what.is_empty(), "{}", mutant.name);
            let is_there = |scene: &String| root.join(format!("scenes/{scene}.scene")).exists();
            assert!(mutant.scene.as_ref().is_none_or(is_there), "{}: there is no such scene", mutant.name);
        }
        let gone = Mutant {
            old: "no such text".into(),
            ..read("\n== a/b\nfile Cargo.toml\nwhat x\n---\n\n+++\n").unwrap().remove(0)
        };
        assert!(gone.applied(root).unwrap_err().to_string().contains("is not there any more"));
    }
}
