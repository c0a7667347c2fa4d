//! The plugin's own log lines, on their way to the host's.

use std::fmt::{self, Write as _};

use keyhaul_plugin_abi as abi;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Hands this library's events to the host, where it takes lines.
pub(crate) fn hand_on(host: &abi::Host) {
    if let Some(log) = host.log {
        // Where the plugin has a subscriber of its own, that stays.
        let _ = tracing::subscriber::set_global_default(HandOn(log));
    }
}

/// What gives each event to the host as a line. A library has a `tracing` of its own, so that these
/// are the plugin's events and no others.
struct HandOn(unsafe extern "C" fn(level: u32, text: abi::Str));

impl Subscriber for HandOn {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let level = match *event.metadata().level() {
            Level::ERROR => abi::LOG_ERROR,
            Level::WARN => abi::LOG_WARN,
            Level::INFO => abi::LOG_INFO,
            _ => abi::LOG_DEBUG,
        };
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.message + &line.fields;
        // SAFETY: the host takes lines from any thread at any time, and the text lives until then.
        unsafe { (self.0)(level, abi::Str::new(&text)) }
    }

    // The host has no spans.

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event in words: its message, and its fields as `name=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
