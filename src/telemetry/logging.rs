//! The operational log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::plan::LogFormat;

/// Starts the operational log. Levels come from `TWINLOCK_LOG` (`info` unless set), in the syntax of
/// tracing-subscriber's `EnvFilter`.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("TWINLOCK_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,hickory_resolver=error,hickory_net=error"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start (two gateways in one test process) keeps the first log.
    let _ = match format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
