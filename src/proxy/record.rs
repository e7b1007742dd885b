//! The record of one connection, written exactly once: when it is closed, or when it is dropped.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::connection::Context;
use super::live::Live;
use super::warnings::Failure;
use crate::clock;
use crate::plan::Listener;
use crate::plan::authorize::Marks;
use crate::plan::cluster::Cluster;
use crate::plan::outcome::{Level, Outcome, Side};
use crate::telemetry::entry::{Entry, Hop, HopTls, Peer, timestamp};
use crate::tls::Agreed;
use crate::tls::exporter::SessionId;
use crate::tls::presented::Presented;

/// What is known of a connection so far. It is held for as long as the connection lives, so it refers
/// to what is shared, and spells nothing out before it is written.
pub struct Record {
    /// Taken when it is written.
    context: Option<Arc<Context>>,
    listener: Arc<Listener>,
    live: Arc<Live>,
    start: SystemTime,
    accepted: Instant,
    sni: Option<Box<str>>,
    cluster: Option<Arc<Cluster>>,
    downstream: HopFacts,
    upstream: HopFacts,
    /// What rules have said, where they have said anything.
    marks: Option<Box<Marks>>,
}

#[derive(Default)]
struct HopFacts {
    /// Address and port by themselves: with what else a socket's address has, each would be half as large again.
    address: Option<(IpAddr, u16)>,
    tls: Option<(Agreed, Option<SessionId>)>,
    presented: Option<Arc<Presented>>,
}

impl Record {
    /// Begins the record of a connection that has just been accepted.
    pub fn open(context: Arc<Context>, listener: Arc<Listener>, live: Arc<Live>, client: SocketAddr) -> Self {
        live.counts.open();
        Self {
            context: Some(context),
            listener,
            live,
            start: clock::wall(),
            accepted: clock::now(),
            sni: None,
            cluster: None,
            downstream: HopFacts { address: Some((client.ip(), client.port())), ..HopFacts::default() },
            upstream: HopFacts::default(),
            marks: None,
        }
    }

    /// The connection.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The SNI of the hop that has one.
    pub fn sni(&mut self, sni: Option<&str>) {
        self.sni = sni.map(Into::into);
    }

    /// The SNI so far.
    pub fn sni_so_far(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// What the handshake with the client settled, and whether it has shown a certificate; `None` before it, and
    /// for a client that does not speak TLS with us.
    pub fn client_tls(&self) -> Option<(Agreed, bool)> {
        Some((self.downstream.tls?.0, self.downstream.presented.is_some()))
    }

    /// Where the connection goes.
    pub fn cluster(&mut self, cluster: Arc<Cluster>) {
        self.cluster = Some(cluster);
    }

    /// What rules have said.
    pub fn marks(&mut self, marks: Marks) {
        self.marks = (!marks.is_empty()).then(|| Box::new(marks));
    }

    /// The address that answered.
    pub fn upstream_address(&mut self, address: Option<SocketAddr>) {
        self.upstream.address = address.map(|address| (address.ip(), address.port()));
    }

    /// The certificate that a peer presented.
    pub fn peer(&mut self, side: Side, presented: Option<Arc<Presented>>) {
        self.hop(side).presented = presented;
    }

    /// What a handshake settled.
    pub fn tls(&mut self, side: Side, agreed: Agreed, id: Option<SessionId>) {
        self.hop(side).tls = Some((agreed, id));
    }

    /// What the handshakes settled that were made.
    pub fn agreed(&self) -> impl Iterator<Item = (Side, Agreed)> {
        let hops = [(Side::Downstream, &self.downstream), (Side::Upstream, &self.upstream)];
        hops.into_iter().filter_map(|(side, hop)| Some((side, hop.tls?.0)))
    }

    fn hop(&mut self, side: Side) -> &mut HopFacts {
        match side {
            Side::Downstream => &mut self.downstream,
            Side::Upstream => &mut self.upstream,
        }
    }

    /// Ends the record and writes it. What is said after that is not heard.
    pub fn close(&mut self, outcome: Outcome) {
        let Some(context) = self.context.take() else { return };
        self.live.tell_bytes();
        self.live.counts.end(&outcome);
        let entry = Entry {
            id: self.live.id,
            plan: context.generation,
            role: self.listener.role,
            start: self.start,
            duration: clock::now().duration_since(self.accepted),
            bytes_received: self.live.bytes(Side::Downstream),
            bytes_sent: self.live.bytes(Side::Upstream),
            sni: self.sni.take().map(String::from),
            downstream: spell_out(&self.downstream, None),
            upstream: spell_out(&self.upstream, self.cluster.as_deref()),
            marks: self.marks.take().map(|marks| *marks).unwrap_or_default(),
            outcome,
        };
        warn(&context, &entry);
        context.log.record(&entry);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.close(Outcome::Internal("dropped before its end".into()));
    }
}

/// The operational log hears of what is worth an alert; everything else is in the record.
fn warn(context: &Context, entry: &Entry) {
    let account = entry.outcome.account();
    if account.level == Level::Warn {
        let upstream = entry.upstream.name.clone().unwrap_or_else(|| "-".into());
        let failure = Failure { upstream, outcome: account.label, detail: account.detail.to_owned() };
        context.warnings.tell(entry.id, failure);
    }
}

fn spell_out(facts: &HopFacts, cluster: Option<&Cluster>) -> Hop {
    Hop {
        name: cluster.map(|cluster| cluster.name.clone()),
        address: facts.address.map(SocketAddr::from),
        tls: facts.tls.map(|(agreed, id)| HopTls {
            version: agreed.version(),
            cipher: agreed.cipher(),
            group: agreed.group(),
            session: id.map(|id| id.to_string()),
        }),
        peer: facts.presented.as_ref().map(|presented| Peer {
            identity: presented.identity.to_string(),
            subject: presented.subject.clone(),
            issuer: presented.issuer.clone(),
            serial: presented.serial.clone(),
            sha256: presented.sha256.clone(),
            not_after: timestamp(SystemTime::UNIX_EPOCH + presented.not_after),
        }),
    }
}
