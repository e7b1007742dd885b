//! Arguments -> an exit code: 0 all well, 1 connections were cut or something is not well that was looked
//! into, 2 what was asked for cannot be done.

use std::ffi::OsString;
use std::io::{BufWriter, IsTerminal, Write};
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::certs::{self, Colour};
use crate::cli::inspect::{AuditCommand, CertsFlags, JoinFlags, ProbeFlags};
use crate::cli::{CheckFlags, Cli, Command, DevCertsFlags, ExplainFlags, RunFlags};
use crate::config::folder::Folder;
use crate::config::{Configuration, flags, istio, name, server};
use crate::credentials::store::{Change, Slot, Store};
use crate::gateway::{Ended, Gateway, Signal};
use crate::preparation::StartError;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::lines::Lines;
use crate::telemetry::logging;
use crate::{audit, clock, dev_certs, explain, probe, question};

/// Everything ended by itself.
const OK: u8 = 0;
/// Connections had to be cut, what was looked into is not well, or `check --strict` found warnings.
const CUT: u8 = 1;
/// A mistake in what was asked for.
const USAGE: u8 = 2;

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let done = match cli.command {
        Command::Egress(given) => {
            flags::egress(&given).map_err(|report| report.to_string()).and_then(|given| gateway(given, None))
        }
        Command::Ingress(given) => {
            flags::ingress(&given).map_err(|report| report.to_string()).and_then(|given| gateway(given, None))
        }
        Command::Certs(given) => show_certificates(&given),
        Command::Probe(given) => try_handshake(&given),
        Command::Run(given) => run_resources(given),
        Command::Check(given) => check(&given),
        Command::Explain(given) => explain_plan(&given),
        Command::Audit(AuditCommand::Join(given)) => join(&given),
        Command::DevCerts(given) => mint(given),
    };
    done.unwrap_or_else(|problems| {
        for problem in problems.lines() {
            say(&mut std::io::stderr(), &format!("twinlock: {problem}"));
        }
        USAGE
    })
}

/// Does what the resources say, or shows what is wrong with them.
fn run_resources(given: RunFlags) -> Result<u8, String> {
    let (folder, configuration, report) = Folder::open(given);
    if let Some(configuration) = configuration {
        return gateway(configuration, Some(folder));
    }
    show(&mut std::io::stderr(), &report.render(colour(&std::io::stderr()) == Colour::On));
    Ok(USAGE)
}

/// Shows everything that `run` would refuse.
fn check(given: &CheckFlags) -> Result<u8, String> {
    let json = match given.format.as_str() {
        "text" => false,
        "json" => true,
        other => return Err(format!("--format: expected text or json, found {other:?}")),
    };
    let (configuration, mut report) =
        istio::load(&given.workload, &given.process, given.credentials.as_deref());
    if let Some(configuration) = configuration.filter(|_| given.credentials.is_some()) {
        for problem in unusable(configuration) {
            report.add("--credentials", problem);
        }
    }
    let text = if json { report.json() } else { report.render(colour(&std::io::stdout()) == Colour::On) };
    show(&mut std::io::stdout(), &text);
    Ok(match (report.errors(), report.warnings()) {
        (0, 0) => OK,
        (0, _) => {
            if given.strict {
                CUT
            } else {
                OK
            }
        }
        _ => USAGE,
    })
}

/// Tells what a plan means, or what would become of one connection.
fn explain_plan(given: &ExplainFlags) -> Result<u8, String> {
    let (configuration, report) = istio::load(&given.workload, &given.process, None);
    let Some(Configuration { plan, .. }) = configuration else {
        show(&mut std::io::stderr(), &report.render(colour(&std::io::stderr()) == Colour::On));
        return Ok(USAGE);
    };
    let asks = [
        given.listener.is_some(),
        given.sni.is_some(),
        given.source.is_some(),
        given.destination.is_some(),
        given.peer_cert.is_some(),
    ];
    let text = match given.format.as_str() {
        "text" if asks.contains(&true) => question::answer(&plan, &question(given)?)?,
        "text" => explain::text(&plan),
        "json" => explain::json(&plan),
        "dot" => explain::dot(&plan),
        other => return Err(format!("--format: expected text, json or dot, found {other:?}")),
    };
    show(&mut std::io::stdout(), &text);
    Ok(OK)
}

fn question(given: &ExplainFlags) -> Result<question::Question, String> {
    let flag = |flag: &str, message: String| format!("{flag}: {message}");
    let listener = given
        .listener
        .as_deref()
        .map(|text| name::listen_address(text).map_err(|why| flag("--listener", why)));
    let address = |name: &str, given: Option<&str>| {
        let parsed = given.map(|text| {
            text.parse().map_err(|_| flag(name, format!("expected an IP address, found {text:?}")))
        });
        parsed.transpose()
    };
    let peer = given.peer_cert.as_deref().map(|path| {
        question::peer(path).map_err(|why| flag("--peer-cert", format!("{why}: {}", path.display())))
    });
    Ok(question::Question {
        listener: listener.transpose()?,
        sni: given.sni.clone(),
        source: address("--source", given.source.as_deref())?,
        destination: address("--destination", given.destination.as_deref())?,
        peer: peer.transpose()?,
    })
}

/// Why credentials that a plan needs cannot be used.
fn unusable(configuration: Configuration) -> Vec<String> {
    let store = Store::new(configuration.credentials);
    let refused = |slot: &Arc<Slot>| match slot.refresh(clock::wall()) {
        Change::Refused(refusal) => Some(refusal.to_string()),
        Change::Unchanged(_) | Change::Held | Change::Published { .. } => None,
    };
    store.slots().filter_map(refused).collect()
}

fn gateway(configuration: Configuration, folder: Option<Folder>) -> Result<u8, String> {
    let format = configuration.plan.log_format;
    let gateway = Gateway::prepare(configuration, folder).map_err(|error| error.to_string())?;
    let system = |error: std::io::Error| StartError::System(error).to_string();
    let (events, event_writer) = Lines::start("operational log", std::io::stderr()).map_err(system)?;
    logging::start(format, events.clone());
    let (records, record_writer) = Lines::start("access log", std::io::stdout()).map_err(system)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let ended = runtime.block_on(async {
        let signals = listen_to_signals().map_err(system)?;
        let log = AccessLog::new(format, records.clone());
        gateway.run(log, events.clone(), signals).await.map_err(|error| error.to_string())
    });
    // Records first: what is lost of them is told in the other log.
    for (lines, writer) in [(records, record_writer), (events, event_writer)] {
        if lines.close() && writer.join().is_err() {
            return Err("a log's writer panicked".into());
        }
    }
    let Ended { cut } = ended?;
    Ok(if cut == 0 { OK } else { CUT })
}

/// SIGTERM and SIGINT stop, SIGHUP reloads.
fn listen_to_signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(8);
    let meanings = [
        (SignalKind::terminate(), Signal::Stop),
        (SignalKind::interrupt(), Signal::Stop),
        (SignalKind::hangup(), Signal::Reload),
    ];
    for (kind, meaning) in meanings {
        let (mut arrivals, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() && sender.send(meaning).await.is_ok() {}
        });
    }
    Ok(receiver)
}

fn show_certificates(given: &CertsFlags) -> Result<u8, String> {
    let mut sheets = Vec::new();
    for directory in &given.directory {
        sheets.extend(certs::sheets(directory, clock::wall())?);
    }
    let text = if given.json { json(&sheets)? } else { certs::table(&sheets, colour(&std::io::stdout())) };
    say(&mut std::io::stdout(), text.trim_end());
    Ok(if sheets.iter().all(certs::Sheet::is_well) { OK } else { CUT })
}

fn try_handshake(given: &ProbeFlags) -> Result<u8, String> {
    let probe = server::probe(given).map_err(|report| report.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartError::System(error).to_string())?;
    let findings = runtime.block_on(probe::run(probe, clock::wall()))?;
    let text = if given.json { json(&findings)? } else { probe::text(&findings, colour(&std::io::stdout())) };
    say(&mut std::io::stdout(), text.trim_end());
    Ok(if findings.accepted { OK } else { CUT })
}

fn join(given: &JoinFlags) -> Result<u8, String> {
    let form = if given.json { audit::Form::Json } else { audit::Form::Text };
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut complain = |problem: &str| say(&mut std::io::stderr(), &format!("twinlock: {problem}"));
    let verdict = audit::join(&given.log, form, &mut output, &mut complain)?;
    Ok(match verdict {
        audit::Verdict { whole: false, .. } => USAGE,
        audit::Verdict { well: false, .. } => CUT,
        audit::Verdict { .. } => OK,
    })
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map_err(|error| error.to_string())
}

/// Colour is for people at a terminal who have not said otherwise (no-color.org).
fn colour(stream: &impl IsTerminal) -> Colour {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stream.is_terminal() && !unwanted { Colour::On } else { Colour::Off }
}

fn mint(given: DevCertsFlags) -> Result<u8, String> {
    let key = if given.rsa { dev_certs::KeyKind::Rsa2048 } else { dev_certs::KeyKind::EcdsaP256 };
    let request = dev_certs::Request {
        out: given.out,
        hosts: given.host,
        clients: given.client,
        key,
        days: given.days,
    };
    let minted = dev_certs::mint(&request, clock::wall()).map_err(|error| error.to_string())?;
    let root = if minted.root_reused { "used again" } else { "new" };
    let text = format!(
        "root CA ({root}): {}\ningress credential: {}\negress credential: {}",
        minted.root.display(),
        minted.ingress.display(),
        minted.egress.display()
    );
    say(&mut std::io::stdout(), &text);
    Ok(OK)
}

/// Help and version go where they were asked for; a mistake is told in one line.
#[allow(clippy::wildcard_enum_match_arm, reason = "clap's kinds are non-exhaustive")]
fn misused(error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            say(&mut std::io::stdout(), error.to_string().trim_end());
            OK
        }
        _ => {
            say(&mut std::io::stderr(), &format!("twinlock: {}", one_line(&error.to_string())));
            USAGE
        }
    }
}

/// What clap says in several paragraphs: the mistake, and its tip or where to read on.
fn one_line(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut paragraphs = paragraphs.filter(|text| !text.is_empty());
    let mistake = paragraphs.next().unwrap_or_default();
    let mistake = mistake.strip_prefix("error: ").unwrap_or(&mistake);
    match paragraphs.find_map(|text| text.strip_prefix("tip: ").map(str::to_owned)) {
        Some(tip) => format!("{mistake} ({tip})"),
        None => format!("{mistake} (see twinlock --help)"),
    }
}

/// Prints a text; a reader that is gone is no reason to fail.
fn show(output: &mut impl Write, text: &str) {
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// Prints a line; a reader that is gone is no reason to fail.
fn say(output: &mut impl Write, text: &str) {
    let _ = writeln!(output, "{text}");
}
