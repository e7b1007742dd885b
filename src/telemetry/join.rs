//! The records of several sites, joined by the names of their TLS sessions.
//!
//! A hop's client recorded the session as upstream, its server as downstream. Pure: records go in one by one, in
//! whatever order, and what is found comes out at once. Only records that wait for a partner are kept whole; of those
//! that have met, the name of the session, so that no session counts twice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::{replace, take};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::entry::SCHEMA;
use crate::plan::outcome::Side;

/// Hexadecimal digits in the name of a session.
const SESSION_DIGITS: usize = 32;

/// What joining needs of a record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Recorded {
    /// When the connection was accepted, RFC 3339.
    pub time: String,
    /// The number that its process gave it.
    pub id: u64,
    /// Which end of the link the process was.
    pub role: String,
    /// Bytes of plaintext from the client.
    pub bytes_received: u64,
    /// Bytes of plaintext to the client.
    pub bytes_sent: u64,
    /// The hop to the client.
    pub downstream: RecordedHop,
    /// The hop to the server.
    pub upstream: RecordedHop,
    /// How it ended.
    pub outcome: String,
}

/// What joining needs of a hop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct RecordedHop {
    /// The peer's address.
    pub address: Option<String>,
    /// What the handshake settled; absent on a plaintext hop.
    pub tls: Option<RecordedTls>,
    /// Who the peer has shown to be.
    pub peer: Option<RecordedPeer>,
}

/// What joining needs of a handshake.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedTls {
    /// The name of the session, in hex.
    pub session: Option<String>,
}

/// What joining needs of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RecordedPeer {
    /// The subject alternative name that it goes by.
    pub identity: String,
}

#[derive(Deserialize)]
struct Event {
    event: Option<String>,
    schema: Option<u64>,
}

/// Reads a line of a log: a record, or `None` for something else that a gateway tells (that it is ready, its
/// operational log). The error says why it is none of a gateway's.
pub fn read(line: &[u8]) -> Result<Option<Recorded>, String> {
    let malformed = |error: serde_json::Error| format!("expected a record as JSON, found {error}");
    let event: Event = serde_json::from_slice(line).map_err(malformed)?;
    if event.event.as_deref() != Some("close") {
        return Ok(None);
    }
    if event.schema != Some(SCHEMA) {
        let found = event.schema.map_or_else(|| "none".to_owned(), |schema| schema.to_string());
        return Err(format!("expected a record of schema {SCHEMA}, found {found}"));
    }
    let recorded: Recorded = serde_json::from_slice(line).map_err(malformed)?;
    for side in [Side::Downstream, Side::Upstream] {
        if let Some(name) = recorded.session(side) {
            session(name)
                .ok_or_else(|| format!("expected a session of {SESSION_DIGITS} digits, found {name:?}"))?;
        }
    }
    Ok(Some(recorded))
}

fn session(name: &str) -> Option<u128> {
    let digits = name.len() == SESSION_DIGITS && name.bytes().all(|digit| digit.is_ascii_hexdigit());
    u128::from_str_radix(name, 16).ok().filter(|_| digits)
}

impl Recorded {
    /// The hop on a side.
    pub fn hop(&self, side: Side) -> &RecordedHop {
        match side {
            Side::Downstream => &self.downstream,
            Side::Upstream => &self.upstream,
        }
    }

    /// The name of the TLS session on a side, if there was one.
    pub fn session(&self, side: Side) -> Option<&str> {
        self.hop(side).tls.as_ref()?.session.as_deref()
    }
}

impl RecordedHop {
    /// Who the peer has shown to be.
    pub fn identity(&self) -> Option<&str> {
        self.peer.as_ref().map(|peer| peer.identity.as_str())
    }
}

/// A record and where it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Which of the logs.
    pub log: usize,
    /// The line in it, from 1.
    pub line: u64,
    /// What was read.
    pub recorded: Recorded,
}

/// One end of a TLS session: a record, and the side of it that the session was on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The record.
    pub source: Rc<Source>,
    /// Upstream for the hop's client, downstream for its server.
    pub side: Side,
}

/// What has been found of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Both ends of it.
    Pair {
        /// The record of the hop's client.
        client: Rc<Source>,
        /// The record of the hop's server.
        server: Rc<Source>,
    },
    /// One end, and no other.
    Alone(End),
    /// An end of a session that has that end already.
    Repeated(End),
}

impl Found {
    /// Whether it is a pair whose ends have counted the same bytes.
    pub fn agrees(&self) -> bool {
        match self {
            Self::Pair { client, server } => {
                let [client, server] = [client, server].map(|source| &source.recorded);
                [client.bytes_received, client.bytes_sent] == [server.bytes_received, server.bytes_sent]
            }
            Self::Alone(_) | Self::Repeated(_) => false,
        }
    }
}

/// How much of what was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records that went in.
    pub records: u64,
    /// Pairs whose ends counted the same bytes.
    pub matched: u64,
    /// Pairs whose ends did not.
    pub differing: u64,
    /// Ends without another.
    pub alone: u64,
    /// Ends of sessions that had that end already.
    pub repeated: u64,
    /// Records without a TLS session: nothing was agreed on, or both hops were plaintext.
    pub without_session: u64,
}

impl Counts {
    /// Whether every session has two ends that agree.
    pub fn is_well(&self) -> bool {
        self.differing + self.alone + self.repeated == 0
    }
}

/// Pairs records as they come.
#[derive(Debug, Default)]
pub struct Join {
    sessions: HashMap<u128, Met>,
    counts: Counts,
}

#[derive(Debug)]
enum Met {
    One(End),
    Both,
}

impl Join {
    /// Takes a record in; what it completes is found.
    pub fn add(&mut self, source: Source) -> Vec<Found> {
        self.counts.records += 1;
        let source = Rc::new(source);
        let named = |side| Some((session(source.recorded.session(side)?)?, side));
        let sessions: Vec<_> = [Side::Downstream, Side::Upstream].into_iter().filter_map(named).collect();
        if sessions.is_empty() {
            self.counts.without_session += 1;
        }
        let meet = |(session, side)| self.meet(session, End { source: source.clone(), side });
        let found: Vec<_> = sessions.into_iter().filter_map(meet).collect();
        for found in &found {
            self.count(found);
        }
        found
    }

    fn meet(&mut self, session: u128, end: End) -> Option<Found> {
        let mut known = match self.sessions.entry(session) {
            Entry::Vacant(unknown) => {
                unknown.insert(Met::One(end));
                return None;
            }
            Entry::Occupied(known) => known,
        };
        match known.get() {
            Met::One(other) if other.side != end.side => {}
            Met::One(_) | Met::Both => return Some(Found::Repeated(end)),
        }
        let Met::One(other) = replace(known.get_mut(), Met::Both) else { return None };
        let (client, server) = match end.side {
            Side::Upstream => (end.source, other.source),
            Side::Downstream => (other.source, end.source),
        };
        Some(Found::Pair { client, server })
    }

    fn count(&mut self, found: &Found) {
        match found {
            Found::Pair { .. } if found.agrees() => self.counts.matched += 1,
            Found::Pair { .. } => self.counts.differing += 1,
            Found::Alone(_) => self.counts.alone += 1,
            Found::Repeated(_) => self.counts.repeated += 1,
        }
    }

    /// Ends the joining: what has no partner, in the order of the logs, and all counts.
    pub fn finish(mut self) -> (Vec<Found>, Counts) {
        let waiting = take(&mut self.sessions).into_values().filter_map(|met| match met {
            Met::One(end) => Some(end),
            Met::Both => None,
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|end| (end.source.log, end.source.line, end.side));
        let alone: Vec<_> = waiting.into_iter().map(Found::Alone).collect();
        for found in &alone {
            self.count(found);
        }
        (alone, self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00000000000000000000000000000001";
    const TWO: &str = "00000000000000000000000000000002";

    /// A record with these sessions on its hops, and so many bytes each way.
    fn source(log: usize, downstream: Option<&str>, upstream: Option<&str>, bytes: u64) -> Source {
        let hop = |session: Option<&str>| RecordedHop {
            tls: session.map(|session| RecordedTls { session: Some(session.into()) }),
            ..RecordedHop::default()
        };
        let recorded = Recorded {
            time: String::new(),
            id: 1,
            role: "egress".into(),
            bytes_received: bytes,
            bytes_sent: bytes,
            downstream: hop(downstream),
            upstream: hop(upstream),
            outcome: "completed".into(),
        };
        Source { log, line: 1, recorded }
    }

    /// What becomes of these records, in both orders: matched, differing, alone, repeated.
    fn check(sources: impl Fn() -> Vec<Source>, expected: [u64; 4]) {
        let mut reversed = sources();
        reversed.reverse();
        for sources in [sources(), reversed] {
            let mut join = Join::default();
            let found: usize = sources.into_iter().map(|source| join.add(source).len()).sum();
            let (alone, counts) = join.finish();
            assert_eq!([counts.matched, counts.differing, counts.alone, counts.repeated], expected);
            assert_eq!((found + alone.len()) as u64, expected.iter().sum::<u64>());
            assert_eq!(counts.is_well(), expected[1..] == [0; 3]);
        }
    }

    #[test]
    fn the_two_ends_of_a_session_are_a_pair() {
        check(|| vec![source(0, None, Some(ONE), 5), source(1, Some(ONE), None, 5)], [1, 0, 0, 0]);
        check(|| vec![source(0, None, Some(ONE), 5), source(1, Some(ONE), None, 4)], [0, 1, 0, 0]);
        check(|| vec![source(0, None, Some(ONE), 5), source(1, Some(TWO), None, 5)], [0, 0, 2, 0]);
    }

    #[test]
    fn a_process_between_two_sessions_joins_both_ways_and_one_log_may_have_both_ends() {
        let path = || {
            vec![
                source(0, None, Some(ONE), 5),
                source(0, Some(ONE), Some(TWO), 5),
                source(1, Some(TWO), None, 5),
            ]
        };
        check(path, [2, 0, 0, 0]);
    }

    #[test]
    fn an_end_that_is_there_twice_is_no_pair_and_told() {
        check(|| vec![source(0, None, Some(ONE), 5), source(1, None, Some(ONE), 5)], [0, 0, 1, 1]);
        let again = || {
            vec![source(0, None, Some(ONE), 5), source(1, Some(ONE), None, 5), source(1, Some(ONE), None, 5)]
        };
        check(again, [1, 0, 0, 1]);
    }

    #[test]
    fn a_record_without_a_session_wants_no_partner() {
        check(|| vec![source(0, None, None, 0)], [0, 0, 0, 0]);
    }

    #[test]
    fn only_the_end_of_a_connection_is_a_record() {
        assert_eq!(read(br#"{"event":"ready","role":"egress"}"#), Ok(None));
        assert_eq!(read(br#"{"timestamp":"x","level":"INFO"}"#), Ok(None));
        for wrong in ["", "text", "1", r#"{"event":"close"}"#, r#"{"event":"close""#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        let record = |session: &str| {
            format!(
                r#"{{"schema":1,"time":"t","event":"close","id":7,"role":"ingress","bytes_received":1,"bytes_sent":2,
                "downstream":{{"tls":{{"session":"{session}"}}}},"upstream":{{}},"outcome":"reset"}}"#
            )
        };
        for wrong in ["", "1", "+0000000000000000000000000000001", "0000000000000000000000000000000g"] {
            assert!(read(record(wrong).as_bytes()).is_err(), "{wrong:?}");
        }
        let later = record(ONE).replace(r#""schema":1"#, r#""schema":2"#);
        assert_eq!(read(later.as_bytes()), Err("expected a record of schema 1, found 2".into()));
        let Ok(Some(recorded)) = read(record(ONE).as_bytes()) else { panic!("a record") };
        assert_eq!((recorded.id, recorded.session(Side::Downstream)), (7, Some(ONE)));
    }
}
