//! Evidence: one JSON line an event on standard output, written at once, so that a run that dies has said what it saw.

use serde_json::{Map, Value};
use std::io::Write;

/// An event being written down.
#[derive(Default)]
pub(crate) struct Line {
    fields: Map<String, Value>,
}

impl Line {
    /// A new event of this name.
    pub(crate) fn new(event: &str) -> Self {
        let mut line = Self::default();
        line.set("event", event.into());
        line
    }

    /// Adds a field.
    pub(crate) fn set(&mut self, field: &str, value: Value) {
        self.fields.insert(field.to_owned(), value);
    }

    /// The same, for a chain.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.set(field, value.into());
        self
    }

    /// Writes it, if a run tells events of its kind. Who reads may be gone: then nobody wants to know.
    pub(crate) fn write(mut self) {
        let Some(more) = crate::runs::witness(self.fields["event"].as_str().unwrap_or("")) else { return };
        more.into_iter().for_each(|(field, value)| self.set(field, value));
        let mut text = Value::Object(self.fields).to_string();
        text.push('\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
