//! `twinlock audit join`: reads the records of several sites side by side and tells which belong together.
//!
//! The logs are read in turns, a line each, so that partners meet soon and little is kept: a pair is told and forgotten
//! but for the name of its session. A line that is no gateway's is told with its place, and makes the result count as
//! incomplete.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::credentials::certificate::printable;
use crate::credentials::read::lower;
use crate::plan::outcome::Side;
use crate::telemetry::join::{Counts, End, Found, Join, Recorded, Source, read};

/// The longest line that is read.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Lines that are no gateway's are told one by one up to this many.
const TOLD_MAX: u64 = 20;

/// How what was found is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line of text each.
    Text,
    /// A line of JSON each.
    Json,
}

/// What became of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Every session has two ends that agree.
    pub well: bool,
    /// Every line could be read.
    pub whole: bool,
}

/// Joins these logs. Findings go to `output` as they are made, and lines that cannot be read to `complain`; the error
/// is for a log that cannot be read at all, or findings that cannot be written.
pub fn join(
    logs: &[PathBuf],
    form: Form,
    output: &mut impl Write,
    complain: &mut impl FnMut(&str),
) -> Result<Verdict, String> {
    let mut readers = Vec::new();
    for path in logs {
        readers.push(Reader::open(path)?);
    }
    let mut telling = Telling { logs, form, output, gone: false };
    let mut join = Join::default();
    let (mut skipped, mut unreadable) = (0, 0);
    while readers.iter().any(|reader| !reader.ended) {
        for (log, reader) in readers.iter_mut().enumerate().filter(|(_, reader)| !reader.ended) {
            let Some(line) = reader.next()? else { continue };
            match line {
                Ok(Some(recorded)) => {
                    for found in join.add(Source { log, line: reader.line, recorded }) {
                        telling.found(&found)?;
                    }
                }
                Ok(None) => skipped += 1,
                Err(why) => {
                    unreadable += 1;
                    if unreadable <= TOLD_MAX {
                        complain(&format!("{}:{}: {why}", reader.path.display(), reader.line));
                    }
                }
            }
        }
    }
    if unreadable > TOLD_MAX {
        complain(&format!("{} more lines that are not records", unreadable - TOLD_MAX));
    }
    let (alone, counts) = join.finish();
    for found in &alone {
        telling.found(found)?;
    }
    telling.counts(counts, skipped, unreadable)?;
    Ok(Verdict { well: counts.is_well(), whole: unreadable == 0 })
}

/// What a line is.
type Read = Result<Option<Recorded>, String>;

struct Reader<'path> {
    path: &'path Path,
    file: BufReader<File>,
    buffer: Vec<u8>,
    /// The line read last, from 1.
    line: u64,
    ended: bool,
}

impl<'path> Reader<'path> {
    fn open(path: &'path Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| unread(path, &error))?;
        Ok(Self { path, file: BufReader::new(file), buffer: Vec::new(), line: 0, ended: false })
    }

    /// The next line; `None` behind the last.
    fn next(&mut self) -> Result<Option<Read>, String> {
        self.buffer.clear();
        let mut bounded = self.file.by_ref().take(LINE_BYTES_MAX + 1);
        let length =
            bounded.read_until(b'\n', &mut self.buffer).map_err(|error| unread(self.path, &error))?;
        if length == 0 {
            self.ended = true;
            return Ok(None);
        }
        self.line += 1;
        if length as u64 <= LINE_BYTES_MAX {
            return Ok(Some(read(&self.buffer)));
        }
        if !self.buffer.ends_with(b"\n") {
            self.file.skip_until(b'\n').map_err(|error| unread(self.path, &error))?;
        }
        Ok(Some(Err(format!("expected a line of at most {LINE_BYTES_MAX} bytes, found a longer one"))))
    }
}

fn unread(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {}", path.display(), lower(error))
}

struct Telling<'run, W> {
    logs: &'run [PathBuf],
    form: Form,
    output: &'run mut W,
    /// Nobody reads any more: what is found still counts.
    gone: bool,
}

impl<W: Write> Telling<'_, W> {
    fn found(&mut self, found: &Found) -> Result<(), String> {
        match found {
            Found::Pair { client, server } => self.pair(found.agrees(), client, server),
            Found::Alone(end) => self.end("alone", end),
            Found::Repeated(end) => self.end("repeated", end),
        }
    }

    fn pair(&mut self, agrees: bool, client: &Source, server: &Source) -> Result<(), String> {
        let (from, to) = (&client.recorded, &server.recorded);
        let pair = Pair {
            event: if agrees { "matched" } else { "differs" },
            time: &from.time,
            session: from.session(Side::Upstream),
            client: from.downstream.address.as_deref(),
            client_identity: to.downstream.identity(),
            server_identity: from.upstream.identity(),
            from: self.site(client),
            to: self.site(server),
        };
        let line = self.line(&pair, Pair::text);
        self.write(|output| writeln!(output, "{line}"))
    }

    fn end(&mut self, event: &'static str, end: &End) -> Result<(), String> {
        let recorded = &end.source.recorded;
        let hop = recorded.hop(end.side);
        let single = Single {
            event,
            time: &recorded.time,
            session: recorded.session(end.side),
            side: end.side.label(),
            peer: hop.address.as_deref(),
            peer_identity: hop.identity(),
            at: self.site(&end.source),
        };
        let line = self.line(&single, Single::text);
        self.write(|output| writeln!(output, "{line}"))
    }

    fn site<'found>(&self, source: &'found Source) -> Site<'found> {
        let Recorded { id, role, bytes_received, bytes_sent, outcome, .. } = &source.recorded;
        Site {
            log: format!("{}:{}", self.logs[source.log].display(), source.line),
            role,
            id: *id,
            received: *bytes_received,
            sent: *bytes_sent,
            outcome,
        }
    }

    fn counts(&mut self, counts: Counts, skipped: u64, unreadable: u64) -> Result<(), String> {
        let line = self.line(&Total { event: "counts", counts, skipped, unreadable }, Total::text);
        self.write(|output| writeln!(output, "{line}").and_then(|()| output.flush()))
    }

    fn line<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> String {
        match self.form {
            // Strings and numbers only: this cannot fail.
            Form::Json => serde_json::to_string(value).unwrap_or_default(),
            Form::Text => printable(&text(value)),
        }
    }

    fn write(&mut self, act: impl FnOnce(&mut W) -> io::Result<()>) -> Result<(), String> {
        if self.gone {
            return Ok(());
        }
        match act(self.output) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.gone = true,
            Err(error) => return Err(format!("cannot write what was found: {}", lower(&error))),
            Ok(()) => {}
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Pair<'found> {
    event: &'static str,
    time: &'found str,
    session: Option<&'found str>,
    client: Option<&'found str>,
    client_identity: Option<&'found str>,
    server_identity: Option<&'found str>,
    from: Site<'found>,
    to: Site<'found>,
}

impl Pair<'_> {
    fn text(&self) -> String {
        format!(
            "{} time={} session={} client={} client_identity={} server_identity={} {} {}",
            self.event,
            self.time,
            or_dash(self.session),
            or_dash(self.client),
            or_dash(self.client_identity),
            or_dash(self.server_identity),
            self.from.text("from"),
            self.to.text("to"),
        )
    }
}

#[derive(Serialize)]
struct Single<'found> {
    event: &'static str,
    time: &'found str,
    session: Option<&'found str>,
    side: &'static str,
    peer: Option<&'found str>,
    peer_identity: Option<&'found str>,
    at: Site<'found>,
}

impl Single<'_> {
    fn text(&self) -> String {
        format!(
            "{} time={} session={} side={} peer={} peer_identity={} {}",
            self.event,
            self.time,
            or_dash(self.session),
            self.side,
            or_dash(self.peer),
            or_dash(self.peer_identity),
            self.at.text("at"),
        )
    }
}

#[derive(Serialize)]
struct Site<'found> {
    log: String,
    role: &'found str,
    id: u64,
    received: u64,
    sent: u64,
    outcome: &'found str,
}

impl Site<'_> {
    fn text(&self, name: &str) -> String {
        let Self { log, role, id, received, sent, outcome } = self;
        format!("{name}={role}/{id},received={received},sent={sent},{outcome},{log}")
    }
}

#[derive(Serialize)]
struct Total {
    event: &'static str,
    #[serde(flatten)]
    counts: Counts,
    skipped: u64,
    unreadable: u64,
}

impl Total {
    fn text(&self) -> String {
        let Counts { records, without_session, matched, differing, alone, repeated } = self.counts;
        format!(
            "{} records={records} matched={matched} differing={differing} alone={alone} repeated={repeated} \
             without_session={without_session} skipped={} unreadable={}",
            self.event, self.skipped, self.unreadable
        )
    }
}

fn or_dash(value: Option<&str>) -> &str {
    value.unwrap_or("-")
}
