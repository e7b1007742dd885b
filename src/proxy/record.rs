//! The record of one connection, written exactly once: when it is closed, or when it is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::live::Live;
use crate::clock;
use crate::plan::outcome::{Level, Outcome, Side};
use crate::plan::{Cluster, Role};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::entry::{Entry, Hop, HopTls, Peer, timestamp};
use crate::tls::Agreed;
use crate::tls::verify::Presented;

/// What is known of a connection so far.
pub struct Record {
    log: AccessLog,
    live: Arc<Live>,
    role: Role,
    start: SystemTime,
    accepted: Instant,
    facts: Facts,
    /// Taken by the one write.
    outcome: Option<Outcome>,
}

#[derive(Default)]
struct Facts {
    sni: Option<String>,
    downstream: Hop,
    upstream: Hop,
}

impl Record {
    /// Begins the record of a connection that has just been accepted.
    pub fn open(log: AccessLog, live: Arc<Live>, role: Role, client: SocketAddr) -> Self {
        let downstream = Hop { address: Some(client), ..Hop::default() };
        let facts = Facts { downstream, ..Facts::default() };
        // What is written if nobody gets as far as saying how it ended.
        let outcome = Some(Outcome::Internal("dropped before its end".into()));
        Self { log, live, role, start: clock::wall(), accepted: clock::now(), facts, outcome }
    }

    /// The SNI of the hop that has one.
    pub fn sni(&mut self, sni: Option<&str>) {
        self.facts.sni = sni.map(str::to_owned);
    }

    /// Where the connection goes.
    pub fn upstream(&mut self, cluster: &Cluster) {
        self.facts.upstream.name = Some(cluster.name.clone());
    }

    /// The address that answered.
    pub fn upstream_address(&mut self, address: Option<SocketAddr>) {
        self.facts.upstream.address = address;
    }

    /// The certificate that a peer presented.
    pub fn peer(&mut self, side: Side, presented: Option<&Presented>) {
        self.hop(side).peer = presented.map(|presented| Peer {
            identity: presented.identity.to_string(),
            subject: presented.subject.clone(),
            not_after: timestamp(SystemTime::UNIX_EPOCH + presented.not_after),
        });
    }

    /// What a handshake settled.
    pub fn tls(&mut self, side: Side, agreed: &Agreed) {
        self.hop(side).tls =
            Some(HopTls { version: agreed.version, cipher: agreed.cipher, group: agreed.group });
    }

    fn hop(&mut self, side: Side) -> &mut Hop {
        match side {
            Side::Downstream => &mut self.facts.downstream,
            Side::Upstream => &mut self.facts.upstream,
        }
    }

    /// Ends the record.
    pub fn close(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Some(outcome) = self.outcome.take() else { return };
        let facts = std::mem::take(&mut self.facts);
        let entry = Entry {
            id: self.live.id,
            role: self.role,
            start: self.start,
            duration: clock::now().duration_since(self.accepted),
            bytes_received: self.live.bytes(Side::Downstream),
            bytes_sent: self.live.bytes(Side::Upstream),
            sni: facts.sni,
            downstream: facts.downstream,
            upstream: facts.upstream,
            outcome,
        };
        warn(&entry);
        self.log.record(&entry);
    }
}

/// The operational log hears of what is worth an alert; everything else is in the record.
fn warn(entry: &Entry) {
    let account = entry.outcome.account();
    if account.level == Level::Warn {
        let upstream = entry.upstream.name.as_deref().unwrap_or("-");
        tracing::warn!(
            id = entry.id,
            upstream,
            outcome = account.label,
            "connection failed: {}",
            account.detail
        );
    }
}
