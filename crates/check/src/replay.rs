//! A failing run as a file, which stands for itself: the scene's text is in it.
//!
//! ```text
//! pontoon-run 3
//! scene block
//! manner linux
//! device scene
//! behaviour a=upstream
//! time idle
//! schedule 17>3 21=1
//! trace 0123456789abcdef
//! finding data lost: ...
//! ---
//! (the scene)
//! ```

use crate::explore::{Ran, Setting};
use crate::plan::Explore;
use crate::script::Script;
use machine::behaviour;
use machine::checked::Manner;
use machine::topology::Topology;
use std::fmt;
use std::sync::Arc;
pub use sync::sim::{Deviation, TimeRule};

const HEAD: &str = "pontoon-run 3";
const SEPARATOR: &str = "---";

/// A run that can be made again.
#[derive(Clone, Debug)]
pub struct Record {
    /// What is played, and how.
    pub setting: Setting,
    /// When time passes.
    pub time: TimeRule,
    /// Its schedule.
    pub deviations: Vec<Deviation>,
    /// A hash over all of its decisions.
    pub trace: u64,
    /// What it found, in words; empty where it found nothing.
    pub finding: String,
}

impl Record {
    /// Makes the run.
    pub fn run(&self) -> Ran {
        self.setting.replay(&self.deviations, self.time)
    }

    /// Whether a run is this one.
    ///
    /// # Errors
    /// In what it differs.
    pub fn is_met_by(&self, ran: &Ran) -> Result<(), String> {
        let found = ran.finding.as_ref().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
        let followed = &ran.report.deviations;
        if let Some(deviation) = self.deviations.iter().find(|deviation| !followed.contains(deviation)) {
            return Err(format!("its schedule cannot be followed: the run has no choice {deviation}"));
        }
        if found != self.finding {
            return Err(format!("it says '{}', the run gave '{found}'", self.finding));
        }
        match ran.report.trace_hash {
            trace if trace == self.trace => Ok(()),
            trace => Err(format!("its trace is {:016x}, that of the run {trace:016x}", self.trace)),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, with the line where one is at fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (head, scene) = text
            .split_once(&format!("\n{SEPARATOR}\n"))
            .ok_or_else(|| format!("no line '{SEPARATOR}', behind which the scene follows"))?;
        let mut lines = head.lines();
        if lines.next() != Some(HEAD) {
            return Err(format!("the first line must be '{HEAD}'"));
        }
        let mut field = |name: &str| {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ').or(Some(rest)));
            value.map(str::to_owned).ok_or_else(|| format!("expected a line '{name} ...', not '{line}'"))
        };
        let name = field("scene")?;
        let manner = match field("manner")?.as_str() {
            "linux" => Manner::Linux,
            "userfaultfd" => Manner::Userfaultfd,
            other => return Err(format!("manner is linux or userfaultfd, not '{other}'")),
        };
        let topology = Topology::named(&field("device")?)?;
        let behaviours = field("behaviour")?;
        behaviour::parse(&behaviours)?;
        let (time, calm) = match field("time")?.as_str() {
            "idle" => (TimeRule::WhenIdle, false),
            "calm" => (TimeRule::WhenIdle, true),
            "racing" => (TimeRule::Racing, false),
            other => return Err(format!("time is idle, calm or racing, not '{other}'")),
        };
        let schedule = field("schedule")?;
        let deviation = |text: &str| text.parse().map_err(|error| format!("'{text}' in the schedule: {error}"));
        let deviations = schedule.split_whitespace().map(deviation).collect::<Result<_, _>>()?;
        let trace = field("trace")?;
        let trace = u64::from_str_radix(&trace, 16).map_err(|error| format!("'{trace}' is no trace: {error}"))?;
        let finding = field("finding")?;
        let script = Script::parse(&name, scene).map_err(|error| error.to_string())?;
        let setting = Setting::new(Arc::new(script), manner, behaviours, Explore::Pct).on(topology);
        let setting = if calm { setting.calmly() } else { setting };
        Ok(Self { setting, time, deviations, trace, finding })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting { script, manner, behaviours, topology, .. } = &self.setting;
        let time = match self.time {
            TimeRule::Racing => "racing",
            TimeRule::WhenIdle if self.setting.is_calm() => "calm",
            TimeRule::WhenIdle => "idle",
        };
        let schedule: Vec<String> = self.deviations.iter().map(ToString::to_string).collect();
        writeln!(f, "{HEAD}\nscene {}\nmanner {}\ndevice {}", script.name, manner_name(*manner), topology.name())?;
        writeln!(f, "behaviour {behaviours}\ntime {time}\nschedule {}\ntrace {:016x}", schedule.join(" "), self.trace)?;
        write!(f, "finding {}\n{SEPARATOR}\n{}", self.finding.replace('\n', " "), script.source)
    }
}

/// A manner by its name on the command line.
pub const fn manner_name(manner: Manner) -> &'static str {
    match manner {
        Manner::Linux => "linux",
        Manner::Userfaultfd => "userfaultfd",
    }
}
