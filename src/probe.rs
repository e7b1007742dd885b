//! `twinlock probe`: one real mutual handshake with credentials that need not be in use yet, by the code
//! that a gateway would use, and what came of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::certs::{self, Certificate, Colour};
use crate::config::server::Probe;
use crate::credentials::certificate::Facts;
use crate::credentials::store::{Change, Store};
use crate::plan::authorize::{Rules, authorize};
use crate::plan::rbac::Attempt;
use crate::tls;
use crate::tls::handshake::{self, Established, Failure, HandshakeError};
use crate::tls::originate::{Originations, originate};
use crate::tls::presented::Presented;
use crate::upstream::dial::{DialError, dial};
use crate::upstream::resolve::Resolver;
use crate::upstream::upstreams::Upstreams;

/// How long a server may take to refuse us after our side of the handshake is over. In TLS 1.3 the
/// client is done before the server has looked at its certificate.
const OBJECTION_WAIT: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// What was tried.
    pub target: String,
    /// The SNI that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The address that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Version, cipher and group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How long the handshake took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_ms: Option<u128>,
    /// The certificates that the server presented, leaf first.
    pub chain: Vec<Certificate>,
    /// Whether both sides accepted each other.
    pub accepted: bool,
    /// Why, or why not.
    pub reason: String,
}

/// What a handshake settled.
#[derive(Debug, Serialize)]
pub struct Tls {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// The key-exchange group, by its IANA name.
    pub group: &'static str,
}

/// Tries it. An error means that there was nothing to try it with.
pub async fn run(probe: Probe, now: SystemTime) -> Result<Findings, String> {
    let Some(route) = probe.cluster.originate.clone() else {
        return Err("nothing to shake hands for".to_owned());
    };
    let store = Store::new(vec![probe.credential]);
    for slot in store.slots() {
        if let Change::Refused(refusal) = slot.refresh(now) {
            return Err(format!("--credentials: {refusal}"));
        }
    }
    let originations = Originations::of(std::iter::once(&route), &store);
    let mut findings = Findings {
        target: probe.cluster.name.clone(),
        sni: route.sni.clone(),
        address: None,
        tls: None,
        handshake_ms: None,
        chain: Vec::new(),
        accepted: false,
        reason: String::new(),
    };
    let permit =
        authorize(&Rules::default(), &Attempt::default()).permit.map_err(|denied| denied.to_string())?;
    let upstreams = Upstreams::new(Resolver::new(&Handle::current(), &probe.dns));
    let (cluster, nobody) = (Arc::new(probe.cluster), Ipv4Addr::UNSPECIFIED.into());
    let dialling = dial(permit, &upstreams, &cluster, nobody, Vec::new(), 0, Instant::now() + probe.timeout);
    let reached = match dialling {
        Ok(mut dialling) => dialling.next().await,
        Err(error) => Err(error),
    };
    let stream = match reached {
        Ok(reached) => reached.stream,
        Err(error) => {
            findings.reason = unreached(error);
            return Ok(findings);
        }
    };
    findings.address = stream.peer_addr().ok();
    // What is told is the time of the handshake, not that of a process that has just started.
    tls::warm_up();
    let begun = Instant::now();
    let deadline = begun + probe.timeout;
    match originate(&originations, &route, &stream, deadline).await {
        Ok(established) => {
            findings.handshake_ms = Some(begun.elapsed().as_millis());
            settle(&mut findings, established, &stream, now).await;
        }
        Err(error) => findings.reason = refused(error),
    }
    Ok(findings)
}

async fn settle(findings: &mut Findings, established: Established, stream: &TcpStream, now: SystemTime) {
    let agreed = &established.agreed;
    findings.tls = Some(Tls { version: agreed.version(), cipher: agreed.cipher(), group: agreed.group() });
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let chain = &established.chain;
    for (index, der) in chain.iter().enumerate() {
        if let Ok(facts) = Facts::parse(der) {
            let role = if index == 0 { "leaf" } else { "intermediate" };
            findings.chain.push(certs::certificate(PathBuf::new(), role, &facts, seconds));
        }
    }
    let objection = timeout(OBJECTION_WAIT, objection(established, stream)).await;
    (findings.accepted, findings.reason) = match objection {
        Ok(Err(why)) => (false, why),
        Ok(Ok(())) => (true, "both sides accepted each other, and the server speaks".to_owned()),
        Err(_) => (true, format!("both sides accepted each other: no objection for {OBJECTION_WAIT:?}")),
    };
}

/// Waits for the first bytes of the server, or for the alert in their place.
async fn objection(mut established: Established, stream: &TcpStream) -> Result<(), String> {
    let mut outgoing = Vec::new();
    while established.plain.as_slice().is_empty() {
        let read = handshake::read_more(stream, &mut established.inbox).await;
        match read {
            Ok(0) => return Err("the server closed the connection behind the handshake".to_owned()),
            Ok(_) => {}
            Err(_) => return Err("the server reset the connection behind the handshake".to_owned()),
        }
        let session = &mut established.session;
        let fed = session.feed(&mut established.inbox, &mut established.plain, &mut outgoing);
        let consumed = fed.map_err(|fault| fault.to_string())?;
        established.inbox.drain(..consumed);
        if established.session.peer_closed() && established.plain.as_slice().is_empty() {
            return Err("the server ended the session behind the handshake".to_owned());
        }
    }
    Ok(())
}

fn unreached(error: DialError) -> String {
    match error {
        DialError::Unresolved(why) => format!("unresolved: {why}"),
        DialError::Unreachable(why) => format!("unreachable: {why}"),
        DialError::Timeout => "nobody answered in time".to_owned(),
        other @ (DialError::Exhausted(_) | DialError::Overflow | DialError::NoneHealthy) => other.to_string(),
    }
}

fn refused(error: HandshakeError) -> String {
    let why = match error.failure {
        Failure::Tls(fault) => fault.to_string(),
        Failure::Timeout => "the handshake took too long".to_owned(),
        Failure::Io(error) => format!("the connection broke in the handshake: {error}"),
        Failure::NoCredential(why) => why,
        Failure::NoHello | Failure::NoRoute => "the connection broke in the handshake".to_owned(),
    };
    match error.peer.as_deref() {
        Some(Presented { identity, subject, .. }) => {
            format!("{why} (the server presented {subject} for {})", identity.names().join(", "))
        }
        None => why,
    }
}

/// The findings for people.
pub fn text(findings: &Findings, colour: Colour) -> String {
    let mut lines = vec![match &findings.sni {
        Some(sni) => format!("target    {}, asking for {sni}", findings.target),
        None => format!("target    {}, asking for no name", findings.target),
    }];
    lines.extend(findings.address.map(|address| format!("address   {address}")));
    if let (Some(tls), Some(took)) = (&findings.tls, findings.handshake_ms) {
        lines.push(format!("tls       {} {} {}, in {took} ms", tls.version, tls.cipher, tls.group));
    }
    for certificate in &findings.chain {
        lines.push(format!("server    {}", certificate.role));
        lines.push(certs::rows(certificate, colour).trim_end().to_owned());
    }
    let verdict = if findings.accepted { "accepted" } else { "refused" };
    lines.push(format!("verdict   {verdict}: {}", findings.reason));
    lines.join("\n")
}
