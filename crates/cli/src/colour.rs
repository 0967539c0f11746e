//! Colour in what is printed: where it is asked for, else on a terminal whose user has not set NO_COLOR. No answer is told by colour alone.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

/// When to colour.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Decides for the rest of the command.
pub fn choose(when: When) {
    let is_on = match when {
        When::Always => true,
        When::Never => false,
        When::Auto => is_drawn_on() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    IS_ON.store(is_on, Ordering::Relaxed);
}

/// Whether the output is a terminal that knows more than lines.
pub fn is_drawn_on() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// What is right.
pub fn good(text: &str) -> String {
    painted(text, "32")
}

/// What is wrong.
pub fn bad(text: &str) -> String {
    painted(text, "31;1")
}

/// `good` or `bad`.
pub fn verdict(text: &str, is_good: bool) -> String {
    if is_good { good(text) } else { bad(text) }
}

fn painted(text: &str, how: &str) -> String {
    if IS_ON.load(Ordering::Relaxed) { format!("\x1b[{how}m{text}\x1b[0m") } else { text.to_owned() }
}
