//! The operational log, on standard error.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::lines::Lines;
use crate::plan::LogFormat;

/// What is logged unless `TWINLOCK_LOG` says otherwise; the resolver tells us its errors, and we the world.
const DEFAULT_FILTER: &str = "info,hickory_resolver=error,hickory_net=error";

/// Starts the operational log. Levels come from `TWINLOCK_LOG` in the syntax of tracing-subscriber's
/// `EnvFilter`. A reader of standard error that is slow or gone loses lines and holds nothing up.
pub fn start(format: LogFormat, lines: Lines) {
    let filter = EnvFilter::try_from_env("TWINLOCK_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(ToLines(lines)).with_target(false);
    // A second start (two gateways in one test process) keeps the first log.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
}

/// tracing writes each event at once, whole.
struct ToLines(Lines);

impl Write for &ToLines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.append(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'lines> MakeWriter<'lines> for ToLines {
    type Writer = &'lines Self;

    fn make_writer(&'lines self) -> &'lines Self {
        self
    }
}
